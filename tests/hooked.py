"""A server on this machine that is posted to, and what it was sent. It may be closed early."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Posted:
    """One request: its path, its headers by lower-case names, and the JSON that it had."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path = path
        self.headers = headers
        self.json: Any = json.loads(body) if body else None


class Board:
    """`answers` are the codes for the next requests, then 204; a text in their place is where the
    asker is sent, and None keeps it waiting until the server closes."""

    def __init__(self) -> None:
        self.posts: list[Posted] = []
        self.answers: list[int | tuple[int, str] | None] = []
        self.is_over = threading.Event()
        board = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                board.posts.append(Posted(self.path, headers, body))
                answer = board.answers.pop(0) if board.answers else 204
                if answer is None:
                    board.is_over.wait(60)
                    return
                code, place = answer if isinstance(answer, tuple) else (answer, None)
                self.send_response(code)
                if place is not None:
                    self.send_header("Location", place)
                said = f"no hook {self.path}".encode() if code >= 400 else b""
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_GET = do_POST

            def log_message(self, *words: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def place(self) -> str:
        """Host and port."""
        return self.url.removeprefix("http://")

    def serve(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self.is_over.is_set():
            return
        self.is_over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def board() -> Iterator[Board]:
    made = Board()
    made.serve()
    try:
        yield made
    finally:
        made.close()
