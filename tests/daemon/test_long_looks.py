"""Looks at all of the history go beside the loop, on a connection that can write nothing."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from gpuq.daemon.requests.long_looks import LongLooks
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.daemon.store.reading import LookGivenUp, Readable, Reader
from gpuq.errors import GpuqError

ENDLESS = "with recursive n(x) as (select 1 union all select x + 1 from n) select max(x) from n"


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
    with pytest.raises(DiskTrouble):
        reader.rows("delete from wishes")
    reader.close()
    later = Reader(store.database.path)
    assert later.value("select count(*) from wishes") == 1
    assert later.row("select name from wishes where name = 'none'") is None
    later.close()
    store.close()


def test_a_file_that_was_moved_away_is_said_to_be_out_of_reach(tmp_path: Path) -> None:
    store = Store(tmp_path / "gpuq.db")
    os.rename(tmp_path / "gpuq.db", tmp_path / "kept.db")
    with pytest.raises(DiskTrouble, match=r"gpuq.db cannot be read now .*whether it was moved"):
        asyncio.run(LongLooks(store).look(7, lambda db: db.value("select count(*) from jobs")))
    store.close()


def test_a_look_that_takes_too_long_is_given_up_and_says_how_to_narrow_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "gpuq.db")
    looks = LongLooks(store, longest_s=0.05)
    with pytest.raises(GpuqError, match=r"longer than 0.05 s .*narrow it with --since"):
        asyncio.run(looks.look(7, lambda db: db.value(ENDLESS)))
    store.close()


def test_a_look_ends_when_who_asked_hangs_up(tmp_path: Path) -> None:
    asyncio.run(_hangs_up(Store(tmp_path / "gpuq.db")))


async def _hangs_up(store: Store) -> None:
    looks, begun, ended = LongLooks(store), threading.Event(), threading.Event()

    def find(db: Readable) -> None:
        begun.set()
        try:
            db.value(ENDLESS)
        except LookGivenUp:
            ended.set()
            raise

    asking = asyncio.ensure_future(looks.look(7, find))
    assert await asyncio.to_thread(begun.wait, 10)
    asking.cancel()
    assert await asyncio.to_thread(ended.wait, 10)
    assert await looks.look(7, lambda db: db.value("select 1")) == 1, "and makes room"
    store.close()
