"""What the parts of the jobs screen share."""

from gpuq.tui.screens.base import GpuqScreen
from gpuq.tui.widgets.detail.pane import DetailPane
from gpuq.tui.widgets.job_table import JobTable


class JobsBase(GpuqScreen):
    @property
    def table(self) -> JobTable:
        return self.query_one(JobTable)

    @property
    def pane(self) -> DetailPane:
        return self.query_one(DetailPane)
