"""Watches the memory of jobs that are to keep to a --mem which the kernel does not enforce here.

Once a second it looks at all processes of each such job; what that means is the plan's to say. What is
counted is what nobody could take back from the job: not the files that it has mapped, which the kernel
drops when it wants the room, so that a job may map a data set larger than its memory. Part of the loop
and on its thread, but for the reading, which takes long where a process has mapped much.
"""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from gpuq.daemon.clock import Clock
from gpuq.daemon.linux import processes
from gpuq.daemon.series import SeriesOfAttempts
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.daemon.supervisor import Supervisor
from gpuq.daemon.upkeep.aside import aside

EVERY_S = 1.0
# A peak is written down when it has grown by so much, or when the job is over what it may use.
GROWN = 1.25

log = structlog.get_logger()


class MemoryWatch:
    def __init__(
        self,
        store: Store,
        supervisor: Supervisor,
        clock: Clock,
        series: SeriesOfAttempts,
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._series = series
        self._supervisor = supervisor
        self._wake = wake
        self._has_begun = asyncio.Event()
        self._looks: dict[tuple[int, int], asyncio.Future[int]] = {}  # that are under way
        self._used: dict[tuple[int, int], int] = {}  # by job and attempt, at the last look
        self._peaks: dict[tuple[int, int], int] = {}
        self._written: dict[tuple[int, int], int] = {}

    def used(self, job: int, attempt: int) -> int | None:
        """What all of an attempt used at the last look (bytes); None where it is not watched."""
        return self._used.get((job, attempt))

    def peak(self, job: int, attempt: int) -> int | None:
        """The most that it was seen to use (bytes)."""
        return self._peaks.get((job, attempt))

    def begun(self) -> None:
        """One that is to be watched has begun."""
        self._has_begun.set()

    async def run(self) -> None:
        while True:
            self._has_begun.clear()
            if await self._look():
                await asyncio.sleep(EVERY_S)
            else:
                await self._has_begun.wait()

    async def _look(self) -> bool:
        """At all that are watched; False where there is none. A process that hangs in the kernel can
        keep who reads of it waiting for as long, so nobody waits for such a look, and no other one is
        taken at that job before it has come back."""
        watched = self._store.measured.watched()
        self._forget_all_but({(job, attempt) for job, attempt, *_ in watched})
        if not watched:
            return False
        table = await aside(processes.Table)
        for job, attempt, most_bytes, started_mono in watched:
            if (job, attempt) not in self._looks:
                members = self._supervisor.members(job, table)
                self._look_at(job, attempt, most_bytes, started_mono, members)
        if self._looks:
            await asyncio.wait(self._looks.values(), timeout=EVERY_S)
        return True

    def _look_at(
        self, job: int, attempt: int, most_bytes: int, started_mono: float | None, pids: list[int]
    ) -> None:
        look = asyncio.ensure_future(aside(lambda: memory_of(pids, more_than=most_bytes)))
        self._looks[job, attempt] = look

        def take(_: object) -> None:
            del self._looks[job, attempt]
            if not look.cancelled():
                self._note(job, attempt, look.result(), most_bytes)
                if started_mono is not None:
                    at_s = self._clock.monotonic() - started_mono
                    self._series.note((job, attempt), at_s, memory_bytes=look.result())

        look.add_done_callback(take)

    def _note(self, job: int, attempt: int, used_bytes: int, most_bytes: int) -> None:
        key = job, attempt
        is_over = used_bytes > most_bytes
        self._used[key] = used_bytes
        self._peaks[key] = max(self._peaks.get(key, 0), used_bytes)
        written = self._written.get(key, 0)
        if self._peaks[key] > (written if is_over else written * GROWN):
            self._write_peak(job, attempt)
        if is_over:
            self._wake()

    def _write_peak(self, job: int, attempt: int) -> None:
        peak_bytes = self._peaks[job, attempt]
        try:
            self._store.measured.memory_peak(job, attempt, peak_bytes)
        except DiskTrouble as trouble:
            log.error("what a job uses of the memory could not be stored", why=str(trouble))
            return
        self._written[job, attempt] = peak_bytes

    def _forget_all_but(self, living: set[tuple[int, int]]) -> None:
        for key in self._used.keys() - living:
            self._series.forget(key)
        for known in (self._used, self._peaks, self._written):
            for key in known.keys() - living:
                del known[key]


def memory_of(pids: Iterable[int], *, more_than: int = 0) -> int:
    """What processes use together, in bytes. What several have in common counts once; to find that out
    is dear, so it is done only where they would use `more_than` otherwise; up to that the answer may be
    too much."""
    plain = {pid: own for pid in pids if (own := _plainly(pid)) is not None}
    if sum(plain.values()) <= more_than:
        return sum(plain.values())
    return sum(map(_share, plain))


def _plainly(pid: int) -> int | None:
    """What it has in use or in swap, with all that it has in common with others; None where it is gone.
    See proc_pid_status(5)."""
    found = _fields(f"/proc/{pid}/status", ("RssAnon:", "RssShmem:", "VmSwap:"))
    return None if found is None else sum(found.values())


def _share(pid: int) -> int:
    """The same with its share of what several have in common; 0 where it has gone meanwhile. See
    proc_pid_smaps(5); what belongs to a program with rights of its own may not be looked at so closely.
    """
    names = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")
    found = _fields(f"/proc/{pid}/smaps_rollup", names)
    return sum(found.values()) if found else _plainly(pid) or 0


def _fields(path: str, names: tuple[str, ...]) -> dict[str, int] | None:
    """Those lines of "Name: 12 kB", in bytes; None where the file cannot be read."""
    try:
        with open(path, errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return None
    return {words[0]: int(words[1]) * 1024 for words in lines if words and words[0] in names}
