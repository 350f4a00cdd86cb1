"""How attempts went from their beginning to their end. Written by the loop alone, and rarely: what an
attempt that runs is like is kept in memory."""

import json
import zlib

from gpuq.core.results.series import Series, read_series
from gpuq.daemon.store.connection import Database


class SeriesRows:
    def __init__(self, db: Database) -> None:
        self._db = db

    def read(self, job: int, attempt: int) -> Series | None:
        packed = self._db.value(
            "select points from series where job = ? and attempt = ?", (job, attempt)
        )
        return None if packed is None else read_series(json.loads(zlib.decompress(packed)))

    def write(self, job: int, attempt: int, series: Series) -> None:
        with self._db.transaction():
            write_series(self._db, job, attempt, series)


def write_series(db: Database, job: int, attempt: int, series: Series) -> None:
    """In the place of what was written before; inside a transaction."""
    packed = zlib.compress(json.dumps(series.told(), separators=(",", ":")).encode())
    db.write(
        "insert or replace into series (job, attempt, points) values (?, ?, ?)",
        (job, attempt, packed),
    )
