"""How far a job has come, by a progress bar in its log: of tqdm, or of what draws as that does.

The runner looks at what was written since its last look and leaves what it found in a small file
beside the record, for whichever daemon comes. Standard library only.
"""

import os
import stat
from collections.abc import Iterable

PROGRESS = "progress"  # the file
LOOK_S = 1.0
MOST_BYTES = 64 * 1024  # looked at of a log at a time
LONGEST_BAR = 1024  # bytes: one that was written in two parts is seen whole by the second look
UP = b"\x1b[A"


class BarWatch:
    """`readers` are descriptors of the logs, -1: there is none. It keeps copies of them."""

    def __init__(self, readers: Iterable[int], attempt_dir: str) -> None:
        self._logs = [_Log(os.dup(reader)) for reader in readers if reader >= 0]
        self._attempt_dir = attempt_dir
        self._file = -1
        self._noted: float | None = None
        self._next_at = 0.0

    def look(self, now: float) -> None:
        """Once a second at the most; `now` on CLOCK_MONOTONIC."""
        if now >= self._next_at:
            self._next_at = now + LOOK_S
            self.look_at_once()

    def look_at_once(self) -> None:
        found = [fraction for log in self._logs if (fraction := log.look()) is not None]
        if found and found[0] != self._noted:
            self._note(found[0])

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

    def look(self) -> float | None:
        """What a bar in what is new says; None where there is none."""
        size = _size(self.reader)
        if size < self._seen:  # somebody has emptied it
            self._begin = self._seen = 0
        if size == self._seen:
            return None
        start = max(self._seen - LONGEST_BAR, size - MOST_BYTES, self._begin)
        self._seen = size
        try:
            return find_progress(os.pread(self.reader, size - start, start))
        except OSError:
            return None


def _size(reader: int) -> int:
    found = os.fstat(reader)
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def find_progress(written: bytes) -> float | None:
    """The last bar that says how much there is in all, from 0 to 1. Of bars within each other only the
    outermost counts: the others are drawn on lines below it, from which tqdm goes up again."""
    if b"%|" not in written:
        return None
    for piece in reversed(written.replace(b"\r", b"\n").split(b"\n")):
        if not piece.endswith(UP) and (fraction := _fraction(piece)) is not None:
            return fraction
    return None


def _fraction(piece: bytes) -> float | None:
    """Of " 61%|██████    | 120/196 [03:31<02:13, 1.75s/it]", whatever stands before it."""
    before, _, behind = piece.partition(b"%|")
    _, _, behind = behind.partition(b"|")
    counts, bracket, _ = behind.strip().partition(b" [")
    done, slash, total = counts.partition(b"/")
    percent = before[-3:].rsplit(b" ")[-1].rsplit(b":")[-1]
    if not (bracket and slash and percent.isdigit() and int(percent) <= 100):
        return None
    if done.isdigit() and total.isdigit() and 0 <= int(done) <= int(total) and int(total):
        return int(done) / int(total)
    return int(percent) / 100  # "1.20M/4.00M"


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
