"""The app: the feed tells it, it keeps the picture and shows it to the screen that is up, and does
deeds."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from textual.message import Message
from textual.screen import Screen

from gpuq.client import Client
from gpuq.errors import GpuqError
from gpuq.tui import keys
from gpuq.tui.asking_app import AskingApp
from gpuq.tui.data.picture import Change, Picture
from gpuq.tui.data.understood import check_part
from gpuq.tui.feed import Feed, Place, midnight
from gpuq.tui.keymap import Keymap
from gpuq.tui.looks import Signs
from gpuq.tui.screens.base import GpuqScreen
from gpuq.tui.screens.dialogs.dialog import Dialog
from gpuq.tui.screens.jobs.screen import JobsScreen

if TYPE_CHECKING:
    from textual.command import Provider

    from gpuq.tui.data.form.form import Form

BETWEEN = "between"  # the mode while the others are made anew
OTHER_QUEUE = (
    "another queue is there now, of another database: what was open or marked was of the one before"
)

# Loaded when they are asked for: the first picture does not wait for them.


def _gpus() -> GpuqScreen:
    from gpuq.tui.screens.gpus import GpusScreen

    return GpusScreen()


def _history() -> GpuqScreen:
    from gpuq.tui.screens.history.screen import HistoryScreen

    return HistoryScreen()


def _key_commands() -> "type[Provider]":
    from gpuq.tui.palette import KeyCommands

    return KeyCommands


class GpuqApp(AskingApp, inherit_bindings=False):
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
        self._lost_at = 0.0
        self._is_behind = False  # until a new picture comes
        self._is_between = False  # the queue before and another one
        # For what is drawn of the picture: how long a job runs is as of then, too.
        self.picture_signs = replace(self.signs, now=self.picture_now)
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
            place=lambda: Place(self.picture.number, self.picture.mark),
            finished_since=lambda: midnight(self.signs.now()),
        )

    async def on_mount(self) -> None:
        await self.switch_mode("jobs")
        self._feed.start()

    def on_unmount(self) -> None:
        self._feed.stop()
        self.stop_asking()

    # ── what the daemon tells ──

    async def on_gpuq_app_told(self, told: Told) -> None:
        part = told.part
        if self._is_behind and not part.get("first"):
            self._feed.taken(is_understood=False)  # it goes on from what was not understood
            return
        if not self.understand(lambda: check_part(part)):
            self._not_taken()
        elif part.get("is_other"):
            await self._begin_anew(part)
        else:
            self._take(part)

    def _take(self, part: dict[str, Any]) -> None:
        if self.understand(lambda: self._show_part(part)):
            self._is_behind = False
            self._feed.taken()
        else:
            self._not_taken()

    def _not_taken(self) -> None:
        self._is_behind = True
        self._feed.taken(is_understood=False)

    def _show_part(self, part: dict[str, Any]) -> None:
        was_lost, self.lost, self.told_at = self.lost is not None, None, self.signs.now()
        change = self.picture.take(part)
        if was_lost:
            self.forget_loss()
            change = Change(jobs=None, gpus=True, beside=True)
        if not change.is_none:
            self._show(change)

    def on_gpuq_app_lost(self, lost: Lost) -> None:
        if self.lost is None:
            self._lost_at = self.signs.now()
        self.lost = lost.error
        self._show(Change(jobs=None, gpus=True, beside=True))

    async def _begin_anew(self, part: dict[str, Any]) -> None:
        """With another queue. Of the one before nothing is left: its ids are those of other jobs now.
        Whatever is open goes before anybody else comes to do something."""
        self._queue += 1
        self._is_between, mode = True, self.current_mode
        for stack in self._screen_stacks.values():
            for screen in stack:
                if isinstance(screen, GpuqScreen):
                    screen.keep_draft()
        self.add_mode(BETWEEN, Screen)
        blank = self.switch_mode(BETWEEN)
        self.picture = Picture()
        self._forget_drafts()
        await blank
        for name, screen_of in self.MODES.items():
            self.remove_mode(name)
            self.add_mode(name, screen_of)
        self._take(part)
        await self.switch_mode(mode)
        self.remove_mode(BETWEEN)
        self._is_between = False
        self.hush()
        self.say(OTHER_QUEUE, is_error=True)

    def _forget_drafts(self) -> None:
        """All but that of a new job."""
        if self.drafts:
            from gpuq.tui.data.form.form import NEW

            self.drafts = {key: form for key, form in self.drafts.items() if key == NEW}

    def picture_now(self) -> float:
        """When the picture was so (s since the epoch): now, or when the daemon was lost."""
        return self.signs.now() if self.lost is None else self._lost_at

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

    # ── what may be done ──

    def why_only_looks(self) -> str | None:
        """Why this screen never changes anything; None: it may."""
        if self.is_readonly:
            return "this screen only looks (--readonly)"
        if not self.picture.you.get("may_act", True):
            return "you are root of a container, who may only look"
        return None

    def why_off(self) -> str | None:
        """Why nothing can be changed just now; None: it can."""
        if (why := self.why_only_looks()) is not None:
            return why
        if self._is_between:
            return OTHER_QUEUE
        if self.lost is not None:
            return f"not while the daemon does not answer: {self.lost}"
        return None

    # ── keys ──

    def action_screen(self, name: str) -> None:
        self.hush()
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
