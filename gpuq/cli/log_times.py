"""The lines of a log as `logs -t`, `--since` and `-n` show them: with their times, each bar as one.

The times come from the index that is kept beside a log while it is written (its format stands at
the head of `gpuq.daemon.attempt.joblog`). A line's time is the one by which it was complete: that
of the first entry that does not end before it. What was there before the first entry bears the
start of the attempt, what came after the last one the time at which the log was last written to.
"""

import errno
import os
import re
import stat
from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

from gpuq.cli import console
from gpuq.cli.render import Job, clock, cut
from gpuq.errors import GpuqError
from gpuq.follow import UP, LogFile, rights_of_owner

LONGEST_LINE = 2**20  # that is kept until it is complete
CLEAR = b"\r\x1b[K"
_ENTRY = re.compile(rb"(\d{1,11}\.\d{3}) (\d{1,18})")


class Part(NamedTuple):
    """What of a log is wanted, and how; `columns` of a terminal, on which bars may move."""

    lines: int | None = None
    since: float | None = None
    times: bool = False
    columns: int = 0


class Page:
    """A log as it is to be shown: its bytes as they are, or its lines where lines are asked for."""

    def __init__(self, job: Job, part: Part) -> None:
        self._job = job
        self._part = part
        self._lines: Lines | None = None
        if part.times or part.lines is not None:
            self._lines = Lines(self._stamp if part.times else None)
        self._attempt = 0
        self._index: Index | None = None
        self._lacks_index = False
        self._position = 0
        self._written_at = 0.0

    def close(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None

    def turn_to(self, attempt: Job) -> None:
        """What comes now is of this attempt."""
        if self._attempt != attempt["attempt"]:
            self.close()
            self._attempt = attempt["attempt"]
            self._lacks_index = False
            self._position = 0
        wants_index = self._part.times or self._part.since is not None
        if not wants_index or self._index is not None or self._lacks_index:
            return
        try:
            with rights_of_owner(self._job):
                self._index = Index(attempt)
        except FileNotFoundError:
            if attempt["started_at"] is not None:  # else it is still to come
                self._do_without_index()

    def _do_without_index(self) -> None:
        self._lacks_index = True
        number = self._job["id"]
        if self._part.since is not None:
            raise GpuqError(
                f"job {number} has no index of its log, which --since goes by. "
                f"All of it: gpuq logs {number}"
            )
        console.note(f"job {number} has no index of its log: no times")

    def start(self, log: LogFile) -> int:
        """Where the part begins."""
        position, since = 0, self._part.since
        self._part = self._part._replace(since=None)
        if since is not None and self._index is not None:
            position = self._index.start_since(since, log)
        elif since is not None:  # it has not started, so nothing that is there is its own
            position = log.start_of_last_lines(0)
        if self._part.lines is not None:
            position = max(position, log.start_of_last_lines(self._part.lines))
        return position

    def show(self, chunk: bytes, log: LogFile | None) -> bytes:
        """What to write for that chunk; an empty one says that nothing came for a while."""
        if self._lines is None:
            return chunk
        if chunk and log is not None:
            self._written_at = log.written_at()
            if log.position < self._position and self._index is not None:
                self._index.forget(self._written_at)
            self._position = log.position
            return self._lines.feed(chunk, self._position)
        if self._part.times:
            return self._lines.draw(self._position, self._part.columns)
        shown, self._lines = self.rest(), None  # what comes from now on may move as it likes
        return shown

    def rest(self) -> bytes:
        return b"" if self._lines is None else self._lines.rest(self._position)

    def end_line(self) -> bytes:
        """For what another attempt writes not to go on with it."""
        return b"" if self._lines is None else self._lines.end_line(self._position)

    def _stamp(self, end: int) -> str:
        if self._index is None:
            return ""
        return f"{clock(self._index.time_of(end, self._written_at))} "


class Index:
    """When a log had which length. Raises FileNotFoundError where none was kept."""

    def __init__(self, attempt: Job) -> None:
        folder = os.path.dirname(attempt["output_dir"] or "")
        if not folder:
            raise FileNotFoundError
        self._fd = _open_file(os.path.join(folder, "log.index"))
        self._began_at: float | None = attempt["started_at"]
        self._times: list[float] = []
        self._ends: list[int] = []
        self._cut = b""

    def close(self) -> None:
        os.close(self._fd)

    def time_of(self, end: int, written_at: float) -> float:
        """By when the line was complete that ends there, in a log last written to at that time."""
        if not self._ends or end > self._ends[-1]:
            self.read_on()
        return self.known_time_of(end, written_at)

    def known_time_of(self, end: int, written_at: float) -> float:
        """The same, as far as the index was read on so far; for another thread than reads it on."""
        times, ends = self._times, self._ends
        place = bisect_left(ends, end)
        if place >= min(len(ends), len(times)):
            return written_at
        if place == 0 and self._began_at is not None:
            return self._began_at
        return times[place]

    def start_since(self, since: float, log: LogFile) -> int:
        """Where the first line begins whose time is not before `since`."""
        self.read_on()
        entries = zip(self._times, self._ends, strict=True)
        before = max((end for time, end in entries if time < since), default=0)
        if self._ends[-1:] in ([], [before]) and log.written_at() < since:
            return log.start_of_last_lines(0)
        return log.start_of_line(before)

    def forget(self, now: float) -> None:
        """The log was truncated, which the index tells only later."""
        self._times, self._ends = [now], [0]

    def read_on(self) -> None:
        while data := os.read(self._fd, 2**20):
            *entries, self._cut = (self._cut + data).split(b"\n")
            for match in map(_ENTRY.fullmatch, entries):
                if match is not None:
                    self._add(float(match[1]), int(match[2]))

    def _add(self, time: float, end: int) -> None:
        if self._ends and end < self._ends[-1]:
            self.forget(time)
        self._times.append(time)
        self._ends.append(end)


def _open_file(path: str) -> int:
    """FileNotFoundError where something else lies there: it is the job's to put there what it likes."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise FileNotFoundError(path) if error.errno == errno.ELOOP else error from None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise FileNotFoundError(path)


class Lines:
    """Makes whole lines of a log's chunks; `stamp` gives what stands before the one that ends there.

    A bar is one line, which overwrites itself after each carriage return: its last state is shown. So
    is one inside another bar, which goes up and comes back by a newline between its states.
    """

    def __init__(self, stamp: Callable[[int], str] | None = None) -> None:
        self._stamp = stamp
        self._held = self._drawn = b""
        self._is_bar = False
        self._is_begun = False  # what is held goes on with a line that was shown

    def feed(self, chunk: bytes, position: int) -> bytes:
        """The lines that are complete with this chunk, which ends at `position` of the log."""
        *complete, rest = chunk.split(b"\n")
        end = position - len(chunk)
        shown = []
        for piece in complete:
            end += len(piece) + 1
            if (self._held + piece).endswith(UP):  # the newline only comes back to this line
                self._held, self._is_bar = last_state(self._held + piece).removesuffix(UP), True
                continue
            shown.append(self._show(self._held + piece + b"\n", end))
            self._held, self._is_bar, self._is_begun = b"", False, False
        self._is_bar = self._is_bar or b"\r" in rest
        self._held = last_state(self._held + rest)
        if len(self._held) > LONGEST_LINE:
            shown.append(self.rest(position))
        return b"".join(shown)

    def rest(self, position: int) -> bytes:
        """What is there of a line that is not complete."""
        if not self._held:
            return b""
        shown = self._show(self._held.removesuffix(UP), position)
        self._held, self._is_begun = b"", True
        return shown

    def end_line(self, position: int) -> bytes:
        shown = self.rest(position)
        if not self._is_begun:
            return b""
        self._is_bar = self._is_begun = False
        return shown + b"\n"

    def draw(self, position: int, columns: int) -> bytes:
        """For a terminal, a bar that still moves: over what was drawn of it before."""
        if not self._is_bar or self._is_begun or columns == 0 or self._held == self._drawn:
            return b""
        self._drawn = self._held
        state = self._held.removesuffix(UP).strip(b"\r").decode(errors="replace")
        return CLEAR + cut(self._before(position) + state, columns - 1).encode()

    def _show(self, line: bytes, end: int) -> bytes:
        over, self._drawn = CLEAR if self._drawn else b"", b""
        return over + self._before(end).encode() + last_state(line)

    def _before(self, end: int) -> str:
        return "" if self._stamp is None or self._is_begun else self._stamp(end)


def last_state(line: bytes) -> bytes:
    """What stands behind the last carriage return that has something behind it."""
    return line[line.rstrip(b"\r\n").rfind(b"\r") + 1 :]
