"""`gpuq top --web` against who has no token and comes in crowds, and against pages that say odd
things."""

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuq.tui.web.doorway import STRANGERS, Doorway
from gpuq.tui.web.peers import uid_of
from tests.conftest import Daemon, until
from tests.tui.serving import Answer, Served, frame, read_until

AT_HOME = "127.0.0.1"
ABOUT_TCP = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"


@pytest.fixture
def served(web_daemon: Daemon) -> Iterator[Served]:
    served = Served(web_daemon)
    yield served
    served.end()


# ── connections ──


def test_the_owner_is_served_while_strangers_hold_all_the_connections_they_can(
    served: Served,
) -> None:
    crowd = [_half_a_head(served) for _ in range(2 * STRANGERS)]

    assert served.ask(f"/{served.token}/").status == 200
    assert len(os.listdir(f"/proc/{served.process.pid}/fd")) < STRANGERS + 50
    for stranger in crowd:
        stranger.close()
    assert served.end() == (0, b"gpuq: read-only, for whoever has that address; Ctrl-C ends it\n")


def test_who_has_shown_the_token_is_not_sent_away_for_strangers(served: Served) -> None:
    page = served.open()
    assert isinstance(page, socket.socket)
    crowd = [_half_a_head(served) for _ in range(STRANGERS + 10)]
    assert served.ask(f"/{served.token}/").status == 200

    page.sendall(frame('["ping", "1"]'))
    read_until(page, b'["pong", "1"]')
    for connection in (page, *crowd):
        connection.close()


def test_a_server_that_has_no_descriptors_left_says_so_once(served: Served) -> None:
    page = served.ask(f"/{served.token}/")
    assert page.status == 200
    pid = served.process.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = max(int(number) for number in os.listdir(f"/proc/{pid}/fd")) + 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 3, usual[1]))
    crowd = [_half_a_head(served) for _ in range(10)]
    # Those that came first had to go, one by one, for the last.
    until(lambda: _is_closed(crowd[0]), "the oldest to be closed")
    until(lambda: _is_closed(crowd[1]), "the next")

    resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
    assert served.ask(f"/{served.token}/").status == 200
    for stranger in crowd:
        stranger.close()
    _, said = served.end()
    assert said.count(b"Too many open files") == 1
    assert b"Traceback" not in said


def test_a_head_that_does_not_come_is_not_waited_for() -> None:
    async def closed(is_known: bool) -> bool:
        made: list[asyncio.BaseTransport] = []

        class Waiting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.append(transport)

        doorway = Doorway(Waiting, head_s=0.05)
        with socket.create_server((AT_HOME, 0)) as listening:
            receiving = asyncio.create_task(doorway.receive(listening))
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            while not made:
                await asyncio.sleep(0)
            if is_known:
                # The next one in line is taken after this one is written down.
                _, other = await asyncio.open_connection(*listening.getsockname())
                while len(made) < 2:
                    await asyncio.sleep(0)
                doorway.recognise(made[0])
                other.close()
                await other.wait_closed()
            try:
                came = await asyncio.wait_for(reader.read(), 0.3 if is_known else 20)
                assert came == b""
                is_closed = True
            except (TimeoutError, ConnectionResetError) as error:
                is_closed = not isinstance(error, TimeoutError)
            writer.close()
            made[0].abort()  # type: ignore[attr-defined]
            receiving.cancel()
            await asyncio.wait([receiving])
        return is_closed

    assert asyncio.run(closed(is_known=False))
    assert not asyncio.run(closed(is_known=True))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a moment")
def test_another_user_is_not_even_answered(served: Served) -> None:
    """The token would be known, and the answer is none all the same."""
    ask = (
        "import socket, sys\n"
        f"with socket.create_connection(('{AT_HOME}', {served.port}), timeout=20) as connection:\n"
        "    try:\n"
        "        connection.sendall(sys.stdin.buffer.read())\n"
        "        print(len(connection.recv(100)))\n"
        "    except ConnectionError:\n"
        "        print(0)\n"
    )
    head = f"GET /{served.token}/ HTTP/1.1\r\nHost: {served.host}\r\n\r\n".encode()

    def answered(uid: int) -> int:
        words = ["/usr/bin/env", "python3", "-c", ask]
        ran = subprocess.run(
            words, input=head, user=uid, cwd="/", capture_output=True, check=True, timeout=60
        )
        return int(ran.stdout)

    assert answered(65534) == 0
    assert answered(0) > 0


def test_whose_a_connection_is_stands_in_the_tables_of_the_kernel(tmp_path: Path) -> None:
    def hexed(host: str, port: int) -> str:
        number = int.from_bytes(socket.inet_aton(host), sys.byteorder)
        return f"{number:08X}:{port:04X}"

    table = tmp_path / "tcp"
    here, there = hexed(AT_HOME, 8000), hexed(AT_HOME, 40000)
    rest = "01 00000000:00000000 00:00000000 00000000"
    table.write_text(
        ABOUT_TCP
        + f"   0: {here} {there} {rest}  1001        0 5 1\n"
        + f"   1: {there} {here} {rest}  1002        0 6 1\n"
    )
    tables = {tmp_path / "missing": "", table: ""}

    assert uid_of((AT_HOME, 40000), (AT_HOME, 8000), tables) == 1002
    assert uid_of((AT_HOME, 8000), (AT_HOME, 40000), tables) == 1001
    assert uid_of((AT_HOME, 40001), (AT_HOME, 8000), tables) is None


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_ones_own_connection_is_found(family: socket.AddressFamily) -> None:
    """Also one that an IPv6 socket makes to 127.0.0.1."""
    with socket.create_server((AT_HOME, 0)) as listening:
        host = AT_HOME if family == socket.AF_INET else f"::ffff:{AT_HOME}"
        try:
            caller = socket.socket(family)
            caller.connect((host, listening.getsockname()[1]))
        except OSError as error:
            pytest.skip(f"no such socket here: {error}")
        connection, peer = listening.accept()
        with caller, connection:
            assert uid_of(peer, connection.getsockname()) == os.geteuid()


def _half_a_head(served: Served) -> socket.socket:
    connection = socket.create_connection((AT_HOME, int(served.port or 0)), timeout=20)
    connection.sendall(b"GET / HT")
    return connection


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


# ── requests ──


def test_no_other_spelling_of_the_websocket_goes_round_its_check(shared: Served) -> None:
    for path in ("%77s", "w%73", "ws/", "./ws", "x/../ws", "ws;x", "WS"):
        refused = shared.open(f"/{shared.token}/{path}", Origin=None)
        assert isinstance(refused, Answer), path
        assert refused.status == 404, path
    assert shared.screens() == []


def test_a_websocket_is_asked_for_with_get_alone(shared: Served) -> None:
    asked = {
        "Origin": f"http://{shared.host}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "a2tra2tra2tra2tra2traw==",
    }
    assert shared.ask(f"/{shared.token}/ws", "HEAD", **asked).status == 404
    assert shared.screens() == []


@pytest.mark.parametrize("expected", ["foo", "100-continue"])
def test_what_a_stranger_expects_is_not_answered(shared: Served, expected: str) -> None:
    plain, expecting = shared.ask("/x/"), shared.ask("/x/", Expect=expected)

    assert (expecting.status, expecting.body) == (404, plain.body)
    assert expecting.headers.keys() == plain.headers.keys()


# ── what a page says ──


def test_a_page_that_says_odd_things_keeps_its_screen(shared: Served) -> None:
    page = shared.open()
    assert isinstance(page, socket.socket)
    for message in (
        ["ping", "x"],
        ["ping", "9" * 5000],
        ["ping", "٣"],
        ["ping", "-5"],
        ["stdin", ""],
        ["stdin", "\ud800"],
    ):
        page.sendall(frame(json.dumps(message)))
    page.sendall(frame('["ping", "12"]') + frame('["stdin", "?"]'))

    read_until(page, b'["pong", "12"]')
    read_until(page, b"goes back, ")
    page.close()


@pytest.mark.parametrize(
    "parts", [["\x1b[48;7000;9000;1;1t"], ["\x1b[48;7000;", "9000;1;1t"]], ids=["whole", "split"]
)
def test_a_page_has_no_other_way_to_a_screen_without_end(shared: Served, parts: list[str]) -> None:
    """As a terminal tells its size among what is typed."""
    page = shared.open()
    assert isinstance(page, socket.socket)
    read_until(page, b"GPU")
    for part in parts:
        page.sendall(frame(json.dumps(["stdin", part])))
    page.sendall(frame('["stdin", "?"]'))

    seen = read_until(page, b"goes back, ")
    assert len(seen) < 200_000, "a screen of 80 columns"
    page.close()


# ── its options ──


def test_a_theme_that_is_none_is_said_before_anything_is_served(web_daemon: Daemon) -> None:
    refused = web_daemon.gpuq("top", "--web", "--theme", "NONSENSE")

    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "--theme: there is no theme 'NONSENSE'" in refused.stderr


def test_the_screen_behind_a_page_is_given_all_that_was_asked(web_daemon: Daemon) -> None:
    words = ("--no-mouse", "--ascii", "--theme", "nord")
    served = Served(web_daemon, *words, before=("--color", "never"))
    try:
        page = served.open()
        assert isinstance(page, socket.socket)
        until(served.screens, "a screen")
        [pid] = served.screens()
        told = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        page.close()
    finally:
        served.end()

    assert set(words) <= set(told)
    assert told[told.index("--color") + 1] == "never"
