"""The list of jobs."""

from collections.abc import Sequence
from typing import cast

from textual.timer import Timer

from gpuq.cli.fold_text import ids_of
from gpuq.tui.data.listing.listing import ANEW_BEYOND, Entry, Listing, Told, View
from gpuq.tui.data.listing.marks import Chosen, chosen_of
from gpuq.tui.data.picture import Change, Picture
from gpuq.tui.data.spans import Row
from gpuq.tui.keymap import KeyedApp, name_of
from gpuq.tui.looks import DIM, Line, Signs
from gpuq.tui.widgets.job_columns import Columns, columns, ticks, write_head, write_row
from gpuq.tui.widgets.marked_table import MarkedTable

TICK_S = 1.0
# Lines on each side of the cursor that are remembered over a change: so many rows as the listing puts
# into its lines one by one, and the lines of their groups, can go and leave a neighbour among them.
NEAR = 2 * ANEW_BEYOND + 1


class JobTable(MarkedTable):
    """`current` is the row under the cursor, which stays on its job however the rows move. A folded
    group is a row with `jobs`, `count` and `counts`, as fold_text reads it."""

    def __init__(self, signs: Signs, *, user: str = "", id: str | None = None) -> None:
        super().__init__(signs, id=id)
        self.user = user
        self.listing = Listing()
        self.frozen_at: float | None = None  # s since the epoch; None: it is not frozen
        self.missed = 0  # rows told anew since
        self._told: Told = Picture()
        self.entry: Entry | None = None  # under the cursor
        self.is_ticking = False
        self._timer: Timer | None = None
        self._digits, self._has_runs, self._has_progress = 0, False, False

    # ── what is shown ──

    @property
    def current(self) -> Row | None:
        return self.listing.row(self.cursor) if self.cursor < self.lines else None

    def chosen(self) -> Chosen:
        """The marked jobs, else those of the current line."""
        if self.marks:
            rows = map(self.listing.reasoned, self.marks.rows(self.listing.rows))
            return chosen_of(rows, is_marked=True)
        if self.cursor >= self.lines:
            return Chosen()
        return chosen_of(self.listing.rows_of(self.cursor), is_marked=False)

    def show(self, told: Told, change: Change) -> None:
        """What is told by now. While the list is frozen it is only counted."""
        self._told = told
        if self.frozen_at is not None:
            self.missed += 1 if change.jobs is None else len(change.jobs)
            return
        before, near_from = self.listing.entries, max(self.cursor - NEAR, 0)
        near = before[near_from : self.cursor + NEAR + 1]  # the list may be changed in its place
        touched = self.listing.take(told, change.jobs)
        if touched.moved or change.jobs is None:
            self.marks.keep(self.listing.rows)
            if self.listing.entries is before:
                self._set_entries(near, self.cursor - near_from)
            else:
                self._set_entries(before, self.cursor)
        else:
            for number in touched.lines & set(self.seen):
                self.redraw(number)
        self._measure()
        self._wind()

    def see(self, view: View, *, on: Entry | None = None) -> None:
        """Filtered and sorted like that; the cursor stays on its job where that is still shown, or goes
        to the line `on` if that is."""
        before, at = list(self.listing.entries), self.cursor
        self.listing.see(view)
        if on is not None and self.listing.number_of(on) is not None:
            self.entry = on
        self._set_entries(before, at)
        self._measure()
        self._wind()

    def keep(self, job: int | None) -> None:
        """That job stays in the list though it is done, while somebody reads of it; None: none does."""
        if self.frozen_at is not None or job == self.listing.kept:
            return
        before, at = list(self.listing.entries), self.cursor
        touched = self.listing.keep(job)
        if touched.moved:
            self._set_entries(before, at)
            self._wind()
        for number in touched.lines & set(self.seen):
            self.redraw(number)

    def fold(self, *, is_open: bool) -> None:
        """The group of the current line; what stands below it goes and the cursor is on the group."""
        if self.cursor >= self.lines:
            return
        number = self.listing.fold(self.cursor, is_open=is_open)
        if number is not None:
            self.entry = self.listing.entries[number]
            self.set_lines(len(self.listing.entries), number)
            self._wind()

    def freeze(self, *, is_frozen: bool) -> None:
        if is_frozen:
            self.frozen_at, self.missed = self.signs.now(), 0
            self._wind()
            return
        self.frozen_at = None
        self.show(self._told, Change(jobs=None))

    # ── marks ──

    def spans_of(self, number: int) -> Sequence[range]:
        return self.listing.spans_of(number)

    def entry_at(self, number: int) -> Entry:
        return self.listing.entries[number]

    def number_of(self, entry: Entry) -> int | None:
        return self.listing.number_of(entry)

    def unseen_marks(self) -> int:
        rows = self.marks.rows(self.listing.rows)
        return sum(
            row["last_id"] - row["id"] + 1 for row in rows if self.listing.shown_row(row) is None
        )

    def range_words(self) -> str:
        if self.range_from is None or (at := self.listing.number_of(self.range_from)) is None:
            return ""
        key = name_of("mark.range", cast(KeyedApp, self.app))
        return f"range from {ids_of(self.listing.row(at))}: {key} marks up to the cursor"

    # ── drawing ──

    def draw(self, number: int, line: Line) -> None:
        sign = (">" if number == self.cursor else " ") + self.mark_sign(number)
        now = self.frozen_at or self.signs.now()
        write_row(
            line,
            self.listing.row(number),
            self.columns,
            now,
            user=self.user,
            sign=sign,
            is_below=self.listing.is_below_its_group(number),
        )

    def draw_none(self, line: Line) -> None:
        if isinstance(self._told, Picture) and self._told.is_whole:
            line.add(f"  {self._none_words()}", DIM)

    def _none_words(self) -> str:
        """With the key that brings some."""
        app, view = cast(KeyedApp, self.app), self.listing.view
        if view.filter.text:
            return f"no job fits the filter · {name_of('back', app)} forgets it"
        if view.state != "all":
            return f"no job is {view.state} · {name_of('state', app)} shows others"
        if self.listing.hidden:
            return f"no job runs or waits · {name_of('finished', app)} shows what is done"
        if view.only_of is not None:
            return f"no job is yours · {name_of('mine', app)} shows all"
        return f"no jobs · {name_of('new', app)} submits one"

    def write_head(self, line: Line) -> None:
        write_head(line, self.columns)

    @property
    def columns(self) -> Columns:
        return columns(self.room, self._digits, self._has_runs, self._has_progress)

    def _measure(self) -> None:
        """What the widths of the columns hang on only grows, so that none goes to and fro."""
        before, rows = self.columns, self.listing.rows
        self._digits = max(self._digits, len(str(rows.last_id)))
        self._has_runs |= len(self.listing.entries) != self.listing.shown
        self._has_progress |= any(
            self.listing.row(number).get("progress") is not None
            for number in self.seen
            if number < len(self.listing.entries)  # there may be fewer lines than are drawn still
        )
        if self.columns != before:
            self.refresh()
            self.post_message(self.Widened(self))

    # ── the cursor ──

    def move_to(self, number: int) -> None:
        super().move_to(number)
        if self.cursor < self.lines:
            self.entry = self.listing.entries[self.cursor]

    def _set_entries(self, before: list[Entry], at: int) -> None:
        """The cursor was on line `at` of those before."""
        entries = self.listing.entries
        number = self._found(before, at)
        self.set_lines(len(entries), number)
        self.entry = entries[self.cursor] if entries else self.entry

    def _found(self, before: list[Entry], at: int) -> int:
        """Where the cursor's job is now, or else what stood next to it: below, or above."""
        if self.entry is None:
            return 0
        number = self.listing.number_of(self.entry)
        if number is not None:
            return number
        nearest = (*before[at + 1 :], *reversed(before[:at]))
        numbers = (self.listing.number_of(entry) for entry in nearest)
        return next((number for number in numbers if number is not None), 0)

    # ── time ──

    def on_mount(self) -> None:
        self._timer = self.set_interval(TICK_S, self._tick, pause=True)
        self.watch(self.app, "app_focus", self._wind, init=False)

    def on_resize(self) -> None:
        super().on_resize()
        self._wind()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._wind()

    def _wind(self) -> None:
        """The clock ticks only where somebody sees a job that runs."""
        if self._timer is None:
            return
        self.is_ticking = bool(self._ticking())
        (self._timer.resume if self.is_ticking else self._timer.pause)()

    def _tick(self) -> None:
        for number in self._ticking():
            self.redraw(number)
        self._wind()

    def _ticking(self) -> list[int]:
        if self.frozen_at is not None or not self.app.app_focus or not self.screen.is_current:
            return []
        if self.screen.has_class("-stale"):  # what was told last is not so by now
            return []
        return [number for number in self.seen if ticks(self.listing.row(number))]
