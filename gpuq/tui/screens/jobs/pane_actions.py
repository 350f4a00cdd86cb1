"""Keys of the jobs screen that open the pane about the job under the cursor, and leave it."""

from gpuq.cli.fold_text import first_id
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

    def show_current(self) -> None:
        self.keep_what_is_read()
        super().show_current()

    def keep_what_is_read(self) -> None:
        """Nothing is taken from under somebody's eyes: the job that the pane is about stays in the list
        when it ends, until the cursor moves on or Escape is pressed."""
        if self.app.app_focus:  # else it is as it was when somebody looked
            self.table.keep(self._job_read())

    def _job_read(self) -> int | None:
        row, pane = self.table.current, self.pane
        if row is None or not self.shows_pane():
            return None
        is_followed = pane.tab == "log" and pane.log_pane.view.follows
        return first_id(row) if is_followed or self.is_pane_focused else None

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
        self.table.keep(None)
        if self.body.is_over:
            self.body.close_pane()
            self.table.focus()
        else:
            super().action_back()
        self.show_current_soon()
