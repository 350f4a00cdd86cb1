"""The database read beside its writer, on a connection of its own that can write nothing: for looks at
all of the history, which would keep the loop from its turns."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import apsw

from gpuq.daemon.store.connection import DAMAGE, Database, Row, StoreDamaged, Values

BUSY_MS = 2000


class Readable(Protocol):
    """What queries ask: the loop's own connection or one beside it."""

    def rows(self, sql: str, values: Values = ()) -> list[Row]: ...

    def row(self, sql: str, values: Values = ()) -> Row | None: ...

    def value(self, sql: str, values: Values = ()) -> Any: ...


class Reader:
    """Sees the database as it was when it first read, until it is closed. In one thread only."""

    def __init__(self, path: str) -> None:
        uri = f"file:{quote(str(Path(path).absolute()))}?mode=ro"
        self._path = path
        self._db = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        self._db.set_busy_timeout(BUSY_MS)
        self._db.execute("begin")

    def close(self) -> None:
        self._db.close()

    def rows(self, sql: str, values: Values = ()) -> list[Row]:
        return list(self.each(sql, values))

    def each(self, sql: str, values: Values = ()) -> Iterator[Row]:
        """Row by row, for results that would fill the memory."""
        names: list[str] = []
        try:
            cursor = self._db.execute(sql, values)
            for row in cursor:
                names = names or [column[0] for column in cursor.get_description()]
                yield dict(zip(names, row, strict=True))
        except DAMAGE as error:
            raise StoreDamaged(f"{self._path}: {error}") from error

    def row(self, sql: str, values: Values = ()) -> Row | None:
        return next(self.each(sql, values), None)

    def value(self, sql: str, values: Values = ()) -> Any:
        """The first column of the first row, None where there is no row."""
        row = self.row(sql, values)
        return None if row is None else next(iter(row.values()))


@contextmanager
def reader_of(database: Database) -> Iterator[Readable]:
    """One in memory has no other connection: it is read by its own."""
    if database.path == ":memory:":
        yield database
        return
    reader = Reader(database.path)
    try:
        yield reader
    finally:
        reader.close()
