"""One `gpuq top --readonly` behind one open page: begun when the page comes, ended when it goes."""

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from textual_serve.app_service import AppService
from textual_serve.download_manager import DownloadManager

# What a page is, whatever the server was started in.
TERMINAL = {
    "TEXTUAL_DRIVER": "gpuq.tui.web.driver:PageDriver",
    "TERM": "xterm-256color",
    "LC_ALL": "C.UTF-8",
}
LEAVE_S = 3.0  # for the screen to leave by itself
SIDE = range(2, 1001)  # columns or rows that a page may ask for
FIGURE_DIGITS = 15


class Session(AppService):
    """`AppService` speaks with the screen's process; begun here without a shell, and ended for sure."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        write: Callable[[bytes], Awaitable[None]],
        write_text: Callable[[str], Awaitable[None]],
        close: Callable[[], Awaitable[Any]],
    ) -> None:
        super().__init__(
            command[0],
            write_bytes=write,
            write_str=write_text,
            close=close,
            download_manager=DownloadManager(),
        )
        self._words = command
        self._is_seen = False

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        process = await asyncio.create_subprocess_exec(
            *self._words,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=self._build_environment(width, height) | TERMINAL,
            start_new_session=True,  # Ctrl-C in the server's terminal is for the server
        )
        self._process, self._stdin = process, process.stdin
        return process

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            await self.remote_close()  # it left, or it never came up

    async def on_data(self, payload: bytes) -> None:
        await super().on_data(payload)
        if not self._is_seen:  # it begins as if nobody looked, and the page says only what changes
            self._is_seen = True
            await self.focus()

    async def on_meta(self, data: bytes) -> None:
        """What the screen asks of a page. It may open nothing there: text in it comes from jobs."""

    async def take(self, message: Any) -> None:
        """One message of the page: a list of its kind and what it says. Others are passed over."""
        match message:
            case ["stdin", str(text)] if typed := text.encode("utf-8", "ignore"):
                await self.send_bytes(typed)
            case ["resize", {"width": int(width), "height": int(height)}]:
                await self.set_terminal_size(side(width), side(height))
            case ["focus", *_]:
                await self.focus()
            case ["blur", *_]:
                await self.blur()
            case ["ping", str(stamp)] if is_figure(stamp):
                await self.remote_write_str(f'["pong", "{stamp}"]')

    async def stop(self) -> None:
        """Returns when its process is gone."""
        if self._process is None or self._task is None:
            return
        await self.send_meta({"type": "quit"})
        try:
            await asyncio.wait_for(self._process.wait(), LEAVE_S)
        except TimeoutError:
            with suppress(ProcessLookupError):  # it left in this very moment
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        self._task.cancel()  # it may hang in a page that takes nothing more
        await asyncio.gather(self._task, return_exceptions=True)


def is_figure(said: str) -> bool:
    """Digits, and no more of them than a moment in milliseconds has for the next 30,000 years."""
    return said.isascii() and said.isdigit() and len(said) <= FIGURE_DIGITS


def side(asked: int) -> int:
    return min(max(asked, SIDE[0]), SIDE[-1])
