"""What a client does wrong costs that client its connection, and nobody else anything."""

import asyncio
import json
import os
import random
import select
import shutil
import socket
import stat
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, nullcontext
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

import gpuq
from gpuq import config, paths, protocol
from gpuq.client import Client
from gpuq.core.decisions import Plan, Signal
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import JobState, Snapshot
from gpuq.daemon import server as server_module
from gpuq.daemon.callers import names, shares
from gpuq.daemon.callers.names import Lookup
from gpuq.daemon.callers.peer import Callers, Peer
from gpuq.daemon.requests.handlers import Handlers
from gpuq.daemon.server import Handle, Server
from gpuq.daemon.store import Store
from gpuq.daemon.watchers import Watchers
from gpuq.errors import (
    DaemonUnreachable,
    GpuqError,
    NeverFits,
    NothingMatched,
    NotPermitted,
    UsageError,
)
from tests import stored

DEADLINE_S = 20.0
MIB = 2**20
HELLO = protocol.encode(protocol.hello("0.0.1"))
SOMEBODY = 65534


# ─── a server and its clients ────────────────────────────────────────────────────────────────────


async def answer(request: protocol.Message, peer: Peer) -> protocol.Message:
    """Does what the request names; stands for the handlers."""
    match request.get("do"):
        case "echo":
            return {"said": request.get("say"), "uid": peer.uid}
        case "doze":
            await asyncio.sleep(request["s"])
            return {"said": request.get("say")}
        case "fill":
            return {"much": "x" * request["bytes"]}
        case "refuse":
            raise NeverFits("this machine has 4 GPUs")
        case "break":
            raise KeyError("a fault of ours")
        case "nonsense":
            return {"unspeakable": object()}
    raise UsageError("what?")


@asynccontextmanager
async def serving(path: Path | str, handle: Handle = answer) -> AsyncIterator[Server]:
    server = Server(str(path), handle, {"pid": 4711})
    await server.listen()
    try:
        yield server
    finally:
        await server.close("the test is over")
        await until(lambda: not server.connections, "all connections to be closed")


class Caller:
    """A client that may say anything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes | protocol.Message) -> None:
        self.writer.write(data if isinstance(data, bytes) else protocol.encode(data))

    async def receive(self) -> protocol.Message:
        line = await asyncio.wait_for(self.reader.readline(), DEADLINE_S)
        assert line.endswith(b"\n"), "the connection was closed"
        return protocol.decode(line)

    async def ask(self, do: str, **arguments: Any) -> protocol.Message:
        self.send({"id": 1, "do": do, **arguments})
        return await self.receive()

    async def is_closed(self) -> bool:
        """Is there nothing more to come?"""
        try:
            return await asyncio.wait_for(self.reader.read(1), DEADLINE_S) == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def calling(path: Path | str, first: bytes = HELLO) -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=32 * MIB)
    caller = Caller(reader, writer)
    try:
        caller.send(first)
        if first == HELLO:
            assert "hello" in await caller.receive()
        yield caller
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass


async def until(condition: Callable[[], Any], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.005)


def with_server(path: Path, deed: Callable[[Server], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving(path) as server:
            await asyncio.wait_for(deed(server), 2 * DEADLINE_S)

    asyncio.run(main())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gpuq.sock"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


# ─── hello ───────────────────────────────────────────────────────────────────────────────────────


def test_both_sides_say_hello(path: Path) -> None:
    async def deed(server: Server) -> None:
        async with calling(path, b"") as caller:
            caller.send(HELLO)
            assert await caller.receive() == {
                "hello": {"version": gpuq.__version__, "protocol": protocol.PROTOCOL, "pid": 4711}
            }
            answered = await caller.ask("echo", say="hi")
            assert answered == {"id": 1, "ok": {"said": "hi", "uid": os.getuid()}}

    with_server(path, deed)


@pytest.mark.parametrize(
    "first",
    [
        b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b'{"hello": 1}\n',
        b'{"hello": {}}\n',
        b'{"hello": {"protocol": "1"}}\n',
        b'{"hello": {"protocol": 1}\n',
        b'{"id": 1, "do": "echo"}\n',
        b"\xff\xfe\x00\n",
        b"[" * 4000 + b"\n",
    ],
)
def test_who_does_not_say_hello_is_refused(path: Path, first: bytes) -> None:
    async def deed(server: Server) -> None:
        async with calling(path, first) as caller:
            refusal = await caller.receive()
            assert refusal["error"]["code"] == "usage"
            assert await caller.is_closed()

    with_server(path, deed)


def test_unknown_fields_are_ignored(path: Path) -> None:
    async def deed(server: Server) -> None:
        hello = protocol.hello("9.9", colour="red")
        hello["hello"]["protocol"] = 2
        async with calling(path, b"") as caller:
            caller.send(hello | {"more": [1, 2]})
            assert "hello" in await caller.receive()
            assert (await caller.ask("echo", say=1, mood="good"))["ok"]["said"] == 1

    with_server(path, deed)


@pytest.mark.parametrize("begun", [b"", b'{"hello": {"prot'])
def test_who_does_not_finish_a_hello_is_left(
    path: Path, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(server_module, "HELLO_S", 0.05)

    async def deed(server: Server) -> None:
        async with calling(path, begun) as caller:
            assert "not finished" in (await caller.receive())["error"]["message"]
            assert await caller.is_closed()

    with_server(path, deed)


def test_a_hello_is_short(path: Path) -> None:
    async def deed(server: Server) -> None:
        padding = protocol.HELLO_LIMIT - len(protocol.encode(protocol.hello("1", pad=""))) + 1
        longest = protocol.encode(protocol.hello("1", pad="x" * padding))
        assert len(longest) == protocol.HELLO_LIMIT + 1  # with its newline
        async with calling(path, longest) as caller:
            assert "hello" in await caller.receive()
        for too_long in (longest[:-2] + b"x}\n", b"x" * (protocol.HELLO_LIMIT + 1)):
            async with calling(path, too_long) as caller:
                assert "more than 4 KiB" in (await caller.receive())["error"]["message"]
                assert await caller.is_closed()

    with_server(path, deed)


# ─── requests ────────────────────────────────────────────────────────────────────────────────────


def test_a_request_may_be_large_and_not_endless(path: Path) -> None:
    async def deed(server: Server) -> None:
        async with calling(path) as caller:
            said = "x" * (protocol.FRAME_LIMIT - 100)
            assert (await caller.ask("echo", say=said))["ok"]["said"] == said
            caller.send(b"x" * (protocol.FRAME_LIMIT + 1))
            assert "more than 8192 KiB" in (await caller.receive())["error"]["message"]
            assert await caller.is_closed()

    with_server(path, deed)


def test_who_does_not_finish_a_line_is_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "FRAME_S", 0.05)

    async def deed(server: Server) -> None:
        async with calling(path) as caller:
            await asyncio.sleep(0.2)  # silence between lines is nobody's fault
            assert "ok" in await caller.ask("echo")
            caller.send(b'{"id": 2, "do": "ec')
            assert "not finished" in (await caller.receive())["error"]["message"]
            assert await caller.is_closed()

    with_server(path, deed)


def test_who_sends_line_after_line_is_not_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece ends in the middle of a line, and none of them takes its time."""
    monkeypatch.setattr(server_module, "FRAME_S", 0.8)

    async def deed(server: Server) -> None:
        line = protocol.encode({"id": 1, "do": "echo"})
        async with calling(path) as caller:
            caller.send(line[:10])
            for _ in range(20):
                caller.send(line[10:] + line[:10])
                assert "ok" in await caller.receive()
                await asyncio.sleep(0.05)

    with_server(path, deed)


def test_time_does_not_count_while_the_daemon_does_not_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "FRAME_S", 0.5)

    async def deed(server: Server) -> None:
        many = server_module.MOST_PIPELINED
        line = protocol.encode({"id": 1, "do": "echo"})
        async with calling(path) as caller:
            caller.send({"id": 0, "do": "doze", "s": 0.8})
            caller.send(line * many + line[:10])
            await caller.receive()
            caller.send(line[10:])
            for _ in range(many + 1):
                assert "ok" in await caller.receive()

    with_server(path, deed)


def test_pipelined_requests_are_answered_in_order(path: Path) -> None:
    async def deed(server: Server) -> None:
        many = 5 * server_module.MOST_PIPELINED
        chance = random.Random(7)
        async with calling(path) as caller:
            for number in range(many):
                slow = chance.random() < 0.1
                caller.send({"id": number, "do": "doze", "s": 0.001 if slow else 0, "say": number})
            answers = [await caller.receive() for _ in range(many)]
        assert [(a["id"], a["ok"]["said"]) for a in answers] == [(n, n) for n in range(many)]

    with_server(path, deed)


def test_an_error_is_told_by_its_name_and_ends_nothing(path: Path) -> None:
    async def deed(server: Server) -> None:
        async with calling(path) as caller:
            assert (await caller.ask("refuse"))["error"] == {
                "code": "never_fits",
                "message": "this machine has 4 GPUs",
            }
            caller.send(b"not json\n")
            assert (await caller.receive())["error"]["code"] == "usage"
            assert "ok" in await caller.ask("echo")

    with_server(path, deed)


@pytest.mark.parametrize("do", ["break", "nonsense"])
def test_a_fault_of_ours_ends_the_request_and_not_the_daemon(path: Path, do: str) -> None:
    async def deed(server: Server) -> None:
        async with calling(path) as caller:
            failed = await caller.ask(do)
            assert failed["id"] == 1
            assert failed["error"]["code"] == "failed"
            assert "its log says how" in failed["error"]["message"]
            assert "ok" in await caller.ask("echo")

    with_server(path, deed)


@pytest.mark.parametrize("odd", ["[" * 900 + "]" * 900, "{}", "1.5", "1e400", "NaN"])
def test_an_odd_id_is_refused(path: Path, odd: str) -> None:
    async def deed(server: Server) -> None:
        async with calling(path) as caller:
            caller.send(f'{{"id": {odd}, "do": "echo"}}\n'.encode())
            refusal = await caller.receive()
            assert (refusal["id"], refusal["error"]["code"]) == (None, "usage")
            assert "ok" in await caller.ask("echo")

    with_server(path, deed)


# ─── many clients ────────────────────────────────────────────────────────────────────────────────


def call(path: Path) -> socket.socket:
    """Asks for more than a socket takes at once, and does not wait for it."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.connect(str(path))
    caller.sendall(HELLO + protocol.encode({"id": 1, "do": "fill", "bytes": MIB}))
    return caller


def replied_to(server: Server) -> int:
    """To how many there is more to say than they have taken."""
    return sum(c._transport.get_write_buffer_size() > 0 for c in server.connections)


def test_a_thousand_clients_that_vanish_cost_nothing(path: Path) -> None:
    async def deed(server: Server) -> None:
        async with calling(path) as patient:
            for number in range(20):
                callers = [call(path) for _ in range(50)]
                if number % 2:  # these vanish with half a reply, the others before it
                    await until(lambda: replied_to(server) == 50, "50 replies to be begun")
                    for caller in callers:
                        caller.recv(1000)
                for caller in callers:
                    caller.close()
                assert "ok" in await patient.ask("echo")
            await until(lambda: len(server.connections) == 1, "the vanished to be forgotten")
            assert "ok" in await patient.ask("echo")
        tasks = [task for task in asyncio.all_tasks() if "Connection._serve" in repr(task)]
        await until(lambda: all(task.done() for task in tasks), "their tasks to end")

    with_server(path, deed)


def test_who_does_not_read_stops_nobody_else(path: Path) -> None:
    async def deed(server: Server) -> None:
        async with calling(path) as patient:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
                deaf.connect(str(path))
                request = protocol.encode({"id": 1, "do": "fill", "bytes": MIB})
                deaf.sendall(HELLO + request * 50)
                await until(lambda: len(server.connections) == 2, "the deaf one to be heard")
                for _ in range(100):
                    assert "ok" in await patient.ask("echo")
                waiting = [c._transport.get_write_buffer_size() for c in server.connections]
                assert max(waiting) <= MIB + 1000, "an answer at most is kept for who does not read"

    with_server(path, deed)


def test_one_user_has_so_many_connections_and_no_more(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "MOST_CONNECTIONS", 2)

    async def deed(server: Server) -> None:
        async with calling(path):
            async with calling(path), calling(path, b"") as third:
                refusal = (await third.receive())["error"]
                assert refusal["code"] == "not_permitted"
                assert "2 connections open" in refusal["message"]
                assert await third.is_closed()
                with Client(str(path)) as client, pytest.raises(NotPermitted, match="2 conn"):
                    await asyncio.to_thread(client.call, "echo")
            await until(lambda: len(server.connections) == 1, "the second to be gone")
            async with calling(path) as another:
                assert "ok" in await another.ask("echo")

    with_server(path, deed)


def deaf(path: Path, request: bytes) -> socket.socket:
    """Asks, and does not read the answer."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.connect(str(path))
    line.sendall(HELLO + request)
    return line


def test_lines_that_are_not_finished_take_so_much_memory_and_no_more(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "MOST_BYTES", 3 * MIB)

    async def deed(server: Server) -> None:
        async with calling(path) as one, calling(path) as other:
            one.send(b"x" * 2 * MIB)
            await until(lambda: sum(server.shares._bytes.values()) == 2 * MIB, "two MiB to wait")
            other.send(b"x" * 2 * MIB)
            refusal = (await other.receive())["error"]
            assert refusal["code"] == "not_permitted"
            assert "send less at once" in refusal["message"]
            assert await other.is_closed()
            async with calling(path) as third:
                assert "ok" in await third.ask("echo"), "what the other had has been given back"
            one.send(b"\n")
            assert (await one.receive())["error"]["code"] == "usage", "and the first goes on"
        await until(lambda: not server.connections, "all to be gone")
        assert not server.shares._bytes
        assert not server.shares._connections

    with_server(path, deed)


def test_answers_that_nobody_takes_take_so_much_memory_and_no_more(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "MOST_BYTES", 3 * MIB)
    request = protocol.encode({"id": 1, "do": "fill", "bytes": MIB})

    def waiting(server: Server) -> int:
        return sum(c._transport.get_write_buffer_size() for c in server.connections)

    async def deed(server: Server) -> None:
        with ExitStack() as lines:
            for number in range(20):
                line = lines.enter_context(deaf(path, request))
                if number > 5:  # by now it is told that it is too much, and not given more
                    await until(lambda: select.select([line], (), (), 0)[0], "a word")  # noqa: B023
                assert waiting(server) <= 3 * MIB
            assert waiting(server) > 2 * MIB
        await until(lambda: not server.connections, "all to be gone")
        assert not server.shares._bytes
        async with calling(path) as caller:
            assert "ok" in await caller.ask("fill", bytes=MIB)

    with_server(path, deed)


def test_who_sends_many_long_lines_is_read_as_fast_as_he_is_answered(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few enough to be within the number of lines, and far more than a user may have waiting."""
    monkeypatch.setattr(protocol, "FRAME_LIMIT", 300_000)
    monkeypatch.setattr(shares, "MOST_BYTES", 2 * MIB)

    async def deed(server: Server) -> None:
        async with calling(path) as caller:
            caller.send({"id": 0, "do": "doze", "s": 0.1})
            for number in range(1, 30):
                caller.send({"id": number, "do": "echo", "say": "x" * 250_000})
            for number in range(30):
                assert (await caller.receive())["id"] == number

    with_server(path, deed)


def test_all_users_together_take_so_much_memory_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shares, "MOST_BYTES_OF_ALL", 3 * MIB)
    taken = shares.Shares()
    for uid in (1000, 1001, 1002):
        taken.hold(uid, MIB)
    assert taken.trouble(1003) is None
    refused = taken.trouble(1003, 1)
    assert refused is not None
    assert refused.startswith("all users together")
    assert taken.trouble(0, MIB) is None, "root can still put an end to it"
    taken.hold(1000, -MIB)
    assert taken.trouble(1003, MIB) is None


def test_who_is_looked_up_slowly_is_heard_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def ask(uid: int) -> str:
        assert release.wait(DEADLINE_S)
        return "ann"

    monkeypatch.setattr(names, "PATIENCE_S", DEADLINE_S)

    async def who(request: protocol.Message, peer: Peer) -> protocol.Message:
        return {"user": peer.user}

    async def main() -> None:
        async with serving(path, who) as server, calling(path) as known:
            monkeypatch.setattr(names, "users", Lookup(ask))
            async with calling(path, b"") as unknown:
                unknown.send(HELLO + protocol.encode({"id": 1, "do": "who"}))
                await until(lambda: len(server.connections) == 2, "the second to connect")
                assert "ok" in await known.ask("who"), "nobody else waits for it"
                assert [c.greeted for c in server.connections].count(False) == 1
                release.set()
                assert "hello" in await unknown.receive()
                assert (await unknown.receive())["ok"] == {"user": "ann"}

    asyncio.run(main())


# ─── who calls ───────────────────────────────────────────────────────────────────────────────────

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="NOT TESTED: only root can call as somebody else"
)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """In a folder that everybody may enter."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder / "gpuq.sock"
    shutil.rmtree(folder)


@contextmanager
def as_somebody_else() -> Iterator[None]:
    os.seteuid(SOMEBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@needs_root
def test_another_user_does_not_even_reach_the_socket(open_path: Path) -> None:
    async def deed(server: Server) -> None:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other,
            as_somebody_else(),
            pytest.raises(PermissionError),
        ):
            other.connect(str(open_path))

    with_server(open_path, deed)


@needs_root
def test_another_user_is_refused_by_what_the_kernel_says(open_path: Path) -> None:
    async def deed(server: Server) -> None:
        open_path.chmod(0o666)
        other = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with as_somebody_else():
            other.connect(str(open_path))
        reader, writer = await asyncio.open_unix_connection(sock=other)
        caller = Caller(reader, writer)
        with closing(writer):
            refusal = (await caller.receive())["error"]
            assert refusal["code"] == "not_permitted"
            assert "root's own daemon" in refusal["message"]
            assert await caller.is_closed()
            assert not server.connections
        await writer.wait_closed()

    with_server(open_path, deed)


@needs_root
def test_one_users_flood_is_nobody_elses(open_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "MOST_BYTES", MIB)
    callers = Callers(config.load({}, {}, mode="system"))

    async def main() -> None:
        server = Server(str(open_path), answer, {}, callers, is_open=True)
        await server.listen()
        assert stat.S_IMODE(open_path.stat().st_mode) == 0o666
        with as_somebody_else():
            flood = deaf(open_path, protocol.encode({"id": 1, "do": "fill", "bytes": MIB - 10_000}))
            await until(lambda: server.shares._bytes[SOMEBODY] > MIB // 2, "the flood")
            more = deaf(open_path, protocol.encode({"id": 1, "do": "fill", "bytes": MIB}))
        reader, writer = await asyncio.open_unix_connection(sock=more)
        refused = Caller(reader, writer)
        await refused.receive()
        assert "waiting in the daemon's memory" in (await refused.receive())["error"]["message"]
        async with calling(open_path) as caller:
            assert "ok" in await caller.ask("fill", bytes=MIB // 2)
        writer.close()
        flood.close()
        await server.close("the test is over")
        await until(lambda: not server.connections, "all to be gone")

    asyncio.run(main())


@needs_root
def test_a_client_tells_nothing_to_a_socket_that_somebody_else_put_there(open_path: Path) -> None:
    open_path.parent.chmod(0o777)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trap:
        with as_somebody_else():
            trap.bind(str(open_path))
            trap.listen()
        trap.settimeout(DEADLINE_S)
        os.setegid(0)
        # Root trusts nobody but root; the trap belongs to another user.
        with (
            pytest.raises(GpuqError, match="served by uid 65534"),
            Client(str(open_path)) as client,
        ):
            client.call("echo")
        accepted, _ = trap.accept()
        with accepted:
            assert accepted.recv(1) == b""


# ─── the socket ──────────────────────────────────────────────────────────────────────────────────


def test_the_socket_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "gpuq.sock"

    async def deed(server: Server) -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    with_server(path, deed)
    assert not path.exists()


def test_a_stale_socket_is_removed(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as killed:
        killed.bind(str(path))
        killed.listen()

    async def deed(server: Server) -> None:
        async with calling(path) as caller:
            assert "ok" in await caller.ask("echo")

    with_server(path, deed)


def test_a_live_socket_is_not_removed(path: Path) -> None:
    async def deed(server: Server) -> None:
        with pytest.raises(GpuqError, match="another daemon answers there"):
            await Server(str(path), answer, {}).listen()
        async with calling(path) as caller:
            assert "ok" in await caller.ask("echo")

    with_server(path, deed)


def test_a_file_that_is_no_socket_is_not_removed(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(GpuqError, match="no socket is there"):
        asyncio.run(Server(str(path), answer, {}).listen())
    assert path.read_text() == "precious"


def test_a_place_where_no_socket_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GpuqError, match=r"cannot listen on .*/file/gpuq\.sock"):
        asyncio.run(Server(str(tmp_path / "file" / "gpuq.sock"), answer, {}).listen())


def test_a_path_too_long_for_a_socket_works(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 100) / ("b" * 100) / "gpuq.sock"
    assert len(str(path)) > paths.LONGEST_SOCKET_PATH

    def ask() -> Any:
        with Client(str(path)) as client:
            return client.call("echo", say="from afar")["said"]

    async def deed(server: Server) -> None:
        with pytest.raises(GpuqError, match="another daemon answers there"):
            await Server(str(path), answer, {}).listen()
        assert await asyncio.to_thread(ask) == "from afar"

    with_server(path, deed)
    assert not path.exists()


# ─── the client ──────────────────────────────────────────────────────────────────────────────────


def test_an_orderly_end_is_said(path: Path) -> None:
    async def main() -> None:
        async with serving(path) as server, calling(path) as caller:
            with Client(str(path)) as client:
                await asyncio.to_thread(client.call, "echo")
                await server.close("it is night")
                assert await caller.receive() == {"bye": "it is night"}
                assert await caller.is_closed()
                with pytest.raises(DaemonUnreachable, match="stopped: it is night"):
                    await asyncio.to_thread(client.call, "echo")

    asyncio.run(main())


def test_a_client_finds_the_daemon_after_a_crash(path: Path) -> None:
    async def main() -> None:
        with Client(str(path)) as client:
            async with serving(path) as first:
                await asyncio.to_thread(client.call, "echo")
                for connection in first.connections:  # no bye
                    connection._transport.abort()
            asking = asyncio.ensure_future(asyncio.to_thread(client.call, "echo", say="again"))
            async with serving(path):
                assert (await asking)["said"] == "again"

    asyncio.run(main())


def test_the_clients_errors_are_the_daemons(path: Path) -> None:
    async def deed(server: Server) -> None:
        with Client(str(path)) as client, pytest.raises(NeverFits, match="has 4 GPUs"):
            await asyncio.to_thread(client.call, "refuse")

    with_server(path, deed)


def test_a_refused_hello_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HELLO_LIMIT", 16)

    async def deed(server: Server) -> None:
        with Client(str(path)) as client, pytest.raises(UsageError, match="connection was closed"):
            await asyncio.to_thread(client.call, "echo")

    with_server(path, deed)


def test_a_request_too_large_is_refused_before_it_is_sent(path: Path) -> None:
    async def deed(server: Server) -> None:
        with Client(str(path)) as client:
            with pytest.raises(UsageError, match=r"takes 9 MiB.*Split it"):
                client.call("echo", say="x" * protocol.FRAME_LIMIT)
            assert (await asyncio.to_thread(client.call, "echo", say=1))["said"] == 1

    with_server(path, deed)


# ─── what the handlers are asked ─────────────────────────────────────────────────────────────────


class Still:
    """A daemon in which nothing happens."""

    turns = 0
    plan = Plan()
    gpu_trouble: str | None = None
    has_no_driver = True
    gpus: tuple[Gpu, ...] = ()

    commit_and_start = nullcontext

    def wake(self) -> None: ...
    def look_closely(self) -> None: ...
    def look(self) -> Snapshot:
        return Snapshot(now=0.0, gpus=())

    def keep_house(self) -> None: ...
    def note_kills(self, jobs: Collection[int]) -> list[Signal]:
        return []

    def strike(self, kills: Sequence[Signal]) -> None: ...
    def ask_to_stop(self, reason: str, *, back: bool = False) -> None: ...
    def owner_of(self, pid: int) -> int | None: ...
    async def settle(self) -> None: ...
    async def first_reading(self, timeout_s: float) -> None: ...


def handlers_over(store: Store, folder: Path) -> Handlers:
    found = config.load({"state_dir": str(folder), "gpus": "none"}, {})
    return Handlers(store, found, Still(), Watchers())


def with_handlers(path: Path, deed: Callable[[Caller, Store], Awaitable[None]]) -> None:
    async def main() -> None:
        with closing(Store(":memory:")) as store:
            handlers = handlers_over(store, path.parent)
            async with serving(path, handlers.handle), calling(path) as caller:
                await deed(caller, store)

    asyncio.run(main())


@pytest.mark.parametrize("do", ["teleport", "", None, 7, ["ping"], "__init__"])
def test_an_unknown_request_names_the_version(path: Path, do: Any) -> None:
    async def deed(caller: Caller, store: Store) -> None:
        refusal = (await caller.ask(do))["error"]
        assert refusal["code"] == "usage"
        assert f"gpuq {gpuq.__version__}" in refusal["message"]

    with_handlers(path, deed)


JOB = {"argv": ["true"], "cwd": "/", "gpus": 0}
VARIABLES = ["A=1"]
HASH = sha256(b"A=1\0").hexdigest()


@pytest.mark.parametrize(
    ("do", "field", "arguments"),
    [
        ("kill", "refs", {"refs": "1"}),
        ("wait", "refs", {"refs": "1"}),
        ("status", "refs", {"refs": {"a": 1}}),
        ("wait", "timeout_s", {"refs": [1], "timeout_s": "nan"}),
        ("wait", "timeout_s", {"refs": [1], "timeout_s": -1}),
        ("kill", "grace_s", {"refs": [1], "grace_s": 1e9}),
        ("submit", "jobs", {"jobs": []}),
        ("submit", "jobs", {"jobs": [1]}),
        ("submit", "token", {"jobs": [JOB], "token": 5}),
        ("submit", "env", {"jobs": [JOB | {"changes": {"": "x"}}], "env_hash": HASH}),
        ("submit", "env_hash", {"jobs": [JOB], "env_hash": "00"}),
        ("submit", "environment", {"jobs": [JOB], "env_hash": HASH, "environment": ["A=2"]}),
        ("submit", "key", {"jobs": [JOB | {"key": "a"}] * 2, "env_hash": HASH}),
        (
            "submit",
            "--backoff",
            {"jobs": [JOB | {"backoff": "2y", "retries": 1}], "env_hash": HASH},
        ),
        ("submit", "--time", {"jobs": [JOB | {"time_limit_s": 0}], "env_hash": HASH}),
        ("pause", "refs", {"refs": "1"}),
        ("drain", "reason", {"reason": "first\nsecond"}),
        ("drain", "reason", {"reason": 5}),
        ("drain", "reason", {"reason": "x" * 201}),
        ("explain", "pid", {"pid": "1"}),
        ("explain", "pid", {"pid": 0}),
        ("explain", "pid", {}),
    ],
)
def test_an_argument_of_the_wrong_kind_is_named(
    path: Path, do: str, field: str, arguments: dict[str, Any]
) -> None:
    async def deed(caller: Caller, store: Store) -> None:
        kept = await caller.ask("submit", jobs=[JOB], environment=VARIABLES, env_hash=HASH)
        assert kept["ok"]["first"] == 1, kept
        refusal = (await caller.ask(do, **arguments))["error"]
        assert (refusal["code"], refusal["message"].split(":")[0]) == ("usage", field)
        assert (await caller.ask("ping"))["ok"]["counts"]["queued"] == 1

    with_handlers(path, deed)


def test_one_reference_is_not_a_list_of_signs(path: Path) -> None:
    async def deed(caller: Caller, store: Store) -> None:
        with Client(str(path)) as client:
            for refs in ("12", 12, ["12"], (12,)):
                with pytest.raises(NothingMatched, match="no job 12 "):
                    await asyncio.to_thread(client.kill, refs)

    with_handlers(path, deed)


NIGHTLY = {"jobs": [JOB | {"key": "nightly"}], "environment": VARIABLES, "env_hash": HASH}


def test_who_submits_a_living_key_again_is_told_of_its_job(path: Path) -> None:
    async def deed(caller: Caller, store: Store) -> None:
        first = (await caller.ask("submit", **NIGHTLY))["ok"]
        assert (first["first"], first["count"], first["note"]) == (1, 1, None)
        again = (await caller.ask("submit", **NIGHTLY))["ok"]
        assert (again["first"], again["count"]) == (1, 1)
        assert "job 1 has the key 'nightly'" in again["note"]
        await caller.ask("kill", refs=[1])
        store.happened.cancel(1, actor="root", now=1.0)
        assert (await caller.ask("submit", **NIGHTLY))["ok"]["first"] == 2

    with_handlers(path, deed)


def test_two_who_submit_one_key_at_once_get_one_job_and_only_one_has_queued_it(path: Path) -> None:
    """They share a commit, in which the second finds what the first has stored."""
    peer = Peer(pid=os.getpid(), uid=os.getuid(), gid=os.getgid(), user="ann")

    async def main() -> None:
        with closing(Store(":memory:")) as store:
            handle = handlers_over(store, path.parent).handle
            asked = [handle({"do": "submit", **NIGHTLY}, peer) for _ in range(2)]
            one, other = await asyncio.gather(*asked)
        assert one["first"] == other["first"] == 1
        assert one["note"] is None
        assert "nothing was queued" in other["note"]

    asyncio.run(main())


def test_a_submit_that_is_asked_again_is_not_laid_to_its_key(path: Path) -> None:
    async def deed(caller: Caller, store: Store) -> None:
        first = await caller.ask("submit", token="t", **NIGHTLY)
        assert await caller.ask("submit", token="t", **NIGHTLY) == first

    with_handlers(path, deed)


def test_only_what_runs_can_be_paused_or_signalled(path: Path) -> None:
    async def deed(caller: Caller, store: Store) -> None:
        await caller.ask("submit", jobs=[JOB], environment=VARIABLES, env_hash=HASH)

        async def done(do: str, **arguments: Any) -> str:
            (told,) = (await caller.ask(do, refs=[1], **arguments))["ok"]["jobs"]
            return str(told["done"])

        assert await done("pause") == "not_running"
        assert await done("kill", signal="USR1") == "not_running"
        stored.start(store, 1)
        stored.run(store, 1)
        assert await done("pause", off=True) == "already"
        assert [await done("pause"), await done("pause")] == ["paused", "already"]
        assert [await done("pause", off=True), await done("kill", signal="USR1")] == [
            "resumed",
            "signalled",
        ]

    with_handlers(path, deed)


def test_a_drain_is_told_to_whoever_asks_how_the_daemon_is(path: Path) -> None:
    async def deed(caller: Caller, store: Store) -> None:
        assert (await caller.ask("ping"))["ok"]["drained"] is None
        told = (await caller.ask("drain", reason="new driver"))["ok"]
        assert told["changed"]
        assert told["drained"]["reason"] == "new driver"
        assert (await caller.ask("ping"))["ok"]["drained"] == told["drained"]
        assert (await caller.ask("drain", off=True))["ok"]["drained"] is None
        assert not (await caller.ask("drain", off=True))["ok"]["changed"]
        unsaid = (await caller.ask("drain"))["ok"]["drained"]
        assert unsaid["reason"] == "no reason was given"

    with_handlers(path, deed)


def test_nobody_drains_a_daemon_or_touches_jobs_that_are_not_theirs(path: Path) -> None:
    stranger = Peer(pid=1, uid=os.geteuid() + 4000, gid=1, user="mallory")

    async def main() -> None:
        with closing(Store(":memory:")) as store:
            handle = handlers_over(store, path.parent).handle
            stored.job_in(store, JobState.RUNNING)
            for do in ("kill", "pause"):
                with pytest.raises(NotPermitted, match="job 1 belongs to alice"):
                    await handle({"do": do, "refs": [1]}, stranger)
            with pytest.raises(NotPermitted, match="only an admin may drain"):
                await handle({"do": "drain", "reason": "because"}, stranger)
            assert store.current.drain() is None
            assert not store.current.active()[0].pause_wished

    asyncio.run(main())


# ─── the frame decoder ───────────────────────────────────────────────────────────────────────────

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_a_line_is_a_message_or_a_usage_error(line: bytes) -> None:
    try:
        message = protocol.decode(line)
    except UsageError:
        return
    assert isinstance(message, dict)


@given(st.dictionaries(st.text(), json_values))
def test_a_message_comes_back_as_it_was_sent(message: dict[str, Any]) -> None:
    line = protocol.encode(message)
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert protocol.decode(line) == message


@given(st.binary(min_size=1))
def test_bytes_that_are_no_text_survive_the_wire(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    back = protocol.decode(protocol.encode({"argv": [text]}))["argv"][0]
    assert back.encode("utf-8", "surrogateescape") == data


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_json_does_not_know_is_no_number(number: str) -> None:
    with pytest.raises(UsageError, match="is no number"):
        protocol.decode(f'{{"timeout_s": {number}}}'.encode())


@given(st.lists(st.integers(0, 400), max_size=12))
@settings(max_examples=40, deadline=None)
def test_however_the_bytes_arrive_the_answers_are_the_same(cuts: list[int]) -> None:
    stream = HELLO + b"".join(
        protocol.encode({"id": number, "do": "echo", "say": "x" * 10 * number})
        for number in range(8)
    )
    edges = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})

    async def deed(server: Server) -> None:
        async with calling(server.path, b"") as caller:
            for begin, end in pairwise(edges):
                caller.send(stream[begin:end])
                await caller.writer.drain()
                await asyncio.sleep(0)
            assert "hello" in await caller.receive()
            for number in range(8):
                answered = await caller.receive()
                assert (answered["id"], answered["ok"]["said"]) == (number, "x" * 10 * number)

    with tempfile.TemporaryDirectory() as folder:
        with_server(Path(folder) / "s", deed)


@given(st.booleans(), st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_whatever_is_sent_the_daemon_serves_on(greeted: bool, garbage: bytes) -> None:
    async def deed(server: Server) -> None:
        async with calling(server.path, HELLO if greeted else b"") as caller:
            caller.send(garbage)
            if caller.writer.can_write_eof():
                caller.writer.write_eof()
            while line := await asyncio.wait_for(caller.reader.readline(), DEADLINE_S):
                assert "error" in protocol.decode(line)
        async with calling(server.path) as other:
            assert "ok" in await other.ask("echo")

    with tempfile.TemporaryDirectory() as folder:
        with_server(Path(folder) / "s", deed)


def test_a_users_daemon_beside_the_systems_says_whose_the_gpus_are(path: Path) -> None:
    async def main() -> None:
        found = config.load({"state_dir": str(path.parent)}, {})
        found = found.having("gpus", "none", config.BESIDE_SYSTEM)
        with closing(Store(":memory:")) as store:
            handlers = Handlers(store, found, Still(), Watchers())
            async with serving(path, handlers.handle), calling(path) as caller:
                asked = {"environment": VARIABLES, "env_hash": HASH}
                plain = {"argv": ["true"], "cwd": "/"}
                taken = (await caller.ask("submit", jobs=[plain], **asked))["ok"]
                assert taken["note"] == "this daemon of yours has no GPU, so the job gets none"
                refusal = (await caller.ask("submit", jobs=[plain | {"gpus": 1}], **asked))["error"]
                assert refusal["code"] == "never_fits"
                assert "those of this machine are the system daemon's" in refusal["message"]

    asyncio.run(main())


class Hanging(Still):
    """Its driver does not answer just now, and has shown nothing yet."""

    gpu_trouble = "the GPU driver does not answer"
    has_no_driver = False
    gpus = None  # type: ignore[assignment]


def test_a_job_does_not_run_without_a_gpu_because_the_driver_fails_just_now(path: Path) -> None:
    async def main() -> None:
        found = config.load({"state_dir": str(path.parent), "gpus": "nvml:0-1"}, {})
        with closing(Store(":memory:")) as store:
            handlers = Handlers(store, found, Hanging(), Watchers())
            async with serving(path, handlers.handle), calling(path) as caller:
                asked = {"environment": VARIABLES, "env_hash": HASH}
                plain = {"argv": ["true"], "cwd": "/"}
                taken = (await caller.ask("submit", jobs=[plain, plain | {"gpus": 9}], **asked))[
                    "ok"
                ]
                assert taken["note"] is None
                waiting = store.current.waiting(9)
                assert [job.request.gpus for job in waiting] == [1, 9], "neither is refused"

    asyncio.run(main())
