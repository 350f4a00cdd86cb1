"""Keys of the jobs screen that shape the list: filter, order, marks."""

from gpuq.tui.screens.jobs_base import JobsBase


class ShapesTheList(JobsBase):
    def action_back(self) -> None:
        """Back to the list."""
        self.table.focus()
