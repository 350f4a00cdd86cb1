"""Following a log: reading it as it grows, attempt after attempt, until its job has ended.

gpuq keeps its own logs under a limit by giving their middle back to the disk, while they are written
and while they are read. Such a hole is told in one line and passed over: gigabytes of zeros that
nobody wrote are nobody's log.
"""

import os
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from gpuq.errors import GpuqError, NothingMatched, NotPermitted

UP = b"\x1b[A"  # to a terminal: one line up
CHUNK = 256 * 1024
QUIET_S = 0.1  # between two looks at the file
LOOKS = 5  # at the file for one at the job, which may have begun another attempt
QUEUED_S = 0.5

Job = dict[str, Any]


class Follow:
    """Iterates over the log of a job as it grows.

    `job` is the job as it was last seen, in the end as it ended; `attempt` is what is known of the
    attempt that is read (`log`, `output_dir`, `started_at`), and `log` its file once that is open. It
    begins with the last attempt, or the first (`from_first`), and goes on with those that come; where
    an `attempt` is given it reads only that one. `start` says where to begin in the first log, `tail`
    how many lines before its end; `say` hears what is no part of any log.

    The file is looked at ten times a second, with the reader's own rights: no inotify, so it works
    on any file system. Between two looks the daemon is asked whether the job has ended.
    """

    def __init__(
        self,
        call: Callable[..., Job],
        ref: int | str,
        *,
        attempt: int | None = None,
        from_first: bool = False,
        tail: int | None = None,
        start: "Callable[[LogFile], int] | None" = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._call = call
        self._only = attempt
        self._tail = tail
        self._start = start
        self._say = say or (lambda line: None)
        self.job: Job = self._call("show", ref=str(ref))["job"]
        self.log: LogFile | None = None
        self.attempt: Job = self.job
        last = 1 if from_first else max(self.job["attempt"], 1)
        self._first = self._told = last if attempt is None else attempt

    def __iter__(self) -> Iterator[bytes]:
        """Chunks until the job has ended; an empty one says that nothing came for a while."""
        number = self._first
        try:
            while (yield from self._has_begun(number)):
                self._turn_to(number)
                yield from self._pour(number)
                if self._is_over(number):
                    if self._only is not None:
                        return
                    self._tail = self._start = None
                    number += 1
        finally:
            self._close()

    def _has_begun(self, number: int) -> Generator[bytes, None, bool]:
        """Waits for that attempt; no if the job has ended without it."""
        while self.job["attempt"] < number:
            is_queued = self.job["state"] == "queued"
            if not is_queued and self._only is not None:
                raise NothingMatched(f"job {self.job['id']} has no attempt {number}")
            if self.job["state"] == "ended":
                return False
            yield b""
            self._call("wait", refs=[str(self.job["id"])], timeout_s=QUEUED_S, started=True)
            self._look()
        return True

    def _turn_to(self, number: int) -> None:
        if number != self._told:
            self._told = number
            self._say(f"attempt {number} of job {self.job['id']} begins")
        if self.log is not None and not self.log.is_at(self._view(number)["log"]):
            self._close()  # else all attempts write into one file, which is read on

    def _view(self, number: int) -> Job:
        views: list[Job] = [one for one in self.job["attempts"] if one["attempt"] == number]
        if not views and number != self.job["attempt"]:
            raise NothingMatched(f"job {self.job['id']} has no attempt {number}")
        return views[0] if views else self.job

    def _pour(self, number: int) -> Iterator[bytes]:
        """Until the attempt is over, or was taken back before it ran: first the look at the job, then
        the bytes, so that the last ones are not missed."""
        looks = 0
        while self.job["attempt"] >= number:
            self.attempt = self._view(number)
            is_over = self._is_over(number)
            if self.log is not None or self._open():
                assert self.log is not None
                yield from self.log.read()
            if is_over:
                return
            yield b""
            looks += 1
            answer = self._call("wait", refs=[str(self.job["id"])], timeout_s=QUIET_S)
            if not answer["timed_out"] or looks % LOOKS == 0:
                self._look()

    def _is_over(self, number: int) -> bool:
        if self.job["state"] in ("queued", "ended"):
            return bool(self.job["attempt"] >= number)
        return bool(self.job["attempt"] > number)

    def _look(self) -> None:
        self.job = self._call("show", ref=str(self.job["id"]))["job"]

    def _open(self) -> bool:
        if self.attempt["log"] is None:
            return False
        try:
            with rights_of_owner(self.job):
                fd = open_log(self.attempt["log"])
        except FileNotFoundError:
            return False
        self.log = LogFile(fd, is_ours=is_ours(self.job), say=self._say)
        if self._start is not None:
            self.log.position = self._start(self.log)
        elif self._tail is not None:
            self.log.position = self.log.start_of_last_lines(self._tail)
        return True

    def _close(self) -> None:
        if self.log is not None:
            self.log.close()
            self.log = None


def text_of(job: Job, attempt: int | None = None, lines: int | None = None) -> str:
    """What a job's log holds now, of its last attempt or of that one, with the reader's own rights;
    empty where nothing was written yet. NothingMatched: there was no such attempt; NotPermitted: it is
    another user's; GpuqError: it was removed for its age."""
    views = [job] if attempt is None else job["attempts"]
    found = next((one for one in views if attempt in (None, one["attempt"])), None)
    if found is None:
        raise NothingMatched(
            f"job {job['id']} has no attempt {attempt}. See: gpuq show {job['id']}"
        )
    if job["hidden"]:
        raise _not_yours(job)
    try:
        with rights_of_owner(job):
            log = LogFile(open_log(found["log"] or os.devnull), is_ours=is_ours(job))
    except PermissionError:
        raise _not_yours(job) from None
    except FileNotFoundError:
        if job["files_removed_at"] is None:
            return ""
        raise GpuqError(
            f"the log of job {job['id']} was removed. How long logs are kept: gpuq config (keep_for, "
            "keep_size)"
        ) from None
    try:
        log.position = 0 if lines is None else log.start_of_last_lines(lines)
        return b"".join(log.read()).decode("utf-8", "replace")
    finally:
        log.close()


def _not_yours(job: Job) -> NotPermitted:
    return NotPermitted(f"the log of job {job['id']} is readable to {job['user']} alone")


def is_ours(job: Job) -> bool:
    """Is the log one that gpuq keeps under its limit? A file that was asked for is the user's."""
    return job.get("output") is None


@contextmanager
def rights_of_owner(job: Job) -> Iterator[None]:
    """For root, who opens what a user may have put there: with that user's rights, so that a link
    which leads to a secret, or to a device that acts when it is opened, leads root nowhere. Only the
    calling thread has them. Others have their own rights anyway. FileNotFoundError where nobody knows
    who the owner is."""
    if 0 not in os.getresuid() or job["user"] == "root":
        yield
        return
    from gpuq.rights import Identity, acting_as  # not on anybody else's start-up path

    with acting_as(Identity(*_identity_of_owner(job))):
        yield


def _identity_of_owner(job: Job) -> tuple[int, int, list[int]]:
    import pwd  # not on anybody else's start-up path

    try:
        owner = pwd.getpwnam(job["user"])
    except KeyError:  # removed since: the job's folder, which root made, still says whose it was
        inside = job.get("output_dir") or job.get("log") or ""
        found = os.lstat(os.path.dirname(os.path.dirname(inside)))
        return found.st_uid, found.st_gid, []
    return owner.pw_uid, owner.pw_gid, os.getgrouplist(owner.pw_name, owner.pw_gid)


def open_log(path: str) -> int:
    """A descriptor of a log: a file, or the device that is always empty. A pipe would keep its reader
    waiting, and holds nothing of the past; another device may have no end."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) or os.path.samestat(found, os.stat(os.devnull)):
        return fd
    try:
        raise GpuqError(f"{path} is {_what(fd, found.st_mode)}")
    finally:
        os.close(fd)


def _what(fd: int, mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a pipe: what went through it cannot be read again"
    if stat.S_ISDIR(mode):
        return "a folder, and no log"
    if os.isatty(fd):
        return "a terminal: what went through it cannot be read again"
    return "a device, and no log: it may have no end"


class LogFile:
    """An open log, read from `position` to its end, as often as one likes.

    In a log that `is_ours` a hole is what was dropped; in another it is zeros like any others.
    """

    def __init__(self, fd: int, *, is_ours: bool, say: Callable[[str], None] | None = None) -> None:
        self.position = 0
        self._fd = fd
        self._is_ours = is_ours
        self._say = say or (lambda line: None)
        self._is_mid_line = False

    def close(self) -> None:
        os.close(self._fd)

    def is_at(self, path: str | None) -> bool:
        try:
            return path is not None and os.path.samestat(os.stat(path), os.fstat(self._fd))
        except OSError:
            return False

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def written_at(self) -> float:
        """When it was last written to (s since the epoch)."""
        return os.fstat(self._fd).st_mtime

    def read(self) -> Iterator[bytes]:
        if os.fstat(self._fd).st_size < self.position:
            self._say("the log was truncated: from its new beginning on")
            self.position = 0
        while chunk := os.pread(self._fd, CHUNK, self.position):
            # Only now: had it been looked for before, it could have come just before the read.
            if self._is_ours:
                chunk = chunk[: self._next_hole() - self.position]
            if chunk:
                self.position += len(chunk)
            elif not (chunk := self._pass_hole()):
                continue
            self._is_mid_line = not chunk.endswith(b"\n")
            yield chunk

    def _next_hole(self) -> int:
        try:
            return os.lseek(self._fd, self.position, os.SEEK_HOLE)
        except OSError:  # truncated since: what was read was still there
            return self.position + CHUNK

    def _pass_hole(self) -> bytes:
        try:
            data = os.lseek(self._fd, self.position, os.SEEK_DATA)
        except OSError:  # up to its end
            data = os.fstat(self._fd).st_size
        if data <= self.position:  # truncated since
            return b""
        size, self.position = data - self.position, data
        line = f"[gpuq: {_size(size)} of this log were dropped here to keep it under its limit]\n"
        return (b"\n" if self._is_mid_line else b"") + line.encode()

    # ── where lines begin ──

    def start_of_last_lines(self, lines: int, end: int | None = None) -> int:
        """Where the last `lines` lines before `end` (or the end) begin, found from there.

        A hole is one line, as it is when it is read, and ends the line that it cuts.
        """
        if end is None:
            end = os.lseek(self._fd, 0, os.SEEK_END)
        if lines <= 0:
            return end
        behind = end
        for start in self._line_starts(end):
            if start < behind:  # a newline at the very end opens no other line
                behind = start
                lines -= 1
            if lines == 0:
                return start
        return 0

    def start_of_line(self, offset: int) -> int:
        """Where the line begins of which the byte at `offset` is a part."""
        return next(self._line_starts(offset), 0)

    def start_of_block(self, size: int, end: int | None = None) -> int:
        """Where to begin for the last `size` bytes before `end` (or the end), holes not counted: at the
        beginning of a line, but for a line longer than that. Reads no more than that block."""
        if end is None:
            end = os.lseek(self._fd, 0, os.SEEK_END)
        for start, stop in reversed(self._parts(end)):
            if stop - start >= size:
                start = stop - size
                newline = os.pread(self._fd, size, start).find(b"\n") if start else -1
                return start + newline + 1 if start + newline + 1 < end else start
            size -= stop - start
        return 0

    def _line_starts(self, end: int) -> Iterator[int]:
        """Where lines begin up to `end`, from the last to the first."""
        behind = end
        for start, stop in reversed(self._parts(end)):
            if stop < behind:
                yield stop  # the line that tells of the hole
            position = stop
            while position > start:
                block_start = max(position - CHUNK, start)
                block = os.pread(self._fd, position - block_start, block_start)
                cut = len(block)
                while (cut := block.rfind(b"\n", 0, cut)) >= 0:
                    if not self._goes_up_before(block_start + cut, block, cut):
                        yield block_start + cut + 1
                position = block_start
            yield start
            behind = start
        yield 0  # where a hole is at its head

    def _goes_up_before(self, newline: int, block: bytes, cut: int) -> bool:
        """Is that newline undone by the step before it? A bar inside another one ends each state of it
        a line higher, and begins the next by coming back."""
        if cut >= len(UP):
            return block.endswith(UP, 0, cut)
        return newline >= len(UP) and os.pread(self._fd, len(UP), newline - len(UP)) == UP

    def _parts(self, end: int) -> list[tuple[int, int]]:
        """The parts of the file before `end` that are no holes."""
        if not self._is_ours:
            return [(0, end)]
        parts: list[tuple[int, int]] = []
        position = 0
        while position < end:
            try:
                start = os.lseek(self._fd, position, os.SEEK_DATA)
                position = os.lseek(self._fd, start, os.SEEK_HOLE)
            except OSError:  # a hole up to its end
                break
            if start < end:
                parts.append((start, min(position, end)))
        return parts


def _size(count: int) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count / 2**10:.1f} KiB"
