"""The main screen: GPUs above, the jobs, and all about the one under the cursor."""

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical

from gpuq.tui import keys
from gpuq.tui.data.picture import Change
from gpuq.tui.screens.jobs.job_actions import ActsOnJobs
from gpuq.tui.screens.jobs.job_forms import OpensJobForms
from gpuq.tui.screens.jobs.list_actions import ShapesTheList
from gpuq.tui.screens.jobs.pane_actions import OpensThePane
from gpuq.tui.screens.jobs.strip_shown import ShowsGpus
from gpuq.tui.screens.log_actions import ShowsTheLog
from gpuq.tui.widgets.detail.body import Body
from gpuq.tui.widgets.detail.pane import DetailPane
from gpuq.tui.widgets.filter_line import FilterLine
from gpuq.tui.widgets.gpu_strip import GpuStrip
from gpuq.tui.widgets.job_table import JobTable
from gpuq.tui.widgets.key_line import KeyLine
from gpuq.tui.widgets.line_table import LineTable
from gpuq.tui.widgets.message_line import MessageLine
from gpuq.tui.widgets.one_line import OneLine
from gpuq.tui.widgets.top_line import TopLine

# Who moves the cursor along many jobs asks about none of them.
SETTLE_S = 0.15


class JobsScreen(OpensThePane, ShapesTheList, ActsOnJobs, OpensJobForms, ShowsTheLog, ShowsGpus):
    BINDINGS = keys.bindings((*keys.JOBS_SCREEN, *keys.THE_LIST, *keys.DEEDS, *keys.MENUS))

    def compose(self) -> ComposeResult:
        signs, picture_signs = self.gpuq.signs, self.gpuq.picture_signs
        yield TopLine(signs, id="top")
        yield GpuStrip(picture_signs, id="gpus")
        with Body(id="body"):
            with Vertical(id="list"):
                table = JobTable(picture_signs, user=self.gpuq.user, id="jobs")
                yield OneLine(signs, table.write_head, id="columns")
                yield table
            yield DetailPane(picture_signs, id="pane")
        yield FilterLine(signs, id="filter")
        yield MessageLine(signs, self.write_status, id="message")
        yield KeyLine(signs, id="keys")

    def on_mount(self) -> None:
        self._settling = self.set_timer(SETTLE_S, self.show_current)
        self.table.focus()
        self.show(Change(jobs=None, gpus=True, beside=True))

    def show(self, change: Change) -> None:
        """What the app's picture holds by now."""
        if change.gpus or change.jobs is None:
            self.show_gpus()
        if change.jobs is None or change.jobs:
            self.keep_what_is_read()
            self.table.show(self.gpuq.picture, change)
            self.find_submitted()
            self.show_current()
        self.show_status()
        if change.beside:
            self.query_one("#top").refresh()

    @on(LineTable.Moved, "#jobs")
    def show_current_soon(self) -> None:
        self._settling.stop()
        self._settling = self.set_timer(SETTLE_S, self.show_current)
