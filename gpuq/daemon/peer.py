"""Who is at the other end of a connection, as the kernel tells it."""

import asyncio
import pwd
import socket
import struct
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Peer:
    """Who calls, as the kernel told it when the connection was made."""

    uid: int
    gid: int
    pid: int
    user: str


def ask_kernel(transport: asyncio.Transport) -> Peer:
    sock: Any = transport.get_extra_info("socket")
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack("3i", raw)
    return Peer(uid=uid, gid=gid, pid=pid, user=user_name(uid))


_names: dict[int, str] = {}


def user_name(uid: int) -> str:
    """Looked up once: only this daemon's own user and root get as far as being asked for often."""
    if uid not in _names:
        try:
            _names[uid] = pwd.getpwuid(uid).pw_name
        except KeyError:
            _names[uid] = str(uid)
    return _names[uid]
