"""Accepts connections, asks the kernel who calls, cuts the bytes into requests, sends the answers.

What a client does wrong costs that client its connection and nobody else anything: frames are
limited, a line begun must be finished, and who does not read is not written to any further.
"""

import asyncio
import socket
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import structlog

import gpuq
from gpuq import protocol
from gpuq.daemon.callers.peer import Callers, Credentials, Heard, Peer
from gpuq.daemon.callers.shares import Shares
from gpuq.daemon.listening import BACKLOG, Listener
from gpuq.errors import GpuqError, NotPermitted, UsageError

HELLO_S = 5.0
FRAME_S = 30.0  # from the first byte of a line to its last
MOST_PIPELINED = 64
PIECE_BYTES = 256 * 1024
LOOK_EVERY_S = 5.0  # whether the socket's file is still there

log = structlog.get_logger()


# What a request is answered with: once, or again and again, for as long as the client stays.
Answer = protocol.Message | AsyncGenerator[protocol.Message, None]
Handle = Callable[[protocol.Message, Peer], Awaitable[Answer]]


class Server:
    """Listens on a Unix socket; `handle` answers one request of one peer. `is_open` to every user of
    the machine; who may do what is decided by who calls. `given` is the socket that systemd holds."""

    def __init__(
        self,
        path: str,
        handle: Handle,
        facts: protocol.Message,
        callers: Callers | None = None,
        *,
        is_open: bool = False,
        given: socket.socket | None = None,
    ) -> None:
        self.path = path
        self.handle = handle
        self.facts = facts  # what our hello says of this daemon
        self.callers = callers or Callers()
        self.shares = Shares()
        self.connections: set[Connection] = set()
        # What is read passes through here, of all connections: the usual way of asyncio maps memory
        # anew for each piece, and gives it back.
        self.piece = memoryview(bytearray(PIECE_BYTES))
        self._listener = Listener(path, is_open=is_open, given=given)
        self._acceptors: list[asyncio.Server] = []

    async def listen(self) -> None:
        """From here on clients are answered. The caller holds the lock of the state directory."""
        for sock in self._listener.open():
            await self._accept_from(sock)

    async def stay_reachable(self) -> None:
        """Listens anew where somebody has removed the socket's file. Until it is cancelled."""
        trouble = None
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if not self._listener.is_cut_off():
                continue
            before, trouble = trouble, await self._listen_anew()
            if trouble is not None and trouble != before:
                log.error("clients cannot reach this daemon", why=trouble, again_in_s=LOOK_EVERY_S)

    async def _listen_anew(self) -> str | None:
        """Why that cannot be. Who has connected goes on."""
        try:
            sock = self._listener.bind()
        except GpuqError as error:
            return str(error)
        # What systemd holds is listened to all the same: it may have somebody waiting in it.
        unreachable = self._acceptors[self._listener.is_given :]
        await self._accept_from(sock)
        for acceptor in unreachable:
            self._acceptors.remove(acceptor)
            acceptor.close()
        log.warning("the socket's file was removed; this daemon listens anew", socket=self.path)
        return None

    async def _accept_from(self, sock: socket.socket) -> None:
        # Not create_unix_server: from Python 3.13 on it removes the socket's file in the end, also
        # where that is systemd's.
        loop = asyncio.get_running_loop()
        self._acceptors.append(
            await loop.create_server(lambda: Connection(self), sock=sock, backlog=BACKLOG)
        )

    async def close(self, reason: str, *, back: bool = False) -> None:
        """An orderly end: who is connected is told not to wait for us, or that another comes."""
        for acceptor in self._acceptors:
            acceptor.close()
        for connection in list(self.connections):
            connection.say_bye(reason, back=back)
        self._listener.leave()


class Connection(asyncio.BufferedProtocol):
    """One client: bytes in, lines out, one request after the other."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0  # of those lines
        self._answered_bytes = 0  # of the line that is being answered
        self._held_bytes = 0  # of all, as last said to the shares
        self._work = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._deadline: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self._bearer: int  # whose share it takes of
        self.peer: Peer
        self.greeted = False

    # ── what asyncio calls ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        told = self._server.callers.ask_kernel(transport.get_extra_info("socket"))
        self._bearer = told.bearer
        if (trouble := self._server.shares.admit(self._bearer)) is not None:
            self._refuse(NotPermitted(trouble))
            return
        self._server.connections.add(self)
        heard = self._server.callers.known(told)
        if heard is None:
            transport.pause_reading()  # until it is known who speaks
        if heard is None or self._admit(heard):
            self._task = self._loop.create_task(self._serve(None if heard else told))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._server.piece

    def buffer_updated(self, nbytes: int) -> None:
        self._buffer += self._server.piece[:nbytes]
        if not self._is_over_its_share():
            self._cut_lines()
            self._weigh()

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_deadline()
        if self in self._server.connections:
            self._server.connections.remove(self)
            self._server.shares.leave(self._bearer)
            self._server.shares.hold(self._bearer, -self._held_bytes)
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._weigh()
        self._writable.set()

    # ── lines ──

    def say_bye(self, reason: str, *, back: bool) -> None:
        self._transport.write(protocol.encode({"bye": reason} | ({"back": True} if back else {})))
        self._transport.close()

    def _cut_lines(self) -> None:
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

    def _take_line(self, line: bytes) -> None:
        if not self.greeted:
            self._greet(line)
            return
        self._lines.append(line)
        self._waiting_bytes += len(line)
        self._work.set()
        if len(self._lines) >= MOST_PIPELINED or self._waiting_bytes >= protocol.FRAME_LIMIT:
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

    def _admit(self, heard: Heard) -> bool:
        self.peer = heard.peer
        if heard.refusal is not None:
            self._refuse(NotPermitted(heard.refusal))
            return False
        self._restart_deadline(HELLO_S)
        return True

    async def _serve(self, told: Credentials | None) -> None:
        """`told` where it takes a look into the users' database to know who calls."""
        if told is not None:
            if not self._admit(await self._server.callers.know(told)):
                return
            self._transport.resume_reading()
        while True:
            await self._work.wait()
            while self._lines:
                await self._serve_next()
            self._work.clear()

    async def _serve_next(self) -> None:
        line = self._lines.popleft()
        self._waiting_bytes -= len(line)
        self._answered_bytes = len(line)
        if not self._transport.is_reading() and self._has_room():
            self._transport.resume_reading()
            self._expect_rest_of_line()
        answer = await self._answer(line)
        if isinstance(answer, bytes):
            await self._send(answer)
            return
        async with aclosing(answer) as parts:
            async for part in parts:
                await self._send(part)

    async def _send(self, answer: bytes) -> None:
        if not self._is_over_its_share(len(answer)):
            self._transport.write(answer)
        self._answered_bytes = 0
        self._weigh()
        # Who reads slowly is told the rest later, and nobody waits for that but himself.
        await self._writable.wait()

    def _has_room(self) -> bool:
        few = len(self._lines) < MOST_PIPELINED // 2
        return few and self._waiting_bytes < protocol.FRAME_LIMIT

    async def _answer(self, line: bytes) -> bytes | AsyncGenerator[bytes, None]:
        """One; or with a subscription the first and what follows, until the client goes."""
        request: protocol.Message = {}
        request_id: str | int | None = None
        try:
            request = protocol.decode(line)
            request_id = _request_id(request)
            answer = await self._server.handle(request, self.peer)
            if isinstance(answer, dict):
                return protocol.answer(request_id, answer)
            return self._parts(request, request_id, answer)
        except Exception as error:
            return self._failure(request, request_id, error)

    async def _parts(
        self,
        request: protocol.Message,
        request_id: str | int | None,
        news: AsyncGenerator[protocol.Message, None],
    ) -> AsyncGenerator[bytes, None]:
        word = "ok"
        try:
            async with aclosing(news):
                async for part in news:
                    yield protocol.encode({"id": request_id, word: part})
                    word = "more"
        except Exception as error:
            yield self._failure(request, request_id, error)

    def _failure(
        self, request: protocol.Message, request_id: str | int | None, error: Exception
    ) -> bytes:
        """A fault of ours ends the request, never the daemon."""
        if not isinstance(error, GpuqError):
            log.error(
                "request failed",
                do=str(request.get("do"))[:40],
                user=self.peer.user,
                exc_info=error,
            )
            error = GpuqError("the daemon failed at this request; its log says how")
        return protocol.encode(protocol.failure(request_id, error))

    def _refuse(self, error: GpuqError) -> None:
        self._buffer.clear()
        self._lines.clear()
        self._waiting_bytes = 0
        self._transport.write(protocol.encode(protocol.failure(None, error)))
        self._transport.close()

    def _is_over_its_share(self, more: int = 0) -> bool:
        """Whether its user holds too much, with so many bytes more; it is refused then."""
        self._weigh()
        trouble = self._server.shares.trouble(self._bearer, more)
        if trouble is not None:
            self._refuse(NotPermitted(trouble))
            self._weigh()
        return trouble is not None

    def _weigh(self) -> None:
        """Says what it holds by now. What is written below the transport's own marks is not told of
        as it leaves, so this may be late by so much, and is at the next answer."""
        written = self._transport.get_write_buffer_size()
        held = len(self._buffer) + self._waiting_bytes + self._answered_bytes + written
        if held == self._held_bytes:
            return
        self._server.shares.hold(self._bearer, held - self._held_bytes)
        self._held_bytes = held

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
