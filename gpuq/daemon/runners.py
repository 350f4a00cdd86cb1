"""Where runners come from: one that has ended clean takes another attempt, and the launcher forks
others ahead. Each waits at its gate for an order.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gpuq
from gpuq.daemon import faults
from gpuq.daemon.attempt import launcher
from gpuq.daemon.attempt.gate import HEADER
from gpuq.daemon.linux import processes

LEAVING_S = 1.0
AGAIN_S = 0.1  # after a launcher has died, since the next one may do so at once
HASTE_S = 0.1
REFILL_S = 0.03
IDLE_S = 1.0  # in a queue the next attempt follows at once; for another submit one is at hand
MOST_BYTES = 64 * 1024
# A Unix socket in which nothing lies takes three times as much, as a rule.
AT_ONCE_BYTES = 64 * 1024
# With `-m` Python takes runpy, contextlib and collections along, half a megabyte in each runner.
LAUNCH = "from gpuq.daemon.attempt.launcher import main; main()"
PACKAGES = str(Path(gpuq.__file__).parents[1])


class Gate:
    """The daemon's end of a runner's gate, on the loop's thread. `cgroup` is the control group that its
    jobs are in. Use `meet` to get one."""

    def __init__(self, line: socket.socket, version: int, hello: Mapping[str, Any]) -> None:
        self.version = version
        self.pid: int = hello["pid"]
        self.start: int = hello["start"]
        self.cgroup: str | None = hello.get("cgroup")
        self.waits_since = 0.0  # with nothing to do, on the loop's clock
        self.is_in_group = True  # where its next job is to be born
        self.line = line
        self._data = bytearray()  # what came and is not read yet
        self._is_open = True
        self._hear: Callable[[dict[str, Any] | None], None] | None = None
        # For good, since to be told of one thing at a time costs two system calls more for each.
        asyncio.get_running_loop().add_reader(line, self._take_in)

    @classmethod
    async def meet(cls, line: socket.socket) -> "Gate | None":
        """With a runner that says hello; None where it is gone before that."""
        hello = await _receive(line)
        return None if hello is None else cls(line, hello["version"], hello["hello"])

    def send(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> memoryview:
        """At once, as far as there is room; returns what is left to be sent."""
        frame = memoryview(_frame(message))
        try:
            # Nothing lies in this socket yet, so there is room for a part of it at least.
            return frame[socket.send_fds(self.line, [frame], list(fds)) :]
        except OSError:
            return frame[:0]  # it died at the gate; the end of the connection tells the rest

    def send_at_once(self, message: Mapping[str, Any]) -> bool:
        """The same where there is room for all of it; False: nothing was sent."""
        frame = _frame(message)
        if len(frame) > AT_ONCE_BYTES:
            return False
        try:
            sent = self.line.send(frame)
        except BlockingIOError:
            return False
        except OSError:
            return True  # it died at the gate; the end of the connection tells the rest
        if sent < len(frame):
            with suppress(OSError):
                self.line.shutdown(socket.SHUT_RDWR)  # half of it cannot be taken back: it leaves
        return True

    async def send_rest(self, rest: memoryview) -> None:
        with suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self.line, rest)

    def listen(self, hear: Callable[[dict[str, Any] | None], None]) -> None:
        """`hear` gets each message as it comes, and None at the end of the connection, until somebody
        is to `be_silent`. No task waits for them: an end is on the way to the next start."""
        self._hear = hear
        self._deliver()

    def be_silent(self) -> None:
        """What it says is for who listens next."""
        self._hear = None

    def wait_in_group(self) -> None:
        """Has it go where its next job is to be born, which may take a while."""
        if not self.is_in_group:
            self.is_in_group = True
            with suppress(OSError):
                self.line.send(_frame({"wait_in_group": True}))

    def is_there(self) -> bool:
        """False: it died while it waited."""
        if self._is_open:
            self._take_in()
        return self._is_open

    def close(self) -> None:
        """It leaves, or after what it has to do."""
        self._stop_listening()
        self.line.close()

    def _take_in(self) -> None:
        try:
            data = self.line.recv(MOST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._data += data
        if not data:
            self._stop_listening()
        self._deliver()

    def _deliver(self) -> None:
        while self._hear is not None:
            message = self._next()
            if message is None and self._is_open:
                return
            hear = self._hear
            if message is None:
                self._hear = None
            hear(message)

    def _stop_listening(self) -> None:
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().remove_reader(self.line)

    def _next(self) -> dict[str, Any] | None:
        if len(self._data) < HEADER.size:
            return None
        end = HEADER.size + HEADER.unpack_from(self._data)[0]
        if len(self._data) < end:
            return None
        message: dict[str, Any] = json.loads(self._data[HEADER.size : end])
        del self._data[:end]
        return message


class Runners:
    """A runner that waits is always at hand, and the launcher is started again if it dies. A clean one
    waits for `idle_s`."""

    def __init__(self, cgroup_root: str | None, idle_s: float = IDLE_S) -> None:
        self._cgroup_root = cgroup_root
        self._idle_s = idle_s
        self._clean: list[Gate] = []  # the one that has waited longest first
        self._leaving: asyncio.TimerHandle | None = None
        self._standby: asyncio.Task[Gate] | None = None
        self._taken_at = 0.0
        self._launcher: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        self._start_launcher()
        self._refill()

    async def close(self) -> None:
        """The launcher and runners without an order go with us."""
        control, self._control = self._control, None  # nobody else is forked from here on
        waiting: list[Any] = self._clean
        self._clean, self._idle_s = [], 0.0
        if self._leaving is not None:
            self._leaving.cancel()
        if self._standby is not None:
            self._standby.cancel()
            waiting += await asyncio.gather(self._standby, return_exceptions=True)
        gates = [gate for gate in waiting if isinstance(gate, Gate)]
        for gate in gates:
            gate.close()
        with suppress(TimeoutError):  # they take their control groups with them
            async with asyncio.timeout(LEAVING_S):
                for gate in gates:
                    await wait_for_death(gate.pid, gate.start)
        if control is not None:
            self._hang_up(control)
        if self._launcher is not None:
            await asyncio.to_thread(self._launcher.wait)

    async def take(self) -> Gate:
        """A runner that waits at its gate. Another one is forked ahead: at once where starts follow
        each other, else a little later, since the kernel lets nobody fork while it moves the new
        runner into its control group, and the job that starts now has to."""
        while (gate := self._take_clean()) is None:
            standby, self._standby = self._standby, None
            gate = await (standby or self._fork_runner())
            self._fork_ahead()
            if gate.is_there():
                break
            gate.close()
        return gate

    def take_at_hand(self) -> Gate | None:
        """The same without waiting: None where none waits by now."""
        if (clean := self._take_clean()) is not None:
            return clean
        standby = self._standby
        if standby is None or not standby.done() or standby.cancelled() or standby.exception():
            return None  # what went wrong is for who waits for one
        self._standby = None
        self._fork_ahead()
        gate = standby.result()
        if gate.is_there():
            return gate
        gate.close()
        return None

    def keep(self, gate: Gate) -> None:
        """One that has ended clean, and whose end is committed."""
        if not self._idle_s:
            gate.close()
            return
        loop = asyncio.get_running_loop()
        gate.waits_since = loop.time()
        gate.wait_in_group()
        self._clean.append(gate)
        if self._leaving is None:
            self._leaving = loop.call_later(self._idle_s, self._dismiss_idle)

    def _take_clean(self) -> Gate | None:
        """The last one, so that those who are one too many are idle."""
        while self._clean:
            gate = self._clean.pop()
            if gate.is_there():
                return gate
            gate.close()
        return None

    def _dismiss_idle(self) -> None:
        loop, self._leaving = asyncio.get_running_loop(), None
        while self._clean:
            left_s = self._clean[0].waits_since + self._idle_s - loop.time()
            if left_s > 0:
                self._leaving = loop.call_later(left_s, self._dismiss_idle)
                return
            self._clean.pop(0).close()

    def _fork_ahead(self) -> None:
        now = time.monotonic()
        in_haste = now - self._taken_at < HASTE_S
        self._taken_at = now
        if in_haste:
            self._refill()
        else:
            asyncio.get_running_loop().call_later(REFILL_S, self._refill)

    def _refill(self) -> None:
        if self._standby is None and self._control is not None:
            self._standby = asyncio.ensure_future(self._fork_runner())

    def _start_launcher(self) -> None:
        ours, theirs = socket.socketpair()
        words = [str(theirs.fileno()), self._cgroup_root or ""]
        with theirs:
            self._launcher = subprocess.Popen(
                [sys.executable, "-S", "-P", "-c", LAUNCH, *words],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # a runner that outlives us must keep no pipe of ours open
                start_new_session=True,
                # Without what `site` finds and loads, a megabyte less in each runner.
                env=os.environ | {"PYTHONPATH": PACKAGES} | faults.handed_down(),
            )
        self._control = ours
        asyncio.get_running_loop().add_reader(ours, self._launcher_left, ours)

    def _launcher_left(self, control: socket.socket) -> None:
        """It says nothing, so this is the end of the connection."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(control)
        loop.call_later(AGAIN_S, self._replace_launcher, control)

    def _replace_launcher(self, control: socket.socket) -> None:
        if control is not self._control:
            return  # that has been done, or we leave ourselves
        self._hang_up(control)
        assert self._launcher is not None
        self._launcher.wait()
        self._start_launcher()

    def _hang_up(self, control: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(control)
        control.close()

    async def _fork_runner(self) -> Gate:
        """A fresh runner that has said hello."""
        while True:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            try:
                with theirs:
                    self._ask_launcher(theirs)
                gate = await Gate.meet(ours)
            except BaseException:
                ours.close()
                raise
            if gate is not None:
                return gate
            ours.close()
            await asyncio.sleep(AGAIN_S)  # it could not fork, or died: not in a tight circle

    def _ask_launcher(self, gate: socket.socket) -> None:
        control = self._control
        assert control is not None
        try:
            socket.send_fds(control, [launcher.FORK], [gate.fileno()])
        except OSError:
            self._replace_launcher(control)
            assert self._control is not None
            socket.send_fds(self._control, [launcher.FORK], [gate.fileno()])


async def wait_for_death(pid: int, start: int) -> None:
    fd = _open_pidfd(pid, start)
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


def _open_pidfd(pid: int, start: int) -> int | None:
    """A descriptor of a process, taken before its identity is checked; None where it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    if processes.is_alive(pid, start):
        return fd
    os.close(fd)
    return None


def _frame(message: Mapping[str, Any]) -> bytes:
    data = json.dumps(message).encode()
    return HEADER.pack(len(data)) + data


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
