"""Keys of the jobs screen that show the log, and what can be taken along from it."""

from collections.abc import Sequence
from typing import Any

from gpuq.cli.fold_text import first_id
from gpuq.cli.render import Job
from gpuq.tui.data.log.reading import Reading
from gpuq.tui.export.files import jobs_shown
from gpuq.tui.log_reader import Which
from gpuq.tui.screens.jobs.base import JobsBase
from gpuq.tui.screens.log import LogScreen
from gpuq.tui.screens.taking_along import TakesAlong
from gpuq.tui.widgets.detail.graph import GraphView
from gpuq.tui.widgets.log.pane import LogPane


class ShowsTheLog(JobsBase, TakesAlong):
    @property
    def log_pane(self) -> LogPane:
        return self.query_one(LogPane)

    def action_log(self) -> None:
        """Below or beside the list; who is there already gets the whole screen."""
        if self.pane.tab == "log" and self.log_pane.view.has_focus:
            self.on_log_pane_enlarged()
            return
        self.open_tab("log")

    def on_log_pane_enlarged(self) -> None:
        pane = self.log_pane
        if pane.which is not None:
            self.app.push_screen(LogScreen(pane.which, pane.reading(), self._read_on))

    def _read_on(self, which: Which, reading: Reading) -> None:
        """Below or beside the list, unless that shows another job meanwhile."""
        pane = self.log_pane
        if pane.which is not None and pane.which.job == which.job:
            pane.go_on(which, reading)

    def on_screen_suspend(self) -> None:
        self.log_pane.cover()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self.log_pane.cover()

    # ── what can be taken along ──

    def chosen_job(self) -> int | None:
        row = self.table.current
        return None if row is None else first_id(row)

    def table_rows(self) -> Sequence[Job]:
        return jobs_shown(self.table.listing)

    def graph_rows(self) -> Sequence[dict[str, Any]]:
        return self.query_one(GraphView).graph_rows()
