"""A supervisor at work: launcher and runners are the real ones, and so are the jobs.

exit = run(tmp_path, "sh", "-c", "exit 3")    one job from its start to its end
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from gpuq.core.model import Exit
from gpuq.daemon.attempt import record, runner
from gpuq.daemon.linux import processes
from gpuq.daemon.linux.cgroup import Leaf
from gpuq.daemon.runners import Gate
from gpuq.daemon.supervisor import GO, Exited, Known, MainEnded, News, Running, Supervisor

DEADLINE_S = 20.0
PROJECT = Path(__file__).parent.parent
PATH = "PATH=/usr/bin:/bin"


class Desk:
    """A supervisor, what it has told, and a folder for its jobs; with `groups` those get control
    groups below that one. Its runners take another attempt only where they may wait, for `idle_s`."""

    def __init__(self, folder: Path, groups: str | None = None, idle_s: float = 0.0) -> None:
        self.folder = folder
        self.groups = groups
        self.news: list[News] = []
        self.known: list[Known] = []
        self.supervisor = Supervisor(folder / "state", self._hear, groups, idle_s=idle_s)

        self.stores: Callable[[Exited], None] = self._store

    def _hear(self, news: News) -> None:
        self.news.append(news)
        if isinstance(news, Exited):
            self.stores(news)

    def _store(self, ended: Exited) -> None:
        self.supervisor.end_is_stored(ended.job, ended.attempt)

    async def start(
        self,
        *argv: str,
        job: int = 1,
        fds: tuple[int, ...] = (),
        stop_to: str = "all",
        primed: bool = False,
        **changes: Any,
    ) -> Known:
        """Sends a job to a runner, `primed` ahead of its word to begin; does not wait for it."""
        gate = await self.supervisor.take_runner()
        known = self.name(gate, job, stop_to)
        self.known.append(known)
        order = self.order(known, *argv, **changes)
        if primed and self.supervisor.prime(gate, order):
            order = GO
        self.supervisor.dispatch(gate, known, order, fds)
        return known

    def name(self, gate: Gate, job: int = 1, stop_to: str = "all") -> Known:
        return Known(
            job=job,
            attempt=1,
            nonce=f"nonce{job}-{gate.pid}",
            runner_pid=gate.pid,
            runner_start=gate.start,
            cgroup=gate.cgroup,
            stop_to=stop_to,
            uid=os.getuid(),
        )

    def order(self, known: Known, *argv: str, env: tuple[str, ...] = (), **changes: Any) -> Any:
        """The least that an order says."""
        plain: dict[str, Any] = {
            "version": runner.VERSION,
            "job": known.job,
            "attempt": known.attempt,
            "nonce": known.nonce,
            "argv": list(argv),
            "environment": [PATH, known.mark.decode(), *env],
            "cwd": str(self.folder),
            "umask": 0o022,
            "limits": {},
            "log": str(self.log(known.job)),
            "stderr": None,
            "attempt_dir": self.supervisor.attempt_dir(known.job, known.attempt),
            "output_dir": str(self.folder / f"output-{known.job}"),
            "tmp_dir": str(self.tmp_dir(known.job)),
            "grace_s": 10.0,
        }
        return plain | changes

    async def run(self, *argv: str, job: int = 1, **changes: Any) -> Exit:
        """Runs a job to its end."""
        await self.start(*argv, job=job, **changes)
        exit = await self.exited(job)
        assert exit is not None
        return exit

    async def sh(self, script: str, **changes: Any) -> Exit:
        return await self.run("sh", "-c", script, **changes)

    async def exited(self, job: int = 1) -> Exit | None:
        def told() -> list[Exited]:
            return [n for n in self.news if isinstance(n, Exited) and n.job == job]

        await until(told, f"the end of job {job}")
        (only,) = told()
        for known in self.known:
            if known.job == job:
                await until(partial(self._is_through, known), f"the runner of job {job}")
        return only.exit

    def _is_through(self, known: Known) -> bool:
        """Its runner has written the record, and said that it is clean or left: both follow the end at
        once."""
        is_heard = (known.job, known.attempt) not in self.supervisor._ended
        has_left = not processes.is_alive(known.runner_pid, known.runner_start)
        return has_left or (is_heard and self.record(known) is not None)

    async def running(self, job: int = 1) -> Running:
        def told() -> list[Running]:
            return [n for n in self.news if isinstance(n, Running) and n.job == job]

        await until(told, f"job {job} to run")
        return told()[0]

    async def main_ended(self, job: int = 1) -> MainEnded:
        def told() -> list[MainEnded]:
            return [n for n in self.news if isinstance(n, MainEnded) and n.job == job]

        await until(told, f"the main process of job {job} to end")
        return told()[0]

    def log(self, job: int = 1) -> Path:
        return self.folder / f"log-{job}"

    def report(self) -> Path:
        return self.folder / "report"

    def tmp_dir(self, job: int = 1) -> Path:
        return self.folder / f"tmp-{job}"

    def lines(self) -> list[str]:
        return self.log().read_text().splitlines()

    def attempt_dir(self, job: int = 1) -> Path:
        return Path(self.supervisor.attempt_dir(job, 1))

    def record(self, known: Known) -> dict[str, Any] | None:
        return record.read(str(self.attempt_dir(known.job)), known.nonce)

    async def file(self, name: str) -> Path:
        """Waits for a job to make this file."""
        await until((self.folder / name).exists, name)
        return self.folder / name

    async def pid_in(self, name: str) -> int:
        path = await self.file(name)
        await until(path.read_text, f"a pid in {name}")
        return int(path.read_text())


@asynccontextmanager
async def desk_in(
    folder: Path, groups: str | None = None, idle_s: float = 0.0
) -> AsyncIterator[Desk]:
    desk = Desk(folder, groups, idle_s)
    desk.supervisor.start()
    try:
        yield desk
    finally:
        await desk.supervisor.close()
        for known in desk.known:
            await end(known)


async def end(known: Known) -> None:
    """Leaves nothing behind, however the test went."""
    leaf = Leaf(known.cgroup) if known.cgroup else None

    def gone() -> bool:
        if leaf is not None:
            leaf.freeze(False)
            leaf.kill()
        found = processes.marked(
            known.mark, uid=known.uid, not_before=0, among=processes.all_pids()
        )
        found |= processes.descendants(known.runner_pid)
        for pid, start in found.items():
            processes.send(pid, signal.SIGKILL, start=start)
        return not found and not processes.is_alive(known.runner_pid, known.runner_start)

    await until(gone, f"job {known.job} and its runner to be gone")


async def until(condition: Callable[[], Any], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.005)


def is_gone(pid: int) -> bool:
    return processes.identity(pid) is None


def with_desk(
    folder: Path, deed: Callable[[Desk], Awaitable[None]], groups: str | None = None
) -> None:
    async def main() -> None:
        async with desk_in(folder, groups) as desk:
            await asyncio.wait_for(deed(desk), 2 * DEADLINE_S)

    asyncio.run(main())


def run(folder: Path, *argv: str, groups: str | None = None, **changes: Any) -> Exit:
    """One job from its start to its end."""
    exits: list[Exit] = []

    async def deed(desk: Desk) -> None:
        exits.append(await desk.run(*argv, **changes))

    with_desk(folder, deed, groups)
    return exits[0]


def output(folder: Path, script: str, *words: str, **changes: Any) -> list[str]:
    """What a shell script that ends well writes."""
    exit = run(folder, "sh", "-c", script, *words, **changes)
    text = (folder / "log-1").read_bytes().decode("utf-8", "surrogateescape")
    assert (exit.exit_code, exit.stage) == (0, None), text
    return text.splitlines()
