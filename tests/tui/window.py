"""A real terminal with a command in it: `gpuq top` in a pty, and what a person sees of it.

with Window(["gpuq", "top"], columns=80) as window:
    window.until("job-184")
    window.press("q")
    assert window.ends() == 0
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from typing import Any

import pyte

from tests.desk import DEADLINE_S

# Runs a command with its stdin as the terminal that Ctrl-C and a hang-up come from.
IN_A_SESSION = ["setsid", "--ctty"]
MODE = re.compile(rb"\x1b\[\?([\d;]+)([hl])")
LEFT_ON = {b"7", b"25"}  # a terminal has them on from the beginning


class Window:
    """`raw` is all that was written to it, `screen` what pyte has drawn of that."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        columns: int = 80,
        rows: int = 24,
        environment: dict[str, str],
        **streams: Any,
    ) -> None:
        self._ours, self._theirs = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self._theirs)
        in_a_session = [] if "stdin" in streams else IN_A_SESSION
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), self._theirs) | streams
        self.process = subprocess.Popen([*in_a_session, *words], env=environment, **streams)
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.close()

    def close(self) -> None:
        """As a terminal that is closed: who writes to it finds nobody."""
        for fd in (self._ours, self._theirs):
            if fd >= 0:
                os.close(fd)
        self._ours = self._theirs = -1

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        if hasattr(self, "screen"):
            self.screen.resize(rows, columns)

    def press(self, text: str | bytes) -> None:
        os.write(self._ours, text.encode() if isinstance(text, str) else text)

    def wipe(self) -> None:
        """What was drawn so far is gone, as for a terminal that comes back."""
        self.read()
        self.screen.reset()

    @property
    def text(self) -> str:
        self.read()
        columns, rows = range(self.screen.columns), range(self.screen.lines)
        buffer = self.screen.buffer
        # pyte's own `display` fails where half of a wide sign is overwritten by now.
        lines = ("".join(buffer[y][x].data for x in columns) for y in rows)
        return "\n".join(line.rstrip() for line in lines)

    def read(self) -> None:
        """What there is to read, without waiting for more."""
        while select.select([self._ours], [], [], 0)[0]:
            try:
                data = os.read(self._ours, 1 << 16)
            except OSError:
                return
            self.raw += data
            # pyte prints the ends of sequences with "<", "=" or ">" in them.
            self._stream.feed(re.sub(rb"\x1b\[[<=>][\d;]*[a-zA-Z]|\x1b\[\?[\d;]*\$p", b"", data))

    def until(self, words: str, deadline_s: float = DEADLINE_S) -> None:
        deadline = time.monotonic() + deadline_s
        while words not in self.text:
            assert time.monotonic() < deadline, f"{words!r} is not to be seen in\n{self.text}"
            self.wait_for_more()

    def wait_for_more(self, at_most_s: float = 0.2) -> bool:
        return bool(select.select([self._ours], [], [], at_most_s)[0])

    def ends(self, deadline_s: float = DEADLINE_S) -> int:
        """Reads to the end; the exit code, a signal's number below 0."""
        deadline = time.monotonic() + deadline_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it did not end; it shows\n{self.text}"
            self.wait_for_more(0.02)
            self.read()
        self.read()
        return self.process.returncode

    def stops(self) -> None:
        """Until the process stands still, as after Ctrl-Z."""
        deadline = time.monotonic() + DEADLINE_S
        while self._state() != "T":
            assert time.monotonic() < deadline, "it did not stop"
            self.wait_for_more(0.02)
            self.read()

    def _state(self) -> str:
        with open(f"/proc/{self.process.pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]

    def kill(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def modes_on(self) -> set[str]:
        """Private modes that were set by what ran here, or taken away, and were not put back."""
        self.read()
        last = {
            mode: turned for found, turned in MODE.findall(self.raw) for mode in found.split(b";")
        }
        return {
            mode.decode() for mode, turned in last.items() if (turned == b"h") != (mode in LEFT_ON)
        }

    def is_as_before(self) -> bool:
        """Modes, kitty's keyboard and the settings of the line."""
        self.read()
        keyboards = self.raw.count(b"\x1b[>") - self.raw.count(b"\x1b[<u")
        return (
            not self.modes_on()
            and keyboards <= 0
            and termios.tcgetattr(self._theirs) == self.before
        )
