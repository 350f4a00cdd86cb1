"""Who starts now, on what, and why the others wait."""

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gpuq.core.decisions import Cancel, Decision, Release, Requeue, Signal, Start, Undelay
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import (
    ActiveJob,
    Closing,
    DelayedJob,
    EndCause,
    Lease,
    Snapshot,
    StopWish,
    WaitingJob,
)
from gpuq.core.scheduling.scheduler import plan
from tests.builders import (
    active,
    foreign,
    gpu,
    job,
    lease,
    ours,
    started,
    stop,
    world,
)

NOW = 1000.0


def starts(snapshot: Snapshot) -> dict[int, tuple[int, ...]]:
    return started(plan(snapshot))


def decisions(kind: type[Decision], snapshot: Snapshot) -> list[Decision]:
    return [one for one in plan(snapshot).decisions if isinstance(one, kind)]


# ── order ──


def test_first_come_first_served() -> None:
    assert starts(world(gpus=2, jobs=[job(), job(), job()])) == {1: (0,), 2: (1,)}


def test_the_order_is_that_of_the_ids_however_they_are_seen() -> None:
    assert starts(world(gpus=1, jobs=[job(id=9), job(id=3), job(id=5)])) == {3: (0,)}


def test_priority_goes_before_age() -> None:
    late = [job(), job(priority=5), job(priority=-5), job(priority=5)]
    assert starts(world(gpus=3, jobs=late)) == {2: (0,), 4: (1,), 1: (2,)}


def test_a_job_gets_all_its_gpus_or_none() -> None:
    assert starts(world(gpus=2, jobs=[job(gpus=4)])) == {}
    assert starts(world(gpus=4, jobs=[job(gpus=4)])) == {1: (0, 1, 2, 3)}


def test_a_gpu_is_exclusive_unless_asked_otherwise() -> None:
    assert starts(world(gpus=1, jobs=[job(), job()])) == {1: (0,)}
    assert starts(world(gpus=1, jobs=[job(mem="5G"), job()])) == {1: (0,)}
    assert starts(world(gpus=1, jobs=[job(), job(mem="5G")])) == {1: (0,)}


def test_twenty_jobs_of_5g_run_as_four_on_each_of_four_gpus_of_24g() -> None:
    snapshot = world(gpus=4, jobs=[job(mem="5G")] * 20)
    decided = plan(snapshot)
    placed = [index for places in started(decided).values() for index in places]
    assert list(started(decided)) == list(range(1, 17))
    assert [placed.count(index) for index in range(4)] == [4, 4, 4, 4]
    assert (
        decided.reasons[17]
        == "wants 1 GPU with 5G, 0 free (in use by jobs 1-16; a shared one has 3.5G left at most)"
    )
    assert {decided.reasons[number] for number in (18, 19, 20)} == {"behind 17"}


def test_an_exclusive_job_with_memory_gets_a_whole_gpu_of_at_least_that() -> None:
    cards = [gpu(0, "24G"), gpu(1, "79.6G"), gpu(2, "79.6G")]
    wish = job(mem="80G", exclusive=True)
    assert starts(world(cards, [wish, wish, wish])) == {1: (1,), 2: (2,)}
    assert starts(world(cards, [wish], [lease(1, 7, "1G")])) == {1: (2,)}


def test_cpu_jobs_run_beside_gpu_jobs_within_the_cpu_slots() -> None:
    queue = [job(), job(0, cpus=3), job(0, cpus=2), job(0, cpus=1), job()]
    decided = plan(world(gpus=2, jobs=queue, active=[active(99, 0, cpus=3)], cpu_slots=8))
    assert started(decided) == {1: (0,), 2: (), 3: (), 5: (1,)}
    assert decided.reasons[4] == "wants 1 CPU slot, 0 of 8 CPU slots free"


def test_gpu_jobs_take_no_cpu_slots() -> None:
    running = [active(number, cpus=8) for number in range(90, 98)]
    assert starts(world(gpus=1, jobs=[job(cpus=64), job(0)], active=running, cpu_slots=1)) == {
        1: (0,),
        2: (),
    }


def test_a_wish_to_end_a_waiting_job_needs_no_grace() -> None:
    snapshot = world(jobs=[job(stop=StopWish(grace_s=3600.0, actor="bob"))])
    assert decisions(Cancel, snapshot) == [Cancel(job=1, actor="bob")]
    assert plan(snapshot).wake_at is None


def test_a_job_that_somebody_wants_gone_is_cancelled_and_never_started() -> None:
    snapshot = world(gpus=2, jobs=[job(stop=stop()), job()])
    decided = plan(snapshot)
    assert Cancel(job=1, actor="ann") in decided.decisions
    assert started(decided) == {2: (0,)}
    assert 1 not in decided.reasons


def test_the_attempt_is_the_one_that_the_store_counted() -> None:
    snapshot = world(jobs=[replace(job(), attempt=3)])
    assert [one.attempt for one in plan(snapshot).decisions] == [3]  # type: ignore[union-attr]


# ── what is known of the GPUs ──


def test_before_the_first_reading_only_cpu_jobs_start() -> None:
    decided = plan(world(gpus=None, jobs=[job(), job(0)]))
    assert started(decided) == {2: ()}
    assert decided.reasons[1] == "waiting for the first reading of the GPUs"


def test_while_the_driver_does_not_answer_no_gpu_is_given_away() -> None:
    """The last reading may be an hour old by then, and what starts would hang in the driver."""
    trouble = "the GPU driver does not answer"
    decided = plan(world(gpus=2, jobs=[job(), job(0), job(mem="5G")], trouble=trouble))
    assert started(decided) == {2: ()}
    assert decided.reasons[1] == decided.reasons[3] == trouble


def test_exclusive_jobs_leave_out_gpus_that_others_use() -> None:
    gpus = [gpu(0, processes=[foreign()]), gpu(1, calm_samples=1), gpu(2, fault="lost"), gpu(3)]
    assert starts(world(gpus, [job(), job()])) == {1: (3,)}


# ── a turn sees the first few of each class ──


@pytest.mark.parametrize(
    ("gpus", "blocked", "leases", "running"),
    [
        pytest.param([gpu()], job(0, cpus=2), [], [active(7, 0, cpus=7)], id="by CPU slots"),
        pytest.param(
            [gpu(0, model="A100"), gpu(1)], job(model="a100"), [lease(0, 7)], [], id="by us"
        ),
        pytest.param(
            [gpu(0), gpu(1, processes=[foreign()])], job(gpus=2), [], [], id="by a stranger"
        ),
    ],
)
def test_a_hundred_thousand_blocked_jobs_do_not_hide_one_that_fits(
    gpus: list[Gpu], blocked: WaitingJob, leases: list[Lease], running: list[ActiveJob]
) -> None:
    queue = [blocked] * 100_000 + [job()]
    snapshot = world(gpus, queue, leases, running, per_class=16)
    assert len(snapshot.waiting) == 17
    decided = plan(snapshot)
    assert list(started(decided)) == [100_001]
    assert decided.heads == {1: 1}
    assert decided.reasons[16] == "behind 1"


def test_no_class_starts_while_an_earlier_one_may_hold_more_than_is_seen() -> None:
    """Behind the two that are seen of the first class there may be a third, older than job 4."""
    queue = [job(), job(), job(), job(mem="5G")]
    first = plan(world(gpus=4, jobs=queue, per_class=2))
    assert started(first) == {1: (0,), 2: (1,)}
    assert not {3, 4} & set(first.reasons)

    held = [lease(0, 1), lease(1, 2)]
    second = plan(world(4, [job(id=3), job(mem="5G", id=4)], held, per_class=2))
    assert started(second) == {3: (2,), 4: (3,)}


def test_a_class_that_is_seen_to_its_end_is_no_barrier() -> None:
    assert starts(world(gpus=3, jobs=[job(), job(mem="5G")], per_class=2)) == {1: (0,), 2: (1,)}


def test_jobs_of_one_class_go_by_priority_and_age() -> None:
    queue = [job(), job(priority=1), job(), job(priority=1)]
    assert list(starts(world(gpus=3, jobs=queue, per_class=16))) == [2, 4, 1]


def test_a_turn_with_a_thousand_classes_takes_no_noticeable_time() -> None:
    gpus = [gpu(index) for index in range(8)]
    busy = [lease(index, 90 + index, "1G") for index in range(8)]
    queue = [job(mem=f"{20_000 + number}M", passes=number % 12) for number in range(1000)]
    snapshot = world(gpus, queue, busy, per_class=16)
    began = time.process_time()
    plan(snapshot)
    assert time.process_time() - began < 1.0


# ── overtaking ──


def turns(
    gpus: Sequence[Gpu], head: WaitingJob, later: WaitingJob, *leases: Lease
) -> tuple[int, Snapshot]:
    """Thirty turns, or as many as start something, each with one more later job; those before it
    have ended. How often the head has been overtaken by then, and the last world."""
    passes = head.passes
    for number in range(2, 32):
        snapshot = world(gpus, [replace(head, passes=passes), replace(later, id=number)], leases)
        decided = plan(snapshot)
        if not started(decided):
            break
        passes += sum(one.passed.count(1) for one in decided.decisions if isinstance(one, Start))
    return passes, snapshot


def test_a_head_that_waits_for_gpus_of_ours_is_overtaken_ten_times_and_no_more() -> None:
    passed, last = turns([gpu(0), gpu(1)], job(gpus=2), job(), lease(0, 99))
    assert passed == 10
    assert plan(last).reasons[12] == "behind 1, which has been overtaken 10 times"


def test_the_bound_is_counted_within_a_turn_too() -> None:
    queue = [job(gpus=8)] + [job()] * 7
    decided = plan(world(8, queue, [lease(0, 99)], max_bypass=3))
    assert list(started(decided)) == [2, 3, 4]
    assert all(one.passed == (1,) for one in decided.decisions)  # type: ignore[union-attr]


def test_a_head_that_waits_for_cpu_slots_is_overtaken_ten_times_and_no_more() -> None:
    queue = [job(0, cpus=16)] + [job(0)] * 12
    decided = plan(world(0, queue, active=[active(99, 0, cpus=4)], cpu_slots=16))
    assert list(started(decided)) == list(range(2, 12))


def test_a_cpu_job_too_large_for_this_machine_holds_nobody_up() -> None:
    """As when `cpu_slots` was lowered while it waited."""
    assert list(starts(world(0, [job(0, cpus=16, passes=10), job(0)], cpu_slots=8))) == [2]


def test_against_a_foreign_holder_patience_has_no_bound() -> None:
    passed, last = turns([gpu(0, processes=[foreign()]), gpu(1)], job(gpus=2), job())
    assert passed == 0
    assert starts(last) == {31: (1,)}


def test_a_gpu_that_a_stranger_has_left_is_not_snatched_from_the_head() -> None:
    """It only owes some readings yet; a sharing job does not wait for those."""
    kept = world([gpu(calm_samples=1)], [job(), job(mem="5G")])
    assert started(plan(kept)) == {}
    assert plan(kept).reasons[2] == "behind 1, for which a GPU is becoming free"
    back = gpu(calm_samples=0, processes=[foreign("4G")])
    assert started(plan(world([back], [job(), job(mem="5G")]))) == {2: (0,)}


def test_a_head_that_waits_for_a_stranger_and_for_us_waits_for_the_stranger() -> None:
    """Keeping our GPU for it would leave that idle for as long as the stranger likes."""
    gpus = [gpu(0, processes=[foreign()]), gpu(1), gpu(2)]
    passed, last = turns(gpus, job(gpus=3, passes=10), job(), lease(1, 99))
    assert passed == 10  # none was added
    assert starts(last) == {31: (2,)}


def test_a_head_that_any_gpu_would_help_waits_for_us_though_one_is_a_strangers() -> None:
    gpus = [gpu(0, processes=[foreign()]), gpu(1, processes=[ours(99)]), gpu(2)]
    decided = plan(world(gpus, [job(gpus=2, passes=10), job()], [lease(1, 99)]))
    assert started(decided) == {}


def test_a_blocked_job_keeps_no_gpu_that_a_stranger_keeps_from_it() -> None:
    """It waits for the other one; others would wait beside 19G for nothing."""
    gpus = [gpu(0, processes=[foreign("4G")]), gpu(1)]
    decided = plan(world(gpus, [job(passes=10), job(mem="2G")], [lease(1, 99)]))
    assert started(decided) == {2: (0,)}


def test_a_missing_gpu_is_waited_for_by_nobody_else() -> None:
    gpus = [gpu(0, fault="is lost"), gpu(1)]
    assert starts(world(gpus, [job(gpus=2, passes=10), job()])) == {2: (1,)}


def test_who_wants_something_else_overtakes_nobody() -> None:
    gpus = [gpu(0, model="A100"), gpu(1, model="T4")]
    queue = [job(model="A100", passes=10), job(model="T4"), job(0)]
    decided = plan(world(gpus, queue, [lease(0, 99)]))
    assert started(decided) == {2: (1,), 3: ()}
    assert not any(one.passed for one in decided.decisions)  # type: ignore[union-attr]


def test_nobody_is_overtaken_where_another_gpu_will_do() -> None:
    gpus = [gpu(0, model="A100"), gpu(1, model="A100"), gpu(2, model="T4")]
    decided = plan(world(gpus, [job(gpus=2, model="A100"), job()], [lease(0, 99)]))
    assert started(decided) == {2: (2,)}
    assert not any(one.passed for one in decided.decisions)  # type: ignore[union-attr]


def test_nobody_is_kept_back_where_another_gpu_will_do() -> None:
    gpus = [gpu(0, model="A100"), gpu(1, model="A100"), gpu(2, model="T4")]
    held = [lease(1, 99)]
    assert starts(world(gpus, [job(gpus=2, model="A100", passes=10), job()], held)) == {2: (2,)}
    shared = [job(gpus=2, model="A100", passes=10), job(mem="1G")]
    assert starts(world(gpus, shared, [*held, lease(2, 98, "5G")])) == {2: (2,)}


def test_who_is_kept_back_is_not_overtaken_without_end_either() -> None:
    gpus = [gpu(0, model="T4"), gpu(1, model="A100"), gpu(2, model="A100")]
    queue = [job(gpus=2, model="A100", passes=10), job(gpus=2, passes=10), job()]
    decided = plan(world(gpus, queue, [lease(1, 99)]))
    assert started(decided) == {}
    assert decided.reasons[2] == "behind 1, which has been overtaken 10 times"
    assert decided.reasons[3] == "behind 2, which has been overtaken 10 times"


def test_higher_priority_is_not_overtaking() -> None:
    queue = [job(gpus=2, passes=10), job(priority=1)]
    decided = plan(world(2, queue, [lease(0, 99)]))
    assert started(decided) == {2: (1,)}
    assert not any(one.passed for one in decided.decisions)  # type: ignore[union-attr]


def test_a_head_in_a_container_is_not_starved_by_memory_without_a_process() -> None:
    """There the driver shows no processes, and our own jobs' memory looks like a stranger's."""
    gpus = [gpu(0, used="20G"), gpu(1)]
    assert starts(world(gpus, [job(gpus=2, passes=10), job()], [lease(0, 99)])) == {}


def test_without_bypass_the_order_is_strict() -> None:
    assert starts(world(2, [job(gpus=2), job()], [lease(0, 99)], max_bypass=0)) == {}


# ── delays between two attempts ──


def until(boottime: float, id: int = 7) -> DelayedJob:
    return DelayedJob(id=id, until=boottime)


def test_a_delay_is_over_at_its_moment_of_the_boots_clock() -> None:
    """That clock counts while the machine is suspended, unlike the one of limits."""
    assert decisions(Undelay, world(delayed=[until(200.0)], now=900.0, boottime=199.9)) == []
    assert decisions(Undelay, world(delayed=[until(200.0)], now=1.0, boottime=200.0)) == [
        Undelay(job=7)
    ]


def test_the_alarm_is_set_for_the_next_delay_that_is_not_over() -> None:
    waits = [until(100.0, 3), until(300.0, 4), until(250.0, 5)]
    decided = plan(world(delayed=waits, boottime=200.0))
    assert decided.decisions == (Undelay(job=3),)
    assert decided.undelay_at == 250.0
    assert decided.wake_at is None
    assert plan(world()).undelay_at is None


def test_who_comes_back_into_line_is_not_overtaken_in_the_same_turn() -> None:
    """It may be the oldest of all, as after a daemon was away for the whole of its wait."""
    decided = plan(world(1, [job(id=9)], delayed=[until(100.0)], boottime=200.0))
    assert decided.decisions == (Undelay(job=7),)
    assert starts(world(1, [job(id=9), job(id=7)])) == {7: (0,)}


def test_who_is_put_back_into_the_queue_is_not_overtaken_in_the_same_turn() -> None:
    """Its cancel was undone: it may be the oldest of all."""
    decided = plan(replace(world(1, [job(id=9)]), to_requeue=(7, 12)))
    assert decided.decisions == (Requeue(job=7), Requeue(job=12))


# ── drained ──

DRAINED = "the queue is drained by bob: new driver"


def test_a_drained_queue_starts_nothing_and_says_so_to_each_that_waits() -> None:
    queue = [job(), job(), job(gpus=9), job(0), job(mem="5G", priority=9)]
    decided = plan(world(gpus=4, jobs=queue, drain="new driver"))
    assert decided.decisions == ()
    assert decided.reasons == dict.fromkeys(range(1, 6), DRAINED)
    assert decided.standstill == DRAINED
    assert plan(world(gpus=4, jobs=queue)).standstill is None


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (EndCause.SHUTDOWN, "the machine is shutting down"),
        (EndCause.LOGOUT, "the services of this user are being stopped"),
    ],
)
def test_what_goes_down_starts_nothing_whoever_has_drained_it_before(
    cause: EndCause, words: str
) -> None:
    closing = Closing(cause=cause, kill_at=2000.0)
    decided = plan(world(gpus=4, jobs=[job(), job(0)], closing=closing, drain="new driver"))
    assert decided.decisions == ()
    assert decided.reasons == {1: words, 2: words}
    assert decided.standstill == words


def test_nobody_is_overtaken_or_kept_back_while_the_queue_is_drained() -> None:
    queue = [job(gpus=2, passes=10), job(), job()]
    decided = plan(world(2, queue, [lease(0, 99)], drain="new driver"))
    assert (decided.decisions, decided.heads) == ((), {})


def test_a_drained_queue_still_cancels_ends_and_cools() -> None:
    decided = plan(
        world(
            1,
            [job(stop=stop()), job()],
            [lease(0, 9, cooling_since=NOW - 1)],
            [active(7, grace_s=0)],
            delayed=[until(100.0, 8)],
            boottime=200.0,
            drain="new driver",
            now=NOW,
            read_at=NOW,
        )
    )
    assert [type(one) for one in decided.decisions] == [Cancel, Undelay, Signal, Release]


# ── reasons ──


@pytest.mark.parametrize("per_class", [None, 1, 3])
@pytest.mark.parametrize("free", range(4))
def test_every_waiting_job_that_is_seen_has_a_reason(per_class: int | None, free: int) -> None:
    shapes = [job(), job(gpus=2), job(mem="5G"), job(0, cpus=5), job(model="none"), job(gpus=9)]
    queue = [shapes[number * 5 % 6] for number in range(40)] + [job(stop=stop())]
    held = [lease(index, 90 + index) for index in range(free, 4)]
    snapshot = world(4, queue, held, per_class=per_class)
    decided = plan(snapshot)
    waiting = [one for one in snapshot.waiting if one.stop is None]
    silent = [one.id for one in waiting if not decided.reasons.get(one.id)]
    assert not silent or (per_class is not None and min(silent) > max(started(decided)))


def test_the_same_world_gives_the_same_plan() -> None:
    snapshot = world(4, [job(), job(gpus=3), job(mem="5G"), job(0)], [lease(0, 99)])
    before = repr(snapshot)
    assert plan(snapshot) == plan(snapshot)
    assert repr(snapshot) == before
