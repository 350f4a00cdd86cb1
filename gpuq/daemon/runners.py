"""Where runners come from: the launcher forks them ahead, and each waits at its gate for an order."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from gpuq.daemon import faults
from gpuq.daemon.attempt import launcher
from gpuq.daemon.attempt.gate import HEADER
from gpuq.daemon.linux import processes

LEAVING_S = 1.0

HASTE_S = 0.1
REFILL_S = 0.03


class Gate:
    """The daemon's end of a runner's gate. `cgroup` is the control group that its job will be in."""

    def __init__(self, line: socket.socket, version: int, hello: Mapping[str, Any]) -> None:
        self.line = line
        self.version = version
        self.pid: int = hello["pid"]
        self.start: int = hello["start"]
        self.cgroup: str | None = hello.get("cgroup")

    async def send(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        data = json.dumps(message).encode()
        header = HEADER.pack(len(data))
        try:
            # Nothing lies in this socket yet, so a header always finds room.
            if fds:
                socket.send_fds(self.line, [header], list(fds))
            else:
                self.line.send(header)
            await asyncio.get_running_loop().sock_sendall(self.line, data)
        except OSError:
            pass  # it died at the gate; the end of the connection tells the rest

    async def receive(self) -> dict[str, Any] | None:
        return await _receive(self.line)

    def close(self) -> None:
        self.line.close()


class Runners:
    """A runner that waits is always at hand, and the launcher is started again if it dies."""

    def __init__(self, cgroup_root: str | None) -> None:
        self._cgroup_root = cgroup_root
        self._standby: asyncio.Task[Gate] | None = None
        self._taken_at = 0.0
        self._launcher: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        self._start_launcher()
        self._refill()

    async def close(self) -> None:
        """The launcher and a runner without an order go with us."""
        if self._standby is not None:
            self._standby.cancel()
            for gate in await asyncio.gather(self._standby, return_exceptions=True):
                if isinstance(gate, Gate):
                    gate.close()
                    with suppress(TimeoutError):  # it takes its control group with it
                        async with asyncio.timeout(LEAVING_S):
                            await wait_for_death(gate.pid, gate.start)
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._launcher is not None:
            await asyncio.to_thread(self._launcher.wait)

    async def take(self) -> Gate:
        """A runner that waits at its gate. Another one is forked ahead: at once where starts follow
        each other, else a little later, since the kernel lets nobody fork while it moves the new
        runner into its control group, and the job that starts now has to."""
        standby, self._standby = self._standby, None
        gate = await (standby or self._fork_runner())
        now = time.monotonic()
        in_haste = now - self._taken_at < HASTE_S
        self._taken_at = now
        if in_haste:
            self._refill()
        else:
            asyncio.get_running_loop().call_later(REFILL_S, self._refill)
        if not processes.is_alive(gate.pid, gate.start):  # it died while it waited
            gate.close()
            return await self.take()
        return gate

    def _refill(self) -> None:
        if self._standby is None and self._control is not None:
            self._standby = asyncio.ensure_future(self._fork_runner())

    def _start_launcher(self) -> None:
        ours, theirs = socket.socketpair()
        words = [str(theirs.fileno()), self._cgroup_root or ""]
        with theirs:
            self._launcher = subprocess.Popen(
                [sys.executable, "-P", "-m", "gpuq.daemon.attempt.launcher", *words],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # a runner that outlives us must keep no pipe of ours open
                start_new_session=True,
                env=os.environ | faults.handed_down(),
            )
        self._control = ours

    async def _fork_runner(self) -> Gate:
        """A fresh runner that has said hello."""
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
                return Gate(ours, message["version"], message["hello"])
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
