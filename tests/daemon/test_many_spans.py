"""Who names twenty thousand jobs has them looked up once each, and not once for each row that there is.

What a look costs is counted in steps of SQLite's machine, so it is the same on every computer.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.model import Outcome
from gpuq.daemon.requests.refs import MOST_SPANS
from gpuq.daemon.store import Store, notices
from gpuq.daemon.store.history import Idleness, Wanted, history
from gpuq.daemon.store.notices import listed
from gpuq.daemon.store.reading import STEPS, Readable, Reader
from gpuq.daemon.store.statistics import Scope, failures, statistics
from gpuq.daemon.store.told import Told
from tests import stored
from tests.past import had
from tests.stored import ALICE, BOB, NOW

ROWS = 200
MANY = [range(2 * n, 2 * n + 1) for n in range(1, MOST_SPANS + 1)]  # every other job
MOST_STEPS = (
    10_000_000  # half of what each row and each span together would take, at 5 steps a pair
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Jobs that ran, and more than a page of notices and events of runs of jobs."""
    with closing(Store(tmp_path / "gpuq.db")) as opened:
        opened.database.value("pragma synchronous = off")
        stored.with_gpus(opened)
        with opened.transaction():
            for at in range(ROWS):
                had(opened, at, at + 1, outcome=Outcome.FAILED)
        yield opened


def looked(store: Store, find: Callable[[Readable], Any]) -> Any:
    """What is found; LookGivenUp where that takes too many steps."""
    times = iter(range(10**9))
    with closing(Reader(store.database.path, lambda: next(times) * STEPS > MOST_STEPS)) as reader:
        return find(reader)


def test_history_of_very_many_jobs(store: Store) -> None:
    wanted = Wanted(scope=Scope(), ids=MANY)
    idle = Idleness(percent=1.0, seconds=1.0)
    page = {"limit": ROWS, "most_bytes": 10**9, "after": None}
    rows = looked(store, lambda db: history(db, wanted, idleness=idle, **page))
    assert [row["id"] for row in rows] == list(range(ROWS, 0, -2))


def test_sums_of_very_many_jobs(store: Store) -> None:
    scope = Scope(ids=MANY)
    ((row,), _) = looked(store, lambda db: statistics(db, "state", scope, whose=None, limit=9))
    assert (row["key"], row["jobs"], row["attempts"]) == ("failed", ROWS // 2, ROWS // 2)
    ((row,), _) = looked(store, lambda db: failures(db, "outcome", scope, whose=None, limit=9))
    assert row["errors"] == ROWS // 2


def notify(store: Store, first: int, last: int | None = None, *, uid: int = ALICE.uid) -> int:
    """A notice of a job, or of a run of jobs, that is over."""
    row = {"moment": "end", "origin": "job", "target": "true", "key": "k", "job": first, "uid": uid}
    told = "{}" if last is None else f'{{"last": {last}}}'
    with store.transaction():
        done = {"told": told, "made_at": NOW, "state": "done", "ended_at": NOW}
        return store.database.insert("notices", row | done)


def test_notices_of_very_many_jobs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "READ_AT_ONCE", 7)
    ids = {job: notify(store, job) for job in range(1, ROWS + 1)}
    found = looked(store, lambda db: listed(db, None, jobs=MANY, limit=500))
    assert [row["id"] for row in found] == [ids[job] for job in range(ROWS, 0, -2)]
    some = looked(store, lambda db: listed(db, None, jobs=MANY, limit=3))
    assert some == found[:3]


def test_a_notice_of_a_run_is_found_by_each_job_of_it(store: Store) -> None:
    run, other = notify(store, 10, 19), notify(store, 20)

    def found(*jobs: range, **what: Any) -> list[int]:
        return [row["id"] for row in listed(store.database, None, jobs=jobs, limit=9, **what)]

    for jobs in ([range(10, 11)], [range(19, 20)], [range(1, 30)], [range(3, 4), range(15, 16)]):
        assert run in found(*jobs)
    assert found(range(1, 10)) == []
    assert found(range(3, 4), range(20, 40)) == [other]
    assert found(range(10, 21)) == [other, run]
    assert found(range(10, 21), notice=run) == [run]
    assert listed(store.database, BOB.uid, jobs=[range(10, 21)], limit=9) == []


def test_events_of_very_many_jobs_among_very_many_runs(store: Store) -> None:
    """In a database that is read beside its writer, for its steps to be counted."""
    with store.transaction():
        for first in range(3, 12_000, 6):
            store.machine.event("cancelled", now=NOW, job=first, detail={"last": first + 1})
    since = store.told.last_event() - 2000
    rows, _ = looked(store, lambda db: Told(db).events(since, 500, MANY))  # type: ignore[arg-type]
    assert [row["job"] for row in rows] == list(range(3, 3000, 6))


def test_events_of_runs_are_found_by_each_job_of_them(store: Store) -> None:
    since = store.told.last_event()
    with store.transaction():
        store.machine.event("cancelled", now=NOW, job=10, detail={"last": 19})
        store.machine.event("cancelled", now=NOW, job=12, detail={"last": 13})
        store.machine.event("ended", now=NOW, job=20)

    def found(*jobs: range) -> list[int]:
        return [row["job"] for row in store.told.events(since, 9, jobs)[0]]

    assert found(range(9, 10)) == []
    assert found(range(10, 11)) == found(range(19, 20)) == [10]
    assert found(range(13, 14)) == [10, 12]
    assert found(range(5, 7), range(14, 15), range(20, 21)) == [10, 20]
    assert found(range(12, 13), range(14, 15), range(19, 30)) == [10, 12, 20]
    assert found(range(11, 12)) == [10]
    assert found(range(1, 100)) == [10, 12, 20]


def test_the_notices_of_one_user_push_out_none_of_anothers(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "MOST_KEPT", 3)
    bobs = [notify(store, 1, uid=BOB.uid), notify(store, 2, uid=BOB.uid)]
    ids = [notify(store, job) for job in range(1, 8)]
    with store.transaction():
        store.database.write("update notices set uid = null where id = ?", (bobs[0],))
    assert store.notices.forget(NOW - 1, 3) == 3
    assert store.notices.forget(NOW - 1, 100) == 1
    assert store.notices.forget(NOW - 1, 100) == 0
    kept = [row["id"] for row in listed(store.database, None, limit=100)]
    assert kept == [*reversed(ids[4:]), *reversed(bobs)]
