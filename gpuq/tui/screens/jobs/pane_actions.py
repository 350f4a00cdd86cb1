"""Keys of the jobs screen that open the pane about the job under the cursor, and leave it."""

from gpuq.tui.data.spans import Row
from gpuq.tui.screens.jobs.base import JobsBase
from gpuq.tui.screens.looking_into import LooksInto
from gpuq.tui.widgets.detail.body import Body


class OpensThePane(LooksInto, JobsBase):
    @property
    def body(self) -> Body:
        return self.query_one(Body)

    def row_looked_at(self) -> Row | None:
        return self.table.current

    def shows_pane(self) -> bool:
        return self.body.shows_pane

    def open_tab(self, tab: str) -> None:
        """To read in it."""
        self.body.open_pane()
        self.pane.open(tab)
        self.pane.focus_tab()

    def action_detail(self) -> None:
        self.open_tab("detail")

    def action_back(self) -> None:
        """From the pane to the list; there it is what the list makes of it."""
        if self.body.is_over:
            self.body.close_pane()
            self.table.focus()
        else:
            super().action_back()
