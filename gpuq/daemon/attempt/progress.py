"""How far a job has come, by a progress bar in its log: of tqdm, or of what draws as that does.

The runner looks at what was written since its last look and leaves what it found in a small file
beside the record, for whichever daemon comes. Standard library only.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PROGRESS = "progress"  # the file
LOOK_S = 1.0
MOST_BYTES = 64 * 1024  # looked at of a log at a time
LONGEST_BAR = 1024  # bytes: one that was written in two parts is seen whole by the second look
MOST_DIGITS = 15  # of a number that a float holds, and that Python turns into one at all
UP = b"\x1b[A"


class BarWatch:
    """`readers` are descriptors of the logs, -1: there is none. It keeps copies of them."""

    def __init__(
        self, readers: Iterable[int], attempt_dir: str, *, every_s: float = LOOK_S
    ) -> None:
        self._logs = [_Log(os.dup(reader)) for reader in readers if reader >= 0]
        self._attempt_dir = attempt_dir
        self._file = -1
        self._noted: float | None = None
        self._every_s = every_s
        self._next_at = 0.0

    @property
    def has_noted(self) -> bool:
        return self._noted is not None

    def begin(self) -> None:
        """What has been written by now is not the job's."""
        for log in self._logs:
            log.begin()

    def look(self, now: float) -> bool:
        """So often as was said at the most; `now` on CLOCK_MONOTONIC. True where a bar has moved."""
        if now < self._next_at:
            return False
        self._next_at = now + self._every_s
        return self.look_at_once()

    def look_at_once(self) -> bool:
        """What a job writes into its log is anything, and a bar is an ornament: nothing that is found
        there may end the runner, and the job with it."""
        try:
            return self._look()
        except Exception:
            return False

    def _look(self) -> bool:
        have_moved = [log.look() for log in self._logs]
        found = [log.bars.outer for log in self._logs if log.bars.outer is not None]
        if found and found[0].fraction != self._noted:
            self._note(found[0].fraction)
        return any(have_moved)

    def close(self) -> None:
        for log in self._logs:
            os.close(log.reader)
        if self._file >= 0:
            os.close(self._file)
        self._logs, self._file = [], -1

    def _note(self, fraction: float) -> None:
        """Of one length always, so that a reader never finds a half of it."""
        try:
            if self._file < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                self._file = os.open(os.path.join(self._attempt_dir, PROGRESS), flags, 0o600)
            os.pwrite(self._file, f"{fraction:.6f}\n".encode(), 0)
        except OSError:  # a disk in trouble must not become the job's trouble
            return
        self._noted = fraction


class _Log:
    """What a job writes, from where its own part begins."""

    def __init__(self, reader: int) -> None:
        self.reader = reader
        self._begin = self._seen = _size(reader)
        self.bars = Bars(outer=None, latest=None)  # that were seen last

    def begin(self) -> None:
        self._begin = self._seen = _size(self.reader)

    def look(self) -> bool:
        """True where a bar in what is new stands elsewhere than it was seen last."""
        size = _size(self.reader)
        if size < self._seen:  # somebody has emptied it
            self._begin = self._seen = 0
        if size == self._seen:
            return False
        start = max(self._seen - LONGEST_BAR, size - MOST_BYTES, self._begin)
        self._seen = size
        try:
            found = find_bars(os.pread(self.reader, size - start, start))
        except OSError:
            return False
        before = self.bars
        self.bars = Bars(found.outer or before.outer, found.latest or before.latest)
        return self.bars != before


def _size(reader: int) -> int:
    found = os.fstat(reader)
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


class _Value:
    """Two with the same content are the same. A NamedTuple would bring `typing` into each runner."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))


class Bar(_Value):
    """How far one is: from 0 to 1, and in the words of the bar, as "120/196"."""

    def __init__(self, fraction: float, counts: bytes) -> None:
        self.fraction = fraction
        self.counts = counts


class Bars(_Value):
    """Of bars within each other only the outermost says how far all of it is: the others are drawn on
    lines below it, from which tqdm goes up again. `latest` is the one that was drawn last."""

    def __init__(self, outer: Bar | None, latest: Bar | None) -> None:
        self.outer = outer
        self.latest = latest


def find_bars(written: bytes) -> Bars:
    """The last ones that say how much there is in all."""
    latest = None
    if b"%|" in written:
        for piece in reversed(written.replace(b"\r", b"\n").split(b"\n")):
            bar = _bar(piece)
            latest = latest or bar
            if bar is not None and not piece.endswith(UP):
                return Bars(outer=bar, latest=latest)
    return Bars(outer=None, latest=latest)


def _bar(piece: bytes) -> Bar | None:
    """Of " 61%|██████    | 120/196 [03:31<02:13, 1.75s/it]", whatever stands before it."""
    before, _, behind = piece.partition(b"%|")
    _, _, behind = behind.partition(b"|")
    counts, bracket, _ = behind.strip().partition(b" [")
    done, slash, total = counts.partition(b"/")
    percent = before[-3:].rsplit(b" ")[-1].rsplit(b":")[-1]
    if not (bracket and slash and percent.isdigit() and int(percent) <= 100):
        return None
    if _is_number(done) and _is_number(total) and 0 <= int(done) <= int(total) and int(total):
        return Bar(int(done) / int(total), counts)
    return Bar(int(percent) / 100, counts)  # "1.20M/4.00M"


def _is_number(word: bytes) -> bool:
    return word.isdigit() and len(word) <= MOST_DIGITS


def last_progress(attempt_dir: str) -> float | None:
    """What was left there; None where there is none, or no sense in it."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        file = os.open(os.path.join(attempt_dir, PROGRESS), flags)
    except OSError:
        return None
    try:
        fraction = float(os.read(file, 32).partition(b"\n")[0])
    except (OSError, ValueError):
        return None
    finally:
        os.close(file)
    return fraction if 0 <= fraction <= 1 else None
