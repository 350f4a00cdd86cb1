"""The part of a log that is held: a stretch of the file without gaps, as lines, of bounded size.

It grows at its end while the log is followed, and at its beginning when somebody scrolls up there;
what is beyond the bounds is let go at the other side, and read again when it is wanted.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gpuq.tui.data.log.lines import LogLine, Splitter

MOST_LINES = 20_000
MOST_BYTES = 8 * 2**20
COST = 64  # bytes that a line takes beside its text, at the least

Chunk = tuple[bytes, int]  # and where it ends in the file


class Moved(NamedTuple):
    """What became of the lines: so many were let go at the head, or put before it, from the line of
    that number on they are otherwise than before, and there are `lines`; all as they stand now."""

    dropped: int
    added: int
    since: int
    lines: int


class LogWindow:
    """`begin` and `end` are offsets in the file: what is read behind `end` can be appended, and what
    lies before `begin` be put before it."""

    def __init__(self, most_lines: int = MOST_LINES, most_bytes: int = MOST_BYTES) -> None:
        self._most_lines = most_lines
        self._most_bytes = most_bytes
        self.restart(0)

    def restart(self, begin: int) -> None:
        """Holds nothing, and begins there."""
        self.begin = self.end = begin
        self._lines: list[LogLine] = []
        self._size = 0
        self._splitter = Splitter()

    def __len__(self) -> int:
        return len(self._lines) + (self._splitter.open is not None)

    def __getitem__(self, number: int) -> LogLine:
        if number < len(self._lines):
            return self._lines[number]
        line = self._splitter.open
        if line is None or number > len(self._lines):
            raise IndexError(number)
        return line

    def start_of(self, line: int) -> int:
        """Where in the file it begins."""
        return self[line - 1].end if line else self.begin

    def line_at(self, offset: int) -> int:
        """Which one the byte there is a part of; the last where there is none."""
        last = max(len(self) - 1, 0)
        return min(bisect_right(self._lines, offset, key=lambda line: line.end), last)

    @property
    def is_full(self) -> bool:
        """So that another block could push out what somebody reads."""
        return (
            len(self._lines) * 4 >= self._most_lines * 3 or self._size * 4 >= self._most_bytes * 3
        )

    def append(self, chunks: Iterable[Chunk]) -> Moved:
        since = len(self._lines)
        for chunk, end in chunks:
            done = self._splitter.feed(chunk, end)
            self._lines += done
            self._size += _size(done)
            self.end = end
        dropped = self._too_many(self._lines)
        if dropped:
            self.begin = self._lines[dropped - 1].end
            self._size -= _size(self._lines[:dropped])
            del self._lines[:dropped]
        return Moved(dropped, 0, max(since - dropped, 0), len(self))

    def prepend(self, chunks: Iterable[Chunk], begin: int) -> Moved:
        """What lies before it, from `begin` on."""
        splitter, older = Splitter(), []
        for chunk, end in chunks:
            older += splitter.feed(chunk, end)
        if splitter.open is not None:  # it is cut through a line that is very long
            older.append(splitter.open)
        self._lines[:0] = older
        self._size += _size(older)
        self.begin = begin
        self._let_go_at_the_end()
        return Moved(0, min(len(older), len(self)), len(self), len(self))

    def _let_go_at_the_end(self) -> None:
        kept = len(self._lines) - self._too_many(self._lines[::-1])
        if kept == len(self._lines):
            return
        self._size -= _size(self._lines[kept:])
        del self._lines[kept:]
        self.end = self._lines[-1].end
        self._splitter = Splitter()

    def _too_many(self, lines: Sequence[LogLine]) -> int:
        """How many of the first of these are beyond the bounds; the last one stays."""
        number, size = 0, self._size
        while number < len(lines) - 1 and (
            len(lines) - number > self._most_lines or size > self._most_bytes
        ):
            size -= COST + len(lines[number].raw)
            number += 1
        return number


def _size(lines: Iterable[LogLine]) -> int:
    return sum(COST + len(line.raw) for line in lines)
