"""Starts attempts, adopts those of an earlier daemon, signals them, and hears how they end.

It acts and decides nothing: what it hears it passes on as news. It never touches the store.
"""

import asyncio
import json
import os
import signal as signals
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuq.core.model import Exit
from gpuq.daemon import launcher, processes, record
from gpuq.daemon.gate import HEADER

SWEEP_AGAIN_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """How an attempt is known across daemons: its runner by pid and start time, its mark."""

    job: int
    attempt: int
    nonce: str
    runner_pid: int
    runner_start: int
    uid: int
    has_run: bool = False  # an earlier daemon saw it run

    @property
    def mark(self) -> bytes:
        return f"GPUQ_MARK={self.job}.{self.attempt}:{self.nonce}".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The job's process exists."""

    job: int
    attempt: int
    pid: int
    pid_start: int | None
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """All of the attempt is gone. `exit` is None where it is known never to have run."""

    job: int
    attempt: int
    exit: Exit | None


News = Running | Exited


class Gate:
    """The daemon's end of a runner's gate."""

    def __init__(self, line: socket.socket, pid: int, start: int, version: int) -> None:
        self.line = line
        self.pid = pid
        self.start = start
        self.version = version


class Supervisor:
    """`report` is called on the loop's thread with each piece of news."""

    def __init__(self, state_dir: Path, report: Callable[[News], None]) -> None:
        self._state_dir = state_dir
        self._report = report
        self._attempts: dict[int, Known] = {}  # by job
        self._mains: dict[int, tuple[int, int]] = {}  # (pid, start) of the job's own, by job
        self._tasks: set[asyncio.Task[None]] = set()
        self._standby: asyncio.Task[Gate] | None = None
        self._launcher: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Starts the launcher and has it fork a first runner ahead."""
        self._start_launcher()
        self._standby = asyncio.ensure_future(self._fork_runner())

    async def close(self) -> None:
        """Leaves: the launcher and a runner without an order go with us, jobs stay."""
        for task in self._tasks.copy():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._standby is not None:
            self._standby.cancel()
            for gate in await asyncio.gather(self._standby, return_exceptions=True):
                if isinstance(gate, Gate):
                    gate.line.close()
        if self._control is not None:
            self._control.close()
        if self._launcher is not None:
            await asyncio.to_thread(self._launcher.wait)

    # ── starting ──

    async def take_runner(self) -> Gate:
        """A runner that waits at its gate; another one is forked ahead meanwhile."""
        standby, self._standby = self._standby, None
        gate = await (standby or self._fork_runner())
        self._standby = asyncio.ensure_future(self._fork_runner())
        if not processes.is_alive(gate.pid, gate.start):  # it died while it waited
            gate.line.close()
            return await self.take_runner()
        return gate

    def dismiss(self, gate: Gate) -> None:
        """Not needed after all: it leaves without having run anything."""
        gate.line.close()

    def dispatch(
        self, gate: Gate, known: Known, order: Mapping[str, Any], fds: Sequence[int] = ()
    ) -> None:
        """Sends the order, with descriptors that the runner is to hold for its life. The attempt is
        committed by now: see the runner for what follows."""
        self._attempts[known.job] = known
        self._spawn_task(self._attend(gate, known, dict(order), fds))

    def adopt(self, known: Known) -> None:
        """Watches over an attempt of an earlier daemon, alive or not."""
        self._attempts[known.job] = known
        self._spawn_task(self._attend_adopted(known))

    # ── ending ──

    def signal(self, job: int, number: int, table: processes.Table | None = None) -> int:
        """Sends a signal to everything the job is; returns to how many processes.

        That is the runner's descendants, which nobody leaves while the runner lives; `table` is a
        look at all processes that several jobs share.
        """
        known = self._attempts.get(job)
        if known is None:
            return 0
        # A runner that somebody stopped would never tell of the end.
        processes.send(known.runner_pid, signals.SIGCONT, start=known.runner_start)
        members = self._members(known, table or processes.Table())
        return sum(processes.send(pid, number, start=start) for pid, start in members.items())

    def owner_of(self, pid: int) -> int | None:
        """The job to which a process belongs; None for a process outside gpuq."""
        runners = {known.runner_pid: known for known in self._attempts.values()}
        for ancestor in [pid, *processes.ancestors(pid)]:
            known = runners.get(ancestor)
            if known is not None and processes.is_alive(known.runner_pid, known.runner_start):
                return known.job
        return None

    def _members(self, known: Known, table: processes.Table) -> dict[int, int]:
        if processes.is_alive(known.runner_pid, known.runner_start):
            return table.descendants(known.runner_pid)
        return self._orphans(known, table)

    def _orphans(self, known: Known, table: processes.Table) -> dict[int, int]:
        """Who belongs to the job when its runner is dead: its session, its main process with all
        below it, and whoever carries the mark."""
        start = known.runner_start
        found = table.left_in_session(known.runner_pid, start)
        folder = self.attempt_dir(known.job, known.attempt)
        main = self._mains.get(known.job) or record.main_process(folder, known.nonce)
        if main is not None and processes.is_alive(*main):
            found |= {main[0]: main[1]} | table.descendants(main[0])
        return found | processes.marked(
            known.mark, uid=known.uid, not_before=start, among=processes.all_pids()
        )

    # ── the launcher ──

    def _start_launcher(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._launcher = subprocess.Popen(
                [sys.executable, "-P", "-m", "gpuq.daemon.launcher", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._control = ours

    async def _fork_runner(self) -> Gate:
        """A fresh runner that has said hello. A launcher that died is started again."""
        while True:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            try:
                with theirs:
                    self._ask_launcher(theirs)
                message = await _receive(ours)
            except BaseException:
                ours.close()
                raise
            if message is not None:
                hello = message["hello"]
                return Gate(ours, hello["pid"], hello["start"], message["version"])
            ours.close()
            await asyncio.sleep(0.1)  # it could not fork, or died: not in a tight circle

    def _ask_launcher(self, gate: socket.socket) -> None:
        assert self._control is not None
        try:
            socket.send_fds(self._control, [launcher.FORK], [gate.fileno()])
        except OSError:
            self._control.close()
            assert self._launcher is not None
            self._launcher.wait()
            self._start_launcher()
            socket.send_fds(self._control, [launcher.FORK], [gate.fileno()])

    # ── one attempt ──

    async def _attend(
        self, gate: Gate, known: Known, order: Mapping[str, Any], fds: Sequence[int]
    ) -> None:
        with gate.line:
            await _send(gate.line, order, fds)
            while (message := await _receive(gate.line)) is not None:
                if "running" in message:
                    self._report_running(known, message["running"])
                elif "ended" in message:
                    self._report_ended(known, read_exit(message["ended"]))
                    return
        await self._conclude(known)

    async def _attend_adopted(self, known: Known) -> None:
        watching = asyncio.ensure_future(self._watch_for_main(known))
        try:
            await _wait_for_death(known)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        await self._conclude(known)

    async def _watch_for_main(self, known: Known) -> None:
        """An adopted runner has no gate to us: what it notes on disk says that its job runs."""
        folder = self.attempt_dir(known.job, known.attempt)
        pause_s = 0.01
        while (main := record.main_process(folder, known.nonce)) is None:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 1.0)
        at = record.began_at(folder, known.nonce)
        self._report_running(known, {"pid": main[0], "start": main[1] or None, "at": at})

    async def _conclude(self, known: Known) -> None:
        """The runner is gone or about to be: what it left on disk tells how it ended."""
        await _wait_for_death(known)
        folder = self.attempt_dir(known.job, known.attempt)
        told = record.read(folder, known.nonce)
        if told is not None:
            self._report_ended(known, read_exit(told))
        elif not (known.has_run or known.job in self._mains) and not record.has_begun(
            folder, known.nonce
        ):
            self._report_ended(known, None)
        else:
            await self._sweep(known)
            cause = f"its runner (pid {known.runner_pid}) is gone and left no record of its end"
            self._report_ended(known, Exit(lost=cause))

    async def _sweep(self, known: Known) -> None:
        """Without its runner a job has nobody: what is left of it is ended."""
        while found := self._orphans(known, processes.Table()):
            for pid, start in found.items():
                processes.send(pid, signals.SIGKILL, start=start)
            await asyncio.sleep(SWEEP_AGAIN_S)

    def _report_running(self, known: Known, said: Mapping[str, Any]) -> None:
        self._mains[known.job] = (said["pid"], said["start"] or 0)
        self._report(
            Running(
                job=known.job,
                attempt=known.attempt,
                pid=said["pid"],
                pid_start=said["start"],
                at=said["at"],
            )
        )

    def _report_ended(self, known: Known, exit: Exit | None) -> None:
        self._attempts.pop(known.job, None)
        self._mains.pop(known.job, None)
        self._report(Exited(job=known.job, attempt=known.attempt, exit=exit))

    def attempt_dir(self, job: int, attempt: int) -> str:
        """Where began and record are: out of the job's reach where it is another user's."""
        return str(self._state_dir / "attempts" / f"{job}.{attempt}")

    def _spawn_task(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        """A fault in here must end the daemon: one that lives on without its supervisor is worse."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the supervisor failed", "exception": error, "fatal": True}
            )


def read_exit(told: Mapping[str, Any]) -> Exit:
    """A record as a value. A newer runner may say more than we know, an older one less."""
    return Exit(
        exit_code=told.get("exit_code"),
        signal=told.get("signal"),
        stage=told.get("stage"),
        error=told.get("error"),
        leftovers=told.get("leftovers") or 0,
        ended_at=told.get("ended_at"),
        user_s=told.get("user_s"),
        system_s=told.get("system_s"),
        peak_rss_bytes=told.get("peak_rss_bytes"),
    )


async def _send(line: socket.socket, message: Mapping[str, Any], fds: Sequence[int]) -> None:
    data = json.dumps(message).encode()
    header = HEADER.pack(len(data))
    try:
        # Nothing lies in this socket yet, so a header always finds room.
        socket.send_fds(line, [header], list(fds)) if fds else line.send(header)
        await asyncio.get_running_loop().sock_sendall(line, data)
    except OSError:
        pass  # it died at the gate; the end of the connection tells the rest


async def _receive(line: socket.socket) -> dict[str, Any] | None:
    header = await _receive_exactly(line, HEADER.size)
    body = None if header is None else await _receive_exactly(line, HEADER.unpack(header)[0])
    if body is None:
        return None
    message: dict[str, Any] = json.loads(body)
    return message


async def _receive_exactly(line: socket.socket, size: int) -> bytes | None:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < size:
        try:
            chunk = await loop.sock_recv(line, size - len(data))
        except OSError:
            return None
        if not chunk:
            return None
        data += chunk
    return bytes(data)


def _open_pidfd(known: Known) -> int | None:
    """A descriptor of the runner, taken before its identity is checked; None where it is gone."""
    try:
        fd = os.pidfd_open(known.runner_pid)
    except OSError:
        return None
    if processes.is_alive(known.runner_pid, known.runner_start):
        return fd
    os.close(fd)
    return None


async def _wait_for_death(known: Known) -> None:
    fd = _open_pidfd(known)
    if fd is None:
        return
    loop = asyncio.get_running_loop()
    died = asyncio.Event()
    loop.add_reader(fd, died.set)
    try:
        await died.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
