"""What systemd does for a service, done by a test: it hears what the service tells."""

import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0
FIRST_LENT = 200  # above all that a command starts with


class Ear:
    """A socket that datagrams come to, by each line of which systemd or its journal would go."""

    def __init__(self, address: Path | str) -> None:
        self.address = str(address)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        abstract = self.address.startswith("@")
        self.sock.bind("\0" + self.address[1:] if abstract else self.address)

    def __enter__(self) -> "Ear":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def next(self, within_s: float = PATIENCE_S) -> bytes | None:
        """None where nothing comes in time."""
        if not select.select([self.sock], [], [], within_s)[0]:
            return None
        return self.sock.recv(2**20)

    def heard(self) -> list[bytes]:
        """All that has come by now."""
        found = []
        while (one := self.next(0.0)) is not None:
            found.append(one)
        return found

    def until(self, word: str) -> list[str]:
        """Each datagram up to the first that has this in it."""
        found: list[str] = []
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if (one := self.next(1.0)) is not None:
                found.append(one.decode())
                if word in found[-1]:
                    return found
        raise AssertionError(f"{word!r} was not told, but {found}")


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket at that path, as a socket unit holds it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
        sock.listen(128)
        yield sock


def handing_over(
    *fds: int, to: str = "itself", named: str | None = None
) -> tuple[list[str], dict[str, Any]]:
    """The words to put before a command, and how to start that, so that it gets these descriptors as
    systemd hands them over: to `itself`, or to a process that is not it."""
    code = f"""
import os, sys
for place, fd in enumerate({list(fds)}):
    os.dup2(fd, {FIRST_LENT} + place)
for place in range({len(fds)}):
    os.dup2({FIRST_LENT} + place, 3 + place)
os.closerange({3 + len(fds)}, {FIRST_LENT + len(fds)})
os.environ["LISTEN_PID"] = str(os.getpid() + {0 if to == "itself" else 1})
os.environ["LISTEN_FDS"] = "{len(fds)}"
os.environ["LISTEN_FDNAMES"] = "{named or ":".join(["gpuqd.socket"] * len(fds))}"
os.execv(sys.argv[1], sys.argv[1:])
"""
    return [sys.executable, "-c", code], {"pass_fds": fds}
