"""The metrics as a file for node_exporter's textfile collector, written over and over beside the loop.

Nobody ever waits for it: what stands in its way is logged once, and tried again the next time.
"""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from gpuq.config import Config
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.daemon.upkeep.aside import aside

log = structlog.get_logger()


class Textfile:
    """`text` gives the metrics as anybody may read them, `keep` stores what was measured since the
    last time. `run` goes on until it is cancelled."""

    def __init__(
        self, config: Config, text: Callable[[], Awaitable[str]], keep: Callable[[], None]
    ) -> None:
        self._config = config
        self._text = text
        self._keep = keep
        self._bell = asyncio.Event()
        self._trouble: str | None = None

    def settings_changed(self) -> None:
        self._bell.set()

    async def run(self) -> None:
        try:
            while True:
                self._bell.clear()
                await self.write()
                await self._sleep()
        finally:
            with suppress(DiskTrouble):
                self._keep()

    async def write(self) -> None:
        """Once, where somebody wants that file."""
        path: str | None = self._config.metrics_textfile
        if path is None:
            return
        try:
            text = await self._text()
            await aside(lambda: replace_file(path, text))
        except (OSError, DiskTrouble) as error:
            self._note(f"{path}: {getattr(error, 'strerror', None) or error}")
        else:
            self._note(None)

    async def _sleep(self) -> None:
        every_s = None if self._config.metrics_textfile is None else self._config.metrics_every
        with suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await self._bell.wait()

    def _note(self, trouble: str | None) -> None:
        """Told once, however often it is found so."""
        if trouble is not None and trouble != self._trouble:
            log.error("the metrics could not be written", why=trouble)
        self._trouble = trouble


def replace_file(path: str, text: str) -> None:
    """A reader finds the old text or the new one, and never a part. The name in between begins with a
    dot and does not end as the exporter wants it, so a piece that a crash leaves is read by nobody."""
    fd, partial = tempfile.mkstemp(prefix=".gpuq-metrics-", dir=os.path.dirname(path))
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        os.rename(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
