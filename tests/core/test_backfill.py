"""Who may start before an earlier job that is blocked: by proof, by guess, or by patience."""

import time
from dataclasses import replace

import pytest

from gpuq.core.decisions import Start
from gpuq.core.gpus.ledger import Ledger
from gpuq.core.model import ActiveJob, Lease, Snapshot, WaitingJob
from gpuq.core.policy import Policy
from gpuq.core.scheduling.foresight import BESIDES_S, End, end_of
from gpuq.core.scheduling.protection import LIKELY_PASSES
from gpuq.core.scheduling.scheduler import plan
from tests.builders import active, foreign, gpu, job, lease, ours, started, world

NOW = 1000.0
GRACE_S = 10.0  # of every job here
COOLING_S = 30.0
# A head that wants two GPUs: one is free, the other is held for so long by a time limit.
HELD_S = 100.0
FREE_AT = NOW + HELD_S + GRACE_S
# The longest limit with which a job has left its GPU by then.
IN_TIME_S = HELD_S - BESIDES_S - COOLING_S


def running(id: int, limit_s: float | None = HELD_S, **more: object) -> ActiveJob:
    return active(id, running_since=NOW, time_limit_s=limit_s, **more)


def behind_a_head(
    *later: WaitingJob, passes: int = 0, holder: ActiveJob | None = None, **policy: object
) -> Snapshot:
    """Two GPUs, one held; the head wants both."""
    head = job(gpus=2, passes=passes)
    held = [lease(0, 99)]
    return world(2, [head, *later], held, [holder or running(99)], now=NOW, **policy)


def passes(snapshot: Snapshot) -> dict[int, tuple[int, ...]]:
    """Who starts, and whom that overtakes."""
    decided = plan(snapshot).decisions
    return {one.job: one.passed for one in decided if isinstance(one, Start)}


# ── it has ended before the head could start ──


def test_who_ends_in_time_by_his_limit_overtakes_nobody() -> None:
    assert passes(behind_a_head(job(limit_s=IN_TIME_S))) == {2: ()}


def test_his_grace_his_cooling_and_his_start_count() -> None:
    late = behind_a_head(job(limit_s=IN_TIME_S + 0.5))
    assert passes(late) == {}
    assert plan(late).reasons[2] == (
        "behind 1, which it would keep waiting: its time limit is 1:09"
    )
    assert passes(behind_a_head(job(limit_s=IN_TIME_S, grace_s=GRACE_S + 0.5))) == {}


def test_a_simulated_gpu_cools_at_once() -> None:
    cards = [gpu(index, simulated=True) for index in range(2)]
    queue = [job(gpus=2), job(limit_s=IN_TIME_S + COOLING_S)]
    assert passes(world(cards, queue, [lease(0, 99)], [running(99)], now=NOW)) == {2: ()}


def test_patience_is_not_used_up_by_those_who_do_no_harm() -> None:
    assert passes(behind_a_head(job(limit_s=5.0), passes=10)) == {2: ()}
    assert passes(behind_a_head(job(limit_s=5.0), max_bypass=0)) == {2: ()}


def test_where_a_limit_is_missing_nobody_can_tell_and_it_is_a_pass() -> None:
    assert passes(behind_a_head(job())) == {2: (1,)}
    assert passes(behind_a_head(job(), passes=10)) == {}
    unknown = behind_a_head(job(limit_s=5.0), holder=running(99, None))
    assert passes(unknown) == {2: (1,)}


def test_one_of_several_holders_may_be_unknown() -> None:
    """The head waits for the one with the limit, and whether the other one ends is no matter."""
    held = [lease(0, 98), lease(1, 99)]
    snapshot = world(
        3, [job(gpus=2), job(limit_s=60.0)], held, [running(98, None), running(99)], now=NOW
    )
    assert passes(snapshot) == {2: ()}


def test_the_first_end_that_is_enough_counts_and_no_later_one() -> None:
    held = [lease(0, 98), lease(1, 99)]
    runners = [running(98, 500.0), running(99)]

    def with_limit(limit_s: float) -> Snapshot:
        return world(3, [job(gpus=2), job(limit_s=limit_s)], held, runners, now=NOW)

    assert passes(with_limit(IN_TIME_S)) == {2: ()}
    assert passes(with_limit(200.0)) == {}


def test_the_limit_runs_from_the_start_and_stands_still_in_pauses() -> None:
    begun = running(99, HELD_S)
    half_done = replace(begun, running_since=NOW - HELD_S / 2)
    assert passes(behind_a_head(job(limit_s=IN_TIME_S), holder=half_done)) == {}
    stood = replace(half_done, paused_s=HELD_S / 2)
    assert passes(behind_a_head(job(limit_s=IN_TIME_S), holder=stood)) == {2: ()}


@pytest.mark.parametrize("change", [{"paused_since": NOW}, {"pause_wished": True}])
def test_nobody_knows_how_long_a_job_stands_still(change: dict[str, object]) -> None:
    snapshot = behind_a_head(job(limit_s=5.0), holder=replace(running(99), **change))  # type: ignore[arg-type]
    assert passes(snapshot) == {2: (1,)}


def test_who_was_told_to_end_has_only_his_grace() -> None:
    leaving = running(99, 9000.0, grace_s=GRACE_S, term_sent_at=NOW - 4.0)
    assert end_of(leaving, NOW) == End(at=NOW + 6.0)
    asked = active(99, grace_s=300.0, running_since=NOW, time_limit_s=9000.0)
    assert end_of(asked, NOW) == End(at=NOW + 300.0)
    assert end_of(replace(leaving, kill_sent_at=NOW), NOW) == End(at=NOW)
    assert end_of(replace(leaving, is_unkillable=True), NOW) is None


def test_a_job_that_has_not_begun_to_run_has_all_of_its_time() -> None:
    holder = replace(running(99), running_since=None)
    assert end_of(holder, NOW) == End(at=FREE_AT)


# ── the head finds what it wants beside it ──


def four_gpus(later: WaitingJob, wanted: int) -> Snapshot:
    """GPUs 0 and 1 are free at a known moment, 2 is not, and 3 is free."""
    held = [lease(0, 98), lease(1, 98), lease(2, 99)]
    return world(4, [job(gpus=wanted), later], held, [running(98), running(99, None)], now=NOW)


def test_what_the_head_does_not_need_then_may_be_held_for_any_time() -> None:
    assert passes(four_gpus(job(), wanted=2)) == {2: ()}
    assert passes(four_gpus(job(limit_s=9000.0), wanted=2)) == {2: ()}


def test_what_it_needs_then_may_not() -> None:
    assert passes(four_gpus(job(), wanted=3)) == {2: (1,)}
    assert passes(four_gpus(job(limit_s=9000.0), wanted=3)) == {}


def test_what_this_turn_has_given_away_counts() -> None:
    """There is one GPU to spare, and it is spared once."""
    held = [lease(0, 98), lease(1, 98), lease(2, 98)]
    queue = [job(gpus=4), job(limit_s=9000.0), job(limit_s=9000.0)]
    assert passes(world(5, queue, held, [running(98)], now=NOW)) == {2: ()}


def test_who_has_started_in_this_turn_ends_by_his_limit_too() -> None:
    queue = [job(limit_s=HELD_S), job(gpus=2, passes=10), job(limit_s=IN_TIME_S)]
    assert passes(world(2, queue, now=NOW)) == {1: (), 3: ()}


def test_what_a_job_waits_for_is_reckoned_once_somebody_could_overtake_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is most of the work of a turn, and in most queues nobody could."""
    reckoned: list[Ledger] = []
    reckon = Ledger.without_ours
    monkeypatch.setattr(Ledger, "without_ours", lambda one: reckoned.append(one) or reckon(one))
    assert passes(behind_a_head(job(gpus=2, uid=1), job(gpus=2), passes=10)) == {}
    assert not reckoned
    assert passes(behind_a_head(job(), passes=10)) == {}
    assert len(reckoned) == 1


def test_who_may_not_start_is_not_in_the_way_of_the_next() -> None:
    """Two of the free ones are one too many, and one is not."""
    held = [lease(index, 98) for index in range(3)]
    queue = [job(gpus=4), job(gpus=2, limit_s=9000.0), job(limit_s=9000.0)]
    assert passes(world(5, queue, held, [running(98)], now=NOW)) == {3: (2,)}


def test_memory_is_packed_in_the_future_as_now() -> None:
    """When 98 has left there are 13.5G, of which the head wants 12G."""
    card = gpu(0, processes=[ours(98, "10G"), ours(99, "10G")])
    held = [lease(0, 98, "10G"), lease(0, 99, "10G", slot=1)]
    runners = [running(98), running(99, None)]

    def beside(mem: str) -> Snapshot:
        later = job(mem=mem, limit_s=9000.0)
        return world([card], [job(mem="12G"), later], held, runners, now=NOW)

    assert passes(beside("1G")) == {2: ()}
    assert passes(beside("2G")) == {}


def test_cpu_slots_are_foreseen_as_gpus_are() -> None:
    def with_limit(limit_s: float | None, cpus: int = 2) -> Snapshot:
        holder = running(99, request=job(0, cpus=4).request)
        later = job(0, cpus=cpus, limit_s=limit_s)
        return world(0, [job(0, cpus=6), later], (), [holder], now=NOW, cpu_slots=8)

    assert passes(with_limit(IN_TIME_S + COOLING_S)) == {2: ()}
    assert passes(with_limit(9000.0)) == {2: ()}  # 6 + 2
    assert passes(with_limit(9000.0, cpus=3)) == {}
    assert passes(with_limit(None, cpus=3)) == {2: (1,)}


def test_a_gpu_that_cools_down_is_as_good_as_free() -> None:
    """The head gets it at once; whoever took the other one now would be in its way."""
    cooling = [lease(0, 99, cooling_since=NOW - 1)]
    snapshot = world(2, [job(gpus=2), job(limit_s=5.0)], cooling, now=NOW)
    assert passes(snapshot) == {}


def test_a_gpu_whose_memory_does_not_come_back_is_not() -> None:
    dirty = [lease(0, 99, cooling_since=NOW - 50, dirt="somebody")]
    snapshot = world(2, [job(gpus=2), job(limit_s=5.0)], dirty, now=NOW, read_at=NOW - 60)
    assert passes(snapshot) == {2: (1,)}


def test_a_head_that_waits_for_a_stranger_is_in_nobodys_way() -> None:
    cards = [gpu(0, processes=[foreign()]), gpu(1)]
    assert passes(world(cards, [job(gpus=2, passes=10), job(limit_s=9000.0)], now=NOW)) == {2: ()}


# ── several that wait ──


def three_in_line(*later: WaitingJob) -> Snapshot:
    """The second one could start, were not its GPU kept for the first."""
    held = [lease(0, 99), lease(1, 99)]
    queue = [job(gpus=3, passes=10), job(mem="4G", passes=10), *later]
    return world(3, queue, held, [running(99)], now=NOW)


def test_who_is_kept_back_waits_as_long_as_the_one_he_is_kept_back_for() -> None:
    """Who has ended before that one starts has kept neither waiting."""
    assert passes(three_in_line(job(limit_s=IN_TIME_S))) == {3: ()}
    assert passes(three_in_line(job(limit_s=9000.0))) == {}
    assert plan(three_in_line()).reasons[2] == "behind 1, which has been overtaken 10 times"


def test_who_is_kept_back_may_start_sooner_on_what_is_not_kept() -> None:
    """The second waits for a GPU of no use to the first, and that is free before the first starts."""
    cards = [gpu(0, model="A100"), gpu(1, model="A100"), gpu(2, model="T4")]
    held = [lease(0, 98), lease(2, 99)]
    queue = [job(gpus=2, model="A100", passes=10), job(), job(mem="1G", limit_s=30.0)]
    runners = [running(98), running(99, 50.0)]
    assert passes(world(cards, queue, held, runners, now=NOW)) == {3: (2,)}


def test_who_was_passed_by_one_without_a_limit_is_promised_nothing_any_more() -> None:
    held = [lease(0, 98), lease(1, 98)]
    queue = [job(gpus=4), job(), job(limit_s=9000.0)]
    assert passes(world(4, queue, held, [running(98)], now=NOW)) == {2: (1,), 3: (1,)}


@pytest.mark.parametrize("limit_s", [None, 9000.0])
def test_beside_the_second_in_line_the_first_is_in_place_too(limit_s: float | None) -> None:
    """The two that are free then are the first one's; the second needs the one that is free now. When
    it would start nobody knows, so that it is no more than passed."""
    cards = [gpu(0, model="A100"), gpu(1, model="A100"), gpu(2, model="T4"), gpu(3, model="T4")]
    held = [lease(0, 98), lease(1, 98), lease(2, 99)]
    queue = [job(gpus=2, model="A100"), job(gpus=2), job(limit_s=limit_s)]
    runners = [running(98), running(99, None)]
    assert passes(world(cards, queue, held, runners, now=NOW)) == {3: (2,)}


# ── guesses ──


def test_what_runs_took_before_is_no_promise() -> None:
    """It may start as any job may, and has passed the head by that."""
    guessed = behind_a_head(job(lasts_s=5.0))
    assert passes(guessed) == {2: (1,)}
    holder = replace(running(99, None), request=job(lasts_s=HELD_S).request)
    assert passes(behind_a_head(job(limit_s=5.0), holder=holder)) == {2: (1,)}


def test_a_promise_that_rests_on_a_guess_too_is_none() -> None:
    """Beside the one with the limit the head waits for one of whom it is only guessed."""
    held = [lease(0, 98), lease(1, 99)]
    runners = [running(98), replace(running(99, None), request=job(lasts_s=20.0).request)]
    queue = [job(gpus=3), job(limit_s=5.0)]
    assert passes(world(3, queue, held, runners, now=NOW)) == {2: (1,)}


@pytest.mark.parametrize("lasts_s", [5.0, 9000.0])
def test_who_will_probably_have_ended_in_time_has_more_patience(lasts_s: float) -> None:
    later = job(lasts_s=lasts_s)
    most = 10 * LIKELY_PASSES
    assert passes(behind_a_head(later, passes=10)) == ({2: (1,)} if lasts_s == 5.0 else {})
    assert passes(behind_a_head(later, passes=most - 1)) == ({2: (1,)} if lasts_s == 5.0 else {})
    assert passes(behind_a_head(later, passes=most)) == {}


def test_without_bypass_a_guess_is_worth_nothing() -> None:
    assert passes(behind_a_head(job(lasts_s=5.0), max_bypass=0)) == {}


def test_who_has_outlived_a_guess_is_not_guessed_at_again() -> None:
    request = job(lasts_s=HELD_S).request
    holder = replace(running(99, None), request=request)
    assert end_of(holder, NOW) == End(at=NOW + HELD_S, is_guess=True)
    assert end_of(holder, NOW + HELD_S) is None


# ── order ──


def test_a_user_orders_own_jobs_among_the_places_that_they_hold() -> None:
    def of(uid: int, place: int, rank: int = 0) -> WaitingJob:
        return job(uid=uid, place=place, rank=rank, id=place)

    queue = [of(1, 1), of(2, 2), of(1, 3), of(2, 4), of(1, 5, rank=-1)]
    assert list(started(plan(world(5, queue)))) == [5, 2, 1, 4, 3]


def test_an_own_order_is_worth_nothing_against_others() -> None:
    queue = [
        job(uid=2, place=1, id=1),
        job(uid=1, place=2, id=2),
        job(uid=1, place=3, id=3, rank=-1),
    ]
    assert list(started(plan(world(3, queue)))) == [1, 3, 2]


def test_who_was_requeued_stands_where_his_place_is() -> None:
    queue = [job(id=1, place=9), job(id=2, place=2)]
    assert list(started(plan(world(2, queue)))) == [2, 1]


def test_a_rank_does_not_lift_anybody_over_a_priority() -> None:
    queue = [job(id=1, place=1, priority=1), job(id=2, place=2, rank=-5)]
    assert list(started(plan(world(2, queue)))) == [1, 2]


# ── what it costs ──


def test_a_turn_with_ten_thousand_shapes_kept_back_takes_no_noticeable_time() -> None:
    held = [lease(index, 90 + index) for index in range(7)]
    runners = [running(90 + index, 2000.0 + index) for index in range(7)]
    later = [job(mem=f"{2000 + number}M", limit_s=5000.0) for number in range(10_000)]
    queue = [job(gpus=8, passes=10), *later]
    snapshot = world(8, queue, held, runners, now=NOW, per_class=16)
    began = time.process_time()
    assert passes(snapshot) == {}
    assert time.process_time() - began < 3.0


def test_the_ledger_of_a_later_moment_leaves_that_of_this_turn_as_it_is() -> None:
    held: list[Lease] = [lease(0, 98, "10G"), lease(0, 99, "10G", slot=1)]
    queue = [job(mem="12G"), job(mem="1G", limit_s=9000.0), job(mem="2G", limit_s=9000.0)]
    snapshot = world([gpu(0)], queue, held, [running(98), running(99)], now=NOW)
    before = repr(snapshot)
    assert plan(snapshot) == plan(snapshot)
    assert repr(snapshot) == before


def test_a_gpu_that_owes_only_some_calm_is_the_heads_in_a_moment() -> None:
    """Who took the free one now would keep it waiting for as long as he runs."""
    cards = [gpu(0, calm_samples=1), gpu(1), gpu(2)]
    held = [lease(2, 99)]
    queue = [job(gpus=2), job(limit_s=500.0)]
    assert passes(world(cards, queue, held, [running(99, 9000.0)], now=NOW)) == {}


def test_what_is_taken_of_a_later_ledger_is_not_taken_of_this_one() -> None:
    ledger = Ledger([gpu(0), gpu(1)], [lease(0, 98)], Policy())
    later = ledger.without(lambda held: held.job == 98, calm=True)
    wish = job().request
    assert later.choose(wish) == ("GPU-0",)
    later.take(("GPU-0",), 5, wish)
    later.take(("GPU-1",), 6, wish)
    assert not later.has_room(wish)
    assert ledger.choose(wish) == ("GPU-1",)
    later.give_back(5)
    assert later.choose(wish) == ("GPU-0",)
