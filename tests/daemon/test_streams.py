"""A request that is answered again and again, and the client's side of it."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest
import structlog

from gpuq import protocol
from gpuq.client import Client
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.server import Answer, Server
from gpuq.errors import DaemonUnreachable, GpuqError, NothingMatched
from tests.cli.said import FakeDaemon
from tests.daemon.test_server import DEADLINE_S, MIB, calling, serving, until


class Telling:
    """Counts how far it was asked to go on, and whether it was let go."""

    def __init__(self) -> None:
        self.told = 0
        self.is_let_go = False
        self.ends: Exception | None = None

    async def handle(self, request: protocol.Message, peer: Peer) -> Answer:
        if request["do"] == "tell":
            return self._tell(request.get("bytes", 1))
        return {"said": request["do"]}

    async def _tell(self, size: int) -> AsyncGenerator[protocol.Message, None]:
        try:
            while self.ends is None:
                self.told += 1
                yield {"part": self.told, "much": "x" * size}
                await asyncio.sleep(0)
            raise self.ends
        finally:
            self.is_let_go = True


def with_telling(
    folder: Path, deed: Callable[[Server, Telling], Awaitable[None]], ends: Exception | None = None
) -> None:
    async def main() -> None:
        telling = Telling()
        telling.ends = ends
        with structlog.testing.capture_logs():
            async with serving(folder / "gpuq.sock", telling.handle) as server:
                await asyncio.wait_for(deed(server, telling), 2 * DEADLINE_S)

    asyncio.run(main())


def test_it_is_answered_once_and_then_told_more(tmp_path: Path) -> None:
    async def deed(server: Server, telling: Telling) -> None:
        async with calling(server.path) as caller:
            first = await caller.ask("tell")
            assert (first["id"], first["ok"]["part"]) == (1, 1)
            for number in (2, 3, 4):
                more = await caller.receive()
                assert (more["id"], more["more"]["part"]) == (1, number)
        await until(lambda: telling.is_let_go, "who tells to be let go with the client")

    with_telling(tmp_path, deed)


def test_who_does_not_read_is_told_no_more_and_holds_up_nobody(tmp_path: Path) -> None:
    async def deed(server: Server, telling: Telling) -> None:
        async with calling(server.path) as slow, calling(server.path) as quick:
            slow.send({"id": 1, "do": "tell", "bytes": MIB})
            # The reader's own buffer takes some; what is beyond it is not made at all.
            before = -1
            while telling.told != before:
                before = telling.told
                for _ in range(50):
                    assert (await quick.ask("hello"))["ok"] == {"said": "hello"}
            assert telling.told < 100
            parts = [await slow.receive() for _ in range(telling.told)]
            assert [p["ok" if p is parts[0] else "more"]["part"] for p in parts[:3]] == [1, 2, 3]
            await until(lambda: telling.told > before, "it to go on")

    with_telling(tmp_path, deed)


@pytest.mark.parametrize(
    ("ends", "code"), [(NothingMatched("it is over"), "nothing_matched"), (KeyError("x"), "failed")]
)
def test_a_fault_ends_the_request_and_nothing_else(
    tmp_path: Path, ends: Exception, code: str
) -> None:
    async def deed(server: Server, telling: Telling) -> None:
        async with calling(server.path) as caller:
            assert (await caller.ask("tell"))["error"]["code"] == code
            assert (await caller.ask("hello"))["ok"] == {"said": "hello"}

    with_telling(tmp_path, deed, ends)


# ── the client's side ──


def in_a_thread(path: str, deed: Callable[[Client], object]) -> "asyncio.Future[object]":
    def work() -> object:
        with Client(path) as client:
            return deed(client)

    return asyncio.get_running_loop().run_in_executor(None, work)


class Subscribed(Telling):
    async def handle(self, request: protocol.Message, peer: Peer) -> Answer:
        return await super().handle({**request, "do": "tell"}, peer)


def test_a_client_iterates_until_another_thread_closes_it(tmp_path: Path) -> None:
    async def main() -> None:
        telling, has_begun, stream = Subscribed(), threading.Event(), []

        def read(client: Client) -> list[int]:
            stream.append(client.subscribe())
            parts = []
            for part in stream[0]:
                parts.append(part["part"])
                has_begun.set()
            return parts

        async with serving(tmp_path / "gpuq.sock", telling.handle) as server:
            reading = in_a_thread(server.path, read)
            await until(has_begun.is_set, "the first part")
            stream[0].close()
            parts = await asyncio.wait_for(reading, DEADLINE_S)
            assert parts == list(range(1, len(parts) + 1))
            await until(lambda: telling.is_let_go, "it to be let go")

    asyncio.run(main())


def test_a_daemon_that_leaves_ends_it_with_its_last_word(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "gpuq.sock", Subscribed().handle) as server:
            has_begun = threading.Event()

            def read(client: Client) -> None:
                for _ in client.subscribe():
                    has_begun.set()

            reading = in_a_thread(server.path, read)
            await until(has_begun.is_set, "the first part")
            await server.close("it is restarted", back=True)
            with pytest.raises(DaemonUnreachable, match="it is restarted"):
                await asyncio.wait_for(reading, DEADLINE_S)

    asyncio.run(main())


def test_a_daemon_that_is_silent_is_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuq.client.SILENCE_S", 0.1)

    async def silence(request: protocol.Message, peer: Peer) -> Answer:
        await asyncio.sleep(DEADLINE_S)
        return {}

    async def main() -> None:
        async with serving(tmp_path / "gpuq.sock", silence) as server:
            with pytest.raises(DaemonUnreachable, match="did not answer in time"):
                await in_a_thread(server.path, lambda client: next(iter(client.subscribe())))

    asyncio.run(main())


@pytest.mark.parametrize(
    "said",
    [
        b'{"id":%d}',
        b'{"id":%d,"error":"x"}',
        b'{"id":%d,"error":{"code":[1],"message":{}}}',
        b'{"id":%d,"more":"x"}',
        b'{"id":%d,"ok":null}',
    ],
)
def test_what_is_no_answer_ends_it_with_words_and_so_does_a_request(
    tmp_path: Path, said: bytes
) -> None:
    daemon = OddDaemon(tmp_path, said)
    client = Client(socket=daemon.path)
    try:
        with pytest.raises(GpuqError, match="the daemon"):
            list(client.subscribe())
        with pytest.raises(GpuqError, match="the daemon"):
            client.call("ping")
    finally:
        client.close()
        daemon.close()


class OddDaemon(FakeDaemon):
    """Says the same to everything."""

    def __init__(self, folder: Path, said: bytes) -> None:
        self._said = said
        super().__init__(folder)

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                if "hello" in request:
                    connection.sendall(protocol.encode(protocol.hello("0.1.0")))
                else:
                    connection.sendall(self._said % request["id"] + b"\n")
