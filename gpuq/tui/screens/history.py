"""What has ended: the last first, page by page, and who has had how much."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.timer import Timer

from gpuq.cli.render import Job, Look, moment
from gpuq.cli.results.past_text import simulated_jobs
from gpuq.client import Client
from gpuq.core.units import count
from gpuq.errors import GpuqError, UsageError
from gpuq.past import ANSWER_S
from gpuq.tui import keys
from gpuq.tui.data.history.past import (
    CHOICES,
    WINDOWS,
    Past,
    Wanted,
    next_of,
    window_start,
    with_filter,
)
from gpuq.tui.data.history.totals import Totals, as_line, as_table, totals_of
from gpuq.tui.data.picture import Change
from gpuq.tui.data.spans import Row
from gpuq.tui.data.wrapping import wrapped
from gpuq.tui.deeds.jobs import requeue_jobs
from gpuq.tui.looks import BOLD, DIM, PLAIN_STYLE, YELLOW, Line
from gpuq.tui.screens.form_actions import OpensForms
from gpuq.tui.screens.job import JobScreen
from gpuq.tui.screens.taking_along import TakesAlong
from gpuq.tui.widgets.filter_line import FilterLine
from gpuq.tui.widgets.key_line import KeyLine
from gpuq.tui.widgets.line_table import LineTable
from gpuq.tui.widgets.message_line import MessageLine
from gpuq.tui.widgets.one_line import OneLine
from gpuq.tui.widgets.past_table import PastHead, PastTable
from gpuq.tui.widgets.text_view import TextView
from gpuq.tui.widgets.top_line import TopLine

PAGE = 200
NEAR = 50  # lines from the end, where the next page is asked for
MOST_LOOKED_THROUGH = 2000  # rows, for so many as fill the window, before somebody moves on
TYPED_S = 0.3  # without a letter, before the daemon is asked
NEWS_S = 1.0  # of ends, gathered before it is asked for them
TOTALS_OLD_S = 60.0
TOTALS_ROOM = 40  # cells of the pane beside the list


class HistoryScreen(OpensForms, TakesAlong):
    BINDINGS = keys.bindings((*keys.HISTORY_SCREEN, *keys.MENUS))

    def __init__(self) -> None:
        super().__init__()
        self._wanted = Wanted()
        self._past = Past(self._wanted.holds)
        self._is_asking = False
        self._typing: Timer | None = None
        self._news: Timer | None = None
        self._looked_through = 0
        self._totals: Totals | None = None
        self._totals_of: tuple[str, float] = ("", 0.0)  # the window, and when they were asked for

    def compose(self) -> ComposeResult:
        signs = self.gpuq.signs
        yield TopLine(signs, id="top")
        yield OneLine(signs, self._write_window, id="window")
        yield OneLine(signs, self._write_totals, id="totals-line")
        with Horizontal(id="past-body"):
            with Vertical(id="past-list"):
                yield PastHead(signs, id="columns")
                yield PastTable(signs, id="past")
            yield TextView(signs, id="totals")
        yield FilterLine(signs, id="filter")
        yield MessageLine(signs, self.write_status, id="message")
        yield KeyLine(signs, id="keys")

    @property
    def table(self) -> PastTable:
        return self.query_one(PastTable)

    def on_mount(self) -> None:
        self.table.focus()
        self._ask_anew()

    def on_screen_resume(self) -> None:
        if self._past.loaded:
            self._ask_newest()
        self._ask_totals()

    def show(self, change: Change) -> None:
        """Whoever ends is asked for, and whoever is in the queue again leaves."""
        if change.beside:
            self.query_one("#top").refresh()
        if not self._past.loaded and not self._past.is_all:
            if change.jobs is None and not self._is_asking:
                self._ask_anew()
            return
        picture = self.gpuq.picture
        ids = [row["id"] for row in picture.rows] if change.jobs is None else change.jobs
        rows = [row for job in ids if (row := picture.rows.holding(job)) is not None]
        self._drop_requeued(rows)
        newest = max((row["ended_at"] for row in self._past.loaded), default=0.0)
        if any(row["state"] == "ended" and row["ended_at"] > newest for row in rows):
            self._news = self._news or self.set_timer(NEWS_S, self._ask_newest)

    def _drop_requeued(self, rows: Sequence[Row]) -> None:
        again = [row for row in rows if row["state"] != "ended"]
        known = {row["id"] for row in self._past.loaded} if again else set()
        gone = {job for row in again for job in known if row["id"] <= job <= row["last_id"]}
        if gone and self._past.drop(gone):
            self._show_rows()

    # ── asking ──

    def _want(self, wanted: Wanted) -> None:
        if wanted != self._wanted:
            self._wanted = wanted
            self._ask_anew()
            self._ask_totals()

    def _ask_anew(self) -> None:
        """From the first page, for what is wanted now."""
        self._stop_typing()
        past = Past(self._wanted.holds)
        self._past, self._looked_through, self._is_asking = past, 0, False
        if self._wanted.is_none:
            past.add_page([], None)
            self._show_rows(is_other=True)
        else:
            self._ask_page(past, is_first=True)

    def _ask_page(self, past: Past, *, is_first: bool = False) -> None:
        """The next one, unless it is being asked for."""
        if self._is_asking or past.is_all:
            return
        self._is_asking = True
        asked, after = self._wanted.request(self.gpuq.signs.now()), past.after

        def ask(client: Client) -> dict[str, Any] | GpuqError:
            try:
                return client.call("history", answer_s=ANSWER_S, after=after, limit=PAGE, **asked)
            except GpuqError as error:
                return error

        def take(page: dict[str, Any] | GpuqError) -> None:
            if past is not self._past:
                return
            self._is_asking = False
            if isinstance(page, GpuqError):
                self.gpuq.say(str(page), is_error=True)
                return
            past.add_page(page["jobs"], page["after"])
            self._looked_through += len(page["jobs"])
            self._show_rows(is_other=is_first)
            self._ask_if_near_end()

        self.gpuq.ask(ask, take, group="history")

    def _ask_newest(self) -> None:
        """The first page anew, since somebody ended."""
        self._news = None
        if self._wanted.is_none or self._is_asking:
            return
        past, asked = self._past, self._wanted.request(self.gpuq.signs.now())

        def take(page: dict[str, Any]) -> None:
            if past is self._past:
                past.put_newest(page["jobs"], page["after"])
                self._show_rows()

        self.gpuq.ask(
            lambda client: client.call("history", answer_s=ANSWER_S, limit=PAGE, **asked),
            take,
            group="newest",
        )

    def _ask_if_near_end(self) -> None:
        """Where a filter lets few through it goes on by itself only for so long."""
        past = self._past
        is_near = self.table.cursor + max(NEAR, self.table.size.height) >= len(past.rows)
        if is_near and self._looked_through < MOST_LOOKED_THROUGH:
            self._ask_page(past)

    @on(LineTable.Moved, "#past")
    def _moved(self) -> None:
        self._looked_through = 0
        self._ask_if_near_end()

    def _show_rows(self, *, is_other: bool = False) -> None:
        self.table.show(self._past.rows, is_other=is_other)
        self.query_one("#window").refresh()

    # ── totals ──

    def _ask_totals(self) -> None:
        """Of a long history they cost the daemon a while: asked for once a minute at the most."""
        now, window = self.gpuq.signs.now(), self._wanted.window
        if self._totals_of[0] == window and now - self._totals_of[1] < TOTALS_OLD_S:
            return
        self._totals_of, self._totals = (window, now), None
        self._show_totals()
        since = window_start(window, now)

        def ask(client: Client) -> Totals:
            stats: Any = client.stats("user", since=since) if since else client.stats("user")
            usage: Any = client.usage(since=since or 0.0)
            return totals_of(stats, usage, now)

        def take(totals: Totals) -> None:
            if self._totals_of == (window, now):
                self._totals = totals
                self._show_totals()

        self.gpuq.ask(ask, take, group="totals")

    def _show_totals(self) -> None:
        self.query_one("#totals-line").refresh()
        view = self.query_one("#totals", TextView)
        lines = [[(f" Of all who ended: {self._wanted.window}", BOLD)]]
        totals = self._totals
        if totals is None:
            view.write([*lines, [(" reckoning ...", DIM)]])
            return
        table = as_table(totals, Look(width=TOTALS_ROOM))
        lines += [[(f" {line}", PLAIN_STYLE if n else DIM)] for n, line in enumerate(table)]
        at = moment(totals.at, self.gpuq.signs.now())
        for said in (totals.simulated, f"as of {at}"):
            lines += [[(f" {part}", DIM)] for part in wrapped(said, TOTALS_ROOM) if part]
        view.write(lines)

    def _write_totals(self, line: Line) -> None:
        totals = self._totals
        said = "reckoning ..." if totals is None else as_line(totals, line.left - 2)
        line.add(f" {said}", DIM)

    # ── lines ──

    def _write_window(self, line: Line) -> None:
        wanted, past = self._wanted, self._past
        line.add(" ended: ", DIM).add(wanted.window, BOLD)
        if wanted.choice != "any end":
            line.add(" · ", DIM).add(wanted.choice, BOLD)
        if wanted.text:
            line.add(" · ", DIM).add(wanted.text, BOLD)
        line.add(f" · {self._found_words(past)}", DIM)
        if said := simulated_jobs(past.rows):
            line.add(f" · {said}", YELLOW)

    def _found_words(self, past: Past) -> str:
        if not past.rows:
            return "nothing of that has ended" if past.is_all else "asking ..."
        found = count(len(past.rows), "job")
        if past.is_all:
            return found
        if len(past.rows) < len(past.loaded):
            return f"{found} among the last {len(past.loaded)}; G looks further"
        return f"the last {found}"

    # ── keys ──

    def action_window(self, by: int) -> None:
        self._want(replace(self._wanted, window=next_of(WINDOWS, self._wanted.window, by)))

    def action_state(self, by: int) -> None:
        choice = next_of(list(CHOICES), self._wanted.choice, by)
        self._want(replace(self._wanted, choice=choice))

    def action_detail(self) -> None:
        self._open_job("detail")

    def action_log(self) -> None:
        self._open_job("log")

    def _open_job(self, tab: str) -> None:
        if (row := self.table.current) is not None:
            self.gpuq.push_screen(JobScreen(row, tab))

    def action_requeue(self) -> None:
        if (job := self.job_for_form()) is None:
            self.gpuq.say("there is no job under the cursor to requeue")
        else:
            self.gpuq.do(requeue_jobs([range(job, job + 1)]))

    def action_back(self) -> None:
        """Back to the list; there the filter is forgotten."""
        if not self.table.has_focus:
            self.table.focus()
        elif self._wanted.text:
            self._filter("")

    def job_for_form(self) -> int | None:
        row = self.table.current
        return None if row is None else int(row["id"])

    def chosen_job(self) -> int | None:
        return self.job_for_form()

    def table_rows(self) -> Sequence[Job] | None:
        return self._past.rows

    # ── the filter ──

    def action_filter(self) -> None:
        self.query_one("#message").display = False
        self.query_one(FilterLine).open(self._wanted.text)

    @on(FilterLine.Typed)
    def _typed(self, typed: FilterLine.Typed) -> None:
        self._filter(typed.text)

    def _filter(self, text: str) -> None:
        """What is here is filtered at once, and the daemon asked when nobody types any more. One that
        is wrong changes nothing, and says how it should be."""
        try:
            wanted = with_filter(self._wanted, text, self.gpuq.signs.now())
        except UsageError as error:
            self.query_one(FilterLine).say(str(error), is_wrong=True)
            return
        self.query_one(FilterLine).say("")
        if wanted != self._wanted:
            self._wanted = wanted
            self._stop_typing()
            self._typing = self.set_timer(TYPED_S, self._ask_anew)

    def _stop_typing(self) -> None:
        if self._typing is not None:
            self._typing.stop()
            self._typing = None

    @on(FilterLine.Closed)
    def _close_filter(self, closed: FilterLine.Closed) -> None:
        line = self.query_one(FilterLine)
        if not closed.is_kept:
            self._filter("")
        elif line.is_wrong:
            return
        line.close(self._wanted.text)
        self.query_one("#message").display = True
        self.table.focus()
