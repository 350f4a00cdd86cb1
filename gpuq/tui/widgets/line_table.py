"""A table of lines with a cursor: of ten thousand only those are drawn that are seen.

Textual's own DataTable measures every cell of every row: 50 ms for a changed row among ten thousand,
where this takes 2.
"""

from typing import Self

from rich.style import Style
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from gpuq.tui import keys
from gpuq.tui.looks import CURSOR, Line, Signs


class _OfTable(Message):
    def __init__(self, table: "LineTable") -> None:
        super().__init__()
        self.table = table

    @property
    def control(self) -> "LineTable":
        return self.table


class LineTable(ScrollView, can_focus=True, inherit_bindings=False):
    """A subclass says how many `lines` there are, and draws one of them: `draw`."""

    BINDINGS = keys.bindings(keys.TABLE)

    class Moved(_OfTable):
        """The cursor stands on another line, or on another thing."""

    class Widened(_OfTable):
        """Its lines have other room, or other columns: a head above them does not fit any more."""

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.signs = signs
        self.lines = 0
        self.cursor = 0
        self._drawn: dict[int, Strip] = {}  # by y
        self._drawn_as: tuple[object, ...] = ()
        self._style: Style | None = None  # which takes long to be asked for

    # ── for subclasses ──

    @property
    def room(self) -> int:
        """Cells of a line, beside the scroll bar where there is one."""
        return self.scrollable_content_region.width

    def draw(self, number: int, line: Line) -> None:
        """Adds what stands in the line of that number, from 0 on."""
        raise NotImplementedError

    def draw_none(self, line: Line) -> None:
        """What stands there while there are no lines."""

    def set_lines(self, number: int, cursor: int | None = None) -> None:
        """There are so many lines now, any of them may be new."""
        self.lines = number
        self.virtual_size = Size(self.room, number)
        self.cursor = max(0, min(self.cursor if cursor is None else cursor, number - 1))
        self._show_cursor()
        for y in range(self.size.height):
            self._redraw_at(y)

    def redraw(self, number: int) -> None:
        """One line may say something else. No more is drawn than what is otherwise in it."""
        self._redraw_at(number - self.scroll_offset.y)

    @property
    def seen(self) -> range:
        """The lines that are seen."""
        top = self.scroll_offset.y
        return range(top, min(top + self.size.height, self.lines))

    def move_to(self, number: int) -> None:
        number = max(0, min(number, self.lines - 1))
        if number == self.cursor:
            return
        before, self.cursor = self.cursor, number
        self.redraw(before)
        self.redraw(number)
        self._show_cursor()
        self.post_message(self.Moved(self))

    # ── what Textual calls ──

    def refresh(self, *regions: Region, **options: bool) -> Self:
        if not regions:
            self._drawn, self._style = {}, None
        return super().refresh(*regions, **options)

    def render_line(self, y: int) -> Strip:
        drawn_as = (self.scroll_offset.y, self.room, self.has_focus)
        if drawn_as != self._drawn_as:
            self._drawn, self._drawn_as = {}, drawn_as
        if (strip := self._drawn.get(y)) is None:
            strip = self._drawn[y] = self._draw_at(y)
        return strip

    def _redraw_at(self, y: int) -> None:
        if not 0 <= y < self.size.height:
            return
        before = self._drawn.pop(y, None)
        now = self.render_line(y)
        # What was drawn of another stretch of lines is no measure for it.
        first, last = (0, self.room) if before is None else otherwise(before, now)
        if last > first:
            self.refresh(Region(first, y, last - first, 1))

    def _draw_at(self, y: int) -> Strip:
        number = self.scroll_offset.y + y
        if number >= self.lines:
            line = Line(self.room, self.signs, self._base())
            if number == 0:
                self.draw_none(line)
            return line.strip()
        line = Line(self.room, self.signs, self._base(number))
        self.draw(number, line)
        return line.strip()

    def _base(self, number: int | None = None) -> Style:
        if self._style is None:
            self._style = self.rich_style
        has_cursor = number == self.cursor and self.has_focus
        return self._style + CURSOR if has_cursor else self._style

    def on_resize(self) -> None:
        self.virtual_size = Size(self.room, self.lines)
        self._show_cursor()
        self.post_message(self.Widened(self))

    def watch_show_vertical_scrollbar(self) -> None:
        self.post_message(self.Widened(self))  # it takes a cell of each line, and that is no resize

    def on_focus(self) -> None:
        self.redraw(self.cursor)

    def on_blur(self) -> None:
        self.redraw(self.cursor)

    def on_click(self, event: object) -> None:
        y = getattr(event, "y", None)
        if y is not None:
            self.move_to(self.scroll_offset.y + int(y))

    def _show_cursor(self) -> None:
        height, top = self.size.height, self.scroll_offset.y
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        elif height and self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False, force=True)

    # ── keys ──

    def action_move(self, by: int) -> None:
        self.move_to(self.cursor + by)

    def action_page(self, by: int) -> None:
        self.move_to(self.cursor + by * max(self.size.height - 1, 1))

    def action_first(self) -> None:
        self.move_to(0)

    def action_last(self) -> None:
        self.move_to(self.lines - 1)


def otherwise(before: Strip, now: Strip) -> tuple[int, int]:
    """From which cell on, and up to which, they are not the same."""
    ours, theirs = list(now), list(before)
    first, last = 0, now.cell_length
    while ours and theirs and ours[0] == theirs[0]:
        first += ours.pop(0).cell_length
        theirs.pop(0)
    while ours and theirs and ours[-1] == theirs[-1]:
        last -= ours.pop().cell_length
        theirs.pop()
    return first, last
