"""The process that delivers a notice, as the daemon sees it: when the daemon leaves it goes on, and the
mark tells the next one."""

import asyncio
import json
import os
import signal as signals
import sys
from collections.abc import Mapping
from typing import Any

from gpuq import paths
from gpuq.daemon import faults
from gpuq.daemon.linux import processes
from gpuq.daemon.notices.deliver import OF_A_SESSION

# -P: a file of ours must not be shadowed by one in the folder that the daemon stands in.
COMMAND = (sys.executable, "-P", "-m", "gpuq.daemon.notices.deliver")


class Child:
    """`gone` is set once it has ended. OSError where it cannot be started."""

    def __init__(self, order: Mapping[str, Any], *, is_system: bool) -> None:
        self._loop = asyncio.get_running_loop()
        given = _file_of(order)
        try:
            actions = [
                (os.POSIX_SPAWN_DUP2, given, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ]
            environment = _environment(is_system)
            self.pid = os.posix_spawn(
                COMMAND[0], COMMAND, environment, file_actions=actions, setsid=True
            )
        finally:
            os.close(given)
        self.gone = asyncio.Event()
        self._pidfd = _pidfd_of(self.pid)
        own = processes.identity(self.pid)
        self.start = own[1] if own else 0  # 0: it has died already
        self._loop.add_reader(self._pidfd, self._reap)

    def let_go(self) -> None:
        """It goes on by itself."""
        if not self.gone.is_set():
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass
        self.gone.set()


def end_family(pid: int, start: int) -> None:
    """KILL for a process that delivers and all that it started, where it can be told what that is."""
    table = processes.Table()
    family = table.descendants(pid) if processes.is_alive(pid, start) else {}
    for one, since in {pid: start, **family, **table.left_in_session(pid, start)}.items():
        processes.send(one, signals.SIGKILL, start=since)


def _environment(is_system: bool) -> dict[str, str]:
    if not is_system:
        return {**os.environ, **faults.handed_down()}
    kept = {name: os.environ[name] for name in OF_A_SESSION if name in os.environ}
    return {"PATH": paths.TRUSTED_PATH, **kept, **faults.handed_down()}


def _file_of(order: Mapping[str, Any]) -> int:
    """Not words of its command line, nor a variable: others could read a token there."""
    fd = os.memfd_create("order")
    with open(fd, "wb", closefd=False) as file:
        file.write(json.dumps(order).encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _pidfd_of(pid: int) -> int:
    """Of a child that has just been started; without one nobody would learn of its end."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signals.SIGKILL)
        os.waitpid(pid, 0)
        raise
