"""`gpuq top --web` as a person starts it, and who knocks at it by hand."""

import base64
import signal
import socket
import subprocess
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.conftest import BIN, Daemon, processes_with


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Served:
    """`process_options` are Popen's."""

    def __init__(
        self, daemon: Daemon, *words: str, before: tuple[str, ...] = (), **process_options: Any
    ) -> None:
        self.daemon = daemon
        self.process = subprocess.Popen(
            [BIN / "gpuq", "--state-dir", daemon.state, *before, "top", "--web", *words],
            env=daemon.environment | {"LANG": "C.UTF-8"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **process_options,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().strip()
        self.port = urlsplit(self.url).port
        self.token = urlsplit(self.url).path.strip("/")
        self.host = f"127.0.0.1:{self.port}"

    def ask(self, path: str, method: str = "GET", **headers: str | None) -> Answer:
        """A request by hand; a header that is None is left out."""
        with self.send(path, method, headers) as connection:
            answer = b""
            while some := connection.recv(1 << 16):
                answer += some
        head, _, body = answer.partition(b"\r\n\r\n")
        return Answer(*_head(head), body)

    def open(self, path: str | None = None, **headers: str | None) -> socket.socket | Answer:
        """A websocket, or why there is none."""
        asked: dict[str, str | None] = {
            "Origin": f"http://{self.host}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(b"k" * 16).decode(),
        }
        connection = self.send(path or f"/{self.token}/ws", "GET", asked | headers)
        head = b""
        while b"\r\n\r\n" not in head:
            some = connection.recv(1)
            assert some, head
            head += some
        status, told = _head(head)
        if status == 101:
            return connection
        connection.close()
        return Answer(status, told, b"")

    def screens(self) -> list[int]:
        """The processes that it began."""
        return [
            pid
            for pid, line in processes_with(str(self.daemon.state))
            if "--readonly" in line and pid != self.process.pid
        ]

    def end(self, number: int = signal.SIGINT) -> tuple[int, bytes]:
        """Its exit code, and all that it said beside the address."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        said, more = self.process.communicate(timeout=20)
        return self.process.returncode, said + more

    def send(self, path: str, method: str, headers: dict[str, str | None]) -> socket.socket:
        told = {"Host": self.host, "Connection": "close"} | headers
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in told.items() if value is not None]
        connection = socket.create_connection(("127.0.0.1", int(self.port or 0)), timeout=20)
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode().strip().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines)


def frame(text: str) -> bytes:
    """Of a websocket, masked with zeros as one may."""
    body = text.encode()
    if len(body) < 126:
        length = bytes([0x80 | len(body)])
    elif len(body) < 1 << 16:
        length = b"\xfe" + len(body).to_bytes(2, "big")
    else:
        length = b"\xff" + len(body).to_bytes(8, "big")
    return b"\x81" + length + bytes(4) + body


def read_until(connection: socket.socket, words: bytes) -> bytes:
    """All that came before them, and they."""
    seen = b""
    while words not in seen:
        some = connection.recv(1 << 16)
        assert some, f"it left before {words!r}"
        seen += some
    return seen
