"""The list of jobs."""

from textual.message import Message
from textual.timer import Timer

from gpuq.cli.fold_text import ids_of
from gpuq.tui.data.listing.listing import Entry, Listing, Told, View
from gpuq.tui.data.listing.marks import Chosen, Marks, chosen_of
from gpuq.tui.data.picture import Change, Picture
from gpuq.tui.data.spans import Row
from gpuq.tui.looks import Line, Signs
from gpuq.tui.widgets.job_columns import Columns, columns, ticks, write_head, write_row
from gpuq.tui.widgets.line_table import LineTable

TICK_S = 1.0


class JobTable(LineTable):
    """`current` is the row under the cursor, which stays on its job however the rows move. A folded
    group is a row with `jobs`, `count` and `counts`, as fold_text reads it."""

    class Widened(Message):
        """The columns are others."""

    def __init__(self, signs: Signs, *, user: str = "", id: str | None = None) -> None:
        super().__init__(signs, id=id)
        self.user = user
        self.listing = Listing()
        self.marks = Marks()
        self.frozen_at: float | None = None  # s since the epoch; None: it is not frozen
        self.missed = 0  # rows told anew since
        self.range_from: Entry | None = None
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
        before = list(self.listing.entries) if change.jobs is None else self.listing.entries
        at = self.cursor
        touched = self.listing.take(told, change.jobs)
        if touched.moved or change.jobs is None:
            self.marks.keep(self.listing.rows)
            self._set_entries(before, at)
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
        self._wind()

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

    def toggle_mark(self) -> None:
        """Of the current line; then one on."""
        if self.cursor < self.lines:
            spans = self.listing.spans_of(self.cursor)
            is_whole = self.marks.count_in(spans) == sum(map(len, spans))
            (self.marks.remove if is_whole else self.marks.add)(spans)
            self.redraw_all()
            self.move_to(self.cursor + 1)

    def mark_range(self) -> None:
        """The first time it is where a range begins, the second all up to the cursor are marked."""
        if self.cursor >= self.lines:
            return
        begin = None if self.range_from is None else self.listing.number_of(self.range_from)
        if begin is None:
            self.range_from = self.listing.entries[self.cursor]
            return
        self.range_from = None
        first, last = sorted((begin, self.cursor))
        self._mark(range(first, last + 1))

    def mark_all(self) -> None:
        self._mark(range(self.lines))

    def forget_marks(self) -> bool:
        """Whether there were any, or a range had been begun."""
        had = bool(self.marks) or self.range_from is not None
        self.marks.forget()
        self.range_from = None
        self.redraw_all()
        return had

    def marks_words(self) -> str:
        """ "2 marked: 184 185 (1 of them not shown)"."""
        if not self.marks:
            return ""
        rows = self.marks.rows(self.listing.rows)
        unseen = sum(
            row["last_id"] - row["id"] + 1 for row in rows if self.listing.shown_row(row) is None
        )
        words = str(self.marks)
        room = max(self.size.width // 3, 12)
        words = words if len(words) <= room else f"{words[: room - 1].rpartition(' ')[0]}…"
        return f"{len(self.marks)} marked: {words}" + (f" ({unseen} not shown)" if unseen else "")

    def range_words(self) -> str:
        if self.range_from is None or (at := self.listing.number_of(self.range_from)) is None:
            return ""
        return f"range from {ids_of(self.listing.row(at))}: v marks up to the cursor"

    def _mark(self, lines: range) -> None:
        self.marks.add([span for number in lines for span in self.listing.spans_of(number)])
        self.redraw_all()

    # ── drawing ──

    def draw(self, number: int, line: Line) -> None:
        sign = (">" if number == self.cursor else " ") + self._mark_sign(number)
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

    def write_head(self, line: Line) -> None:
        write_head(line, self.columns)

    @property
    def columns(self) -> Columns:
        return columns(self.room, self._digits, self._has_runs, self._has_progress)

    def redraw_all(self) -> None:
        for number in self.seen:
            self.redraw(number)

    def _mark_sign(self, number: int) -> str:
        """All of the line are marked, or some."""
        if not self.marks:
            return " "
        spans = self.listing.spans_of(number)
        marked = self.marks.count_in(spans)
        return " " if not marked else "*" if marked == sum(map(len, spans)) else "+"

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
            self.post_message(self.Widened())

    # ── the cursor ──

    def move_to(self, number: int) -> None:
        super().move_to(number)
        if self.cursor < self.lines:
            self.entry = self.listing.entries[self.cursor]

    def _set_entries(self, before: list[Entry], at: int) -> None:
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
        return [number for number in self.seen if ticks(self.listing.row(number))]
