"""Accepts connections, asks the kernel who calls, cuts the bytes into requests, sends the answers.

What a client does wrong costs that client its connection and nobody else anything: frames are
limited, a line begun must be finished, and who does not read is not written to any further.
"""

import asyncio
import os
import resource
import socket
import stat
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

import gpuq
from gpuq import paths, protocol
from gpuq.daemon.peer import Peer, ask_kernel, user_name
from gpuq.errors import GpuqError, NotPermitted, UsageError

HELLO_S = 5.0
FRAME_S = 30.0  # from the first byte of a line to its last
MOST_PIPELINED = 64
MOST_CONNECTIONS = 4096  # of one user, where the limit of descriptors leaves room for the jobs

log = structlog.get_logger()


Handle = Callable[[protocol.Message, Peer], Awaitable[protocol.Message]]


class Server:
    """Listens on a Unix socket; `handle` answers one request of one peer."""

    def __init__(self, path: str, handle: Handle, facts: protocol.Message) -> None:
        self.path = path
        self.handle = handle
        self.facts = facts  # what our hello says of this daemon
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """From here on clients are answered. The caller holds the lock of the state directory."""
        sock = _listening_socket(self.path)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Connection(self), sock=sock)

    async def close(self, reason: str, *, back: bool = False) -> None:
        """An orderly end: who is connected is told not to wait for us, or that another comes."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.say_bye(reason, back=back)
        try:
            os.unlink(self.path)
        except OSError:
            pass


class Connection(asyncio.Protocol):
    """One client: bytes in, lines out, one request after the other."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._lines: deque[bytes] = deque()
        self._work = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._deadline: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self.peer: Peer
        self.greeted = False

    # ── what asyncio calls ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.peer = ask_kernel(transport)
        refusal = self._refusal()
        if refusal is not None:
            self._refuse(NotPermitted(refusal))
            return
        self._server.connections.add(self)
        self._restart_deadline(HELLO_S)
        self._task = self._loop.create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0 and end <= self._limit():
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._take_line(line)
            if self._transport.is_closing():
                return
            self._stop_deadline()
        if len(self._buffer) > self._limit():
            size = f"{self._limit() // 1024} KiB"
            self._refuse(UsageError(f"a line of more than {size}; the connection was closed"))
        else:
            self._expect_rest_of_line()

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_deadline()
        self._server.connections.discard(self)
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # ── lines ──

    def say_bye(self, reason: str, *, back: bool) -> None:
        self._transport.write(protocol.encode({"bye": reason} | ({"back": True} if back else {})))
        self._transport.close()

    def _take_line(self, line: bytes) -> None:
        if not self.greeted:
            self._greet(line)
            return
        self._lines.append(line)
        self._work.set()
        if len(self._lines) >= MOST_PIPELINED:
            self._transport.pause_reading()

    def _greet(self, line: bytes) -> None:
        try:
            said = protocol.decode(line).get("hello")
        except UsageError as error:
            self._refuse(error)
            return
        if not isinstance(said, dict) or not isinstance(said.get("protocol"), int):
            self._refuse(UsageError("a connection begins with a hello"))
            return
        self.greeted = True
        self._stop_deadline()
        self._transport.write(
            protocol.encode(protocol.hello(gpuq.__version__, **self._server.facts))
        )

    async def _serve(self) -> None:
        while True:
            await self._work.wait()
            while self._lines:
                line = self._lines.popleft()
                if not self._transport.is_reading() and len(self._lines) < MOST_PIPELINED // 2:
                    self._transport.resume_reading()
                    self._expect_rest_of_line()
                self._transport.write(await self._answer(line))
                await self._writable.wait()
            self._work.clear()

    async def _answer(self, line: bytes) -> bytes:
        request: protocol.Message = {}
        request_id: str | int | None = None
        try:
            request = protocol.decode(line)
            request_id = _request_id(request)
            answer = await self._server.handle(request, self.peer)
            return protocol.encode({"id": request_id, "ok": answer})
        except GpuqError as error:
            return protocol.encode(protocol.failure(request_id, error))
        except Exception:  # a fault of ours ends the request, never the daemon
            log.exception("request failed", do=str(request.get("do"))[:40], user=self.peer.user)
            fault = GpuqError("the daemon failed at this request; its log says how")
            return protocol.encode(protocol.failure(request_id, fault))

    def _refusal(self) -> str | None:
        if self.peer.uid not in (0, os.geteuid()):
            owner = user_name(os.geteuid())
            you = self.peer.user
            return f"this is {owner}'s own daemon; you are {you}. Start yours: gpuq daemon start"
        same = sum(other.peer.uid == self.peer.uid for other in self._server.connections)
        if same >= min(MOST_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2):
            return f"you have {same} connections open already; close some first"
        return None

    def _refuse(self, error: GpuqError) -> None:
        self._transport.write(protocol.encode(protocol.failure(None, error)))
        self._transport.close()

    def _limit(self) -> int:
        return protocol.FRAME_LIMIT if self.greeted else protocol.HELLO_LIMIT

    def _expect_rest_of_line(self) -> None:
        """A line begun is to be finished in time; while we do not read, that is not its fault."""
        if not self._transport.is_reading():
            self._stop_deadline()
        elif self._buffer and self._deadline is None:
            self._restart_deadline(FRAME_S)

    def _restart_deadline(self, seconds: float) -> None:
        self._stop_deadline()
        self._deadline = self._loop.call_later(seconds, self._give_up)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        self._refuse(UsageError("a line was begun and not finished; the connection was closed"))


def _request_id(request: protocol.Message) -> str | int | None:
    """What the answer repeats. A deep list would be read, but not be written again."""
    value = request.get("id")
    if value is not None and not isinstance(value, str | int):
        raise UsageError("id: a whole number or a text is wanted")
    return value


def _listening_socket(path: str) -> socket.socket:
    """Binds where nobody serves. What lies there is a socket whose daemon is gone, or is refused."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    except OSError as error:
        raise GpuqError(f"cannot listen on {path}: {error.strerror}") from None
    if os.path.lexists(path):
        _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)  # the socket is born 0600: there is no moment in which it is not
    try:
        paths.bind(sock, path)
    except OSError as error:
        sock.close()
        raise GpuqError(f"cannot listen on {path}: {error.strerror}") from None
    finally:
        os.umask(before)
    sock.listen(1024)
    return sock


def _remove_stale(path: str) -> None:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise GpuqError(f"cannot listen on {path}: something that is no socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            paths.connect(probe, path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            raise GpuqError(f"cannot listen on {path}: {error.strerror}") from None
    raise GpuqError(f"cannot listen on {path}: another daemon answers there")
