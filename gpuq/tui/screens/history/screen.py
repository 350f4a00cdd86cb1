"""What has ended: the last first, page by page, and who has had how much."""

from collections.abc import Sequence

from rich.style import Style
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from gpuq.cli.render import Job
from gpuq.cli.results.past_text import simulated_jobs
from gpuq.core.units import count
from gpuq.tui import keys
from gpuq.tui.data.history.orders import LAST_FIRST
from gpuq.tui.data.history.past import Past, Wanted
from gpuq.tui.data.killing import why_not_theirs
from gpuq.tui.data.picture import Change
from gpuq.tui.data.spans import Row
from gpuq.tui.deeds.jobs import named, requeue_jobs
from gpuq.tui.keymap import name_of
from gpuq.tui.looks import BOLD, DIM, YELLOW, Line
from gpuq.tui.screens.dialogs.dialog import Question
from gpuq.tui.screens.form_actions import OpensForms, why_not_copied
from gpuq.tui.screens.history.filter import FiltersThePast
from gpuq.tui.screens.history.list_actions import ShapesThePast
from gpuq.tui.screens.history.totals import ShowsTotals
from gpuq.tui.screens.job import JobScreen
from gpuq.tui.screens.taking_along import TakesAlong
from gpuq.tui.widgets.filter_line import FilterLine
from gpuq.tui.widgets.key_line import KeyLine
from gpuq.tui.widgets.line_table import LineTable
from gpuq.tui.widgets.message_line import MessageLine
from gpuq.tui.widgets.one_line import OneLine
from gpuq.tui.widgets.past_table import PastTable
from gpuq.tui.widgets.text_view import TextView
from gpuq.tui.widgets.top_line import TopLine


class HistoryScreen(FiltersThePast, ShapesThePast, ShowsTotals, OpensForms, TakesAlong):
    BINDINGS = keys.bindings((*keys.HISTORY_SCREEN, *keys.MENUS))

    def compose(self) -> ComposeResult:
        signs = self.gpuq.signs
        yield TopLine(signs, id="top")
        yield OneLine(signs, self._write_window, id="window")
        yield OneLine(signs, self.write_totals, id="totals-line")
        with Horizontal(id="past-body"):
            with Vertical(id="past-list"):
                table = PastTable(self.gpuq.picture_signs, id="past")
                yield OneLine(signs, table.write_head, id="columns")
                yield table
            yield TextView(signs, id="totals")
        yield FilterLine(signs, id="filter")
        yield MessageLine(signs, self.write_status, id="message")
        yield KeyLine(signs, id="keys")

    def on_mount(self) -> None:
        self.table.focus()
        self.ask_anew()

    @on(LineTable.Widened, "#past")
    def _widen(self) -> None:
        self.query_one("#columns").refresh()

    def on_screen_resume(self) -> None:
        if self.past.loaded:
            self.ask_newest()
        self.ask_totals()

    def show(self, change: Change) -> None:
        """Whoever ends is asked for, and whoever is in the queue again leaves."""
        if change.beside:
            self.query_one("#top").refresh()
        if change.jobs is None:
            self.ask_totals()
        if not self.past.loaded and not self.past.is_all:
            if change.jobs is None and not self.is_asking:
                self.ask_anew()
            return
        picture = self.gpuq.picture
        ids = [row["id"] for row in picture.rows] if change.jobs is None else change.jobs
        rows = [row for job in ids if (row := picture.rows.holding(job)) is not None]
        self._drop_requeued(rows)
        newest = max((row["ended_at"] for row in self.past.loaded), default=0.0)
        if any(row["state"] == "ended" and row["ended_at"] > newest for row in rows):
            self.ask_newest_soon()

    def _drop_requeued(self, rows: Sequence[Row]) -> None:
        again = [row for row in rows if row["state"] != "ended"]
        known = {row["id"] for row in self.past.loaded} if again else set()
        gone = {job for row in again for job in known if row["id"] <= job <= row["last_id"]}
        if gone and self.past.drop(gone):
            self.table.marks.remove(range(job, job + 1) for job in gone)
            self.show_rows()

    def want(self, wanted: Wanted) -> None:
        super().want(wanted)
        self.ask_totals()

    # ── the line above the list ──

    def _write_window(self, line: Line) -> None:
        line.add(" ended: ", DIM)
        for number, (words, style) in enumerate(self._window_words()):
            line.add(" · " if number else "", DIM).add(words, style)

    def _window_words(self) -> list[tuple[str, Style]]:
        wanted, past = self.wanted, self.past
        words = [
            (wanted.window, BOLD),
            ("" if wanted.only_of is None else "mine", BOLD),
            ("" if wanted.choice == "any end" else wanted.choice, BOLD),
            (wanted.text, BOLD),
            (self.table.marks_words(), BOLD),
            (self.range_words(), DIM),
            ("" if past.order == LAST_FIRST else self.sort_words(), DIM),
            (self._found_words(past), DIM),
            (simulated_jobs(past.rows), YELLOW),
        ]
        return [(said, style) for said, style in words if said]

    def _found_words(self, past: Past) -> str:
        if not past.rows and not past.is_all:
            return self._waiting_words()
        if not past.rows:
            return "nothing of that has ended"
        found = count(len(past.rows), "job")
        if past.is_all:
            return found
        if len(past.rows) < len(past.loaded):
            key = name_of("move.last", self.gpuq)
            return f"{found} among the last {len(past.loaded)}; {key} looks further"
        return f"the last {found}"

    def _waiting_words(self) -> str:
        if self.gpuq.lost is not None:
            return "not asked: no daemon answers"
        if self.is_asking:
            return "asking ..."
        return f"not told: {name_of('messages', self.gpuq)} shows why"

    # ── keys ──

    def action_detail(self) -> None:
        self._open_job("detail")

    def action_log(self) -> None:
        self._open_job("log")

    def _open_job(self, tab: str) -> None:
        if (row := self.table.current) is not None:
            self.gpuq.push_screen(JobScreen(row, tab))

    def why_not(self, action: str) -> str | None:
        if (why := super().why_not(action)) is not None:
            return why
        if action == "duplicate":
            return why_not_copied(self.table.current)
        if action != "requeue":
            return None
        spans = tuple(self.table.chosen_spans())
        rows = [row for row in self.past.loaded if any(row["id"] in span for span in spans)]
        return why_not_theirs(rows, self.gpuq.picture.you, "requeue")

    def show_rows(self, *, is_other: bool = False) -> None:
        super().show_rows(is_other=is_other)
        self._show_what_can_be_done()

    @on(LineTable.Moved, "#past")
    def _show_what_can_be_done(self) -> None:
        if not self.gpuq.picture.you.get("is_admin", True):
            self.refresh_bindings()

    def action_requeue(self) -> None:
        """The marked jobs, or this one; asks first where one has done what it should."""
        spans = tuple(self.table.chosen_spans())
        if not spans:
            self.gpuq.say("there is no job under the cursor to requeue")
        elif (why := self.why_not("requeue")) is not None:
            self.gpuq.say(why, is_error=True)
        elif done := self._succeeded(spans):
            what = count(len(done), "job") if len(done) > 1 else f"Job {done[0]}"
            text = f"{what} {'have' if len(done) > 1 else 'has'} succeeded. Run once more?"
            title = f"Requeue {'job' if sum(map(len, spans)) == 1 else 'jobs'} {named(spans)}"
            question = Question(title, [text], yes="requeue")
            self.gpuq.push_screen(question, lambda is_meant: self._requeue(spans, is_meant))
        else:
            self._requeue(spans, True)

    def _succeeded(self, spans: Sequence[range]) -> list[int]:
        return [
            row["id"]
            for row in self.past.loaded
            if row["outcome"] == "succeeded" and any(row["id"] in span for span in spans)
        ]

    def _requeue(self, spans: Sequence[range], is_meant: bool | None) -> None:
        if is_meant:
            self.gpuq.do(requeue_jobs(spans))

    def action_back(self) -> None:
        """Back to the list; there first the marks are forgotten, then the filter."""
        if not self.table.has_focus:
            self.table.focus()
        elif not self.table.forget_marks() and self.wanted.text:
            self.forget_filter()
        self.show_window()

    def job_for_form(self) -> int | None:
        row = self.table.current
        return None if row is None else int(row["id"])

    def chosen_job(self) -> int | None:
        return self.job_for_form()

    def table_rows(self) -> Sequence[Job] | None:
        return self.past.rows
