"""The log of one job, on the whole screen."""

from collections.abc import Callable
from typing import Self

from textual.app import ComposeResult
from textual.geometry import Region

from gpuq.cli.render import printable
from gpuq.tui import keys
from gpuq.tui.data.log.reading import Reading
from gpuq.tui.data.picture import Change
from gpuq.tui.log_reader import Which
from gpuq.tui.looks import BOLD, DIM, Line
from gpuq.tui.screens.taking_along import TakesAlong
from gpuq.tui.widgets.key_line import KeyLine
from gpuq.tui.widgets.log.pane import LogPane
from gpuq.tui.widgets.message_line import MessageLine
from gpuq.tui.widgets.one_line import OneLine
from gpuq.tui.widgets.top_line import TopLine


class LogScreen(TakesAlong):
    """Begins with that log, as it was read; `left` is told how it is read when it is left."""

    BINDINGS = keys.bindings((*keys.LOG_SCREEN, *keys.MENUS))

    def __init__(
        self, which: Which, reading: Reading, left: Callable[[Which, Reading], None]
    ) -> None:
        super().__init__()
        self._which = which
        self._reading = reading
        self._left = left

    def compose(self) -> ComposeResult:
        signs = self.gpuq.signs
        yield TopLine(signs, id="top")
        yield OneLine(signs, self._write_title, id="tabs")
        yield LogPane(signs, id="log")
        yield MessageLine(signs, self.write_status, id="message")
        yield KeyLine(signs, id="keys")

    def on_mount(self) -> None:
        self.log_pane.open(self._which, self._reading)
        self.log_pane.view.focus()

    @property
    def log_pane(self) -> LogPane:
        return self.query_one(LogPane)

    def chosen_job(self) -> int | None:
        return self._which.job

    def show(self, change: Change) -> None:
        row = self.gpuq.picture.rows.holding(self._which.job)
        if row is not None and (change.jobs is None or row["id"] in change.jobs):
            self.log_pane.show(row | {"id": self._which.job})
        if change.beside:
            self.query_one("#top").refresh()

    def refresh(self, *regions: Region, **how: bool) -> Self:
        """Textual asks for regions of a screen only where the one below it has changed, which cannot be
        seen through this one."""
        return self if regions else super().refresh(**how)

    def _write_title(self, line: Line) -> None:
        pane = self.log_pane
        row = self.gpuq.picture.rows.holding(self._which.job)
        name = "" if row is None else f" {printable(row['name'])}"
        line.add("──", DIM).add(f" log of {self._which.job}{name} ", BOLD)
        status = f" {pane.status()} ──"
        path = "" if pane.path is None else printable(pane.path)
        line.add(f" {path} ", DIM, wide=max(line.left - len(status), 0)).add(status, DIM)

    def on_log_pane_changed(self) -> None:
        self.query_one("#tabs").refresh()

    def on_log_pane_enlarged(self) -> None:
        self.action_back()

    def on_screen_suspend(self) -> None:
        self.log_pane.cover()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self.log_pane.cover()

    def action_back(self) -> None:
        pane = self.log_pane
        if not pane.end_search():
            self.app.pop_screen()
            self._left(pane.which or self._which, pane.reading())
