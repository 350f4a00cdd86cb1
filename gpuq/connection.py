"""Lines over a Unix socket, from the client's side. On the start-up path: standard library only."""

from __future__ import annotations

import os
import sys
import time
from _socket import (  # socket would bring enum and selectors, which cost as much as all the rest here
    AF_UNIX,
    SHUT_RDWR,
    SO_PEERCRED,
    SOCK_CLOEXEC,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)

from gpuq import paths, protocol
from gpuq.errors import DaemonUnreachable, GpuqError

CHUNK = 64 * 1024  # of 128 KiB and more each piece would be memory mapped for it alone
LAST_WORD_S = 1.0


class Gone(Exception):
    """The daemon left: for good, or to be back soon, where it said so."""

    def __init__(self, why: str, *, for_good: bool = False, back_soon: bool = False) -> None:
        super().__init__(why)
        self.for_good = for_good
        self.back_soon = back_soon


class Connection:
    """One connection. Nothing is sent before the kernel has told who listens."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        self._buffer = bytearray()
        try:
            paths.connect(self._socket, path)
            self._check_peer()
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def hang_up(self) -> None:
        """Whoever waits for an answer in another thread waits no longer."""
        try:
            self._socket.shutdown(SHUT_RDWR)
        except OSError:
            pass  # it is closed already

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            self._hear_last_word()
            raise Gone(f"the daemon at {self._path} went away: {error}") from None

    def receive(self, answer_s: float | None, request_id: int | None) -> protocol.Message:
        """The hello (request_id None), or the answer to a request."""
        deadline = None if answer_s is None else time.monotonic() + answer_s
        while True:
            message = protocol.decode(self._line(deadline))
            if "bye" in message:
                back = bool(message.get("back"))
                why = f"the daemon was stopped: {message['bye']}"
                raise Gone(why, for_good=not back, back_soon=back)
            if request_id is None or message.get("id") in (request_id, None):
                return message

    def _hear_last_word(self) -> None:
        """A daemon that closes says why before it does: it leaves, or it refuses us."""
        try:
            message = self.receive(LAST_WORD_S, None)
        except DaemonUnreachable:
            return
        if "error" in message:
            protocol.raise_failure(message["error"])

    def _line(self, deadline: float | None) -> bytes:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            try:
                left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
                self._socket.settimeout(left)
                data = self._socket.recv(CHUNK)
            except TimeoutError:
                raise DaemonUnreachable(
                    f"the daemon at {self._path} did not answer in time. See: gpuq daemon status"
                ) from None
            except OSError as error:
                raise Gone(f"the daemon at {self._path} went away: {error}") from None
            if not data:
                raise Gone(f"the daemon at {self._path} closed the connection")
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _check_peer(self) -> None:
        """A socket that somebody else put there gets neither environment nor command."""
        _pid_uid_gid = self._socket.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
        uid = int.from_bytes(_pid_uid_gid[4:8], sys.byteorder)
        if uid not in (0, os.geteuid()):
            raise GpuqError(
                f"the socket {self._path} is served by uid {uid}, which is neither you nor root; "
                "nothing was sent to it"
            )
