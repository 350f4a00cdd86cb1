"""Tests of GPUs under way: a child process for each, beside the loop, whose news it takes.

A child that hangs in the driver does not die of KILL until the driver lets go, and a second one would
hang behind it: the GPU counts as under test until the first is dead, also where an earlier daemon
left it. What a test means is not decided here.
"""

import asyncio
import json
import os
import signal as signals
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpuq.core.gpus.gpu import Gpu
from gpuq.daemon.linux import processes

DEADLINE_S = 60.0
LEAVE_S = 2.0
LOOK_AGAIN_S = 0.5
MOST_BYTES = 2**16  # of an answer
NAMED = b'"by"'  # stands in a line that says what it tests by

Child = tuple[str, int, int]  # the uuid of its GPU, pid, start time


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A test that has ended: good, bad or undecided, the last two with the trouble. `result` is what
    it measured."""

    gpu: str
    verdict: str
    trouble: str | None
    result: Mapping[str, Any]


@dataclass(slots=True)
class _Running:
    why: str
    is_over: bool = False  # its process is gone
    is_told: bool = False  # its end has been written down


class GpuTests:
    """`ended` are those whose end nobody has taken in yet. `wake` is called at each end, `on_started`
    gets all children that live, which the next daemon wants as its `previous`."""

    def __init__(
        self,
        spec_text: str,
        *,
        wake: Callable[[], None],
        on_started: Callable[[Sequence[Child]], None],
        previous: Sequence[Child] = (),
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self.ended: deque[Examined] = deque()
        self._spec_text = spec_text
        self._started_s = time.monotonic()  # the story of a scenario counts from there
        self._wake = wake
        self._on_started = on_started
        self._previous = [child for child in previous if processes.is_alive(*child[1:])]
        self._deadline_s = deadline_s
        self._begun: asyncio.Queue[Gpu] = asyncio.Queue()
        self._running = {uuid: _left_behind(pid) for uuid, pid, _ in self._previous}
        self._children: dict[str, _Child] = {}

    @property
    def under_way(self) -> Mapping[str, str]:
        """Why each of these GPUs is under test, by uuid."""
        return {uuid: one.why for uuid, one in self._running.items()}

    def is_end_awaited(self, uuid: str) -> bool:
        """Is there a test of this GPU whose end is still to be written down? Not so one that hangs
        after its end, or that an earlier daemon left."""
        one = self._running.get(uuid)
        return one is not None and not one.is_told

    def pids(self) -> set[int]:
        return {child.pid for child in self._children.values()}

    def begin(self, gpu: Gpu, why: str) -> None:
        self._running[gpu.uuid] = _Running(why)
        self._begun.put_nowait(gpu)

    def decline(self, gpu: Gpu, why: str, trouble: str) -> None:
        """It was to begin and could not."""
        self._running[gpu.uuid] = _Running(why, is_over=True)
        self._tell(_undecided(gpu.uuid, trouble))

    def settle(self, uuid: str) -> None:
        """The end of this test has been written down."""
        self._running[uuid].is_told = True
        self._forget_if_done(uuid)

    async def run(self) -> None:
        """Until cancelled. Then children leave too, by themselves or by force."""
        async with asyncio.TaskGroup() as group:
            for uuid, pid, start in self._previous:
                group.create_task(self._outlast(uuid, pid, start))
            while True:
                gpu = await self._begun.get()
                group.create_task(self._test(gpu))

    async def _test(self, gpu: Gpu) -> None:
        try:
            child = _Child(self._command(gpu), _environment(gpu))
        except OSError as error:
            self._running[gpu.uuid].is_over = True
            self._tell(_undecided(gpu.uuid, f"it could not be started: {error.strerror}"))
            return
        self._children[gpu.uuid] = child
        self._on_started(self._alive())
        try:
            self._tell(await self._hear(gpu.uuid, child))
            if not child.gone.done():
                self._running[gpu.uuid].why = f"its test hangs in the driver, process {child.pid}"
                await asyncio.wait({child.gone})
        finally:
            await child.dismiss()
        del self._children[gpu.uuid]
        self._running[gpu.uuid].is_over = True
        self._forget_if_done(gpu.uuid)

    def _alive(self) -> list[Child]:
        """Those of an earlier daemon too: the next one has to wait for them as this one does."""
        left = [child for child in self._previous if processes.is_alive(*child[1:])]
        return left + [(uuid, *one.identity) for uuid, one in self._children.items()]

    async def _hear(self, uuid: str, child: "_Child") -> Examined:
        began = time.monotonic()
        late = None
        try:
            await self._listen(child)
        except TimeoutError:
            late = f"it did not end within {self._deadline_s:g} s"
            child.kill()  # once: what hangs in the driver dies of it when the driver lets go
            await asyncio.wait({child.gone}, timeout=LEAVE_S)
        return _read(uuid, child, round(time.monotonic() - began, 1), late)

    async def _listen(self, child: "_Child") -> None:
        """Until it is gone. Raises TimeoutError. The time counts anew when it says what it tests by:
        how long that took to load says nothing of the GPU."""
        loop = asyncio.get_running_loop()
        times_named = 0
        async with asyncio.timeout(self._deadline_s) as deadline:
            while await child.listen():
                if (times := child.answer.count(NAMED)) > times_named:
                    times_named = times
                    deadline.reschedule(loop.time() + self._deadline_s)
            await asyncio.wait({child.gone})

    async def _outlast(self, uuid: str, pid: int, start: int) -> None:
        """A child that an earlier daemon left: it hangs in the driver, or it would have left."""
        processes.send(pid, signals.SIGKILL, start=start)
        while processes.is_alive(pid, start):
            await asyncio.sleep(LOOK_AGAIN_S)
        del self._running[uuid]
        self._wake()

    def _tell(self, tested: Examined) -> None:
        self.ended.append(tested)
        self._wake()

    def _forget_if_done(self, uuid: str) -> None:
        if self._running[uuid].is_over and self._running[uuid].is_told:
            del self._running[uuid]
            self._wake()

    def _command(self, gpu: Gpu) -> tuple[str, ...]:
        # -P: a file of ours must not be shadowed by one in the folder that the daemon stands in.
        ours = (sys.executable, "-P", "-m", "gpuq.daemon.gpus.deep_test")
        if not gpu.simulated:
            return (*ours, "cuda", gpu.uuid)
        return (*ours, "simulated", self._spec_text, str(gpu.index), repr(self._started_s))


def _left_behind(pid: int) -> _Running:
    return _Running(f"a test of an earlier daemon hangs in the driver, process {pid}", is_told=True)


def _environment(gpu: Gpu) -> Mapping[str, str]:
    """It sees this GPU and no other, a simulated one none at all."""
    shown = {"CUDA_VISIBLE_DEVICES": "" if gpu.simulated else gpu.uuid}
    return os.environ | shown | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _undecided(uuid: str, trouble: str) -> Examined:
    return Examined(gpu=uuid, verdict="undecided", trouble=trouble, result={})


def _read(uuid: str, child: "_Child", took_s: float, late: str | None) -> Examined:
    """What the lines of an answer say, or their absence. `late` says that its time was up."""
    told: dict[str, Any] = {}
    for line in bytes(child.answer).splitlines():
        try:
            told |= json.loads(line)
        except (ValueError, TypeError):
            break  # it was killed in the middle of it
    verdict, trouble = told.pop("verdict", None), told.pop("trouble", None)
    if verdict is None and late is not None:
        # Whatever it was that loaded too slowly, it was not the GPU.
        verdict, trouble = ("bad" if "by" in told else "undecided"), late
    elif verdict is None:
        verdict, trouble = "undecided", f"it ended without a verdict, {child.last_words()}"
    return Examined(gpu=uuid, verdict=verdict, trouble=trouble, result=told | {"seconds": took_s})


class _Child:
    """One test from its start until it is dead and reaped. It speaks over one socket, which is its
    stdin and its stdout; a pidfd tells of its death."""

    def __init__(self, command: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), fd) for fd in (0, 1)]
                self.pid = os.posix_spawn(command[0], command, environment, file_actions=actions)
            self._pidfd = _pidfd_of(self.pid)
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        own = processes.identity(self.pid)
        self.identity = self.pid, own[1] if own else 0  # 0: it has died already
        self.answer = bytearray()
        self.gone: asyncio.Future[int] = self._loop.create_future()  # its exit code
        self._loop.add_reader(self._pidfd, self._reap)

    async def listen(self) -> bool:
        """To what it says next. False once it has closed its end, or said all that a test may say."""
        if (room := MOST_BYTES - len(self.answer)) <= 0:
            return False
        chunk = await self._loop.sock_recv(self._socket, room)
        self.answer += chunk
        return bool(chunk)

    def kill(self) -> None:
        if not self.gone.done():
            signals.pidfd_send_signal(self._pidfd, signals.SIGKILL)

    async def dismiss(self) -> None:
        """Takes its stdin away, and lets it go; one that hangs in the driver leaves when it can."""
        self._socket.close()
        self.kill()
        await asyncio.wait({self.gone}, timeout=LEAVE_S)

    def last_words(self) -> str:
        if not self.gone.done():
            return "and does not leave"
        code = self.gone.result()
        return f"killed by signal {-code}" if code < 0 else f"with exit code {code}"

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        try:
            _, status = os.waitpid(self.pid, 0)
            self.gone.set_result(os.waitstatus_to_exitcode(status))
        except ChildProcessError:
            self.gone.set_result(0)


def _pidfd_of(pid: int) -> int:
    """Of a child that has just been started. Raises OSError; then that child is ended: nobody would
    learn of its death."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signals.SIGKILL)
        os.waitpid(pid, 0)
        raise
