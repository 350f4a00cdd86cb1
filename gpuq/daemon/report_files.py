"""A job's report, read by the daemon. The file and the folders above it are the job's: it may put
anything in their place, or write it anew, while it is read.

So each step goes by a descriptor of the step before and follows no link; what belongs to somebody else
is not read, nor what is no file, nor what another user has mounted over it, which could keep a reader
waiting for ever. What is read at a time is bounded.
"""

import errno
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from gpuq.core.results.reported import Told, complain, few_lines, read_on, skip, with_bar
from gpuq.daemon.attempt.progress import PROGRESS, last_progress
from gpuq.daemon.store.reported import Reporter

REPORT = "report"
MOST_UNREAD = 32 * 2**20  # bytes: of what stands unread beyond that, only the end is looked at
MOST_AT_END = 16 * 2**20  # the same once its end has been heard, which waits for it
KNOWN_BY = 64  # bytes before the point that was read to
THE_JOBS_DOING = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP)
PATH_ONLY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class _NotForUs(Exception):
    """What is there is not read, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was told by then, and how much stands there still."""

    told: Told
    unread_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the files of one attempt are. `owner` is the uid that its job runs as."""

    jobs_dir: str
    attempt_dir: str
    reporter: Reporter
    owner: int

    def measure(self) -> object:
        """Something that is another once there may be more to read."""
        try:
            bar = os.stat(f"{self.attempt_dir}/{PROGRESS}", follow_symlinks=False).st_mtime_ns
        except OSError:
            bar = None
        try:
            with self._report() as report:
                found = os.fstat(report)
        except (OSError, _NotForUs) as error:
            return bar, str(error)
        return bar, found.st_ino, found.st_size, found.st_mtime_ns

    def last_part(self, told: Told) -> tuple[Told, int]:
        """As its end is heard: where what is left to read begins, and the byte where it ends. Whoever
        owns the file may write on, but nothing of the job itself can."""
        try:
            with self._opened() as file:
                size = os.fstat(file).st_size
                if not _is_as_read(file, size, told):
                    told = replace(told, read_bytes=0)  # numbered lines are known again
        except (OSError, _NotForUs) as error:
            told = _complaint(told, error)
            return told, told.read_bytes
        if size - told.read_bytes > MOST_AT_END:
            told = skip(told, size - MOST_AT_END)
        return told, size

    def look(
        self,
        told: Told,
        most_bytes: int,
        *,
        now: float,
        until: int | None = None,
        is_last: bool = False,
    ) -> Look:
        """Reads on from where `told` ends, at most so many bytes. `until`: the byte where its last part
        ends; behind that nothing is read, and of a file that is written anew by then nothing more. With
        `is_last` nothing is left: what is more than so many bytes is skipped but for its end. `now`: s
        since the epoch."""
        told = with_bar(told, last_progress(self.attempt_dir))
        if until is not None and told.read_bytes >= until:
            return Look(told=told)
        try:
            with self._opened() as file:
                return self._read(file, told, most_bytes, now, until, is_last)
        except (OSError, _NotForUs) as error:
            return Look(told=_complaint(told, error))

    def _read(
        self, file: int, told: Told, most_bytes: int, now: float, until: int | None, is_last: bool
    ) -> Look:
        size = os.fstat(file).st_size
        if not _is_as_read(file, size, told):
            if until is not None:
                return Look(told=skip(told, until))
            told = replace(told, read_bytes=0)
        size = size if until is None else min(size, until)
        most_unread = most_bytes if is_last else MOST_UNREAD
        if size - told.read_bytes > most_unread:
            told = skip(told, size - most_unread)
        begin = told.read_bytes
        data = few_lines(os.pread(file, min(most_bytes, size - begin), begin))
        if not data:
            return Look(told=told)
        inside = begin > 0 and os.pread(file, 1, begin - 1) != b"\n"
        told = read_on(
            told,
            data,
            inside=inside,
            is_last=is_last and begin + len(data) >= size,
            now=now,
            earliest=self.reporter.began_at,
        )
        told = replace(told, file=_known_by(file, told.read_bytes))
        has_more = begin + len(data) < size
        return Look(told=told, unread_bytes=size - told.read_bytes if has_more else 0)

    # ── one step after another ──

    @contextmanager
    def _opened(self) -> Iterator[int]:
        with self._report() as report:
            # NONBLOCK: not to wait for who has a lease on it.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            file = os.open(f"/proc/self/fd/{report}", flags)
            try:
                yield file
            finally:
                os.close(file)

    @contextmanager
    def _report(self) -> Iterator[int]:
        """Its file and nothing else, not yet open for reading."""
        one = self.reporter
        fds = [os.open(self.jobs_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
        try:
            for name, kind in (
                (str(one.job), os.O_DIRECTORY),
                (str(one.attempt), os.O_DIRECTORY),
                (REPORT, 0),
            ):
                fds.append(os.open(name, PATH_ONLY | kind, dir_fd=fds[-1]))
                self._check_mount(*fds[-2:])
            self._check_file(fds[-1])
            yield fds[-1]
        finally:
            for fd in fds:
                os.close(fd)

    def _check_mount(self, above: int, fd: int) -> None:
        """Who can mount something there is the owner, who would keep nobody waiting but themselves
        where that is us."""
        if self.owner != os.geteuid() and _mount_of(fd) != _mount_of(above):
            raise _NotForUs("something is mounted over it")

    def _check_file(self, fd: int) -> None:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise _NotForUs("it is no file")
        if found.st_uid != self.owner:
            raise _NotForUs(f"it belongs to uid {found.st_uid}")


def _complaint(told: Told, error: OSError | _NotForUs) -> Told:
    """What the job did to its file is named; that it has none yet, or the disk fails, is not."""
    if isinstance(error, OSError) and error.errno not in THE_JOBS_DOING:
        return told
    why = error.strerror if isinstance(error, OSError) else error
    return complain(told, f"its report cannot be read: {why}")


def _mount_of(fd: int) -> str:
    """Without a question to what is mounted. See proc_pid_fdinfo(5)."""
    with open(f"/proc/self/fdinfo/{fd}") as info:
        return next(line for line in info if line.startswith("mnt_id:"))


def _is_as_read(file: int, size: int, told: Told) -> bool:
    """Is what has been read still there, and only more behind it? An inode alone does not tell: that of
    a file that was removed is soon given to another."""
    if not told.read_bytes or size < told.read_bytes:
        return not told.read_bytes
    # It is not known by anything where it was emptied as its end was about to be looked at.
    return told.file is None or _known_by(file, told.read_bytes) == told.file


def _known_by(file: int, read_bytes: int) -> str:
    start = max(read_bytes - KNOWN_BY, 0)
    last = os.pread(file, read_bytes - start, start)
    return f"{os.fstat(file).st_ino}:{zlib.crc32(last):08x}"
