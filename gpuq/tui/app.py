"""The app: the feed tells it, it keeps the picture and shows it to the screen that is up, and does
deeds."""

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from textual.message import Message
from textual.worker import get_current_worker

from gpuq.client import Client
from gpuq.errors import GpuqError
from gpuq.tui import keys
from gpuq.tui.data.picture import Change, Picture
from gpuq.tui.deeds.deed import Deed
from gpuq.tui.feed import Feed, midnight
from gpuq.tui.keymap import Keymap
from gpuq.tui.looks import Signs
from gpuq.tui.saying import SayingApp
from gpuq.tui.screens.base import GpuqScreen
from gpuq.tui.screens.dialogs.dialog import Dialog
from gpuq.tui.screens.jobs.screen import JobsScreen

if TYPE_CHECKING:
    from textual.command import Provider

    from gpuq.tui.data.form.form import Form

Answer = TypeVar("Answer")


# Loaded when they are asked for: the first picture does not wait for them.


def _gpus() -> GpuqScreen:
    from gpuq.tui.screens.gpus import GpusScreen

    return GpusScreen()


def _history() -> GpuqScreen:
    from gpuq.tui.screens.history import HistoryScreen

    return HistoryScreen()


def _key_commands() -> "type[Provider]":
    from gpuq.tui.palette import KeyCommands

    return KeyCommands


class GpuqApp(SayingApp, inherit_bindings=False):
    """`picture` is what the daemon told last; `lost` says why nothing more comes at present, None: it
    does. `is_readonly`: keys that change something are off. `daemon_options` are those of the command
    line that tell which daemon is meant.
    `keymap` has the keys that the settings say; `is_seen`: the terminal has not lost the focus."""

    CSS_PATH = "gpuq.tcss"
    BINDINGS = keys.bindings(keys.EVERYWHERE)
    ENABLE_COMMAND_PALETTE = False  # its key is in our table
    COMMANDS = {_key_commands}  # noqa: RUF012
    MODES = {"jobs": JobsScreen, "gpus": _gpus, "history": _history}  # noqa: RUF012

    class Told(Message):
        def __init__(self, part: dict[str, Any]) -> None:
            super().__init__()
            self.part = part

    class Lost(Message):
        def __init__(self, error: GpuqError) -> None:
            super().__init__()
            self.error = error

    def __init__(
        self,
        client: Client,
        *,
        user: str,
        host: str,
        signs: Signs | None = None,
        theme: str = "ansi-dark",
        is_readonly: bool = False,
        keymap: Keymap | None = None,
        daemon_options: Sequence[str] = (),
    ) -> None:
        # Without colours Textual would show the terminal's own as shades of grey, and takes each of
        # them for black: black on black. With this it leaves them out.
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self.use_command_palette = True
        self.client = client
        self.user = user
        self.host = host
        self.signs = signs or Signs()
        self.is_readonly = is_readonly
        self.picture = Picture()
        self.lost: GpuqError | None = None
        self.told_at: float | None = None  # s since the epoch
        self.daemon_options = daemon_options
        self.is_seen = True
        self._is_up = False
        self._leaves_with: int | None = None
        self.drafts: dict[str, Form] = {}  # of forms that were left, by their keys
        self.theme = theme
        self.keymap = keymap or {}
        self.set_keymap(dict(self.keymap))
        self._feed = Feed(
            client,
            tell=lambda part: self._post(self.Told(part)),
            lose=lambda error: self._post(self.Lost(error)),
            since=lambda: self.picture.number,
            finished_since=midnight(time.time()),
        )

    async def on_mount(self) -> None:
        await self.switch_mode("jobs")
        self._feed.start()

    def on_unmount(self) -> None:
        self._feed.stop()

    # ── what the daemon tells ──

    def on_gpuq_app_told(self, told: Told) -> None:
        self._feed.taken()
        was_lost, self.lost, self.told_at = self.lost is not None, None, self.signs.now()
        change = self.picture.take(told.part)
        if was_lost:
            change = Change(jobs=None, gpus=True, beside=True)
        if not change.is_none:
            self._show(change)

    def on_gpuq_app_lost(self, lost: Lost) -> None:
        self.lost = lost.error
        self._show(Change(jobs=None, gpus=True, beside=True))

    def _show(self, change: Change) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, GpuqScreen | Dialog) and screen.is_mounted:
                if isinstance(screen, GpuqScreen):
                    screen.set_stale(self.lost is not None)
                screen.show(change)

    def _post(self, message: Message) -> None:
        if self.is_running:
            self.post_message(message)

    def on_app_focus(self) -> None:
        self._set_seen(True)

    def on_app_blur(self) -> None:
        self._set_seen(False)

    def _set_seen(self, is_seen: bool) -> None:
        self.is_seen = is_seen
        self._feed.set_seen(is_seen)

    # ── asking and doing ──

    def ask(
        self, call: Callable[[Client], Answer], then: Callable[[Answer], None], *, group: str
    ) -> None:
        """`call` in a thread, then `then` with its answer, unless something else of the same group was
        asked for meanwhile. What goes wrong is said."""

        def work() -> None:
            try:
                answer = call(self.client)
            except GpuqError as error:
                why = str(error)
                self._from_thread(lambda: self.say(why, is_error=True))
            else:
                self._from_thread(lambda: then(answer))

        self.run_worker(work, thread=True, exclusive=True, group=group)

    def do(self, deed: Deed, then: Callable[[Any], None] | None = None) -> None:
        """Carries it out in a thread, and says the line of it with what came of it."""
        line = deed.line_for(self.daemon_options)
        if (why := self.why_off()) is not None:
            self.say(f"{line}: {why}", is_error=True)
            return

        def tell(answer: Any) -> None:
            undo_for_s = self.picture.undo_for_s if deed.can_undo(answer) else 0.0
            self.say(
                f"{line}: {deed.said(answer)}", is_error=deed.failed(answer), undo_for_s=undo_for_s
            )
            if then is not None:
                then(answer)

        def work() -> None:
            try:
                answer = deed.ask(self.client)
            except GpuqError as error:
                why = f"{line}: {error}"
                self._from_thread(lambda: self.say(why, is_error=True))
            else:
                self._from_thread(lambda: tell(answer))

        self.say(f"{line} …", is_passing=True)
        self.run_worker(work, thread=True, group="deeds")

    def _from_thread(self, deed: Callable[[], None]) -> None:
        """On the thread of the screen; nobody is told any more who has left."""
        if self.is_running and not get_current_worker().is_cancelled:
            self.call_from_thread(deed)

    def why_off(self) -> str | None:
        """Why nothing can be changed just now; None: it can."""
        if self.is_readonly:
            return "this screen only looks (--readonly)"
        if not self.picture.you.get("may_act", True):
            return "you are root of a container, who may only look"
        if self.lost is not None:
            return f"not while the daemon does not answer: {self.lost}"
        return None

    # ── keys ──

    def action_screen(self, name: str) -> None:
        self.switch_mode(name)

    def action_help(self) -> None:
        from gpuq.tui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    def action_messages(self) -> None:
        from gpuq.tui.screens.dialogs.messages import MessagesDialog

        if not isinstance(self.screen, MessagesDialog):
            self.push_screen(MessagesDialog())

    def leave(self, code: int) -> None:
        """As a signal asks for it; while it is being built, once it stands."""
        self._leaves_with = code
        if self._is_up:
            self.exit(return_code=code)

    def on_ready(self) -> None:
        self._is_up = True
        if self._leaves_with is not None:
            self.leave(self._leaves_with)
