"""Lines of text in rows of a terminal: how many a line takes, and which row is of which line."""

from bisect import bisect_right
from collections.abc import Callable

from gpuq.cli.render import width
from gpuq.tui.data.log.window import Moved


def breaks(text: str, room: int) -> list[int]:
    """Where in it the rows begin that it takes when no row is wider than `room` cells; at least one."""
    if room < 1 or len(text) <= room // 2:
        return [0]
    if text.isascii():
        return list(range(0, len(text), room)) or [0]
    starts, used = [0], 0
    for at, sign in enumerate(text):
        wide = width(sign)
        if used + wide > room and used:
            starts.append(at)
            used = 0
        used += wide
    return starts


class Rows:
    """Of lines that are each so many rows as `count` says."""

    def __init__(self, count: Callable[[int], int]) -> None:
        self._count = count
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
            end += self._count(number)
            self._ends.append(end)

    def first_of(self, line: int) -> int:
        return self._ends[line - 1] - self._before if 0 < line <= len(self._ends) else 0

    def at(self, row: int) -> tuple[int, int]:
        """The line that this row is of, and the how many-th of its rows it is, from 0 on."""
        line = bisect_right(self._ends, row + self._before)
        return line, row - self.first_of(line)
