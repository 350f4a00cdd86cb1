"""Who is at the other end of a connection, as the kernel tells it, and what they may do.

Nothing that a caller says of itself counts. Who may do what stands here and nowhere else: a daemon of
one's own obeys its user and root; one for the whole machine obeys root and the members of
`admin_group` in everything, and everybody else in what is theirs.
"""

import asyncio
import errno
import os
import select
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gpuq.config import Config
from gpuq.daemon.callers import names
from gpuq.daemon.linux import processes, syscalls
from gpuq.errors import NotPermitted

NOBODY = -1  # the uid of root in a container, who is nobody here
SO_PEERPIDFD = 77  # include/uapi/asm-generic/socket.h; Linux 6.5
NAMESPACES = ("user", "mnt")

ADMINS = "root, or a member of the group in its setting admin_group, and not from a container"
CONTAINER = (
    "you are root of a container (another user or mount namespace), who is no user of this machine: "
    "you may look at the queue and do nothing else. Run the container with --user and your own "
    "UID:GID, or call from outside of it. Nothing was done."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who calls, as the kernel told it when the connection was made. `groups` has the ids of all
    groups of the process, its own with them."""

    uid: int
    gid: int
    pid: int
    user: str
    groups: frozenset[int] = frozenset()
    is_admin: bool = False

    def may_change(self, uid: int) -> bool:
        """A job of that user's, or a wish about it."""
        return self.is_admin or self.is_self(uid)

    def may_see_secrets_of(self, uid: int) -> bool:
        """An environment may hold passwords: an admin who is not root is not told of it."""
        return self.uid == 0 or self.is_self(uid)

    def is_self(self, uid: int) -> bool:
        return self.uid == uid != NOBODY

    @property
    def may_act(self) -> bool:
        """False for who may only look, whatever it is about."""
        return self.uid != NOBODY

    def require_change(self) -> None:
        """NotPermitted for who may only look."""
        if not self.may_act:
            raise NotPermitted(CONTAINER)

    def require_admin(self, what: str) -> None:
        """NotPermitted for who is none; `what` goes on after "only an admin may"."""
        self.require_change()
        if not self.is_admin:
            raise NotPermitted(f"only an admin may {what}: {ADMINS}. Nothing was done.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the kernel says of a caller. `is_outside`: not of our user and mount namespace, as in a
    container, or not to be known."""

    uid: int
    gid: int
    pid: int
    groups: frozenset[int]
    is_outside: bool

    @property
    def is_container_root(self) -> bool:
        return self.uid == 0 and self.is_outside

    @property
    def bearer(self) -> int:
        """The uid to whose account the connection goes."""
        return NOBODY if self.is_container_root else self.uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A caller, and why nothing that it says is listened to, if so."""

    peer: Peer
    refusal: str | None


class Callers:
    """Makes a Peer of what the kernel says. `machine` has the settings of a daemon for the whole
    machine, which are read anew for each caller; None: it is somebody's own."""

    def __init__(self, machine: Config | None = None) -> None:
        self._machine = machine
        self._own_uid = os.geteuid()

    def ask_kernel(self, sock: Any) -> Credentials:
        """The credentials of when the connection was made. Does not block."""
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, gid = struct.unpack("3i", raw)
        return Credentials(
            uid=uid,
            gid=gid,
            pid=pid,
            groups=frozenset({gid, *_supplementary(sock)}),
            # A user's own daemon could not look into a process of root's, and root is who root is.
            is_outside=self._machine is not None and not _is_of_our_namespaces(sock, pid, uid),
        )

    def known(self, told: Credentials) -> Heard | None:
        """The caller, if no name has to be looked up for it."""
        asked = names.users.begin(told.uid), names.users.begin(self._own_uid)
        groups = {name: names.groups.begin(name) for name in self._group_names()}
        if not all(one.done() for one in asked) or not all(one.done() for one in groups.values()):
            return None
        gids = {name: future.result() for name, future in groups.items()}
        return self._judge(told, gids, *(future.result() for future in asked))

    async def know(self, told: Credentials) -> Heard:
        """Looks names up, and goes without them where the database hangs."""
        wanted = self._group_names()
        users = asyncio.gather(names.users.get(told.uid), names.users.get(self._own_uid))
        gids = await asyncio.gather(*map(names.groups.get, wanted))
        return self._judge(told, dict(zip(wanted, gids, strict=True)), *await users)

    def _group_names(self) -> Sequence[str]:
        if self._machine is None:
            return ()
        return self._machine.admin_group, *self._machine.allow_groups

    def _judge(
        self, told: Credentials, gids: Mapping[str, int | None], user: str | None, own: str | None
    ) -> Heard:
        peer = self._peer(told, gids, user or str(told.uid))
        if self._machine is not None:
            return Heard(peer=peer, refusal=_not_served(peer, self._machine.allow_groups, gids))
        whose = own or str(self._own_uid)
        no = f"this is {whose}'s own daemon; you are {peer.user}. Start yours: gpuq daemon start"
        return Heard(peer=peer, refusal=None if peer.is_admin else no)

    def _peer(self, told: Credentials, gids: Mapping[str, int | None], user: str) -> Peer:
        if told.is_container_root:
            return Peer(uid=NOBODY, gid=NOBODY, pid=told.pid, user="root of a container")
        return Peer(
            uid=told.uid,
            gid=told.gid,
            pid=told.pid,
            user=user,
            groups=told.groups,
            is_admin=self._is_admin(told, gids),
        )

    def _is_admin(self, told: Credentials, gids: Mapping[str, int | None]) -> bool:
        if self._machine is None:
            return told.uid in (0, self._own_uid)
        # Root of a container could give itself any group, were it only asked for the group.
        is_in_group = gids[self._machine.admin_group] in told.groups
        return not told.is_outside and (told.uid == 0 or is_in_group)


def _not_served(peer: Peer, allowed: Sequence[str], gids: Mapping[str, int | None]) -> str | None:
    if not allowed or peer.is_admin or peer.groups & {gids[name] for name in allowed}:
        return None
    unknown = [name for name in allowed if gids[name] is None]
    hint = f" (this machine does not know {', '.join(unknown)})" if unknown else ""
    return (
        f"this daemon serves the members of {', '.join(allowed)}{hint}, and {peer.user} is none. "
        "Ask an admin of this machine to be made one, and log in again. Nothing was done."
    )


def _supplementary(sock: Any) -> Sequence[int]:
    try:
        return syscalls.peer_groups(sock.fileno())
    except OSError:  # a kernel before 4.13
        return ()


# ── containers ──


def _is_of_our_namespaces(sock: Any, pid: int, uid: int) -> bool:
    """False as well for whom it cannot be known. Looking at /proc/PID may mean another process that
    has the number by now: a descriptor of the caller tells that it still had it after the look."""
    pidfd = _pidfd(sock, pid, uid)
    if pidfd is None:
        return False
    try:
        return _shares_namespaces(pid) and not _has_exited(pidfd)
    except OSError:
        return False
    finally:
        os.close(pidfd)


def _pidfd(sock: Any, pid: int, uid: int) -> int | None:
    try:
        return int(sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD))
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            return None  # it has gone
    # An older kernel: the process that has the number now, if it is still one of the same user's.
    with suppress(OSError):
        if pid > 0:
            pidfd = os.pidfd_open(pid)
            # A user's set-uid program has root's /proc/PID, and the user for its real uid.
            if os.stat(f"/proc/{pid}").st_uid == uid == processes.real_uid(pid):
                return pidfd
            os.close(pidfd)
    return None


def _shares_namespaces(pid: int) -> bool:
    """Ours, or those of pid 1: an admin may have put the service into a namespace of its own."""
    caller = [_namespace(pid, kind) for kind in NAMESPACES]
    if caller == [_namespace("self", kind) for kind in NAMESPACES]:
        return True
    try:
        return caller == [_namespace(1, kind) for kind in NAMESPACES]
    except PermissionError:  # root without the right to look into others
        return False


def _namespace(pid: int | str, kind: str) -> tuple[int, int]:
    found: os.stat_result = os.stat(f"/proc/{pid}/ns/{kind}")
    return found.st_dev, found.st_ino


def _has_exited(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
