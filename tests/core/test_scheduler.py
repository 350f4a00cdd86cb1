"""Who starts now, on what, and why the others wait."""

import signal
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gpuq.core.model import (
    ActiveJob,
    Cancel,
    Decision,
    Gpu,
    Lease,
    Release,
    Signal,
    Snapshot,
    Start,
    StopWish,
    WaitingJob,
)
from gpuq.core.scheduler import plan
from tests.builders import (
    active,
    foreign,
    gpu,
    job,
    lease,
    ours,
    started,
    stop,
    uuid,
    world,
)


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


# ── ending ──


def signals(snapshot: Snapshot) -> list[int]:
    return [one.signal for one in plan(snapshot).decisions if isinstance(one, Signal)]


NOW = 1000.0


@pytest.mark.parametrize(
    ("running", "sent", "wake_at"),
    [
        (active(7), [], None),
        (active(7, grace_s=10), [signal.SIGTERM], NOW + 10),
        (active(7, grace_s=10, term_sent_at=NOW - 9), [], NOW + 1),
        (active(7, grace_s=10, term_sent_at=NOW - 10), [signal.SIGKILL], NOW + 1),
        (active(7, grace_s=10, term_sent_at=NOW - 99, kill_sent_at=NOW - 0.5), [], NOW + 0.5),
        (active(7, grace_s=10, kill_sent_at=NOW - 1), [signal.SIGKILL], NOW + 1),
        (active(7, grace_s=0), [signal.SIGKILL], NOW + 1),
        # A second wish without patience does not wait for the first one's grace.
        (active(7, grace_s=0, term_sent_at=NOW - 1), [signal.SIGKILL], NOW + 1),
    ],
)
def test_a_stop_is_term_then_kill_after_the_grace_and_kill_again_every_second(
    running: ActiveJob, sent: list[int], wake_at: float | None
) -> None:
    snapshot = world(active=[running], now=NOW)
    assert signals(snapshot) == sent
    assert plan(snapshot).wake_at == wake_at


def test_the_whole_of_a_stop_from_wish_to_death() -> None:
    running, now, sent = active(7, grace_s=10), 0.0, []
    while now < 13:
        decided = plan(world(active=[running], now=now))
        for one in decided.decisions:
            assert isinstance(one, Signal)
            sent.append((now, one.signal))
            column = "term_sent_at" if one.signal == signal.SIGTERM else "kill_sent_at"
            running = replace(running, **{column: now})
        assert decided.wake_at is not None
        now = decided.wake_at
    assert sent == [(0, 15), (10, 9), (11, 9), (12, 9)]


def test_a_signal_sent_by_hand_is_no_step_towards_the_end() -> None:
    snapshot = world(active=[active(7, signal_wish=10)])
    assert decisions(Signal, snapshot) == [Signal(job=7, attempt=1, signal=10, ends=False)]
    both = world(active=[active(7, signal_wish=10, grace_s=0)])
    assert signals(both) == [10, 9]


def test_the_nearest_deadline_wakes() -> None:
    held = [lease(0, 7, cooling_since=NOW - 25)]
    leaving = [active(8, grace_s=10, term_sent_at=NOW - 2)]
    assert plan(world(1, (), held, leaving, now=NOW)).wake_at == NOW + 5


def test_a_wish_to_end_a_waiting_job_needs_no_grace() -> None:
    snapshot = world(jobs=[job(stop=StopWish(grace_s=3600.0, actor="bob"))])
    assert decisions(Cancel, snapshot) == [Cancel(job=1, actor="bob")]
    assert plan(snapshot).wake_at is None


# ── cooling ──


def cooling(
    reading: Gpu | None, *others: Lease, read_at: float | None, now: float = NOW
) -> Snapshot:
    gpus = None if read_at is None else [reading] if reading else []
    return world(
        gpus, [job()], [lease(0, 7, cooling_since=NOW - 1), *others], now=now, read_at=read_at
    )


def test_a_gpu_is_cool_only_by_a_reading_newer_than_the_end() -> None:
    stale, fresh = cooling(gpu(), read_at=NOW - 1), cooling(gpu(), read_at=NOW - 0.9)
    assert (decisions(Release, stale), starts(stale)) == ([], {})
    assert plan(stale).wake_at == NOW + 29
    assert decisions(Release, fresh) == [Release(gpu=uuid(0), slot=0)]
    assert starts(fresh) == {1: (0,)}


def test_a_gpu_that_has_cooled_is_the_first_ones_in_line_at_once() -> None:
    """In the next turn a later job would have taken the other GPU already."""
    cooled = [lease(0, 99, cooling_since=NOW - 1)]
    assert starts(world(2, [job(gpus=2), job()], cooled, now=NOW, read_at=NOW)) == {1: (0, 1)}


def test_a_cooling_gpu_that_no_reading_shows_any_more_is_let_go() -> None:
    assert decisions(Release, cooling(None, read_at=NOW))
    assert not decisions(Release, cooling(None, read_at=NOW - 2))


def test_a_restarted_daemon_waits_for_its_first_reading() -> None:
    assert not decisions(Release, cooling(gpu(), read_at=None))


@pytest.mark.parametrize(
    ("reading", "warm"),
    [
        (gpu(used="5G"), "outside gpuq: 5G in use, and no process to be seen"),
        (gpu(processes=[ours(7)]), "job 7 uses it without holding it: train 1007 ann"),
        (gpu(processes=[foreign()]), "outside gpuq: python 4242 bob"),
    ],
)
def test_a_warm_gpu_is_kept_for_30_seconds_and_then_named(reading: Gpu, warm: str) -> None:
    assert not decisions(Release, cooling(reading, read_at=NOW))
    assert not decisions(Release, cooling(reading, read_at=NOW + 28, now=NOW + 28))
    late = cooling(reading, read_at=NOW + 29, now=NOW + 29)
    assert decisions(Release, late) == [Release(gpu=uuid(0), slot=0, warm=warm)]


def test_memory_of_those_who_still_share_a_gpu_does_not_keep_it_warm() -> None:
    reading = gpu(processes=[ours(8, "5G")])
    assert decisions(Release, cooling(reading, lease(0, 8, "5G", slot=1), read_at=NOW))


def test_two_jobs_that_cool_on_one_gpu_do_not_answer_for_each_other() -> None:
    other = lease(0, 8, "5G", slot=1, cooling_since=NOW - 1)
    assert not decisions(Release, cooling(gpu(used="10G"), other, read_at=NOW))
    assert len(decisions(Release, cooling(gpu(), other, read_at=NOW))) == 2


def test_the_room_of_a_cooling_share_is_not_given_away() -> None:
    held = [lease(0, 7, "20G", cooling_since=NOW - 1)]
    assert starts(world(1, [job(mem="5G")], held, now=NOW, read_at=NOW - 1)) == {}


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
