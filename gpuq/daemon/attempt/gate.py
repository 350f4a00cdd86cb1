"""What goes through a runner's gate: messages of any length, with descriptors beside them.

The runner's blocking side of it, and the frame that both sides keep to. Standard library only.
"""

from __future__ import annotations

import _socket  # socket would bring enum and selectors into each runner
import struct

from gpuq import wire_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Message = dict[str, Any]

HEADER = struct.Struct("!I")  # the length of the JSON that follows
MOST_FDS = 64
_FD = struct.Struct("i")
_ROOM = _socket.CMSG_LEN(MOST_FDS * _FD.size)


def send(gate: _socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """A message of any length; a daemon that is gone is no matter."""
    data = wire_json.dumps(message).encode()
    header = HEADER.pack(len(data))
    try:
        if fds:
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, b"".join(map(_FD.pack, fds)))
            gate.sendmsg([header], [rights])
            header = b""
        gate.sendall(header + data)
    except OSError:
        pass


def receive(gate: _socket.socket) -> tuple[Message | None, list[int]]:
    """The next whole message with the descriptors that came along; None at the end of the
    connection, however far the message had come."""
    fds: list[int] = []
    header = _receive_exactly(gate, HEADER.size, fds)
    body = None if header is None else _receive_exactly(gate, HEADER.unpack(header)[0], fds)
    return (None if body is None else wire_json.loads(body)), fds


def receive_some(gate: _socket.socket, size: int) -> tuple[bytes, list[int]]:
    """What is there, of up to so many bytes, with the descriptors that came along. No program that is
    executed meanwhile gets those: a job that inherited its runner's gate would keep it open after the
    runner's death."""
    data, beside, _, _ = gate.recvmsg(size, _ROOM, _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, came in beside:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            whole = came[: len(came) - len(came) % _FD.size]
            fds += [fd for (fd,) in _FD.iter_unpack(whole)]
    return data, fds


def _receive_exactly(gate: _socket.socket, size: int, fds: list[int]) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        try:
            chunk, came = receive_some(gate, size - len(data))
        except OSError:
            return None
        fds += came
        if not chunk:
            return None
        data += chunk
    return bytes(data)
