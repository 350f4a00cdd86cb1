"""`gpuq top --web`: who has the address may look, and nobody else gets so much as a file."""

import json
import re
import signal
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyte
import pytest

from gpuq.tui.web.gate import TOKEN_BYTES, Gate, Visitor
from gpuq.tui.web.session import SIDE, side
from gpuq.tui.web.site import SESSIONS, STATIC
from tests.conftest import Daemon, until
from tests.tui.browser import CHROMIUM, Browser
from tests.tui.serving import Answer, Served, frame, read_until

PATHS = ("", "ws", *(f"static/{name}" for name in STATIC))
SOME = "t" * 43


@pytest.fixture
def served(web_daemon: Daemon) -> Iterator[Served]:
    served = Served(web_daemon)
    yield served
    served.end()


def test_the_token_is_long_and_new_each_time() -> None:
    one, other = Gate(), Gate()

    assert TOKEN_BYTES * 8 >= 128
    assert one.token != other.token
    assert re.fullmatch(r"[\w-]{43}", one.token)


@pytest.mark.parametrize(
    "visitor",
    [
        Visitor("/", "127.0.0.1:80", None),
        Visitor("", "127.0.0.1:80", None),
        Visitor(f"/{SOME[:-1]}/", "127.0.0.1:80", None),
        Visitor(f"/{SOME}t/", "127.0.0.1:80", None),
        Visitor(f"//{SOME}/", "127.0.0.1:80", None),
        Visitor(f"/x/{SOME}/", "127.0.0.1:80", None),
        Visitor("/\udcff\udcfe/", "127.0.0.1:80", None),
        Visitor(f"/{SOME}/", None, None),
        Visitor(f"/{SOME}/", "", None),
        Visitor(f"/{SOME}/", "rebound.example:80", None),
        Visitor(f"/{SOME}/", "127.0.0.1.rebound.example:80", None),
        Visitor(f"/{SOME}/", "127.0.0.1:80; script-src *", None),
        Visitor(f"/{SOME}/", "127.0.0.1:80", "http://rebound.example"),
        Visitor(f"/{SOME}/", "127.0.0.1:80", "http://127.0.0.1:81"),
        Visitor(f"/{SOME}/", "127.0.0.1:80", "null"),
        Visitor(f"/{SOME}/", "127.0.0.1:80", None, method="POST"),
    ],
)
def test_the_gate_stays_shut_for(visitor: Visitor) -> None:
    assert not Gate(SOME).lets_in(visitor)


def test_the_gate_opens_for_who_has_the_token_also_through_a_tunnel() -> None:
    gate = Gate(SOME)

    assert gate.lets_in(Visitor(f"/{SOME}/", "127.0.0.1:80", None))
    assert gate.lets_in(Visitor(f"/{SOME}/static/page.js", "localhost:9000", None))
    assert gate.lets_in(Visitor(f"/{SOME}/", "localhost", "http://localhost"))
    assert gate.lets_in(
        Visitor(f"/{SOME}/ws", "localhost:9000", "http://localhost:9000"), is_websocket=True
    )
    assert not gate.lets_in(Visitor(f"/{SOME}/ws", "localhost:9000", None), is_websocket=True)


def test_a_page_may_not_ask_for_a_screen_without_end() -> None:
    assert side(-1) == SIDE[0]
    assert side(10**9) == SIDE[-1]
    assert side(132) == 132


def test_without_the_token_nothing_is_served_and_nothing_begins(shared: Served) -> None:
    wrong = "A" * len(shared.token)
    for path in PATHS:
        for token in (f"/{wrong}", f"/{shared.token[:-1]}", ""):
            assert shared.ask(f"{token}/{path}").status == 404, path
    for path in ("/ws", f"/{wrong}/ws"):
        refused = shared.open(path)
        assert isinstance(refused, Answer)
        assert refused.status == 404
    assert shared.screens() == []


def test_a_stranger_is_told_the_same_for_every_path(shared: Served) -> None:
    def seen(path: str) -> tuple[int, bytes]:
        answer = shared.ask(path)
        return answer.status, answer.body

    assert (
        len({seen(path) for path in ("/", "/x/", "/static/textual.js", "/x/static/page.js")}) == 1
    )


def test_with_the_token_it_serves_the_page_and_its_files(shared: Served) -> None:
    page = shared.ask(f"/{shared.token}/")

    assert page.status == 200
    assert f"ws://{shared.host}/{shared.token}/ws".encode() in page.body
    for name in STATIC:
        assert shared.ask(f"/{shared.token}/static/{name}").status == 200, name
    assert shared.ask(f"/{shared.token}/static/..%2fpage.html").status == 404
    assert shared.ask(f"/{shared.token}/ws").status in (400, 404)
    assert shared.screens() == []


def test_the_page_tells_nobody_where_it_is_and_takes_nothing_from_elsewhere(shared: Served) -> None:
    page = shared.ask(f"/{shared.token}/")

    for path in PATHS[:1] + PATHS[2:]:
        headers = shared.ask(f"/{shared.token}/{path}").headers
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    elsewhere = re.findall(rb"(?:https?:)?//[\w.-]+\.[a-z]{2,}", page.body)
    assert elsewhere == [f"//{shared.host.split(':')[0]}".encode()] * len(elsewhere)


def test_a_name_that_is_not_this_machine_gets_nothing(shared: Served) -> None:
    """DNS rebinding: the browser says the name it was told."""
    assert shared.ask(f"/{shared.token}/", Host="rebound.example").status == 404
    assert shared.ask(f"/{shared.token}/", Host=None).status in (400, 404)
    assert shared.ask(f"/{shared.token}/", Host=f"localhost:{shared.port}").status == 200


def test_a_page_from_elsewhere_opens_no_screen(shared: Served) -> None:
    for origin in ("http://rebound.example", "null", None, f"https://{shared.host}"):
        refused = shared.open(Origin=origin)
        assert isinstance(refused, Answer), origin
        assert refused.status == 404, origin
    assert shared.screens() == []


def test_it_is_bound_to_loopback_alone(shared: Served) -> None:
    """As the kernel has it: 0100007F is 127.0.0.1."""
    listening = [
        line.split()[1]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()
        if line.split()[1].endswith(f":{shared.port:04X}") and line.split()[3] == "0A"
    ]
    assert listening == [f"0100007F:{shared.port:04X}"]


def test_the_token_is_in_no_list_of_processes(served: Served) -> None:
    connection = served.open()
    assert isinstance(connection, socket.socket)
    until(served.screens, "a screen")

    token = served.token.encode()
    for pid in (served.process.pid, *served.screens()):
        for name in ("cmdline", "environ"):
            assert token not in Path(f"/proc/{pid}/{name}").read_bytes()
    connection.close()


def test_a_screen_ends_with_its_page_and_all_with_ctrl_c(served: Served) -> None:
    gone, stays = served.open(), served.open()
    assert isinstance(gone, socket.socket)
    assert isinstance(stays, socket.socket)
    until(lambda: len(served.screens()) == 2, "two screens")
    gone.close()
    until(lambda: len(served.screens()) == 1, "the end of the one whose page is gone")

    code, said = served.end()

    assert code == 0
    assert served.screens() == []
    assert b"Traceback" not in said, said
    assert served.token.encode() not in said
    stays.close()


def test_no_screen_outlives_a_server_that_is_killed(served: Served) -> None:
    connection = served.open()
    assert isinstance(connection, socket.socket)
    # Out of sight it draws nothing, and so would not find out by that.
    connection.sendall(frame('["blur"]') + frame('["ping", "1"]'))
    read_until(connection, b'["pong", "1"]')
    served.end(signal.SIGKILL)

    until(lambda: not served.screens(), "the end of its screen")
    connection.close()


def test_only_so_many_screens_are_open_at_a_time(shared: Served) -> None:
    opened = [shared.open() for _ in range(SESSIONS)]
    refused = shared.open()

    assert isinstance(refused, Answer)
    assert refused.status == 503
    until(lambda: len(shared.screens()) == SESSIONS, "all of them")
    for connection in opened:
        assert isinstance(connection, socket.socket)
        connection.close()
    until(lambda: not shared.screens(), "their ends")


def test_nonsense_from_a_page_is_passed_over(shared: Served) -> None:
    connection = shared.open()
    assert isinstance(connection, socket.socket)
    for text in ("{", "7", "[]", '["stdin"]', '["resize", {"width": "x"}]', "[" * 100_000):
        connection.sendall(frame(text))
    connection.sendall(frame('["ping", "12"]'))

    read_until(connection, b'["pong", "12"]')
    connection.close()
    until(lambda: not shared.screens(), "its end")


def test_a_port_that_is_taken_is_said(shared: Served) -> None:
    refused = shared.daemon.gpuq("top", "--web", "--port", str(shared.port))

    assert refused.returncode == 1
    assert f"could not serve on 127.0.0.1:{shared.port}" in refused.stderr
    assert "--port" in refused.stderr


def test_without_textual_serve_it_says_what_to_install(web_daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "textual_serve.py").write_text("raise ModuleNotFoundError(name='textual_serve')")
    refused = web_daemon.gpuq(
        "top", "--web", env=web_daemon.environment | {"PYTHONPATH": str(tmp_path)}
    )

    assert refused.returncode == 2
    assert "pip install '.[web]'" in refused.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="NOT TRIED IN A BROWSER: there is no Chromium here")
def test_chromium_shows_the_screen_and_it_only_looks(served: Served, tmp_path: Path) -> None:
    with served.daemon.client() as client:
        number = client.submit(["sleep", "1000"], name="in-a-page", gpus=1)
    browser = Browser(tmp_path)
    try:
        # Not on the command line of Chromium, which everybody can read.
        browser.do("Page.navigate", url=served.url)
        browser.until(lambda: "in-a-page" in _seen(browser), "the job to be seen")
        assert _colours(browser.picture()) > 10
        assert "░" in _seen(browser)

        browser.press("x")
        browser.until(lambda: "only look" in _seen(browser), f"a refusal in {_seen(browser)}")
        browser.control("s")
        browser.until(lambda: "nothing is saved" in _seen(browser), "a refusal to write files")
        browser.press("?")
        browser.until(lambda: "leave; jobs go on" in _seen(browser), "the help")

        asked = [told["request"] for told in browser.told("Network.requestWillBeSent")]
        assert {told["url"].partition(served.token)[0] for told in asked} == {
            f"http://{served.host}/"
        }
        assert not any(served.token in told["headers"].get("Referer", "") for told in asked)
        assert browser.told("Runtime.exceptionThrown") == []
        errors = [told["entry"] for told in browser.told("Log.entryAdded")]
        assert [told for told in errors if told["level"] == "error"] == []
        with served.daemon.client() as client:
            assert client.job(number)["state"] == "running"
    finally:
        browser.close()


def _seen(browser: Browser) -> str:
    """What the terminal of the page shows, of what came to it."""
    [size] = [
        json.loads(told["response"]["payloadData"])[1]
        for told in browser.told("Network.webSocketFrameSent")
        if told["response"]["payloadData"].startswith('["resize"')
    ][-1:] or [{"width": 80, "height": 24}]
    screen = pyte.Screen(size["width"], size["height"])
    pyte.ByteStream(screen).feed(browser.received())
    rows = (screen.buffer[y] for y in range(screen.lines))
    return "\n".join("".join(row[x].data for x in range(screen.columns)) for row in rows)


def _colours(png: bytes) -> int:
    """How many bytes of different value its lines have: few for a page where nothing is drawn."""
    data, at = b"", 8
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += length + 12
    return len(set(zlib.decompress(data)))
