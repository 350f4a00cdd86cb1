"""The daemon's end of the probe: keeps one alive, asks it for readings, gives up on it when it hangs.

There is never a second probe beside a first. A process that hangs in the driver (D state) does not
die of SIGKILL until the driver lets go, and every further one would hang behind it on the same lock.
So a new one waits until the old one is truly dead, also one that an earlier daemon left behind.

A probe goes on with the driver that it has loaded, whatever is installed meanwhile. Where a new
process might find another one, the probe is renewed: it is the process by which one sees that.
"""

import asyncio
import os
import signal as signals
import socket
import sys
import time
import weakref
from collections.abc import Callable, Sequence

import structlog

from gpuq.core.gpus.gpu import Gpu
from gpuq.daemon.gpus import driver
from gpuq.daemon.gpus.backend import GpusUnavailable, Held
from gpuq.daemon.gpus.wire import decode_answer, encode_request
from gpuq.daemon.linux import processes

# However often somebody asks, the driver has this long between two readings: its calls hold a lock
# that every user of the GPUs needs.
PAUSE_S = 0.05
LEAVE_S = 1.0
# A driver without persistence mode lets idle GPUs sleep, and waking them takes 1 to 3 s each
# (docs.nvidia.com, driver-persistence): the first reading of a probe may take so many deadlines.
START_DEADLINES = 6
MEMORY_FD = 3  # of the probe
FIRST_BACKOFF_S, UNAVAILABLE_BACKOFF_S, MAX_BACKOFF_S = 1.0, 5.0, 60.0

log = structlog.get_logger()


class Probe:
    """Readings of the GPUs, for as long as `run` runs.

    `on_reading` gets each reading; `on_trouble` the sentence why there are none at present, and None
    when that is over; `on_started` the identity (pid, start time) of each new process, which the
    next daemon wants as its `previous`. All are called on the loop, and what they raise ends `run`.
    """

    def __init__(
        self,
        spec_text: str,
        on_reading: Callable[[list[Gpu]], None],
        on_trouble: Callable[[str | None], None],
        on_started: Callable[[int, int], None],
        previous: tuple[int, int] | None = None,
        deadline_s: float = 5.0,
        command: Sequence[str] | None = None,
        driver_version: str = driver.VERSION_FILE,
    ) -> None:
        self.has_no_driver = False  # and so no GPU: at the last try
        self.processes_wanted = False  # by every reading, not only by those that are asked for
        # What gpuq's jobs hold, looked up at each reading: simulated GPUs show it as their load.
        self.held: Callable[[], Sequence[Held]] = tuple
        self._interval_s = 1.0
        self._on_reading = on_reading
        self._on_trouble = on_trouble
        self._on_started = on_started
        self._previous = previous
        self._deadline_s = deadline_s
        # -P: a file of ours must not be shadowed by one in the folder that the daemon stands in.
        ours = [sys.executable, "-P", "-m", "gpuq.daemon.gpus.probe", spec_text]
        self.started_s = time.monotonic()
        self._memory_fd: int | None = None
        if spec_text.startswith("scenario:"):
            # A story goes on where a probe was killed in the middle of it.
            self._memory_fd = os.memfd_create("gpuq-story")
            weakref.finalize(self, os.close, self._memory_fd)
            ours += [repr(self.started_s), str(MEMORY_FD), str(os.getpid())]
        self._command = tuple(command or ours)
        self._driver_version = driver_version
        self._has_driver = spec_text.partition(":")[0] == "nvml"
        self._installed: driver.InstalledDriver | None = None  # when the probe had loaded it
        self._stale: str | None = None  # why this probe may not see what a new process would
        self._child: _Child | None = None
        self._trouble: str | None = None
        self._failures = 0  # since the last good reading
        self._asked = False
        self._news = asyncio.Event()  # somebody asked, the pace is new, or the probe has died

    @property
    def interval_s(self) -> float:
        """Between two readings that nobody asked for. A new one counts from the last reading."""
        return self._interval_s

    @interval_s.setter
    def interval_s(self, seconds: float) -> None:
        if seconds != self._interval_s:  # the loop says it at every turn
            self._interval_s = seconds
            self._news.set()

    def ask(self) -> None:
        """A reading as soon as may be, with the processes of that moment. Asking twice before it is
        begun gives one."""
        if not self._asked:
            self._asked = True
            self._news.set()

    def renew(self, why: str) -> None:
        """No reading of this probe counts any more: a new process has to find out what a new process
        finds. Where none is alive, the next one is such a process anyway."""
        self._stale = why
        self._news.set()

    async def run(self) -> None:
        """Until cancelled. Then the probe leaves too, by itself or by force."""
        if self._previous is not None:
            await self._end_previous(*self._previous)
        while True:
            backoff_s = 0.0
            try:
                await self._keep_one()
            except GpusUnavailable as error:
                self.has_no_driver = error.is_absent
                backoff_s = self._fail(str(error), UNAVAILABLE_BACKOFF_S)
            except _ProbeFailed as error:
                backoff_s = self._fail(str(error), FIRST_BACKOFF_S)
            await self._until_dead()
            await asyncio.sleep(backoff_s)

    async def _keep_one(self) -> None:
        """Start a probe and ask it again and again, until it is stale or fails.

        One that found no GPUs is not kept: a library once loaded stays loaded, and a driver that
        was installed or changed since is seen by a new process only.
        """
        self._stale = self._installed = None
        self._child = child = _Child(self._command, self._memory_fd)
        child.gone.add_done_callback(lambda _: self._news.set())
        try:
            if child.start is not None:
                self._on_started(child.pid, child.start)
            await self._converse(child)
            log.info("the GPU probe is renewed", why=self._stale)
        finally:
            await child.dismiss()

    async def _converse(self, child: "_Child") -> None:
        clock = asyncio.get_running_loop().time
        while self._stale is None:
            processes = self._asked or self.processes_wanted
            self._asked = False
            asked_at = clock()
            gpus = await self._read(child, processes)
            if self._has_driver and self._driver_has_changed(child):
                self._stale = "the driver was changed"
            if self._stale is not None:
                return
            self._failures = 0
            self._tell_trouble(None)
            self._on_reading(gpus)
            await self._until_due(child, asked_at)

    async def _read(self, child: "_Child", processes: bool) -> list[Gpu]:
        answer = child.request(self.held(), processes)
        await asyncio.wait({answer}, timeout=self._deadline_s)
        silence = f"the GPU driver does not answer (no reading for {self._deadline_s:g} s)"
        if not answer.done():
            self._tell_trouble(silence)
            if child.requests == 1:
                patience_s = self._deadline_s * (START_DEADLINES - 1)
                await asyncio.wait({answer}, timeout=patience_s)
        if not answer.done():
            raise _ProbeFailed(silence)
        line = answer.result()
        if not line:
            raise _ProbeFailed(f"the GPU probe {await child.last_words()}")
        try:
            return decode_answer(line, child.requests)
        except ValueError as error:
            raise _ProbeFailed(f"the GPU probe gave {error}") from error

    def _driver_has_changed(self, child: "_Child") -> bool:
        if self._installed is None:  # with its first answer the probe has loaded it
            self._installed = driver.InstalledDriver(child.pid, self._driver_version)
        return self._installed.has_changed()

    async def _until_due(self, child: "_Child", asked_at: float) -> None:
        """Until a reading is due again, or the probe has died or is stale."""
        clock = asyncio.get_running_loop().time
        while not child.gone.done() and self._stale is None:
            due_at = asked_at + (PAUSE_S if self._asked else self._interval_s)
            if clock() >= due_at:
                return
            self._news.clear()
            try:
                async with asyncio.timeout_at(due_at):
                    await self._news.wait()
            except TimeoutError:
                return

    async def _until_dead(self) -> None:
        if self._child is None or self._child.gone.done():
            return
        pid = self._child.pid
        self._tell_trouble(f"the GPU driver does not answer (probe {pid} hangs in it, even killed)")
        await asyncio.wait({self._child.gone})

    async def _end_previous(self, pid: int, start: int) -> None:
        clock = asyncio.get_running_loop().time
        patient_until = clock() + LEAVE_S
        processes.send(pid, signals.SIGKILL, start=start)
        while processes.is_alive(pid, start):
            patient = clock() < patient_until
            if not patient:
                self._tell_trouble(
                    f"the GPU driver does not answer (probe {pid} of an earlier daemon hangs in it)"
                )
            await asyncio.sleep(PAUSE_S if patient else LEAVE_S)

    def _fail(self, why: str, first_backoff_s: float) -> float:
        """Tells the trouble; returns how long to wait before the next try."""
        self._tell_trouble(why)
        backoff_s = min(first_backoff_s * 2.0**self._failures, MAX_BACKOFF_S)
        self._failures = min(self._failures + 1, 10)
        return backoff_s

    def _tell_trouble(self, why: str | None) -> None:
        if why != self._trouble:
            self._trouble = why
            self._on_trouble(why)


class _ProbeFailed(Exception):
    """This process is of no more use; the text says why."""


class _Child:
    """One probe process, from its start until it is dead and reaped. Needs a running loop.

    It speaks over one socket, which is its stdin and its stdout. A pidfd tells of its death: no
    thread waits for it, and nobody but this child is reaped.
    """

    def __init__(self, command: tuple[str, ...], memory_fd: int | None = None) -> None:
        """Raises _ProbeFailed, and has left nothing behind then."""
        self._loop = asyncio.get_running_loop()
        try:
            self._socket, self.pid, self.start, self._pidfd = _start(command, memory_fd)
        except OSError as error:
            why = f"the GPU probe could not be started: {error.strerror}"
            raise _ProbeFailed(why) from error
        self.gone: asyncio.Future[int | None] = self._loop.create_future()  # its exit code
        self.requests = 0
        self._answer: asyncio.Future[bytes] = self._loop.create_future()
        self._received = bytearray()
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._receive)
        self._loop.add_reader(self._pidfd, self._reap)

    def request(self, held: Sequence[Held], processes: bool) -> asyncio.Future[bytes]:
        """The line that it answers; empty where it never will."""
        self.requests += 1
        self._answer = self._loop.create_future()
        try:
            # One request at a time, and even 64 full GPUs make one that the socket's buffer takes.
            self._socket.sendall(encode_request(self.requests, held, processes))
        except OSError:
            self._answer.set_result(b"")
        return self._answer

    def kill(self) -> None:
        if not self.gone.done():
            signals.pidfd_send_signal(self._pidfd, signals.SIGKILL)

    async def dismiss(self) -> None:
        """Takes its stdin away; who has not left after a second is killed. Takes 2 s at the most."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        await asyncio.wait({self.gone}, timeout=LEAVE_S)
        self.kill()
        await asyncio.wait({self.gone}, timeout=LEAVE_S)

    async def last_words(self) -> str:
        await asyncio.wait({self.gone}, timeout=LEAVE_S)
        if not self.gone.done():
            return "fell silent"
        code = self.gone.result()
        if code is None:
            return "is gone"
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def _receive(self) -> None:
        try:
            chunk = self._socket.recv(2**18)
        except OSError:
            chunk = b""
        self._received += chunk
        if not chunk:
            self._loop.remove_reader(self._socket)
            self._received.clear()
        if not chunk or chunk.endswith(b"\n"):
            if not self._answer.done():
                self._answer.set_result(bytes(self._received))
            self._received.clear()

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            self.gone.set_result(None)
        else:
            self.gone.set_result(os.waitstatus_to_exitcode(status))


def _start(
    command: tuple[str, ...], memory_fd: int | None
) -> tuple[socket.socket, int, int | None, int]:
    """Our end of its socket, its pid, its start time (None: it has died already) and a pidfd. Raises
    OSError, and nothing runs or is open then."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            pid = _spawn(command, theirs.fileno(), memory_fd)
        identity = processes.identity(pid)  # before the pidfd, which may take the last descriptor
        return ours, pid, identity[1] if identity else None, _watch(pid)
    except OSError:
        ours.close()
        raise


def _watch(pid: int) -> int:
    """A pidfd of a child of ours that has just been started; who cannot be watched is ended."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signals.SIGKILL)  # nobody else can have the number before it is reaped
        os.waitpid(pid, 0)
        raise


def _spawn(command: tuple[str, ...], fd: int, memory_fd: int | None) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, fd, 0), (os.POSIX_SPAWN_DUP2, fd, 1)]
    if memory_fd is not None:
        actions.append((os.POSIX_SPAWN_DUP2, memory_fd, MEMORY_FD))
    return os.posix_spawn(command[0], command, os.environ, file_actions=actions)
