"""Questions about all of the history: answered in a thread, of each user one at a time."""

from collections.abc import Callable
from typing import TypeVar

from gpuq.daemon.store import Store
from gpuq.daemon.store.reading import Readable, reader_of
from gpuq.daemon.upkeep.aside import OneByOne

Found = TypeVar("Found")


class LongLooks:
    def __init__(self, store: Store) -> None:
        self._database = store.database
        self._looks = OneByOne()

    async def look(self, uid: int, find: Callable[[Readable], Found]) -> Found:
        """What `find` finds in the database as it is now. It runs beside the loop, so it may touch
        nothing else of the daemon's."""
        if self._database.path == ":memory:":  # whose one connection is the loop's
            with reader_of(self._database) as readable:
                return find(readable)
        return await self._looks.do(uid, lambda: self._read(find))

    def _read(self, find: Callable[[Readable], Found]) -> Found:
        with reader_of(self._database) as readable:
            return find(readable)
