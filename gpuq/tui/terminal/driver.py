"""The terminal that the screen is drawn on: Textual's driver, and beyond it a terminal that goes away,
that takes nothing for a while, or that speaks another encoding.
"""

import os
import select
import time
from codecs import getincrementaldecoder
from typing import TYPE_CHECKING, Any

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

from gpuq.tui.terminal.outlet import Outlet

if TYPE_CHECKING:
    from gpuq.tui.app import GpuqApp

HUNG_UP = 128 + 1  # the exit code of who was ended by SIGHUP
LEAVE_S = 1.0  # how long a terminal has to take what is left
TICK_MS = 50  # an escape that nothing follows is the key
QUIET_S = 0.5  # then no sequence is half read
# Modes that Textual sets and leaves behind in some case, and all that take a terminal back.
KEYBOARD_OFF = "\x1b[<u"  # kitty's: one for each time that it was set
MODES_OFF = "\x1b[?1016l\x1b[?2048l\x1b[0m"
ALL_OFF = (
    f"{KEYBOARD_OFF}\x1b[?7h\x1b[?1000l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?2004l\x1b[?1004l"
    f"\x1b[?2026l{MODES_OFF}\x1b[?1049l\x1b[?25h"
)
UNKNOWN_SIZE = (80, 24)


class Terminal(LinuxDriver):
    """Writes to the terminal of stdout through an outlet, and leaves with it when it goes away."""

    def __init__(self, app: "GpuqApp", **how: Any) -> None:
        super().__init__(app, **how)
        self._outlet: Outlet | None = None
        self._out_fd = 1
        self._signs = app.signs
        self._wake, self._woken = os.pipe()
        self._keyboards = 0  # how often kitty's keyboard was set and not taken back

    # ── out ──

    def start_application_mode(self) -> None:
        """Also where the terminal was not given back before: who is stopped by SIGSTOP cannot."""
        comes_back = self._must_signal_resume or self._outlet is not None
        attributes = self.attrs_before if self._keyboards else None
        self._let_reader_go()
        if self._writer_thread is not None:
            self._writer_thread.stop()
        if self._outlet is None:
            self._outlet = Outlet(
                self._out_fd,
                encode=self._encode,
                caught_up=lambda: self._later(self._draw_anew),
                gone=self._hang_up,
            )
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self.attrs_before = attributes or self.attrs_before
        self._keyboards += self._key_thread is not None
        if comes_back:
            self._later(self._draw_anew)

    def write(self, data: str) -> None:
        if self._outlet is not None:
            self._outlet.put(data)

    def stop_application_mode(self) -> None:
        self.write(MODES_OFF)
        self.write(KEYBOARD_OFF * (self._keyboards - 1))  # Textual takes back one
        self._keyboards = 0
        super().stop_application_mode()

    def close(self) -> None:
        super().close()
        if self._outlet is not None:
            self._outlet.finish(ALL_OFF, LEAVE_S)
            self._outlet = None

    def _encode(self, text: str) -> bytes:
        return self._signs.plain(text).encode("utf-8", "replace")

    def _draw_anew(self) -> None:
        """Every cell: what the terminal shows is not what was drawn."""
        for screen in self._app.screen_stack:
            screen.refresh(layout=True)
            for widget in screen.walk_children():
                widget.refresh()

    def _get_terminal_size(self) -> tuple[int, int]:
        """The window's own: COLUMNS and LINES, where somebody set them, stay as they are when it is
        another."""
        try:
            columns, rows = os.get_terminal_size(self._out_fd)
        except OSError:
            columns, rows = UNKNOWN_SIZE
        return columns or UNKNOWN_SIZE[0], rows or UNKNOWN_SIZE[1]

    # ── in ──

    def run_input_thread(self) -> None:
        """Waits for keys as long as there are none: Textual's own looks ten times a second, and for
        ever again where the terminal is gone."""
        parser = XTermParser(self._debug)
        decode = getincrementaldecoder("utf-8")("replace").decode
        ready, read_at = select.poll(), 0.0
        ready.register(self.fileno, select.POLLIN)
        ready.register(self._wake, select.POLLIN)
        while not self.exit_event.is_set():
            is_quiet = time.monotonic() - read_at > QUIET_S
            found = dict(ready.poll(None if is_quiet else TICK_MS))
            if self.fileno in found:
                data, read_at = self._read(), time.monotonic()
                if not data:
                    self._hang_up()
                    return
                if text := decode(data):
                    for event in parser.feed(text):
                        self.process_message(event)
            for event in parser.tick():
                self.process_message(event)

    def _read(self) -> bytes:
        try:
            return os.read(self.fileno, 4096)
        except OSError:  # EIO: there is no such terminal any more
            return b""

    def disable_input(self) -> None:
        """Lets the thread that reads go; it may be started again."""
        self._let_reader_go()
        super().disable_input()

    def _let_reader_go(self) -> None:
        if self._key_thread is not None:
            self.exit_event.set()
            os.write(self._woken, b"!")
            self._key_thread.join()
            os.read(self._wake, 1)
            self._key_thread = None
            self.exit_event.clear()

    # ── the end ──

    def _hang_up(self) -> None:
        self._later(lambda: self._app.exit(return_code=HUNG_UP))

    def _later(self, call: Any) -> None:
        """In the app's own thread; where its loop has ended, nothing is left to be done."""
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            pass
