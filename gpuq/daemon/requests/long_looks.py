"""Questions about all of the history: answered in a thread, of each user one at a time, and given up
when they take very long or nobody waits for the answer any more."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from gpuq.daemon.store import Store
from gpuq.daemon.store.reading import LookGivenUp, Readable, reader_of
from gpuq.daemon.upkeep.aside import OneByOne
from gpuq.errors import GpuqError

Found = TypeVar("Found")
LONGEST_S = 60.0


class LongLooks:
    def __init__(self, store: Store, *, longest_s: float = LONGEST_S) -> None:
        self._database = store.database
        self._longest_s = longest_s
        self._looks = OneByOne()

    async def look(self, uid: int, find: Callable[[Readable], Found]) -> Found:
        """What `find` finds in the database as it is now. It runs beside the loop, so it may touch
        nothing else of the daemon's. GpuqError where that takes too long."""
        if self._database.path == ":memory:":  # whose one connection is the loop's
            with reader_of(self._database) as readable:
                return find(readable)
        left = threading.Event()
        return await self._looks.do(uid, lambda: self._read(find, left), leave=left.set)

    def _read(self, find: Callable[[Readable], Found], left: threading.Event) -> Found:
        latest = time.monotonic() + self._longest_s

        def is_enough() -> bool:
            return left.is_set() or time.monotonic() > latest

        try:
            with reader_of(self._database, is_enough) as readable:
                return find(readable)
        except LookGivenUp:
            raise GpuqError(
                f"it took longer than {self._longest_s:g} s to look that up, and was given up. Ask for "
                "less of it: narrow it with --since, or name fewer jobs"
            ) from None
