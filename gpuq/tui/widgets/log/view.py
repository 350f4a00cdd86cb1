"""The lines of a log, drawn: scrolled, followed, wrapped, with what was looked for marked.

Only the rows that are seen are made of bytes to text, and only those are drawn again that are
otherwise than before.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from rich.style import Style
from textual.geometry import Region, Size
from textual.message import Message
from textual.selection import Selection
from textual.strip import Strip

from gpuq.cli.log_times import Index
from gpuq.cli.render import clock
from gpuq.tui import keys
from gpuq.tui.data.log.rows import Rows
from gpuq.tui.data.log.search import Search
from gpuq.tui.data.log.text import painted
from gpuq.tui.data.log.window import Chunk, LogWindow, Moved
from gpuq.tui.looks import BOLD, CURSOR, DIM, PLAIN_STYLE, YELLOW, Line, Signs
from gpuq.tui.widgets.log.drawing import in_piece, runs, style_of
from gpuq.tui.widgets.log.reads_on import ReadsOn

SIDEWAYS = 16  # cells in one step
HIT, HIT_HERE = CURSOR, CURSOR + YELLOW + BOLD

_painted = lru_cache(512)(painted)


class LogView(ReadsOn, can_focus=True):
    """`note` is what there is to say about the log. `here` is the line that was found last."""

    BINDINGS = keys.bindings(keys.TEXT)

    class Wanted(Message):
        """Part of the log that is not held: "before" or "behind" that offset, its "head", its "tail";
        "": it is only followed, or no more."""

        def __init__(self, place: str, offset: int = 0) -> None:
            super().__init__()
            self.place = place
            self.offset = offset

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.signs = signs
        self.window = LogWindow()
        self.follows = True
        self.search: Search | None = None
        self.here: int | None = None
        self.note: str | None = None
        self.written_at = 0.0
        self.index: Index | None = None
        self.shows_times = False
        self._rows: Rows | None = None  # where lines are wrapped
        self._left = 0  # the first column that is seen

    # ── what it shows ──

    def restart(self, begin: int, chunks: Iterable[Chunk]) -> None:
        self.window.restart(begin)
        self._rows = None if self._rows is None else Rows(self._text, self._room())
        self.search = None if self.search is None else Search(self.search.wanted)
        self.here = None
        self._take(self.window.append(chunks))
        self.refresh()
        if not self.follows:
            self._go_to(0)

    def append(self, chunks: Iterable[Chunk]) -> None:
        self._take(self.window.append(chunks))

    def prepend(self, chunks: Iterable[Chunk], begin: int) -> None:
        self._take(self.window.prepend(chunks, begin))

    def say(self, note: str | None) -> None:
        if note != self.note:
            self.note = note
            self.refresh()

    def show_times(self, index: Index | None) -> None:
        self.index = index
        self._wrap_anew()

    @property
    def wraps(self) -> bool:
        return self._rows is not None

    def set_wrap(self, on: bool) -> None:
        line = self._line_at(self.scroll_offset.y)
        self._rows = Rows(self._text, self._room()) if on else None
        self._left = 0
        self._wrap_anew(line)

    def look_for(self, wanted: str) -> None:
        """ "" for nothing any more."""
        self.search, self.here = (Search(wanted) if wanted else None), None
        if self.search is not None:
            self.search.change(self._all_new(), self._text)
        self.refresh()

    def go_to_hit(self, by: int) -> bool:
        """To the next one, from what is seen on; no where there is none."""
        bottom = self._line_at(self.scroll_offset.y + self.size.height - 1)
        start = self.here if self.here is not None else bottom + 1
        hit = None if self.search is None else self.search.next(start, by)
        if hit is None:
            return False
        self.here, self.follows = hit, False
        self._go_to(self._row_of(hit) - self.size.height // 2)
        self.refresh()
        self.post_message(self.Wanted(""))
        return True

    # ── lines and rows ──

    def _take(self, moved: Moved) -> None:
        gone, top = self._row_of(moved.dropped), self.scroll_offset.y
        has_other_room = self._rows is not None and self._rows.room != self._room()
        if has_other_room:
            self._reckon_rows()
        elif self._rows is not None:
            self._rows.change(moved)
        if self.search is not None:
            self.search.change(moved, self._text)
        if self.here is not None:
            self.here = max(self.here - moved.dropped + moved.added, 0)
        self._set_height()
        if self.follows:
            self._go_to(self.virtual_size.height)
        elif shift := self._row_of(moved.added) - gone:
            self._go_to(top + shift)
        if self.scroll_offset.y != top or moved.dropped or moved.added or has_other_room:
            self.refresh()
        else:
            self._redraw_from(self._row_of(moved.since))

    def _redraw_from(self, row: int) -> None:
        y = max(row - self.scroll_offset.y, 0)
        if y < self.size.height:
            self.refresh(Region(0, y, self._width, self.size.height - y))

    def _wrap_anew(self, line: int | None = None) -> None:
        """`line` is the first that is seen, of those that are seen now unless said."""
        line = self._line_at(self.scroll_offset.y) if line is None else line
        if self._rows is not None:
            self._reckon_rows()
        self._set_height()
        self._go_to(self.virtual_size.height if self.follows else self._row_of(line))
        self.refresh()

    def _reckon_rows(self) -> None:
        self._rows = Rows(self._text, self._room())
        self._rows.change(self._all_new())

    def _all_new(self) -> Moved:
        return Moved(0, 0, 0, len(self.window))

    def _set_height(self) -> None:
        rows = len(self.window) if self._rows is None else len(self._rows)
        self.virtual_size = Size(self._width, rows)

    def _go_to(self, row: int) -> None:
        row = max(0, min(row, self.virtual_size.height - self.size.height))
        self.scroll_to(y=row, animate=False, force=True, immediate=True)

    def _row_of(self, line: int) -> int:
        return line if self._rows is None else self._rows.first_of(line)

    def _line_at(self, row: int) -> int:
        return row if self._rows is None else self._rows.at(row)[0]

    def _text(self, line: int) -> str:
        return painted(self.window[line].raw).text

    @property
    def _width(self) -> int:
        """Beside the bar that is always there, so that nothing is wrapped anew when it comes."""
        return self.scrollable_content_region.width

    def _room(self) -> int:
        return max(self._width - len(self._time(0)), 1)

    def _time(self, line: int) -> str:
        """With the day where the first line is not of today."""
        if self.index is None or line >= len(self.window):
            return ""
        first, stamp = (
            clock(self.index.known_time_of(self.window[number].end, self.written_at))
            for number in (0, line)
        )
        is_of_today = first[:10] == clock(self.signs.now())[:10]
        return f"{stamp[11:] if is_of_today else stamp[5:]} "

    # ── what Textual calls ──

    def render_line(self, y: int) -> Strip:
        row = self.scroll_offset.y + y
        line = Line(self._width, self.signs, self.rich_style)
        if self.note is not None and y == min(len(self.window), self.size.height - 1):
            return line.add(self.note, YELLOW).strip()
        if row >= self.virtual_size.height:
            return line.strip()
        selection = self.text_selection
        selected = None if selection is None else selection.get_span(row)
        at = 0
        for text, style in self._pieces(row):
            marks = [] if selected is None else [in_piece(selected, at)]
            for a, b, marked in runs(0, len(text), marks):
                line.add(text[a:b], style + CURSOR if marked else style)
            at += len(text)
        return line.strip().apply_offsets(0, row)

    def _pieces(self, row: int) -> Iterator[tuple[str, Style]]:
        """What stands in a row, as far as it can be seen, and how."""
        number, part = (row, 0) if self._rows is None else self._rows.at(row)
        text, spans = _painted(self.window[number].raw)
        begin, end = self._left, self._left + 2 * self._width
        if self._rows is not None:
            begin, end = self._rows.stretch(text, part)
        if time := self._time(number):
            yield (time if part == 0 else " " * len(time)), DIM
        layers = [(a, b, style_of(paint)) for a, b, paint in spans]
        if self.search is not None:
            style = HIT_HERE if number == self.here else HIT
            layers += [(a, b, style) for a, b in self.search.spans(text)]
        for a, b, styles in runs(begin, min(end, len(text)), layers):
            yield text[a:b], Style.combine([PLAIN_STYLE, *styles])

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The text that was marked with the mouse, row by row as it is seen."""
        last = self.virtual_size.height - 1
        first = 0 if selection.start is None else selection.start.y
        last = last if selection.end is None else min(selection.end.y, last)
        rows = []
        for row in range(first, last + 1):
            text = "".join(piece for piece, _ in self._pieces(row))
            start, stop = selection.get_span(row) or (0, 0)
            rows.append(text[start : None if stop == -1 else stop])
        return "\n".join(rows), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    def on_resize(self) -> None:
        self._wrap_anew()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if not self.follows and round(old_value) != round(new_value):
            self._want_more()

    def _want_more(self) -> None:
        if self.scroll_offset.y == 0 and self.window.begin > 0:
            self.post_message(self.Wanted("before", self.window.begin))
        elif self.scroll_offset.y >= self.max_scroll_y:
            self.post_message(self.Wanted("behind", self.window.end))

    # ── moving ──

    def follow(self, on: bool) -> None:
        self.follows = on
        if on:
            self.here = None
            self._go_to(self.virtual_size.height)
        self.post_message(self.Wanted(""))

    def _stop_following(self) -> None:
        if self.follows:
            self.follow(False)
        if self.scroll_offset.y == 0:
            self._want_more()

    def action_scroll_up(self) -> None:
        self._stop_following()
        self._go_to(self.scroll_offset.y - 1)

    def action_page_up(self) -> None:
        self._stop_following()
        self._go_to(self.scroll_offset.y - max(self.size.height - 1, 1))

    def action_scroll_down(self) -> None:
        self._go_down(1)

    def action_page_down(self) -> None:
        self._go_down(max(self.size.height - 1, 1))

    def _go_down(self, rows: int) -> None:
        if self.scroll_offset.y >= self.max_scroll_y and not self.follows:
            self._want_more()
        self._go_to(self.scroll_offset.y + rows)

    def action_scroll_home(self) -> None:
        self.follow(False)
        if self.window.begin > 0:
            self.post_message(self.Wanted("head"))
        else:
            self._go_to(0)

    def action_scroll_end(self) -> None:
        self.follow(True)

    def move_sideways(self, by: int) -> None:
        if self._rows is None:
            self._left = max(self._left + by * SIDEWAYS, 0)
            self.refresh()

    def on_mouse_scroll_up(self) -> None:
        self._stop_following()

    def on_scroll_up(self) -> None:
        self._stop_following()

    def on_scroll_to(self) -> None:
        self._stop_following()
