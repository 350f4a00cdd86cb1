"""The way to the terminal: written to by a thread, so that a terminal which nobody reads from stops
neither the screen nor what the screen listens to.

A window behind a broken ssh, or a stopped tmux, takes nothing for minutes. What would be drawn
meanwhile is left out, and all of it is drawn anew when the terminal reads again.
"""

import os
import select
import termios
import threading
from collections import deque
from collections.abc import Callable

MOST_BYTES = 2**20  # that wait for the terminal: several pictures of the largest window
PIECE = 4096  # of a write; a terminal takes about so much in one go
STALLED_MS = 200  # how often it is looked whether we are to leave a terminal that takes nothing


class Outlet:
    """`encode` makes bytes of text. `caught_up` is called, in the outlet's thread, when the terminal
    has taken everything after something was left out; `gone` when it is no more."""

    def __init__(
        self,
        fd: int,
        *,
        encode: Callable[[str], bytes],
        caught_up: Callable[[], None],
        gone: Callable[[], None],
    ) -> None:
        self._fd, self._is_own = _unblocked(fd)
        self._encode = encode
        self._caught_up = caught_up
        self._gone = gone
        self._pieces: deque[bytes] = deque()
        self._waiting = 0  # bytes of them
        self._is_behind = False
        self._is_gone = False
        self._is_over = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="outlet", daemon=True)
        self._thread.start()

    def put(self, text: str) -> None:
        """Writes whole sequences, or none of them. Never waits."""
        with self._news:
            if self._is_gone or self._is_behind:
                return
            if self._waiting > MOST_BYTES:
                self._is_behind = True
                return
            data = self._encode(text)
            self._pieces.append(data)
            self._waiting += len(data)
            self._news.notify()

    def finish(self, instead: str, within_s: float) -> None:
        """Ends when all is written. A terminal that does not take what waits is not waited for: that
        is thrown away, and it finds `instead` when it reads again."""
        with self._news:
            self._is_over = True
            is_cut = self._is_behind
            self._news.notify()
        if not is_cut:
            self._thread.join(within_s)
        if self._thread.is_alive():
            self._throw_away(self._encode(instead))
        if self._is_own and not self._thread.is_alive():
            os.close(self._fd)

    def _throw_away(self, end: bytes) -> None:
        with self._news:
            self._is_gone = True
            self._pieces.clear()
            self._news.notify()
        self._thread.join(2 * STALLED_MS / 1000)
        if self._is_own:  # another one would have us wait for the terminal
            try:
                termios.tcflush(self._fd, termios.TCOFLUSH)
                os.write(self._fd, end)
            except (OSError, termios.error):
                pass

    # ── in the thread ──

    def _run(self) -> None:
        while (data := self._next()) is not None:
            if not self._write(data):
                return
            with self._news:
                self._waiting -= len(data)
                has_caught_up = self._is_behind and not self._pieces
                if has_caught_up:
                    self._is_behind = False
            if has_caught_up and not self._is_over:
                self._caught_up()

    def _next(self) -> bytes | None:
        with self._news:
            while not self._pieces:
                if self._is_over or self._is_gone:
                    return None
                self._news.wait()
            return self._pieces.popleft()

    def _write(self, data: bytes) -> bool:
        """False: there is nobody to write to any more."""
        left = memoryview(data)
        ready = select.poll()
        ready.register(self._fd, select.POLLOUT)
        while left:
            try:
                left = left[os.write(self._fd, left[:PIECE]) :]
            except BlockingIOError:
                ready.poll(STALLED_MS)
            except OSError:
                self._is_gone = True
                self._gone()
            if self._is_gone:
                return False
        return True


def _unblocked(fd: int) -> tuple[int, bool]:
    """The same terminal, opened once more so that writing to it never waits: the shell has the one we
    were given, too, and is to find it as it was. Where it cannot be opened, that one."""
    try:
        return os.open(os.ttyname(fd), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY), True
    except OSError:
        return fd, False
