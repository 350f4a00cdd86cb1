"""A log, read in a thread: its end at once, then what comes, and older parts when they are asked for.

The file is looked at four times a second while somebody sees it, with the reader's own rights; the
daemon is asked only when the job is said to be otherwise. No more than a block is read at a time, and
no other one before that is shown: a log that grows faster than a terminal can show it is followed in
leaps, at its end.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpuq.cli.log_times import Index
from gpuq.cli.logs import check_yours, opened, path_of
from gpuq.cli.several import attempt_of
from gpuq.errors import DaemonUnreachable, GpuqError
from gpuq.follow import LogFile, is_ours, rights_of_owner
from gpuq.tui.data.log.text import painted
from gpuq.tui.data.log.window import Chunk, LogWindow
from gpuq.tui.data.understood import with_log

BLOCK = 512 * 1024
LEAP = 64 * 1024  # of what passes by faster than it is read
MOST_LINES = 5_000  # of a block that is put to what somebody reads
LOOK_S, LOOK_AFTER_END_S = 0.25, 2.0

Job = dict[str, Any]


class Which(NamedTuple):
    """Of which job, of which attempt (None: the last), and whether the file of its errors."""

    job: int
    attempt: int | None = None
    stderr: bool = False


class Block(NamedTuple):
    """A part of the log from `begin` on. `place`: "anew" takes the place of all that is shown, else it
    comes "before" or "behind" that."""

    place: str
    begin: int
    chunks: list[Chunk]

    @property
    def end(self) -> int:
        return self.chunks[-1][1] if self.chunks else self.begin


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """`job` as it was last asked for; `trouble` is why nothing more can be read just now; `written_at`
    is when the log was last written to (s since the epoch), `index` when it had which length, and
    `no_times` why nobody knows that."""

    job: Job | None
    path: str | None
    trouble: str | None
    size: int = 0
    written_at: float = 0.0
    index: Index | None = None
    no_times: str | None = None
    block: Block | None = None


class LogReader:
    """`show` asks the daemon for the job; `tell` hears the news, both in the reader's own thread. Who
    was told a block says that it is shown: `shown`. `known` is what was told of the job so far: while
    no daemon answers the log is read by that, `is_on_its_own`."""

    def __init__(
        self,
        which: Which,
        *,
        show: Callable[[int], Job],
        tell: Callable[[News], object],
        known: Job | None = None,
    ) -> None:
        self.which = which
        self._show = show
        self._tell = tell
        self._known = known
        self.is_on_its_own = False
        self._wake = threading.Event()
        self._is_over = False
        self._is_seen = True
        self._is_otherwise = True
        self._wants_times = False
        self._asked: tuple[str, int] | None = None
        self._is_shown = True
        self._follows = self._reads_on = True
        self._position: int | None = None  # None: nothing of this file was read
        self._job: Job | None = None
        self._log: LogFile | None = None
        self._path: str | None = None
        self._index: Index | None = None
        self._no_times: str | None = None
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    # ── from another thread ──

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._is_over = True
        self._wake.set()

    def set_seen(self, is_seen: bool) -> None:
        if self._is_seen != is_seen:
            self._is_seen = is_seen
            self._wake.set()

    def look_again(self) -> None:
        """The job is otherwise than it was."""
        self._is_otherwise = True
        self._wake.set()

    def want_times(self) -> None:
        self._wants_times = True
        self._wake.set()

    def ask(self, place: str, offset: int = 0) -> None:
        """For what lies "before" or "behind" that offset, or on both sides of it ("at"), for the "head"
        or the "tail"."""
        self._asked = (place, offset)
        self._wake.set()

    def shown(self, end: int, *, follows: bool, reads_on: bool) -> None:
        """All up to `end` is shown. `reads_on`: what comes is wanted; `follows`: without gaps only as
        far as one can follow."""
        self._position, self._follows, self._reads_on = end, follows, reads_on
        if not self._is_shown:
            self._is_shown = True
            self._wake.set()

    # ── its own thread ──

    def _run(self) -> None:
        try:
            while not self._is_over:
                self._wake.clear()
                if self._is_seen and self._is_shown:
                    self._turn()
                self._wake.wait(self._pause())
        finally:
            self._close()

    def _pause(self) -> float | None:
        if not self._is_seen or not self._is_shown:
            return None
        state = None if self._job is None else self._job["state"]
        if state == "queued" and self._log is None:
            return None
        return LOOK_AFTER_END_S if state == "ended" else LOOK_S

    def _turn(self) -> None:
        try:
            job = self._job_now()
            path = self._where(job)
            if self._log is None or not self._log.is_at(path):
                self._open(job, path)
            self._read_index(job)
            block = self._next_block()
        except GpuqError as error:
            self._say(error)
        except OSError as error:
            self._say(GpuqError(f"the log of job {self.which.job}: {error.strerror}"))
        else:
            if block is not None or self._trouble is not None:
                self._trouble = None
                self._send(block)

    def _job_now(self) -> Job:
        if self._is_otherwise or self._job is None:
            self._is_otherwise = False
            try:
                self._job, self.is_on_its_own = with_log(self._show(self.which.job)), False
            except DaemonUnreachable:
                self.is_on_its_own = True
                self._job = self._job or self._known
                if self._job is None:
                    raise
            self._send(None)
        return self._job

    def _where(self, job: Job) -> str:
        check_yours(job)
        return path_of(job, attempt_of(job, self.which.attempt), self.which.stderr)

    def _open(self, job: Job, path: str) -> None:
        fd = opened(job, path)
        self._close()
        self._path = path
        self._log = LogFile(fd, is_ours=is_ours(job) and not self.which.stderr)

    def _close(self) -> None:
        self._position = None
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._index is not None:
            self._index.close()
            self._index = None

    def _say(self, error: GpuqError) -> None:
        if str(error) != self._trouble:
            self._trouble = str(error)
            self._send(None)

    def _send(self, block: Block | None) -> None:
        self._is_shown = block is None
        log = self._log
        news = News(
            job=self._job,
            path=self._path,
            trouble=self._trouble,
            size=0 if log is None else log.size(),
            written_at=0.0 if log is None else log.written_at(),
            index=self._index,
            no_times=self._no_times,
            block=block,
        )
        self._tell(news)

    def _read_index(self, job: Job) -> None:
        if not self._wants_times or self._no_times is not None:
            return
        if self._index is not None:
            self._index.read_on()
            return
        try:
            if self.which.stderr:
                raise FileNotFoundError
            with rights_of_owner(job):
                self._index = Index(attempt_of(job, self.which.attempt))
            self._index.read_on()
        except FileNotFoundError:
            self._no_times = f"job {job['id']} has no index of its log: no times"
        self._send(None)

    # ── blocks ──

    def _next_block(self) -> Block | None:
        log, position = self._log, self._position
        assert log is not None
        size = log.size()
        asked, self._asked = self._asked, None
        if asked is not None and asked[0] == "at" and asked[1] <= size:
            return self._around(asked[1])
        if position is None or size < position or (asked and asked[0] == "tail"):
            return self._tail()
        if asked is not None and asked[0] != "at":
            return self._asked_for(*asked)
        if not self._reads_on or size == position:
            return None
        if self._follows and size - position > BLOCK:
            return self._tail(LEAP)
        return self._behind(position)

    def _asked_for(self, place: str, offset: int) -> Block | None:
        assert self._log is not None
        if place == "head":
            return self._behind(0)._replace(place="anew")
        if place == "behind":
            block = self._behind(offset)
            return block if block.chunks else None
        begin = self._log.start_of_block(BLOCK, offset)
        chunks = self._read(begin, offset)
        if sum(chunk.count(b"\n") for chunk, _ in chunks) > MOST_LINES:
            begin = self._log.start_of_last_lines(MOST_LINES, offset)
            chunks = self._read(begin, offset)
        return Block("before", begin, chunks)

    def _around(self, offset: int) -> Block:
        assert self._log is not None
        begin = max(
            self._log.start_of_last_lines(MOST_LINES // 2, offset),
            self._log.start_of_block(BLOCK // 2, offset),
        )
        return Block("anew", begin, list(_first_lines(self._read(begin, None))))

    def _tail(self, size: int = BLOCK) -> Block:
        assert self._log is not None
        end = self._log.size()
        begin = self._log.start_of_block(size, end)
        return Block("anew", begin, self._read(begin, end))

    def _behind(self, begin: int) -> Block:
        chunks = self._read(begin, None)
        return Block("behind", begin, chunks if self._follows else list(_first_lines(chunks)))

    def _read(self, begin: int, end: int | None) -> list[Chunk]:
        """Up to there, or a block."""
        log, chunks, left = self._log, [], BLOCK
        assert log is not None
        log.position = begin
        for chunk in log.read():
            at = log.position
            if end is not None and at > end:
                chunk, at = chunk[: max(len(chunk) - (at - end), 0)], end
            chunks.append((chunk, at))
            left -= len(chunk)
            if at == end or (end is None and left <= 0):
                break
        return chunks


def _first_lines(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """MOST_LINES of them at the most."""
    left = MOST_LINES
    for chunk, end in chunks:
        lines = chunk.count(b"\n")
        if lines < left:
            left -= lines
            yield chunk, end
            continue
        cut = 0
        for _ in range(left):
            cut = chunk.index(b"\n", cut) + 1
        yield chunk[:cut], end - len(chunk) + cut
        return


def last_lines(job: Job, number: int) -> list[str]:
    """The last of its log as text, as far as they lie in the last block of it. GpuqError says why it
    cannot be read; empty where there is none yet."""
    if job["log"] is None:
        return []
    check_yours(job)
    log = LogFile(opened(job, job["log"]), is_ours=is_ours(job))
    try:
        window = LogWindow()
        log.position = log.start_of_block(BLOCK)
        for chunk in log.read():
            window.append([(chunk, log.position)])
        return [
            painted(window[at].raw).text for at in range(max(len(window) - number, 0), len(window))
        ]
    finally:
        log.close()
