"""Many who ask at once, one wait for the disk."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from gpuq.daemon.store import Store
from gpuq.errors import GpuqError


class _Deed:
    """What somebody waits for: its result, or what it raised."""

    __slots__ = ("do", "is_done", "outcome")

    def __init__(self, do: Callable[[], Any]) -> None:
        self.do = do
        self.outcome: Any = None
        self.is_done = False


class GroupCommit:
    """Submits that arrive together share one commit, and so one wait for the disk; and `commit` may do
    in the same one what follows from them."""

    def __init__(
        self, store: Store, commit: Callable[[], AbstractContextManager[None]] | None = None
    ) -> None:
        self._store = store
        self._commit = commit or store.transaction
        self._waiting: list[_Deed] = []

    async def run(self, do: Callable[[], Any]) -> Any:
        """The result of `do`, once it is on disk."""
        deed = _Deed(do)
        self._waiting.append(deed)
        try:
            # All sockets that are readable now are read meanwhile.
            await asyncio.sleep(0)
        finally:  # the client may have left; what it asked is stored all the same
            if not deed.is_done:
                self._flush()
        if isinstance(deed.outcome, Exception):
            raise deed.outcome
        return deed.outcome

    def _flush(self) -> None:
        """Whoever comes back first stores what all have asked."""
        batch, self._waiting = self._waiting, []
        try:
            with self._commit():
                if len(batch) == 1:  # undone with the transaction, where it fails
                    outcomes = [batch[0].do()]
                else:
                    outcomes = [self._attempt(deed.do) for deed in batch]
        except Exception as error:  # nothing was stored, and each of them is told
            outcomes = [error] * len(batch)
        for deed, outcome in zip(batch, outcomes, strict=True):
            deed.outcome, deed.is_done = outcome, True

    def _attempt(self, do: Callable[[], Any]) -> Any:
        """One deed, undone alone where it fails, unless the disk does."""
        try:
            with self._store.part():
                return do()
        except GpuqError as error:
            return error
