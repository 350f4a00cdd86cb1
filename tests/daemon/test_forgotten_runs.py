"""What never started and is forgotten, or checked, as runs of jobs that one row stands for."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gpuq.core.asked.elements import Elements
from gpuq.daemon.check import command as check
from gpuq.daemon.store import Store
from tests import stored
from tests.daemon.test_elements_in_store import array, cancel, events, rows
from tests.stored import ALICE, NOW, start, submit


@pytest.fixture
def store() -> Iterator[Store]:
    opened = Store(":memory:")
    yield opened
    opened.close()


# ── forgotten ──


def test_of_a_run_that_never_started_a_part_can_be_forgotten(store: Store) -> None:
    jobs = submit(store, elements=array(100))
    cancel(store, jobs[0], jobs[99])
    some = range(jobs[40], jobs[60])
    assert store.wished.prune([some], outputs=False, actor="alice", now=NOW) == 20
    assert store.pruned.pending(ALICE.uid) == 20
    (remains,) = store.pruned.wished(10)
    assert remains.id == some.start
    store.pruned.forget([remains], {}, now=NOW)
    assert rows(store) == [(1, 40), (61, 100)]
    assert store.database.rows("select * from pruned") == [{"first": 41, "last": 60}]
    detail = json.loads(events(store)[-1]["detail"])
    assert detail == {"jobs": "41-60", "count": 20, "bytes": 0}


def test_the_other_elements_of_an_array_do_not_take_its_key_away(store: Store) -> None:
    jobs = submit(store, elements=array(9), key="nightly")
    cancel(store, jobs[4], jobs[4])
    assert store.changed.living_of_same_key(jobs[4]) is None
    cancel(store, jobs[0], jobs[8])
    later = submit(store, elements=array(9), key="nightly")
    assert store.changed.living_of_same_key(jobs[4]) == later.start
    cancel(store, later[4], later[4])
    assert store.changed.living_of_same_key(jobs[4]) == later.start, "one of several rows"


def test_what_many_shared_goes_with_the_last_of_them(store: Store) -> None:
    elements = Elements(indices=(range(4),), columns=("lr",))
    jobs = submit(store, elements=elements, rows=(("1",), ("2",), ("3",), ("4",)))
    cancel(store, jobs[0], jobs[3])
    tables = ("jobs", "specs", "parameters", "groups", "group_spans")
    for part, left in ((jobs[:3], (1, 1, 4, 1, 1)), (jobs[3:], (0, 0, 0, 0, 0))):
        store.wished.prune([part], outputs=False, actor="alice", now=NOW)
        store.pruned.forget(store.pruned.wished(10), {}, now=NOW)
        assert tuple(stored.count(store, table) for table in tables) == left


def test_all_but_the_newest_are_chosen_within_a_run_as_well(store: Store) -> None:
    jobs = submit(store, elements=array(100))
    cancel(store, jobs[0], jobs[99])
    chosen = store.pruned.choose(uid=None, keep=30, limit=10)
    assert [(row["id"], row["last_id"]) for row in chosen] == [(1, 70)]
    chosen = store.pruned.choose(uid=None, keep=30, after=20, limit=10)
    assert [(row["id"], row["last_id"]) for row in chosen] == [(21, 70)]
    chosen = store.pruned.choose(uid=None, spans=[range(5, 8), range(9, 11)], limit=10)
    assert [(row["id"], row["last_id"]) for row in chosen] == [(5, 7), (9, 10)]
    assert store.pruned.choose(uid=None, keep=100, limit=10) == []


# ── checked ──


def lived(path: Path) -> range:
    """An array of which some ran, some were cancelled together, and of those some were forgotten."""
    with closing(Store(path)) as store:
        jobs = submit(store, elements=array(100))
        for job in (jobs[0], jobs[3]):
            start(store, job)
            stored.run(store, job)
            stored.end(store, job)
        cancel(store, jobs[10], jobs[99])
        store.wished.prune([jobs[40:60]], outputs=False, actor="alice", now=NOW)
        store.pruned.forget(store.pruned.wished(10), {}, now=NOW)
        store.wished.prune([jobs[80:81]], outputs=False, actor="alice", now=NOW)  # its row is split
    return jobs


def sentences(path: Path) -> list[str]:
    return [breach.sentence for breach in check.look_once(str(path), None, whole=True).breaches]


def test_what_happened_to_runs_passes_the_check(tmp_path: Path) -> None:
    lived(tmp_path / "gpuq.db")
    assert sentences(tmp_path / "gpuq.db") == []
    found = check.look_once(str(tmp_path / "gpuq.db"), None, whole=True)
    assert (found.jobs, found.attempts) == (80, 2)


def test_the_check_misses_the_end_of_a_run_and_a_row_that_is_gone(tmp_path: Path) -> None:
    jobs = lived(tmp_path / "gpuq.db")
    with closing(Store(tmp_path / "gpuq.db")) as store:
        stored.write(store, "delete from jobs where id = ?", jobs[4])
        stored.write(store, "update events set detail = '{}' where detail ->> 'last' is not null")
    told = sentences(tmp_path / "gpuq.db")
    assert "jobs 5 to 10 were accepted and are not there any more" in told
    assert "job 81 has ended, and no event says so" in told
    assert not [one for one in told if one.startswith("job 11 ")], "the first has its event"


def test_the_check_tells_of_a_job_in_two_rows_and_of_one_in_no_group(tmp_path: Path) -> None:
    jobs = lived(tmp_path / "gpuq.db")
    with closing(Store(tmp_path / "gpuq.db")) as store:
        stored.write(store, "update jobs set last_id = last_id + 1 where id = ?", jobs[4])
        stored.write(store, "update group_spans set last = ?", jobs[89])
    assert set(sentences(tmp_path / "gpuq.db")) == {
        "job 11 is in two rows, of which one begins with job 1",
        "jobs 82 to 100 are of a group that does not have them",
    }
