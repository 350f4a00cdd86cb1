"""Lines of jobs that can be marked, one by one, in ranges, or all of them."""

from collections.abc import Sequence
from typing import Any

from gpuq.tui.data.listing.marks import Marks
from gpuq.tui.looks import Signs
from gpuq.tui.widgets.line_table import LineTable


class MarkedTable(LineTable):
    """A subclass says which jobs a line is of, and how to find it again. `range_from` is what the line
    was of where a range begins."""

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(signs, id=id)
        self.marks = Marks()
        self.range_from: Any = None

    def spans_of(self, number: int) -> Sequence[range]:
        raise NotImplementedError

    def entry_at(self, number: int) -> Any:
        """What stays the same of it wherever it goes."""
        raise NotImplementedError

    def number_of(self, entry: Any) -> int | None:
        """Where that is now."""
        raise NotImplementedError

    def toggle_mark(self) -> None:
        """Of the current line; then one on."""
        if self.cursor < self.lines:
            spans = self.spans_of(self.cursor)
            is_whole = self.marks.count_in(spans) == sum(map(len, spans))
            (self.marks.remove if is_whole else self.marks.add)(spans)
            self.redraw_all()
            self.move_to(self.cursor + 1)

    def mark_range(self) -> None:
        """The first time it is where a range begins, the second all up to the cursor are marked."""
        if self.cursor >= self.lines:
            return
        begin = None if self.range_from is None else self.number_of(self.range_from)
        if begin is None:
            self.range_from = self.entry_at(self.cursor)
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

    def mark_sign(self, number: int) -> str:
        """All of the line are marked, or some."""
        if not self.marks:
            return " "
        spans = self.spans_of(number)
        marked = self.marks.count_in(spans)
        return " " if not marked else "*" if marked == sum(map(len, spans)) else "+"

    def marks_words(self) -> str:
        """ "2 marked: 184 185 (1 of them not shown)"."""
        if not self.marks:
            return ""
        words, unseen = str(self.marks), self.unseen_marks()
        room = max(self.size.width // 3, 12)
        words = words if len(words) <= room else f"{words[: room - 1].rpartition(' ')[0]}…"
        return f"{len(self.marks)} marked: {words}" + (f" ({unseen} not shown)" if unseen else "")

    def unseen_marks(self) -> int:
        """Marked jobs that no line is of."""
        raise NotImplementedError

    def redraw_all(self) -> None:
        for number in self.seen:
            self.redraw(number)

    def _mark(self, lines: range) -> None:
        self.marks.add([span for number in lines for span in self.spans_of(number)])
        self.redraw_all()
