"""Among jobs of the same priority those of who has had less go first, where that is wanted."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.decisions import Plan, Start
from gpuq.core.model import Snapshot, WaitingJob
from gpuq.core.scheduling.fair_share import USUAL_RUN_S, charge, faded, fading_use, hours
from gpuq.core.scheduling.scheduler import plan
from tests.builders import STEADY, active, job, lease, request, started, world

ALICE, BOB, CAROL = 2001, 2002, 2003
NAMES = {ALICE: "alice", BOB: "bob", CAROL: "carol"}
DAY = 86400.0


def of(uid: int, waiting: WaitingJob) -> WaitingJob:
    return replace(waiting, uid=uid, user=NAMES[uid])


def shared(snapshot: Snapshot, **had: float) -> Snapshot:
    """With fair share, and GPU-seconds by name."""
    uids = {name: uid for uid, name in NAMES.items()}
    usage = {uids[name]: gpu_s for name, gpu_s in had.items()}
    return replace(snapshot, usage=usage, policy=replace(snapshot.policy, fair_share=True))


def starts(decided: Plan) -> list[int]:
    return [one.job for one in decided.decisions if isinstance(one, Start)]


# ── what fades ──


def test_after_a_half_life_what_was_had_counts_half() -> None:
    assert faded(100.0, 7 * DAY, 7 * DAY) == 50.0
    assert faded(100.0, 21 * DAY, 7 * DAY) == 12.5
    assert faded(100.0, -DAY, 7 * DAY) == 100.0, "a clock that was set back adds nothing"


def test_a_short_run_has_hardly_faded_and_an_endless_one_counts_no_more_than_it_can() -> None:
    assert fading_use(2, 60.0, 7 * DAY) == pytest.approx(120.0, rel=1e-4)
    # The integral of 2^(-t/h) from 0 on is h / ln 2.
    assert fading_use(1, 1e6 * DAY, DAY) == pytest.approx(DAY / 0.6931471805599453)


@given(
    gpus=st.integers(0, 8),
    first=st.floats(0, 30 * DAY),
    rest=st.floats(0, 30 * DAY),
    half_life=st.floats(60, 90 * DAY),
)
@STEADY
def test_what_is_carried_on_is_the_same_as_what_is_counted_in_one_go(
    gpus: int, first: float, rest: float, half_life: float
) -> None:
    """An attempt that ends is added to what has faded meanwhile, and nothing is lost by that."""
    in_two = faded(fading_use(gpus, first, half_life), rest, half_life)
    in_two += fading_use(gpus, rest, half_life)
    assert in_two == pytest.approx(fading_use(gpus, first + rest, half_life), rel=1e-6, abs=1e-6)


def test_a_start_is_charged_with_its_gpus_for_as_long_as_it_is_expected_to_run() -> None:
    assert charge(request(2)) == 2 * USUAL_RUN_S
    assert charge(replace(request(4), lasts_s=60.0)) == 240.0
    assert charge(request(0)) == 0.0, "who has no GPU has had none"


@pytest.mark.parametrize(
    ("gpu_s", "words"),
    [
        (0.0, "0 GPU seconds"),
        (0.31, "0.3 GPU seconds"),
        (59.0, "59 GPU seconds"),
        (312.0, "5.2 GPU minutes"),
        (3600.0, "1.0 GPU hours"),
        (450_000.0, "125 GPU hours"),
    ],
)
def test_what_somebody_has_had_is_said_in_three_digits(gpu_s: float, words: str) -> None:
    assert hours(gpu_s) == words


# ── the order ──


def test_who_has_had_less_goes_first() -> None:
    queue = [of(ALICE, job()), of(BOB, job())]
    decided = plan(shared(world(1, queue), alice=7200.0, bob=600.0))
    assert started(decided) == {2: (0,)}


def test_without_the_option_it_is_first_come_first_served() -> None:
    queue = [of(ALICE, job()), of(BOB, job())]
    had = replace(world(1, queue), usage={ALICE: 7200.0})
    assert started(plan(had)) == {1: (0,)}


def test_priority_comes_before_fairness() -> None:
    queue = [of(BOB, job()), of(ALICE, job(priority=1))]
    assert started(plan(shared(world(1, queue), alice=7200.0))) == {2: (0,)}


def test_among_ones_own_jobs_the_order_stays() -> None:
    queue = [of(ALICE, job()), of(ALICE, job(0)), of(ALICE, job())]
    assert starts(plan(shared(world(2, queue), alice=7200.0))) == [1, 2, 3]


def test_who_has_had_the_same_goes_in_the_order_of_coming() -> None:
    queue = [of(BOB, job()), of(ALICE, job())]
    assert started(plan(shared(world(1, queue)))) == {1: (0,)}


def test_within_one_turn_users_alternate() -> None:
    """A start is charged before the next one is named."""
    queue = [of(ALICE, job())] * 4 + [of(BOB, job())] * 4 + [of(CAROL, job())] * 4
    assert starts(plan(shared(world(6, queue)))) == [1, 5, 9, 2, 6, 10]


def test_who_gets_more_gpus_at_once_gets_the_next_ones_later() -> None:
    queue = [of(ALICE, job(2)), of(ALICE, job()), of(BOB, job()), of(BOB, job()), of(BOB, job())]
    assert starts(plan(shared(world(5, queue)))) == [1, 3, 4, 2]


def test_who_has_had_an_hour_more_waits_until_the_other_has_had_as_much() -> None:
    queue = [of(ALICE, job()), of(BOB, job()), of(BOB, job()), of(ALICE, job())]
    decided = plan(shared(world(3, queue), alice=2 * USUAL_RUN_S))
    assert starts(decided) == [2, 3, 1]


def test_a_job_that_cannot_start_costs_its_user_nothing() -> None:
    """She wants more GPUs than there are free, and her next one goes before his all the same."""
    queue = [of(ALICE, job(3)), of(ALICE, job()), of(BOB, job())]
    decided = plan(shared(world(3, queue, [lease(0, 90)], [active(90)]), bob=60.0))
    assert starts(decided) == [2, 3]


def test_who_waits_for_that_is_told_so() -> None:
    queue = [of(ALICE, job()), of(BOB, job())]
    decided = plan(shared(world(1, queue), alice=18_000.0, bob=312.0))
    assert decided.reasons[1] == (
        "wants 1 GPU, 0 free (in use by job 2); fair share: 2 goes first, bob has had 5.2 GPU "
        "minutes lately and alice 5.0 GPU hours"
    )


def test_who_waits_for_something_else_is_not() -> None:
    queue = [of(ALICE, job()), of(BOB, job())]
    busy = world(1, queue, [lease(0, 90)], [active(90)])
    assert plan(shared(busy, bob=60.0)).reasons[1] == "wants 1 GPU, 0 free (in use by job 90)"


def test_nobody_is_told_of_fairness_who_came_later_or_asked_for_less_priority() -> None:
    queue = [of(BOB, job()), of(ALICE, job()), of(CAROL, job(priority=1))]
    decided = plan(shared(world(1, queue), alice=60.0, carol=60.0))
    assert started(decided) == {3: (0,)}
    assert "fair share" not in decided.reasons[1] + decided.reasons[2]


def test_the_class_of_each_user_is_all_that_has_to_be_seen() -> None:
    """However many one of them has queued."""
    queue = [of(ALICE, job())] * 10_000 + [of(BOB, job())]
    decided = plan(shared(world(1, queue, per_class=2), alice=60.0))
    assert started(decided) == {10_001: (0,)}


# ── lived through ──


@pytest.mark.parametrize("gpus", [1, 2, 3])
@pytest.mark.parametrize("lengths", [[600.0] * 3, [600.0, 3600.0, 1800.0], [3600.0, 600.0, 600.0]])
def test_over_time_everybody_who_has_enough_to_do_gets_the_same(
    gpus: int, lengths: list[float]
) -> None:
    """Whoever came first and however long the jobs of each are: no two differ by more than what runs at
    one time."""
    length = dict(zip(NAMES, lengths, strict=True))
    had = dict.fromkeys(NAMES, 0.0)
    running: dict[int, tuple[float, int, int]] = {}  # by job: its end, its user, its GPU
    now = 0.0
    for turn in range(60):
        queue = [
            of(uid, job(id=100 * turn + 10 * place + number + 1, lasts_s=length[uid]))
            for place, uid in enumerate(NAMES)
            for number in range(gpus)
        ]
        whose = {one.id: one.uid for one in queue}
        leases = [lease(index, number) for number, (_, _, index) in running.items()]
        busy = [active(number, uid=uid) for number, (_, uid, _) in running.items()]
        usage = {NAMES[uid]: gpu_s for uid, gpu_s in had.items()}
        decided = plan(shared(world(gpus, queue, leases, busy), **usage))
        for number, (index,) in started(decided).items():
            running[number] = now + length[whose[number]], whose[number], index
        assert len(running) == gpus, "nothing is left free"
        until = min(end for end, _, _ in running.values())
        for _, uid, _ in running.values():
            had[uid] += until - now
        now = until
        running = {number: one for number, one in running.items() if one[0] > now}
    assert max(had.values()) - min(had.values()) <= gpus * max(lengths)
