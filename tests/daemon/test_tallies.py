"""Counters never fall and count everything once: over scrapes, restarts and the removal of events."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gpuq.core.model import Exit, Outcome, Request
from gpuq.daemon.store import Store
from gpuq.daemon.store.tallies import read_tallies
from tests import stored
from tests.stored import NOW, end, fail, lease, run, start, submit, submit_one

Counts = dict[tuple[str, str], float]


def counted(store: Store) -> Counts:
    while store.tallies.count_events(3):
        pass
    return read_tallies(store.database)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "gpuq.db"


def live(store: Store) -> None:
    """One that succeeds at its second attempt, and two that are cancelled."""
    job, *others = submit(store, 3)
    start(store, job)
    run(store, job)
    fail(store, job)
    store.happened.undelay(job, now=NOW)
    start(store, job, attempt=2)
    run(store, job, attempt=2)
    end(store, job, attempt=2)
    for other in others:
        store.happened.cancel(other, actor="alice", now=NOW)


LIVED: Counts = {
    ("submitted", ""): 3,
    ("started", ""): 2,
    ("ended", "succeeded"): 1,
    ("ended", "cancelled"): 2,
    ("attempts_ended", "failed"): 1,
    ("attempts_ended", "succeeded"): 1,
}


def of_jobs(counts: Counts) -> Counts:
    names = {name for name, _ in LIVED}
    return {key: value for key, value in counts.items() if key[0] in names}


def test_what_happened_is_counted_once_however_often_somebody_looks(database: Path) -> None:
    with closing(Store(database)) as store:
        live(store)
        once = counted(store)
        assert of_jobs(once) == LIVED
        assert counted(store) == once
        live(store)
        assert of_jobs(counted(store)) == {key: 2 * value for key, value in LIVED.items()}


def test_another_daemon_goes_on_counting_where_the_last_one_was(database: Path) -> None:
    with closing(Store(database)) as store:
        live(store)
        store.tallies.count_events(3)
    with closing(Store(database)) as store:
        live(store)
        assert of_jobs(counted(store)) == {key: 2 * value for key, value in LIVED.items()}


def test_what_is_removed_has_been_counted_before(database: Path) -> None:
    with closing(Store(database)) as store:
        live(store)
        while store.pruned.prune_events(NOW + 100, 2):
            pass
        assert stored.count(store, "events") == 0
        assert of_jobs(counted(store)) == LIVED
        live(store)
        assert of_jobs(counted(store)) == {key: 2 * value for key, value in LIVED.items()}


def test_a_removal_that_comes_to_nothing_has_counted_nothing(database: Path) -> None:
    with closing(Store(database)) as store:
        live(store)
        with pytest.raises(RuntimeError):
            remove_and_fail(store)
        assert of_jobs(counted(store)) == LIVED


def remove_and_fail(store: Store) -> None:
    with store.transaction():
        store.pruned.prune_events(NOW + 100, 1000)
        raise RuntimeError


def test_a_run_of_jobs_that_ends_at_once_counts_for_all_of_them(database: Path) -> None:
    with closing(Store(database)) as store:
        ids = submit(store, 10)
        stored.write(store, "delete from jobs where id > ?", ids.start)
        stored.write(store, "update jobs set last_id = ? where id = ?", ids[-1], ids.start)
        store.happened.cancel(ids.start, last=ids[-1], actor="alice", now=NOW)
        assert counted(store)["ended", "cancelled"] == 10


# ─── waits and gaps ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(Store(":memory:")) as opened:
        yield stored.with_gpus(opened)


def began(store: Store, job: int, *, at: float, attempt: int = 1) -> None:
    store.happened.running(job, attempt, pid=4243, pid_start=100, at=at, mono=5.0)


def one_before(store: Store, gpu: str = "GPU-0", left_at: float = NOW + 9) -> None:
    """A job that had the GPU until then."""
    job = submit_one(store)
    start(store, job, lease(job, gpu))
    began(store, job, at=NOW)
    end(store, job, exit=Exit(exit_code=0, ended_at=left_at))


def waits(store: Store) -> tuple[float, float | None]:
    """(wait, gap) of the job that began last, in seconds."""
    told = [one for one in stored.events(store) if one["kind"] == "running"]
    detail = json.loads(told[-1]["detail"])
    return detail["waited_s"], detail.get("gap_s")


def test_a_wait_goes_from_the_submission_to_the_start(store: Store) -> None:
    job = submit_one(store)
    start(store, job, lease(job))
    began(store, job, at=NOW + 61.5)
    assert waits(store) == (61.5, None), "nobody had the GPU before it"


def test_a_gap_goes_from_the_end_of_one_job_to_the_start_of_the_next(store: Store) -> None:
    waiting = submit_one(store)
    one_before(store)
    start(store, waiting, lease(waiting))
    began(store, waiting, at=NOW + 9.25)
    assert waits(store) == (9.25, 0.25)
    counts = counted(store)
    assert (counts["gap", "0.25"], counts["gap_sum", ""]) == (1, 0.25)


def test_a_job_on_several_gpus_waited_for_the_last_of_them(store: Store) -> None:
    waiting = submit_one(store)
    one_before(store, "GPU-0", NOW + 5)
    one_before(store, "GPU-1", NOW + 9)
    start(store, waiting, lease(waiting, "GPU-0"), lease(waiting, "GPU-1"))
    began(store, waiting, at=NOW + 10)
    assert waits(store)[1] == 1.0


def test_a_gpu_that_nobody_waited_for_has_no_gap(store: Store) -> None:
    one_before(store, left_at=NOW - 50)  # before the next one is submitted
    job = submit_one(store)
    start(store, job, lease(job))
    began(store, job, at=NOW + 1)
    assert waits(store) == (1.0, None)


def test_who_was_held_or_waited_for_others_did_not_wait_for_a_gpu(store: Store) -> None:
    held = submit_one(store)
    store.changed.hold(held, held, as_admin=False, actor="alice", now=NOW)
    store.changed.release(held, held, actor="alice", now=NOW)
    one_before(store)
    start(store, held, lease(held))
    began(store, held, at=NOW + 4000)
    assert waits(store)[1] is None


def test_a_gpu_that_is_shared_has_no_gap(store: Store) -> None:
    waiting = submit_one(store, request=Request(gpus=1, gpu_mem_bytes=2**30, exclusive=False))
    one_before(store)
    start(store, waiting, stored.share(waiting))
    began(store, waiting, at=NOW + 10)
    assert waits(store)[1] is None


def test_a_clock_that_was_set_back_makes_no_negative_wait(store: Store) -> None:
    waiting = submit_one(store)
    one_before(store)
    start(store, waiting, lease(waiting))
    began(store, waiting, at=NOW - 100)
    assert waits(store) == (0.0, 0.0)


def test_a_second_attempt_waits_for_its_backoff_and_counts_as_no_wait(store: Store) -> None:
    job = submit_one(store)
    start(store, job, lease(job))
    began(store, job, at=NOW + 1)
    fail(store, job)
    store.happened.undelay(job, now=NOW)
    start(store, job, replace(lease(job), attempt=2), attempt=2)
    began(store, job, at=NOW + 99, attempt=2)
    end(store, job, attempt=2, outcome=Outcome.SUCCEEDED)
    counts = counted(store)
    assert sum(value for (name, _), value in counts.items() if name == "wait") == 1
