"""So many connections in one process, each of which follows all events as `gpuq events --follow` does.
It says when it is there, and when stdin is closed how many answers came.

    python watching_connections.py SOCKET NUMBER
"""

import json
import selectors
import socket
import sys

from gpuq import paths, protocol

WAIT_S = 30.0
CHUNK = 1 << 20


class Watching:
    """One connection: what it asked is answered by one line, and then it asks for what comes after."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        paths.connect(self.socket, path)
        self.socket.sendall(protocol.encode(protocol.hello("bench")))
        self._line = b""
        self.answers = -1  # the hello is none

    def read(self) -> None:
        """ConnectionError where the daemon is gone."""
        data = self.socket.recv(CHUNK)
        if not data:
            raise ConnectionError("the daemon is gone")
        self._line += data
        if self._line.endswith(b"\n"):
            answer, self._line = json.loads(self._line), b""
            if "error" in answer:
                raise ConnectionError(answer["error"]["message"])
            self.answers += 1
            self._ask(answer.get("ok", {}).get("last"))

    def _ask(self, since: int | None) -> None:
        asked = {"id": 1, "do": "events", "since": since, "timeout_s": WAIT_S}
        self.socket.sendall(protocol.encode(asked))


def main() -> None:
    path, number = sys.argv[1], int(sys.argv[2])
    selector = selectors.DefaultSelector()
    watching = []
    for _ in range(number):
        one = Watching(path)
        one.read()  # the hello
        selector.register(one.socket, selectors.EVENT_READ, one)
        watching.append(one)
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    print("there", flush=True)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                print(sum(one.answers for one in watching))
                return
            key.data.read()


if __name__ == "__main__":
    main()
