"""The log of one attempt while it is written: when its lines came, and how large it may grow.

A job writes into its log by itself, with no pipe in between, so that nothing here can slow it down
or break it. This room looks at the file about once a second, and does two things:

It keeps the index, `log.index`: a line of text "TIME OFFSET" says that at TIME (s since the epoch,
with milliseconds) the log was OFFSET bytes long. So what stands before OFFSET had been written by
then, and what stands behind it came later. The first line tells where the attempt's own part begins
in a file that is appended to. An OFFSET below that of the line before says that the log was
truncated, and that no earlier line is true any more. A line without its newline is none yet.

It keeps the log under its cap by giving its middle back to the disk: a quarter of the cap remains at
the head and at least half of it at the tail. There is one hole, which only grows; the file's size
and every offset stay as they are. A file that a user named is theirs and is never punched, and of a
file that is appended to only what this attempt wrote.

Used in the runner: standard library only, never waits, and no trouble with a disk is an exception.
"""

import errno
import os
import stat

from gpuq.daemon.linux import syscalls as linux

LOOK_S, SOONEST_S = 1.0, 0.1
NEVER_S = 3600.0  # between two looks at what is no file
SPACING_S = 0.9  # of the index, a little less than between two looks
MANY_ENTRIES = 100_000
FEWEST_BLOCKS = 16  # of a cap: with fewer, head, tail and what comes between two looks are no sizes
CRAMPED_BYTES = 16 * 2**20  # all that a log keeps where the disk is almost full
CRAMPED_PART = 20  # a disk with a 20th of it free is not almost full, however small it is


class JobLog:
    """Looks at a log through descriptors that were opened with the job's own rights: one to write,
    and one to read what it ends with, since its looker may be allowed to read more than the job.

    It keeps copies of the descriptors and the caller closes its own, so that a pipe has no writer
    but the job. `cap_bytes` is None for a file that is not gpuq's to punch. Below `keep_free_bytes`
    of free disk (or a 20th of a small one) a log that may be punched shrinks to 16 MiB, so that the
    queue itself can still be written.
    """

    def __init__(
        self,
        log_fd: int,
        index_fd: int | None,
        reader_fd: int | None = None,
        *,
        cap_bytes: int | None,
        keep_free_bytes: int,
    ) -> None:
        found = os.fstat(log_fd)
        is_file = stat.S_ISREG(found.st_mode)
        self.dropped_bytes = 0
        self._log = os.dup(log_fd) if is_file else None
        self._index = _copy_of_file(index_fd) if is_file else None
        self._reader = os.dup(reader_fd) if is_file and reader_fd is not None else None
        self._block = max(found.st_blksize, 4096)
        self._cap = None if cap_bytes is None else max(cap_bytes, FEWEST_BLOCKS * self._block)
        self._keep_free = keep_free_bytes
        self._can_punch = True
        self._begin = self._size = found.st_size
        self._hole = (0, 0)
        self._looked_at: float | None = None
        self._look_again_at = 0.0
        self._noted: int | None = None  # the offset that the index ends with
        self._noted_at = 0.0
        self._spacing_s = SPACING_S
        self._entries = 0

    @property
    def fd(self) -> int | None:
        """To write to its end; None where it is no file."""
        return self._log

    @property
    def is_capped(self) -> bool:
        return self._log is not None and self._cap is not None and self._can_punch

    def begin(self) -> None:
        """What has been written by now is not of this attempt."""
        if self._log is not None:
            self._begin = self._size = os.fstat(self._log).st_size

    def tick(self, now: float) -> float:
        """Looks at the log if it is time to; returns in how many seconds to call again."""
        left_s = self._look_again_at - now
        if 0 < left_s <= LOOK_S:  # more than that, and somebody has set the clock back
            return left_s
        wait_s = self._look(now)
        self._look_again_at = now + wait_s
        return wait_s

    def finish(self, now: float) -> None:
        """The last look, when nobody writes any more."""
        self._look(now, is_last=True)

    def tail(self, limit: int = 4096) -> bytes:
        """The last bytes that this attempt has written; none where they cannot be read."""
        if self._reader is None:
            return b""
        try:
            return self._read_tail(self._reader, limit)
        except OSError:
            return b""

    def close(self) -> None:
        for fd in (self._log, self._index, self._reader):
            if fd is not None:
                os.close(fd)
        self._log = self._index = self._reader = None

    # ── a look ──

    def _look(self, now: float, *, is_last: bool = False) -> float:
        if self._log is None:
            return NEVER_S
        try:
            size = os.fstat(self._log).st_size
            self._notice_truncation(size)
            self._note_time(now, size, at_once=is_last)
            room = self._make_room(self._log, size)
        except OSError:  # a disk in trouble must not become the job's trouble
            return LOOK_S
        wait_s = self._pace(now, size, room)
        self._looked_at, self._size = now, size
        return wait_s

    def _notice_truncation(self, size: int) -> None:
        if size < self._size:
            self._begin = self._begin if size >= self._begin else 0
            start, end = self._hole
            self._hole = (start, min(end, size)) if start < size else (0, 0)

    def _pace(self, now: float, size: int, room: float) -> float:
        """Soon enough to be back when half of the room is used up at the present pace."""
        if self._looked_at is None:
            return SOONEST_S  # its pace is not known yet
        growth, passed_s = size - self._size, now - self._looked_at
        if growth <= 0 or passed_s <= 0:
            return LOOK_S
        return min(max(room / 2 * passed_s / growth, SOONEST_S), LOOK_S)

    # ── the index ──

    def _note_time(self, now: float, size: int, *, at_once: bool) -> None:
        is_due = at_once or self._noted is None or abs(now - self._noted_at) >= self._spacing_s
        if self._noted is None:
            self._append_entry(now, self._begin)
        if is_due and size != self._noted:
            self._append_entry(now, size)

    def _append_entry(self, now: float, offset: int) -> None:
        if self._index is None:
            return
        line = f"{now:.3f} {offset}\n".encode()
        try:
            written = os.write(self._index, line)
            if written < len(line):  # a full disk took a part of it, which would spoil the next one
                os.ftruncate(self._index, os.fstat(self._index).st_size - written)
                return
        except OSError:  # a full disk: the next look tries again
            return
        self._noted, self._noted_at = offset, now
        self._entries += 1
        if self._entries % MANY_ENTRIES == 0:
            self._spacing_s *= 2

    # ── the cap ──

    def _make_room(self, log: int, size: int) -> float:
        """Returns how many bytes may come until it is time to make room again."""
        if self._cap is None or not self._can_punch:
            return float("inf")
        free, floor, cramped = self._disk(log)
        cap = self._cap if free >= floor else min(self._cap, cramped)
        if self._kept(size) > cap // 8 * 7:
            self._punch(log, size, cap)
        room = cap - self._kept(size)
        return max(min(room, free - floor) if free >= floor else room, 0)

    def _disk(self, log: int) -> tuple[int, int, int]:
        """What is free, what shall remain free, and what a log may keep where it does not."""
        disk = os.fstatvfs(log)
        part = disk.f_blocks * disk.f_frsize // CRAMPED_PART
        cramped = max(min(CRAMPED_BYTES, part), FEWEST_BLOCKS * self._block)
        return disk.f_bavail * disk.f_frsize, min(self._keep_free, part), cramped

    def _kept(self, size: int) -> int:
        return size - self._begin - (self._hole[1] - self._hole[0])

    def _punch(self, log: int, size: int, cap: int) -> None:
        """Whole blocks only: a block of which a part remains would be written, not given back."""
        first = -(-self._begin // self._block) * self._block
        start = max(first, self._whole_blocks(self._begin + cap // 4))
        end = self._whole_blocks(size - cap // 2)
        hole_start, hole_end = self._hole
        if hole_start < hole_end:
            start, end = min(start, hole_start), max(end, hole_end)
        dropped = (end - start) - (hole_end - hole_start)
        if end <= start or dropped <= 0:
            return
        try:
            linux.punch_hole(log, start, end - start)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            self._can_punch = False  # this file system cannot
            return
        self._hole = (start, end)
        self.dropped_bytes += dropped

    def _whole_blocks(self, offset: int) -> int:
        return offset // self._block * self._block

    # ── the tail ──

    def _read_tail(self, reader: int, limit: int) -> bytes:
        size = os.fstat(reader).st_size
        self._notice_truncation(size)
        start = max(self._begin, self._hole[1], size - limit)
        return os.pread(reader, size - start, start)


def _copy_of_file(fd: int | None) -> int | None:
    """None where it is no file: a pipe that nobody empties would keep its writer for ever."""
    if fd is None or not stat.S_ISREG(os.fstat(fd).st_mode):
        return None
    return os.dup(fd)
