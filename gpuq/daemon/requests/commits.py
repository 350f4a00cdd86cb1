"""Many who ask at once, one wait for the disk."""

import asyncio
from collections.abc import Callable
from typing import Any

from gpuq.daemon.store import Store
from gpuq.errors import GpuqError


class GroupCommit:
    """Submits that arrive together share one commit, and so one wait for the disk."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []

    async def run(self, deed: Callable[[], Any]) -> Any:
        """The result of `deed`, once it is on disk."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if not self._waiting:
            # After all sockets that are readable now have been read.
            loop.call_soon(self._flush)
        self._waiting.append((deed, future))
        return await future

    def _flush(self) -> None:
        batch, self._waiting = self._waiting, []
        outcomes: list[Any] = []
        try:
            with self._store.transaction():
                if len(batch) == 1:  # undone with the transaction, where it fails
                    outcomes = [batch[0][0]()]
                else:
                    outcomes = [self._attempt(deed) for deed, _ in batch]
        except Exception as error:  # nothing was stored, and each of them waits to be told
            outcomes = [error] * len(batch)
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if future.done():
                continue  # the client left; what it asked is stored all the same
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _attempt(self, deed: Callable[[], Any]) -> Any:
        """One deed, undone alone where it fails, unless the disk does."""
        try:
            with self._store.part():
                return deed()
        except GpuqError as error:
            return error
