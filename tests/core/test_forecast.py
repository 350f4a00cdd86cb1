"""When those that wait are expected to start, and what that rests on."""

from dataclasses import replace

import pytest

from gpuq.core.model import ActiveJob, Reservation, Snapshot
from gpuq.core.policy import Queue
from gpuq.core.scheduling.forecast import Expected, Forecast, forecast
from gpuq.core.scheduling.rate import parse_rate
from tests.builders import active, foreign, gpu, job, lease, ours, world

NOW = 1000.0
GRACE_S = 10.0


def running(id: int, limit_s: float | None = 100.0, **more: object) -> ActiveJob:
    return active(id, running_since=NOW, time_limit_s=limit_s, **more)


def guessed(id: int, lasts_s: float) -> ActiveJob:
    return replace(running(id, None), request=job(lasts_s=lasts_s).request)


def starts(snapshot: Snapshot) -> dict[int, float]:
    """In how many seconds each of them starts."""
    return {id: one.at - snapshot.now for id, one in forecast(snapshot).starts.items()}


def one_gpu(*queue: object, holder: ActiveJob | None = None, **more: object) -> Snapshot:
    held = [lease(0, 99)]
    return world(1, queue, held, [holder or running(99)], now=NOW, **more)  # type: ignore[arg-type]


def test_who_waits_for_a_time_limit_starts_when_it_and_its_grace_are_over() -> None:
    told = forecast(one_gpu(job())).starts[1]
    assert told == Expected(at=NOW + 110.0, waits_for=(99,))
    assert told.words == "by the time limit of 99"


def test_those_that_wait_follow_each_other() -> None:
    queue = [job(limit_s=50.0), job(limit_s=20.0), job()]
    assert starts(one_gpu(*queue)) == {1: 110.0, 2: 170.0, 3: 200.0}


def test_who_waits_for_several_rests_on_all_of_them() -> None:
    held = [lease(0, 98), lease(1, 99)]
    snapshot = world(2, [job(gpus=2)], held, [running(98, 40.0), running(99)], now=NOW)
    told = forecast(snapshot).starts[1]
    assert (told.at, told.waits_for) == (NOW + 110.0, (98, 99))
    assert told.words == "by the time limits of 98-99"


def test_a_guess_is_said_to_be_one_and_so_is_all_that_rests_on_it() -> None:
    told = forecast(one_gpu(job(limit_s=50.0), job(), holder=guessed(99, 30.0))).starts
    assert told[1] == Expected(at=NOW + 30.0, waits_for=(99,), is_guess=True)
    assert told[1].words == "a guess, by how long jobs like 99 ran before"
    assert told[2] == Expected(at=NOW + 90.0, waits_for=(1,), is_guess=True)


def test_where_nobody_knows_nothing_is_said_but_why() -> None:
    told = forecast(one_gpu(job(), holder=running(99, None)))
    assert told.starts == {}
    assert told.why_unknown(1) == "99 has no time limit"
    paused = forecast(one_gpu(job(), holder=running(99, paused_since=NOW)))
    assert paused.why_unknown(1) == "99 is paused"
    outlived = forecast(one_gpu(job(), holder=replace(guessed(99, 30.0), running_since=0.0)))
    assert outlived.why_unknown(1) == "99 has run for longer than any like it before"


def test_several_that_never_end_are_named_together() -> None:
    held = [lease(0, 98), lease(1, 99)]
    runners = [running(98, None), running(99, None)]
    told = forecast(world(2, [job(gpus=2)], held, runners, now=NOW))
    assert told.why_unknown(1) == "98-99 have no time limit"


def test_who_waits_behind_one_without_a_limit_waits_for_an_unknown_time() -> None:
    told = forecast(one_gpu(job(), job()))
    assert list(told.starts) == [1]
    assert told.why_unknown(2) == "1 has no time limit"


def test_backfill_is_foreseen() -> None:
    """It passes the head beside which there is room for it, as it will when the moment is there."""
    held = [lease(0, 99)]
    queue = [job(gpus=2, limit_s=50.0), job(limit_s=40.0)]
    cards = [gpu(index, simulated=True) for index in range(2)]
    assert starts(world(cards, queue, held, [running(99)], now=NOW)) == {2: 0.0, 1: 110.0}


def test_memory_is_packed() -> None:
    card = gpu(0, processes=[ours(98, "10G"), ours(99, "10G")])
    held = [lease(0, 98, "10G"), lease(0, 99, "10G", slot=1)]
    runners = [running(98, 50.0), running(99)]
    queue = [job(mem="12G", limit_s=500.0), job(mem="10G")]
    assert starts(world([card], queue, held, runners, now=NOW)) == {1: 60.0, 2: 110.0}


def test_cpu_slots_are_foreseen() -> None:
    holder = running(99, request=job(0, cpus=8).request)
    assert starts(world(0, [job(0)], (), [holder], now=NOW, cpu_slots=8)) == {1: 110.0}


def test_who_waits_for_a_stranger_waits_for_an_unknown_time() -> None:
    snapshot = world([gpu(0, processes=[foreign()])], [job()], now=NOW)
    told = forecast(snapshot)
    assert (told.starts, told.why_unknown(1)) == ({}, None)


def test_while_nothing_is_started_nothing_is_expected() -> None:
    assert forecast(one_gpu(job(), drain="new driver")) == Forecast()


def test_a_limit_is_foreseen() -> None:
    held = [lease(0, 99)]
    queue = [job(uid=7, user="ann", limit_s=50.0), job(uid=7, user="ann")]
    runners = [running(99, uid=7)]
    snapshot = world(4, queue, held, runners, now=NOW, max_running_per_user=1)
    assert starts(snapshot) == {1: 110.0, 2: 170.0}


def test_a_start_rate_is_foreseen() -> None:
    queue = [job(), job(), job()]
    rate = parse_rate("1/10s")
    assert starts(world(3, queue, now=NOW, start_rate=rate)) == {1: 0.0, 2: 10.0, 3: 20.0}


def test_a_reservation_is_foreseen() -> None:
    """In the evening the GPU is bob's, so that nothing long starts before; then it is free again."""
    evening = Reservation(
        id=1,
        uid=2001,
        user="bob",
        gpus=("GPU-0",),
        begin_at=5000.0 + 200.0,
        end_at=5000.0 + 900.0,
        begin_words="18:00",
        end_words="19:00",
    )
    queue = [job(limit_s=500.0, uid=1000), job(limit_s=60.0, uid=1000)]
    snapshot = replace(one_gpu(*queue), wall=5000.0, reservations=(evening,))
    assert starts(snapshot) == {2: 110.0, 1: 900.0}


def test_a_queue_adds_its_priority() -> None:
    queue = [job(limit_s=50.0), job(limit_s=50.0, queue="fast")]
    snapshot = one_gpu(*queue, queues=(Queue(name="fast", priority=5),))
    assert starts(snapshot) == {2: 110.0, 1: 170.0}


@pytest.mark.parametrize(
    ("shown", "told"), [(2, {1: 110.0, 2: 130.0}), (9, {1: 110, 2: 130, 9: 150})]
)
def test_past_what_is_seen_nothing_is_said(shown: int, told: dict[int, float]) -> None:
    """Behind the second of its class there may be a third, older than job 9."""
    queue = [job(limit_s=10.0), job(limit_s=10.0), job(mem="1G", id=9, limit_s=10.0)]
    assert starts(one_gpu(*queue, per_class=shown)) == told


def test_it_leaves_the_world_as_it_is() -> None:
    snapshot = one_gpu(job(limit_s=5.0), job(gpus=1))
    before = repr(snapshot)
    assert forecast(snapshot) == forecast(snapshot)
    assert repr(snapshot) == before
