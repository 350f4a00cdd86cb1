"""The app: the feed tells it, it keeps the picture and shows it to the screen that is up, and does
deeds."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from textual.app import App
from textual.message import Message

from gpuq.client import Client
from gpuq.errors import GpuqError
from gpuq.tui import keys
from gpuq.tui.acting import Deed
from gpuq.tui.data.picture import Change, Picture
from gpuq.tui.feed import Feed, midnight
from gpuq.tui.looks import BOLD, DIM, RED, Line, Signs
from gpuq.tui.screens.base import GpuqScreen
from gpuq.tui.screens.gpus import GpusScreen
from gpuq.tui.screens.history import HistoryScreen
from gpuq.tui.screens.jobs import JobsScreen

Answer = TypeVar("Answer")


class GpuqApp(App[None]):
    """`picture` is what the daemon told last; `lost` says why nothing more comes at present, None: it
    does. `message` is what was last said, and `is_readonly`: keys that change something are off."""

    CSS_PATH = "gpuq.tcss"
    BINDINGS = keys.bindings(keys.EVERYWHERE)
    MODES = {"jobs": JobsScreen, "gpus": GpusScreen, "history": HistoryScreen}  # noqa: RUF012

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
    ) -> None:
        super().__init__()
        self.client = client
        self.user = user
        self.host = host
        self.signs = signs or Signs()
        self.is_readonly = is_readonly
        self.picture = Picture()
        self.lost: GpuqError | None = None
        self.told_at: float | None = None  # s since the epoch
        self.message = ""
        self.theme = theme
        self._feed = Feed(
            client,
            tell=lambda part: self._post(self.Told(part)),
            lose=lambda error: self._post(self.Lost(error)),
            since=lambda: self.picture.number,
            finished_since=midnight(time.time()),
        )

    def on_mount(self) -> None:
        self.switch_mode("jobs")
        self._feed.start()

    def on_unmount(self) -> None:
        self._feed.stop()

    # ── what the daemon tells ──

    def on_gpuq_app_told(self, told: Told) -> None:
        was_lost, self.lost, self.told_at = self.lost is not None, None, time.time()
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
            if isinstance(screen, GpuqScreen) and screen.is_mounted:
                screen.show(change)

    def _post(self, message: Message) -> None:
        if self.is_running:
            self.post_message(message)

    def on_app_focus(self) -> None:
        self._feed.set_seen(True)

    def on_app_blur(self) -> None:
        self._feed.set_seen(False)

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
                self.call_from_thread(self.say, str(error))
            else:
                self.call_from_thread(then, answer)

        self.run_worker(work, thread=True, exclusive=True, group=group)

    def do(self, deed: Deed, then: Callable[[Any], None] | None = None) -> None:
        """Carries it out in a thread, and says the line of it with what came of it."""
        if (why := self.why_off()) is not None:
            self.say(f"{deed.line}: {why}")
            return

        def work() -> None:
            try:
                answer = deed.ask(self.client)
            except GpuqError as error:
                self.call_from_thread(self.say, f"{deed.line}: {error}")
            else:
                self.call_from_thread(self.say, f"{deed.line}: {deed.said(answer)}")
                if then is not None:
                    self.call_from_thread(then, answer)

        self.say(f"{deed.line} …")
        self.run_worker(work, thread=True, group="deeds")

    def why_off(self) -> str | None:
        """Why nothing can be changed just now; None: it can."""
        if self.is_readonly:
            return "this screen only looks (--readonly)"
        if self.lost is not None:
            return f"not while the daemon does not answer: {self.lost}"
        return None

    def say(self, text: str) -> None:
        self.message = text
        self.screen.query("#message").refresh()

    # ── lines that all screens have ──

    def write_top(self, line: Line) -> None:
        counts = self.picture.counts
        line.add(" gpuq", BOLD).add(f"  {self.host}")
        line.add(f"  {counts.get('running', 0)} running  {counts.get('queued', 0)} queued")
        if self.lost is not None:
            line.add(f"  {self.lost}", RED)
        line.add(time.strftime("%H:%M:%S", time.localtime(self.signs.now())).rjust(line.left - 1))

    def write_keys(self, line: Line) -> None:
        for active in self.screen.active_bindings.values():
            if active.binding.show:
                line.add(f" {self.get_key_display(active.binding)} ", BOLD)
                line.add(active.binding.description, DIM)

    # ── keys ──

    def action_screen(self, name: str) -> None:
        self.switch_mode(name)
