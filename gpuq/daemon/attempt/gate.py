"""What goes through a runner's gate: messages of any length, with descriptors beside them.

The runner's blocking side of it, and the frame that both sides keep to. Standard library only.
"""

import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

HEADER = struct.Struct("!I")  # the length of the JSON that follows
MOST_FDS = 64

Message = dict[str, Any]


def send(gate: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """A message of any length; a daemon that is gone is no matter."""
    data = json.dumps(message).encode()
    header = HEADER.pack(len(data))
    try:
        if fds:
            socket.send_fds(gate, [header], fds)
            header = b""
        gate.sendall(header + data)
    except OSError:
        pass


def receive(gate: socket.socket) -> tuple[Message | None, list[int]]:
    """The next whole message with the descriptors that came along; None at the end of the
    connection, however far the message had come."""
    fds: list[int] = []
    header = _receive_exactly(gate, HEADER.size, fds)
    body = None if header is None else _receive_exactly(gate, HEADER.unpack(header)[0], fds)
    return (None if body is None else json.loads(body)), fds


def _receive_exactly(gate: socket.socket, size: int, fds: list[int]) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        try:
            chunk, came, _, _ = socket.recv_fds(gate, size - len(data), MOST_FDS)
        except OSError:
            return None
        for fd in came:
            os.set_inheritable(fd, False)
            fds.append(fd)
        if not chunk:
            return None
        data += chunk
    return bytes(data)
