"""The database read beside its writer, on a connection of its own that can write nothing: for looks at
all of the history, which would keep the loop from its turns."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import apsw

from gpuq.daemon.store.connection import (
    DAMAGE,
    DISK_ERRORS,
    Database,
    DiskTrouble,
    Row,
    StoreDamaged,
    Values,
)

BUSY_MS = 2000
STEPS = (
    20_000  # of SQLite's machine, about a millisecond: so often a look is asked whether to go on
)


class LookGivenUp(Exception):
    """It was enough before all was read."""


class Readable(Protocol):
    """What queries ask: the loop's own connection or one beside it."""

    def rows(self, sql: str, values: Values = ()) -> list[Row]: ...

    def row(self, sql: str, values: Values = ()) -> Row | None: ...

    def value(self, sql: str, values: Values = ()) -> Any: ...


class Reader:
    """Sees the database as it was when it first read, until it is closed. In one thread only. It stops
    in the middle, with LookGivenUp, once `is_enough`."""

    def __init__(self, path: str, is_enough: Callable[[], bool] = lambda: False) -> None:
        uri = f"file:{quote(str(Path(path).absolute()))}?mode=ro"
        self._path = path
        with self._telling_troubles():
            self._db = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        self._db.set_busy_timeout(BUSY_MS)
        self._db.set_progress_handler(is_enough, STEPS)
        self._db.execute("begin")

    def close(self) -> None:
        self._db.close()

    def rows(self, sql: str, values: Values = ()) -> list[Row]:
        return list(self.each(sql, values))

    def each(self, sql: str, values: Values = ()) -> Iterator[Row]:
        """Row by row, for results that would fill the memory."""
        names: list[str] = []
        with self._telling_troubles():
            cursor = self._db.execute(sql, values)
            for row in cursor:
                names = names or [column[0] for column in cursor.get_description()]
                yield dict(zip(names, row, strict=True))

    def row(self, sql: str, values: Values = ()) -> Row | None:
        return next(self.each(sql, values), None)

    def value(self, sql: str, values: Values = ()) -> Any:
        """The first column of the first row, None where there is no row."""
        row = self.row(sql, values)
        return None if row is None else next(iter(row.values()))

    @contextmanager
    def _telling_troubles(self) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            raise StoreDamaged(f"{self._path}: {error}") from error
        except apsw.InterruptError:
            raise LookGivenUp from None
        except (*DISK_ERRORS, apsw.CantOpenError) as error:
            raise DiskTrouble(
                f"{self._path} cannot be read now ({error}). See whether it was moved, and how the "
                "disk under it is; then try again"
            ) from error


@contextmanager
def reader_of(
    database: Database, is_enough: Callable[[], bool] = lambda: False
) -> Iterator[Readable]:
    """One in memory has no other connection: it is read by its own."""
    if database.path == ":memory:":
        yield database
        return
    reader = Reader(database.path, is_enough)
    try:
        yield reader
    finally:
        reader.close()
