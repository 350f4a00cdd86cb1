"""The main screen: GPUs above, the jobs, and all about the one under the cursor."""

from textual import on
from textual.app import ComposeResult
from textual.containers import Container

from gpuq.tui import keys
from gpuq.tui.data.picture import Change
from gpuq.tui.screens.job_actions import ActsOnJobs
from gpuq.tui.screens.list_actions import ShapesTheList
from gpuq.tui.widgets.detail.pane import DetailPane
from gpuq.tui.widgets.gpu_strip import GpuStrip
from gpuq.tui.widgets.job_table import JobTable
from gpuq.tui.widgets.line_table import LineTable
from gpuq.tui.widgets.one_line import OneLine

# Who moves the cursor along many jobs asks about none of them.
SETTLE_S = 0.15


class JobsScreen(ShapesTheList, ActsOnJobs):
    BINDINGS = keys.bindings((*keys.JOBS_SCREEN, *keys.THE_LIST, *keys.DEEDS))

    def compose(self) -> ComposeResult:
        signs = self.gpuq.signs
        yield OneLine(signs, self.gpuq.write_top, id="top")
        yield GpuStrip(signs, id="gpus")
        with Container(id="body"):
            yield JobTable(signs, id="jobs")
            yield DetailPane(signs, id="pane")
        yield OneLine(signs, self.write_message, id="message")
        yield OneLine(signs, self.gpuq.write_keys, id="keys")

    def on_mount(self) -> None:
        self._settling = self.set_timer(SETTLE_S, self._show_current)
        self.table.focus()
        self.show(Change(jobs=None, gpus=True, beside=True))

    def show(self, change: Change) -> None:
        """What the app's picture holds by now."""
        if change.gpus:
            self.query_one(GpuStrip).show(self.gpuq.picture)
        if change.jobs is None or change.jobs:
            self.table.show(self.gpuq.picture, change)
            self._show_current()
        if change.beside:
            self.query_one("#top").refresh()

    @on(LineTable.Moved, "#jobs")
    def _settle(self) -> None:
        self._settling.stop()
        self._settling = self.set_timer(SETTLE_S, self._show_current)

    def _show_current(self) -> None:
        self.pane.show(self.table.current)

    # ── panes ──

    def action_detail(self) -> None:
        self.pane.open("detail")

    def action_log(self) -> None:
        self.pane.open("log")

    def action_tab(self, by: int) -> None:
        self.pane.open_next(by)
