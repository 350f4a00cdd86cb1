"""Lines of text in rows of a terminal: how many a line takes, and which row is of which line."""

from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate

from gpuq.cli.render import width
from gpuq.tui.data.log.window import Moved


class _Widths(dict[int, int]):
    """How wide signs are, by their numbers, as they come."""

    def __missing__(self, number: int) -> int:
        self[number] = width(chr(number))
        return self[number]


_WIDTHS = _Widths()


def breaks(text: str, room: int) -> list[int]:
    """Where in it the rows begin that it takes when no row is wider than `room` cells; at least one."""
    if room < 1 or len(text) <= room // 2:
        return [0]
    if text.isascii():
        return list(range(0, len(text), room)) or [0]
    widths = text.translate(_WIDTHS).encode("latin-1")
    ends = list(accumulate(widths))
    starts, behind = [0], bisect_right(ends, room)
    while behind < len(ends):
        start = max(
            behind, starts[-1] + 1
        )  # a sign that is wider than the room has a row of its own
        if start >= len(ends):
            break
        starts.append(start)
        behind = bisect_right(ends, ends[start - 1] + room)
    return starts


_breaks = lru_cache(512)(breaks)


class Rows:
    """Of lines that say what `text` says, in a room of so many cells. They stay those of that room:
    a terminal is drawn in its new size before all of a log is wrapped anew."""

    def __init__(self, text: Callable[[int], str], room: int) -> None:
        self._text = text
        self.room = room
        self._ends: list[int] = []  # the row behind each line, before `_before` is taken from it
        self._before = 0

    def __len__(self) -> int:
        return self._ends[-1] - self._before if self._ends else 0

    def change(self, moved: Moved) -> None:
        if moved.added or moved.dropped >= len(self._ends):
            self._ends, self._before = [], 0
        elif moved.dropped:
            self._before = self._ends[moved.dropped - 1]
            del self._ends[: moved.dropped]
        del self._ends[moved.since :]
        end = self._ends[-1] if self._ends else self._before
        for number in range(len(self._ends), moved.lines):
            end += len(breaks(self._text(number), self.room))
            self._ends.append(end)

    def first_of(self, line: int) -> int:
        return self._ends[line - 1] - self._before if 0 < line <= len(self._ends) else 0

    def at(self, row: int) -> tuple[int, int]:
        """The line that this row is of, and the how many-th of its rows it is, from 0 on."""
        line = bisect_right(self._ends, row + self._before)
        return line, row - self.first_of(line)

    def stretch(self, text: str, part: int) -> tuple[int, int]:
        """From which sign on the how many-th row of a line has its text, and up to before which."""
        starts = [*_breaks(text, self.room), len(text)]
        return starts[part], starts[part + 1]
