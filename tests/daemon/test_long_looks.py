"""Looks at all of the history go beside the loop, on a connection that can write nothing."""

import asyncio
import threading
from pathlib import Path

import apsw
import pytest

from gpuq.daemon.requests.long_looks import LongLooks
from gpuq.daemon.store import Store
from gpuq.daemon.store.reading import Readable, Reader


def test_a_long_look_runs_in_a_thread_of_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path / "gpuq.db")

    def find(db: Readable) -> tuple[str, int]:
        return threading.current_thread().name, int(db.value("select count(*) from jobs"))

    name, jobs = asyncio.run(LongLooks(store).look(7, find))
    store.close()
    assert name != threading.main_thread().name
    assert jobs == 0


def test_a_database_in_memory_is_read_by_its_own_connection() -> None:
    store = Store(":memory:")
    found = asyncio.run(LongLooks(store).look(7, lambda db: db.rows("select 1 as one")))
    assert found == [{"one": 1}]
    store.close()


def test_a_reader_can_write_nothing_and_sees_one_moment(tmp_path: Path) -> None:
    store = Store(tmp_path / "gpuq.db")
    reader = Reader(store.database.path)
    assert reader.value("select count(*) from wishes") == 0
    store.wished.drain("riser swap", actor="dan", now=1.0)
    assert reader.value("select count(*) from wishes") == 0
    with pytest.raises(apsw.ReadOnlyError):
        reader.rows("delete from wishes")
    reader.close()
    later = Reader(store.database.path)
    assert later.value("select count(*) from wishes") == 1
    assert later.row("select name from wishes where name = 'none'") is None
    later.close()
    store.close()
