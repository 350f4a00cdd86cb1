"""Tells systemd how the daemon is, by the datagrams of sd_notify(3), and that its loop still turns.

Nothing in here waits for systemd for long or fails for its sake: where nobody listens, nothing is said.
"""

import os
import socket
import time
from collections.abc import Mapping

MOST_WAIT_S = 1.0  # for a word that systemd must not miss
MOST_TEXT = 1000  # of a status: one line in `systemctl status`


class Notifier:
    """Says what is to be said to `address`, a path or "@" and an abstract name; None: to nobody.

    `watchdog_s` is how long systemd goes without hearing of the loop; None: it does not watch.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        is_known = address is not None and address[:1] in ("/", "@")
        self._address = _as_told_to_kernel(address or "") if is_known else None
        self.watchdog_s = watchdog_s if is_known else None
        self._is_ready = False
        self._is_reloading = False

    @property
    def is_heard(self) -> bool:
        return self._address is not None

    def ready(self) -> None:
        """The socket answers."""
        self._is_ready, self._is_reloading = True, False
        self._say("READY=1", must_arrive=True)

    def reloading(self) -> None:
        """The settings are read again. `reloaded` is to follow."""
        if self._is_ready:
            self._is_reloading = True
            moment_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._say("RELOADING=1", f"MONOTONIC_USEC={moment_us}", must_arrive=True)

    def reloaded(self) -> None:
        """The settings have been read, if systemd waits for that."""
        if self._is_reloading:
            self.ready()

    def stopping(self, why: str) -> None:
        self._say("STOPPING=1", f"STATUS={_line(why)}", must_arrive=True)

    def extend(self, seconds: float) -> None:
        """Stopping may take so long from now, whatever the unit says."""
        self._say(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", must_arrive=True)

    def failed(self, error: BaseException) -> None:
        """Why it leaves, where that is no wish of anybody's."""
        words = [f"STATUS={_line(str(error))}"]
        if isinstance(cause := error.__cause__ or error.__context__, OSError) and cause.errno:
            words.append(f"ERRNO={cause.errno}")
        self._say(*words, must_arrive=True)

    def status(self, text: str) -> bool:
        """How it is, in a line. False where that was not heard just now."""
        return self._say(f"STATUS={_line(text)}")

    def alive(self) -> bool:
        """The loop turns. False where that was not heard just now."""
        return self._say("WATCHDOG=1")

    def _say(self, *words: str, must_arrive: bool = False) -> bool:
        if self._address is None:
            return False
        data = "\n".join(words).encode("utf-8", "replace")
        try:
            # Anew each time: a systemd that was started again listens on another socket.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(MOST_WAIT_S if must_arrive else 0.0)
                sock.sendto(data, self._address)
        except OSError:
            return False
        return True


def notifier_of(environ: Mapping[str, str]) -> Notifier:
    """The one that the variables of sd_notify(3) and sd_watchdog_enabled(3) speak of."""
    return Notifier(environ.get("NOTIFY_SOCKET"), _watchdog_s(environ))


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """None where another process is meant, as in a shell that something watched has started."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    length_us = environ.get("WATCHDOG_USEC", "")
    return int(length_us) / 1e6 if length_us.isdecimal() and int(length_us) else None


def _as_told_to_kernel(address: str) -> str | bytes:
    return b"\0" + os.fsencode(address[1:]) if address.startswith("@") else address


def _line(text: str) -> str:
    return " ".join(text.split())[:MOST_TEXT]
