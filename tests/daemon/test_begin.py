"""Jobs that are not to start yet, and what becomes of that when clocks are set and machines restart."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.asked.elements import Elements
from gpuq.core.decisions import Plan
from gpuq.core.model import DelayedJob
from gpuq.daemon.callers.discretion import Sight
from gpuq.daemon.linux import processes
from gpuq.daemon.requests import views
from gpuq.daemon.store import Store
from gpuq.daemon.store.begin import Boot
from tests import stored
from tests.alive import YEAR_S, Alive, MovedClock, with_alive
from tests.stored import ALICE, BOOT, DIGEST, ENVIRONMENT, MONO, NOW, kinds, row, write

HOUR_S = 3600.0


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(Store(":memory:")) as opened:
        yield opened


def submit(store: Store, **changes: Any) -> int:
    store.asked.keep_environment(ALICE.uid, DIGEST, ENVIRONMENT)
    boot = Boot(id=BOOT, boottime=MONO)
    return store.asked.submit(ALICE, [stored.spec(**changes)], now=NOW, boot=boot).start


def submit_to(daemon: Alive, script: str, **changes: Any) -> int:
    """At the time that the daemon's clocks show."""
    asked = {"argv": (b"sh", b"-c", script.encode()), "changes": {b"PATH": b"/usr/bin:/bin"}}
    spec = stored.spec(**asked, request=stored.Request(gpus=0), **changes)
    daemon.store.asked.keep_environment(ALICE.uid, DIGEST, ENVIRONMENT)
    boot = Boot(id=processes.boot_id(), boottime=daemon.clock.boottime())
    job = daemon.store.asked.submit(ALICE, [spec], now=daemon.clock.wall(), boot=boot).start
    daemon.loop.wake()
    return job


def state(daemon: Alive, job: int) -> str:
    return str(daemon.row(job)["state"])


# ── by the clock on the wall ──


def test_a_time_of_day_is_waited_for_by_the_clock_on_the_wall(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = submit_to(daemon, "true", begin_at=daemon.clock.wall() + HOUR_S)
        for seconds in (-YEAR_S, -HOUR_S, HOUR_S - 60):
            daemon.clock.set_s = seconds
            await daemon.turn()
            assert state(daemon, job) == "queued"
        daemon.clock.set_s = HOUR_S
        await daemon.turn()
        assert (await daemon.ended(job))["outcome"] == "succeeded"
        assert kinds(daemon.store, job)[:2] == ["submitted", "due"]

    with_alive(tmp_path, deed)


def test_the_time_in_which_the_machine_sleeps_brings_it_nearer(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = submit_to(daemon, "true", begin_at=daemon.clock.wall() + HOUR_S)
        daemon.clock.asleep_s += HOUR_S
        await daemon.turn()
        await daemon.ended(job)

    with_alive(tmp_path, deed)


def test_a_clock_that_was_set_back_delays_nobody_who_was_due(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        daemon.drain("not now")
        job = submit_to(daemon, "true", begin_at=daemon.clock.wall() + HOUR_S)
        daemon.clock.set_s = 2 * HOUR_S
        await daemon.turn()
        assert daemon.row(job)["delayed_for"] is None
        daemon.clock.set_s = -YEAR_S
        daemon.drain(None)
        assert (await daemon.ended(job))["outcome"] == "succeeded"

    with_alive(tmp_path, deed)


def test_its_time_comes_without_anybody_asking(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        by_wall = submit_to(daemon, "true", begin_at=daemon.clock.wall() + 0.3)
        by_length = submit_to(daemon, "true", begin_in_s=0.3)
        assert (await daemon.ended(by_wall))["started_at"] >= daemon.row(by_wall)["submitted_at"]
        await daemon.ended(by_length)
        assert daemon.loop.plan.wall_at is None

    with_alive(tmp_path, deed)


# ── so much time after the submit ──


def test_a_length_of_time_is_measured_by_no_clock_that_somebody_sets(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = submit_to(daemon, "true", begin_in_s=2 * HOUR_S)
        for seconds in (-YEAR_S, YEAR_S, 0.0):
            daemon.clock.set_s = seconds
            await daemon.turn()
            assert state(daemon, job) == "queued"
        daemon.clock.asleep_s += HOUR_S
        daemon.clock.awake_s += HOUR_S - 60
        await daemon.turn()
        assert state(daemon, job) == "queued"
        daemon.clock.awake_s += 60
        await daemon.turn()
        await daemon.ended(job)

    with_alive(tmp_path, deed)


@pytest.mark.parametrize(
    ("away_s", "is_over"), [(HOUR_S, False), (2 * HOUR_S, True), (-YEAR_S, False)]
)
def test_after_a_restart_of_the_machine_it_goes_on_by_the_wall_clock(
    tmp_path: Path, away_s: float, is_over: bool
) -> None:
    """By no more than it was long, should somebody have set that clock back meanwhile."""
    jobs: list[int] = []

    async def before(daemon: Alive) -> None:
        jobs.append(submit_to(daemon, "true", begin_in_s=2 * HOUR_S))
        write(daemon.store, "update jobs set delayed_boot = 'an earlier one'")

    async def after(daemon: Alive) -> None:
        await daemon.turn()
        if not is_over:
            assert state(daemon, jobs[0]) == "queued"
            daemon.clock.awake_s += 2 * HOUR_S - max(away_s, 0.0)
            await daemon.turn()
        await daemon.ended(jobs[0])

    with_alive(tmp_path, before, leave=True)
    clock = MovedClock()
    clock.set_s = away_s
    with_alive(tmp_path, after, clock)


def test_a_wait_by_the_wall_clock_goes_on_after_a_restart(tmp_path: Path) -> None:
    jobs: list[int] = []

    async def before(daemon: Alive) -> None:
        jobs.append(submit_to(daemon, "true", begin_at=daemon.clock.wall() + HOUR_S))

    async def after(daemon: Alive) -> None:
        await daemon.turn()
        assert state(daemon, jobs[0]) == "queued"
        daemon.clock.set_s = HOUR_S
        await daemon.turn()
        await daemon.ended(jobs[0])

    with_alive(tmp_path, before, leave=True)
    with_alive(tmp_path, after)


# ── as it is stored ──


def test_each_clock_gives_its_own_moments(store: Store) -> None:
    by_wall = submit(store, begin_at=NOW + 60)
    by_length = submit(store, begin_in_s=30.0)
    submit(store, begin_at=NOW - 1)
    submit(store, begin_in_s=0.0)
    assert store.current.delayed() == [
        DelayedJob(id=by_length, until=MONO + 30),
        DelayedJob(id=by_wall, until=NOW + 60, by_wall=True),
    ]
    assert len(store.current.waiting(16)) == 2, "those whose moment is over wait for nothing"


def test_an_array_that_is_to_begin_later_stays_one_row(store: Store) -> None:
    thousand = Elements(indices=(range(1000),))
    first = submit(store, begin_at=NOW + 60, elements=thousand)
    assert stored.count(store, "jobs") == 1
    store.happened.undelay(first, now=NOW + 60)
    assert stored.count(store, "jobs") == 1
    assert store.current.delayed() == []
    assert len(store.current.waiting(16)) > 0


def test_one_that_is_cancelled_waits_no_more(store: Store) -> None:
    job = submit(store, begin_at=NOW + 60)
    store.wished.stop(job, grace_s=0.0, actor="alice", now=NOW)
    assert store.current.delayed() == []


@pytest.mark.parametrize("begin", [{"begin_at": NOW + 60}, {"begin_in_s": 60.0}])
def test_it_is_not_started_before(store: Store, begin: dict[str, float]) -> None:
    job = submit(store, **begin)
    assert store.current.waiting(16) == []
    assert not stored.start(store, job)
    store.happened.undelay(job, now=NOW)
    assert stored.start(store, job)


# ── as it is told ──


def test_its_reason_is_the_moment_and_its_substate_says_that_it_waits_for_one(store: Store) -> None:
    tomorrow = time.mktime((*time.localtime(time.time() + 86400)[:3], 18, 0, 0, 0, 0, -1))
    job = submit(store, begin_at=tomorrow)
    view = views.job_view(row(store, job), Plan(), "/state", sight=Sight.ALL)
    assert (view["state"], view["substate"]) == ("queued", "delayed")
    assert view["reason"] == "not before 18:00 (tomorrow)"
    assert view["delayed_until"] == tomorrow
    hidden = views.job_view(row(store, job), Plan(), "/state", sight=Sight.QUEUE)
    assert hidden["reason"] == view["reason"]


def test_it_is_found_by_that_word(store: Store) -> None:
    later, _ = submit(store, begin_in_s=60.0), submit(store)
    assert [one["id"] for one in store.found.jobs(states=["delayed"])] == [later]
    assert store.found.jobs(states=["backoff"]) == []


def test_a_retry_of_such_a_job_is_a_wait_of_the_other_kind(store: Store) -> None:
    job = submit(store, begin_in_s=60.0, retries=1)
    store.happened.undelay(job, now=NOW)
    stored.start(store, job)
    stored.run(store, job)
    stored.fail(store, job)
    view = views.job_view(row(store, job), Plan(), "/state", sight=Sight.ALL)
    assert view["substate"] == "backoff"
    store.happened.undelay(job, now=NOW)
    assert kinds(store, job).count("due") == 1
    assert kinds(store, job).count("backoff_over") == 1
