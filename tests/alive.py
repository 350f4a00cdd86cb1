"""What the daemon is but for its clients: a loop over a store, with real runners and real jobs.

    async with alive(tmp_path) as daemon:
        job = daemon.submit("exit 3")
        await daemon.ended(job)

Its clocks can be moved, and its GPUs, where it is to have any, are shown to it by the test.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuq import config
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Request
from gpuq.daemon.clock import Clock
from gpuq.daemon.gpus import Probe
from gpuq.daemon.gpus.locks import GpuLocks
from gpuq.daemon.linux import processes
from gpuq.daemon.loop import Loop
from gpuq.daemon.store import Store
from gpuq.daemon.supervisor import MainEnded, News, Running
from gpuq.daemon.systemd.scopes import Scopes
from gpuq.daemon.watchers import Watchers
from tests import stored
from tests.desk import DEADLINE_S, until

YEAR_S = 365 * 86400.0
# Its GPUs are no other's, though other tests have some of the same names at the same time.
LOCKS = f"gpuq-test-{os.getpid()}-"


class MovedClock(Clock):
    """This machine's clocks, moved. `boot` says by how much the two that nobody sets are ahead."""

    def __init__(self, *, awake_s: float = 0.0, asleep_s: float = 0.0) -> None:
        self.awake_s, self.asleep_s = awake_s, asleep_s
        self.set_s = 0.0

    def wall(self) -> float:
        return super().wall() + self.set_s + self.awake_s + self.asleep_s

    def monotonic(self) -> float:
        return super().monotonic() + self.awake_s

    def told(self, moment: float) -> float:
        return moment + self.awake_s

    def boottime(self) -> float:
        return super().boottime() + self.awake_s + self.asleep_s


class Alive:
    def __init__(
        self, folder: Path, clock: MovedClock, scopes: Scopes | None = None, **flags: Any
    ) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.state_dir.mkdir(exist_ok=True)
        flags = {"state_dir": str(self.state_dir), "gpus": "none", "cgroup": "none"} | flags
        self.clock = clock
        self.store = Store(self.state_dir / "gpuq.db")
        self.watchers = Watchers()
        self.config = config.load(flags, {"HOME": str(folder)})
        locks = GpuLocks(LOCKS, pid=0)  # two of them in one process are two daemons
        self.loop = Loop(self.store, self.config, self.watchers, clock, locks, scopes=scopes)
        self.loop._supervisor._report = self._hear

    def _hear(self, news: News) -> None:
        """A runner is on the same machine, and its clock has been moved like the daemon's."""
        ahead_s = self.clock.awake_s
        if isinstance(news, Running | MainEnded):
            news = replace(news, mono=news.mono + ahead_s)
        elif news.exit is not None and news.exit.ended_mono is not None:
            moved = replace(news.exit, ended_mono=news.exit.ended_mono + ahead_s)
            news = replace(news, exit=moved)
        self.loop._hear(news)

    # ── asking and wishing ──

    def submit(self, script: str, **asked: Any) -> int:
        """A shell script without a GPU, unless it asks for one."""
        plain: dict[str, Any] = {
            "argv": (b"sh", b"-c", os.fsencode(script)),
            "cwd": os.fsencode(self.folder),
            "request": Request(gpus=0),
            "changes": {b"PATH": b"/usr/bin:/bin"},
        }
        job = stored.submit_one(self.store, **(plain | asked))
        self.loop.wake()
        return job

    def kill(self, job: int, grace_s: float = 10.0, *, last: int | None = None) -> None:
        self.store.wished.stop(job, last, grace_s=grace_s, actor="ann", now=self.clock.wall())
        self.loop.wake()

    def pause(self, job: int, paused: bool = True) -> None:
        self.store.wished.pause(job, paused=paused, actor="ann", now=self.clock.wall())
        self.loop.wake()

    def drain(self, reason: str | None) -> None:
        self.store.wished.drain(reason, actor="bob", now=self.clock.wall())
        self.loop.wake()

    # ── what is the case ──

    def row(self, job: int) -> dict[str, Any]:
        return stored.row(self.store, job)

    def attempts(self, job: int) -> list[dict[str, Any]]:
        return self.store.found.attempts(job)

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        await until(condition, what)

    async def running(self, job: int, attempt: int = 1) -> int:
        """Its pid, once it runs and has come so far as to make a file `JOB.ATTEMPT`, if it does."""

        def is_running() -> bool:
            row = self.row(job)
            return bool(row["state"] == "running" and row["attempt"] == attempt)

        await until(is_running, f"attempt {attempt} of job {job} to run")
        return int(self.attempts(job)[attempt - 1]["pid"])

    async def ended(self, job: int) -> dict[str, Any]:
        await until(lambda: self.row(job)["state"] == "ended", f"job {job} to end")
        return self.row(job)

    async def waits_again(self, job: int) -> dict[str, Any]:
        def is_delayed() -> bool:
            return self.row(job)["delayed_until_at"] is not None

        await until(is_delayed, f"job {job} to wait for its next attempt")
        return self.row(job)

    async def turn(self) -> None:
        """Somebody asks something: all that is due by now is done."""
        for _ in range(2):
            before = self.loop.turns
            self.loop.wake()
            await until(lambda: self.loop.turns > before, "a turn")  # noqa: B023
            await self.loop.settle()

    # ── GPUs ──

    async def show(self, *gpus: Gpu) -> None:
        """A reading. From now on the test alone says what is there: what the machine's probe finds
        may come at any moment, and would take these GPUs away again."""
        self.loop._lookout._probe._on_reading = lambda read: None
        self.loop._lookout._take_reading(list(gpus))
        await self.loop.settle()


@asynccontextmanager
async def alive(
    folder: Path,
    clock: MovedClock | None = None,
    *,
    leave: bool = False,
    scopes: Scopes | None = None,
    **flags: Any,
) -> AsyncIterator[Alive]:
    """`leave`: its jobs go on when it goes, and the next one finds them."""
    daemon = Alive(folder, clock or MovedClock(), scopes, **flags)
    daemon.loop.start()
    living = asyncio.ensure_future(daemon.loop.run())
    try:
        yield daemon
        assert not living.done(), living.exception()
    finally:
        if not leave:
            await _end_everything(daemon)
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        daemon.store.close()


async def _end_everything(daemon: Alive) -> None:
    for job in daemon.store.found.jobs(ended=False):
        daemon.kill(job["id"], grace_s=0.0, last=job["last_id"])
    await until(lambda: not daemon.store.found.jobs(ended=False), "the end of all jobs")


def with_alive(
    folder: Path,
    deed: Callable[[Alive], Awaitable[None]],
    clock: MovedClock | None = None,
    **how: Any,
) -> None:
    async def main() -> None:
        async with alive(folder, clock, **how) as daemon:
            await asyncio.wait_for(deed(daemon), 2 * DEADLINE_S)

    asyncio.run(main())


def shown_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no probe: the test shows the GPUs."""

    async def nothing(probe: Probe) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Probe, "run", nothing)


def end_orphans(pids: Sequence[int]) -> None:
    for pid in pids:
        if own := processes.identity(pid):
            processes.send(pid, signal.SIGKILL, start=own[1])
