"""The container of a job that is a client of Docker or Podman: it is a child of its engine, so nothing
that is sent to the client's processes ends it for certain. When the main process has ended it is
removed by its id, which the client has left in a file. Standard library only, single-threaded.

That file is the user's to write: what stands in it is used for nothing but a command of that user.
"""

from __future__ import annotations

import os
import stat
import time

from gpuq.daemon.attempt.beside import spawn_beside
from gpuq.daemon.linux import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Message = dict[str, Any]

LONGEST_S = 30.0
SHORTEST_ID, LONGEST_ID = 12, 64
HEXADECIMAL = frozenset("0123456789abcdef")
SHOWN_ID = 12
SAID_BYTES = 4096
TRIES, AGAIN_S = 3, 0.2
_UNKNOWN = b"no such container"  # it has removed itself, as with --rm
_UNKNOWN_TO_PODMAN = b"no container with"


def read_id(name: str, folder: int) -> str | None:
    """The id that a client has left in that directory; None where there is none, or something else."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=folder)
    except OSError:
        return None
    try:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        said = os.read(fd, LONGEST_ID + 2).decode("ascii", "replace").strip() if is_file else ""
    except OSError:
        return None
    finally:
        os.close(fd)
    is_id = SHORTEST_ID <= len(said) <= LONGEST_ID and HEXADECIMAL.issuperset(said)
    return said if is_id else None


def end_container(
    order: Message, folder: int, tmp_dir: bytes, look: Callable[[], float]
) -> Message:
    """What is to be told of it, for the record. `look` is done meanwhile, and says in how many seconds
    again."""
    asked = order.get("container")
    cid = None if asked is None or folder < 0 else read_id(asked["id_file"], folder)
    if asked is None or cid is None:
        return {}
    removal = _Removal(order, [*asked["removal"], cid], tmp_dir)
    trouble = removal.carry_out(look)
    if trouble is None:
        return {}
    return {"container_trouble": f"container {cid[:SHOWN_ID]}: {trouble}"}


def is_gone(code: int, said: bytes) -> bool:
    """Does a client that was asked to remove a container say that there is none any more?"""
    said = said.lower()
    return code == 0 or _UNKNOWN in said or _UNKNOWN_TO_PODMAN in said


class _Removal:
    """Asked again where it was killed: when the grace is over, all that the job is gets a KILL once a
    second, and this is a part of it like the rest. Asked again, too, where the engine refuses: Podman
    does so once for a container that has just been killed behind its back."""

    def __init__(self, order: Message, argv: list[str], tmp_dir: bytes) -> None:
        self._order = order
        self._argv = argv
        self._tmp_dir = tmp_dir
        self._until = time.monotonic() + LONGEST_S

    def carry_out(self, look: Callable[[], float]) -> str | None:
        """None where it is gone."""
        engine, refusals = os.path.basename(self._argv[0]), 0
        while True:
            try:
                code, said = self._try_once(look)
            except OSError as error:
                return f"{engine} could not be started: {error.strerror}"
            if is_gone(code, said):
                return None
            if time.monotonic() >= self._until:
                return f"{engine} rm did not end within {LONGEST_S:g} s"
            refusals += code != -signals.SIGKILL
            if refusals >= TRIES:
                return f"{engine} rm ended with code {code}"
            time.sleep(AGAIN_S)

    def _try_once(self, look: Callable[[], float]) -> tuple[int, bytes]:
        """Its exit code, or minus the signal that ended it, and what it said."""
        said_fd, output = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            try:
                os.set_blocking(output, True)
                pid = spawn_beside(self._order, self._argv, tmp_dir=self._tmp_dir, output=output)
            finally:
                os.close(output)
            code = self._wait(pid, look)
            return code, _read(said_fd)
        finally:
            os.close(said_fd)

    def _wait(self, pid: int, look: Callable[[], float]) -> int:
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            left_s = self._until - time.monotonic()
            if left_s <= 0:
                os.kill(pid, signals.SIGKILL)
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            signals.sigtimedwait({signals.SIGCHLD}, min(look(), left_s))


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, SAID_BYTES)
    except BlockingIOError:
        return b""
