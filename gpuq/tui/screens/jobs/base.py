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

    @property
    def is_pane_focused(self) -> bool:
        """The keys that move are the pane's, and not the list's."""
        return self.focused is not None and self.pane in self.focused.ancestors

    def keys_go_to(self) -> str:
        return self.pane.tab if self.is_pane_focused else ""

    def chosen_spans(self) -> Sequence[range]:
        """The jobs that a key is about: the marked ones, or those of the current line."""
        return self.table.chosen().spans

    def open_tab(self, tab: str) -> None:
        """Of the pane, to read in it."""
        raise NotImplementedError

    def gpu_words(self) -> str:
        """How many GPUs there are and how they are, where they have no line of their own."""
        raise NotImplementedError

    def action_back(self) -> None:
        """Back to the list."""
        self.table.focus()

    def show_current_soon(self) -> None:
        """The pane follows the cursor when it stands still."""
        raise NotImplementedError
