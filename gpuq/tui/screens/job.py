"""All about one job, on the whole screen."""

from textual.app import ComposeResult

from gpuq.tui import keys
from gpuq.tui.data.picture import Change
from gpuq.tui.data.spans import Row
from gpuq.tui.screens.looking_into import LooksInto
from gpuq.tui.screens.taking_along import TakesAlong
from gpuq.tui.widgets.detail.pane import DetailPane
from gpuq.tui.widgets.key_line import KeyLine
from gpuq.tui.widgets.log.pane import LogPane
from gpuq.tui.widgets.message_line import MessageLine
from gpuq.tui.widgets.top_line import TopLine


class JobScreen(LooksInto, TakesAlong):
    """Begins with that tab open. `row` is what is known of the job by now."""

    BINDINGS = keys.bindings((*keys.JOB_SCREEN, *keys.MENUS))

    def __init__(self, row: Row, tab: str) -> None:
        super().__init__()
        self._row = row
        self._tab = tab

    def compose(self) -> ComposeResult:
        signs = self.gpuq.signs
        yield TopLine(signs, id="top")
        yield DetailPane(self.gpuq.picture_signs, id="job-pane")
        yield MessageLine(signs, self.write_status, id="message")
        yield KeyLine(signs, id="keys")

    def row_looked_at(self) -> Row | None:
        return self._row

    def on_mount(self) -> None:
        self.pane.open(self._tab)
        self.pane.focus_tab()

    def show(self, change: Change) -> None:
        row = self.gpuq.picture.rows.holding(self._row["id"])
        if row is not None and (change.jobs is None or row["id"] in change.jobs):
            job = self._row["id"]
            self._row = row | {"id": job, "last_id": job}
        self.show_current()
        if change.beside:
            self.query_one("#top").refresh()

    def chosen_job(self) -> int | None:
        return int(self._row["id"])

    def on_screen_suspend(self) -> None:
        self.query_one(LogPane).cover()

    def on_screen_resume(self) -> None:
        self.query_one(LogPane).cover()

    # ── keys ──

    def action_log(self) -> None:
        self.pane.open("log")
        self.pane.focus_tab()

    def action_back(self) -> None:
        self.dismiss()
