"""Which GPUs this daemon has to itself: one lock for each, between all daemons of gpuq on a machine.

A lock is a socket bound to an abstract name (unix(7)). The kernel lets go of the name when the last
process that has the descriptor is gone, so nothing needs cleaning after a crash. The runner of a job
has it too: a GPU stays locked while a job lives whose daemon does not. Nobody ever accepts on it: it
listens only so that whoever connects is told by the kernel who locked the GPU. A container with a
network of its own has abstract names of its own, and is not covered.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gpuq.core.model import Lease
from gpuq.daemon.gpus.holders import UserNames
from gpuq.daemon.linux import processes

NAME = "gpuq-gpu-"
# Each daemon that looks at a lock stays connected; one that crashed again and again has left a
# connection each time. The kernel takes fewer where net.core.somaxconn says so.
MOST_CONNECTIONS = 4096
NAMELESS = "held by somebody who does not say who"
LEAVING = "held by the runner of its last job, which is about to leave"
_CREDENTIALS = struct.Struct("=iII")  # struct ucred of unix(7): pid, uid, gid


class GpuLocks:
    """The locks that this daemon has, and a look at those of others. GPUs are named by uuid, and their
    locks by `name` and the uuid; `pid` is what the kernel tells others of us."""

    def __init__(self, name: str = NAME, pid: int | None = None) -> None:
        self._name = name
        self._pid = os.getpid() if pid is None else pid
        self._held: dict[str, socket.socket] = {}
        self._at_runners: set[str] = set()  # only runners of an earlier daemon have the descriptor
        self._others: dict[str, _Other] = {}
        self._nameless: set[str] = set()
        self._names = UserNames()

    def take(self, uuids: Sequence[str]) -> Mapping[str, str]:
        """Locks all of these GPUs, or none: returns who has which of them, in words. Raises OSError
        where no socket is to be had."""
        # The runner that had it may have ended just now, before the locks were settled again.
        self._at_runners -= {uuid for uuid in uuids if uuid in self._at_runners and self._try(uuid)}
        free = [uuid for uuid in uuids if not self._is_ours(uuid)]
        refused = {uuid: self._name_holder(uuid) for uuid in free if not self._lock(uuid)}
        if refused:
            for uuid in free:
                self._let_go(uuid)
        return refused

    def descriptors(self, uuids: Iterable[str]) -> tuple[int, ...]:
        """For the runner, to hold for its life."""
        return tuple(self._held[uuid].fileno() for uuid in uuids if uuid in self._held)

    def settle(self, leases: Iterable[Lease]) -> None:
        """Has what is leased, and lets go of what no longer is.

        A lock that is not to be had under an active lease is our own: after a restart only the
        runner has its descriptor. It is tried again at each call, since that runner may end while a
        later job shares the GPU. Where the lease only cools there is no runner any more, and who
        has locked the GPU meanwhile is somebody else.
        """
        is_active: dict[str, bool] = {}
        for lease in leases:
            is_active[lease.gpu] = is_active.get(lease.gpu, False) or lease.is_active
        for uuid in self._held.keys() - is_active.keys():
            self._let_go(uuid)
        missing = {uuid for uuid in is_active if uuid not in self._held and not self._try(uuid)}
        self._at_runners = {uuid for uuid in missing if is_active[uuid]}

    def holder(self, uuid: str) -> str | None:
        """Who else has locked this GPU, in words. A look takes some microseconds."""
        if self._is_ours(uuid):
            return None
        other = self._others.get(uuid) or self._connect(uuid)
        if other is not None and not other.is_there():
            self._forget(uuid)
            other = self._connect(uuid)
        if other is not None:
            return None if other.pid == self._pid else other.words()
        if uuid in self._nameless and self._is_free(uuid):
            self._nameless.remove(uuid)
        return NAMELESS if uuid in self._nameless else None

    def close(self) -> None:
        """Lets go of all that no runner holds."""
        for uuid in list(self._held):
            self._let_go(uuid)
        for uuid in list(self._others):
            self._forget(uuid)

    def _is_ours(self, uuid: str) -> bool:
        return uuid in self._held or uuid in self._at_runners

    def _lock(self, uuid: str) -> bool:
        lock = self._bind(uuid)
        if lock is None:
            return False
        self._held[uuid] = lock
        self._forget(uuid)
        return True

    def _try(self, uuid: str) -> bool:
        try:
            return self._lock(uuid)
        except OSError:
            return False  # no descriptor to be had now

    def _let_go(self, uuid: str) -> None:
        lock = self._held.pop(uuid, None)
        if lock is not None:
            lock.close()

    def _name_holder(self, uuid: str) -> str:
        """Of a lock that was refused. It may have been bound just now, and not listen yet; or it is
        our own, which we have let go while a runner still writes its record to the disk."""
        words = self.holder(uuid)
        if words is None and uuid in self._others:
            return LEAVING
        if words is None:
            self._nameless.add(uuid)
        return words or NAMELESS

    def _connect(self, uuid: str) -> "_Other | None":
        """Who has locked this GPU. The connection is kept: it ends when nobody has the lock any more,
        and to make one at each look would fill the queue of a socket on which nobody accepts."""
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.setblocking(False)
        try:
            line.connect(self._address(uuid))
            pid, uid, _ = _CREDENTIALS.unpack(
                line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
        except OSError as error:
            line.close()
            if error.errno == errno.EAGAIN:  # its queue is full
                self._nameless.add(uuid)
            return None
        own = processes.identity(pid)
        start = own[1] if own is not None else None
        other = _Other(line=line, pid=pid, start=start, user=self._names.name_of(uid))
        self._others[uuid] = other
        self._nameless.discard(uuid)
        return other

    def _forget(self, uuid: str) -> None:
        self._nameless.discard(uuid)
        other = self._others.pop(uuid, None)
        if other is not None:
            other.line.close()

    def _is_free(self, uuid: str) -> bool:
        """Could it be had? Not asked of every GPU, since for a moment it is had."""
        try:
            lock = self._bind(uuid)
        except OSError:
            return False
        if lock is None:
            return False
        lock.close()
        return True

    def _bind(self, uuid: str) -> socket.socket | None:
        """The lock of this GPU; None where somebody has it."""
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lock.bind(self._address(uuid))
            lock.listen(MOST_CONNECTIONS)
        except OSError as error:
            lock.close()
            if error.errno == errno.EADDRINUSE:
                return None
            raise
        return lock

    def _address(self, uuid: str) -> bytes:
        """The longest uuid of the driver has 95 bytes (nvml.h), and a name may have 107 (unix(7))."""
        return b"\0" + (self._name + uuid).encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Other:
    """Who has locked a GPU: the daemon that did, and a connection that lasts as long as the lock."""

    line: socket.socket
    pid: int
    start: int | None  # None: it was gone by then, and a job that it left has the lock
    user: str

    def is_there(self) -> bool:
        try:
            return bool(self.line.recv(1))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def words(self) -> str:
        if self.start is not None and processes.is_alive(self.pid, self.start):
            return f"held by another gpuq daemon (pid {self.pid}, {self.user})"
        return f"held by a job that another gpuq daemon left behind ({self.user})"
