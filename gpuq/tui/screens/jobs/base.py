"""What the parts of the jobs screen share."""

from collections.abc import Sequence

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

    def chosen_spans(self) -> Sequence[range]:
        """The jobs that a key is about: the marked ones, or those of the current line."""
        return self.table.chosen().spans

    def open_tab(self, tab: str) -> None:
        """Of the pane, to read in it."""
        raise NotImplementedError

    def action_back(self) -> None:
        """Back to the list."""
        self.table.focus()

    def show_current_soon(self) -> None:
        """The pane follows the cursor when it stands still."""
        raise NotImplementedError
