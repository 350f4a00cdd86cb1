"""The bytes of a log as lines, however they are cut into chunks.

As in `gpuq logs -n`, a bar that overwrites itself is one line, in its last state; so is one inside
another bar, which goes up and comes back by a newline between its states. What has no newline for
long is shown in pieces, so that no line is without end.
"""

from collections.abc import Callable
from typing import NamedTuple

from gpuq.follow import UP

LONGEST = 16 * 1024  # bytes of a line before it is shown in pieces


class LogLine(NamedTuple):
    """`end` is where it ends in the file, by which its time is found."""

    raw: bytes
    end: int


class Splitter:
    """`open` is the line that is not complete, as it stands."""

    def __init__(self) -> None:
        self._held = b""
        self._end = 0
        self._is_overwritten = False  # by what comes next, if anything does

    @property
    def open(self) -> LogLine | None:
        raw = self._held.removesuffix(UP)
        return LogLine(raw, self._end) if raw else None

    def feed(self, chunk: bytes, end: int) -> list[LogLine]:
        """The lines that are complete with this chunk, which ends at `end` of the file."""
        *complete, rest = chunk.split(b"\n")
        at = end - len(chunk)
        done: list[LogLine] = []
        for piece in complete:
            at += len(piece)
            self._take(piece, at, done.append)
            at += 1
            if self._held.endswith(UP):  # the newline only comes back to this line
                self._held = self._held.removesuffix(UP)
                continue
            done.append(LogLine(self._held, at))
            self._held = b""
        self._take(rest, end, done.append)
        self._end = end
        return done

    def _take(self, piece: bytes, end: int, put: Callable[[LogLine], None]) -> None:
        if b"\r" not in piece:
            self._write(piece, end, put)
            return
        at = end - len(piece)
        for number, state in enumerate(piece.split(b"\r")):
            if number:
                self._is_overwritten, at = True, at + 1
            at += len(state)
            self._write(state, at, put)

    def _write(self, text: bytes, end: int, put: Callable[[LogLine], None]) -> None:
        if not text:
            return
        held = text if self._is_overwritten else self._held + text
        self._is_overwritten = False
        start = 0
        while len(held) - start > LONGEST:
            cut = _before_a_sign(held, start + LONGEST)
            put(LogLine(held[start:cut], end - len(held) + cut))
            start = cut
        self._held = held[start:] if start else held


def _before_a_sign(text: bytes, cut: int) -> int:
    """At most three bytes earlier, where one in UTF-8 would be cut through."""
    for back in range(4):
        if text[cut - back] & 0xC0 != 0x80:
            return cut - back
    return cut
