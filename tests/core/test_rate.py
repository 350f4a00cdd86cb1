"""How many jobs may be started in what time, and who waits for that."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.decisions import Plan, Start
from gpuq.core.model import RecentStart, Snapshot, WaitingJob
from gpuq.core.policy import Policy, Queue, Rate
from gpuq.core.scheduling.rate import format_rate, longest_memory_s, parse_rate, rate_words
from gpuq.core.scheduling.scheduler import plan
from tests.builders import STEADY, job, started, world

FIVE = Rate(count=5, per_s=1.0)
SLOW = Queue(name="slow", start_rate=Rate(count=1, per_s=60.0))


def lately(snapshot: Snapshot, *starts: RecentStart) -> Snapshot:
    return replace(snapshot, recent_starts=starts)


def ago(seconds: float, queue: str = "") -> RecentStart:
    return RecentStart(at=1000.0 - seconds, queue=queue)


def in_slow(waiting: WaitingJob) -> WaitingJob:
    return replace(waiting, queue="slow")


# ── written and read ──


@pytest.mark.parametrize(
    ("text", "rate", "words"),
    [
        ("5/s", FIVE, "5 starts a second"),
        ("30/m", Rate(count=30, per_s=60.0), "30 starts a minute"),
        ("1/h", Rate(count=1, per_s=3600.0), "1 start an hour"),
        ("2/10s", Rate(count=2, per_s=10.0), "2 starts in 10 seconds"),
        ("100/d", Rate(count=100, per_s=86400.0), "100 starts a day"),
    ],
)
def test_a_rate_is_read_and_shown_as_it_is_written(text: str, rate: Rate, words: str) -> None:
    assert parse_rate(text) == rate
    assert format_rate(rate) == text
    assert rate_words(rate) == words


@pytest.mark.parametrize("text", ["", "5", "0/s", "5/", "/s", "5/0s", "-1/s", "5/y", "1.5/s"])
def test_what_is_no_rate_is_refused_with_the_way_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no rate: write it like 5/s, 30/m or 2/10s"):
        parse_rate(text)


def test_more_starts_than_can_be_remembered_are_no_rate() -> None:
    with pytest.raises(ValueError, match="up to 10000 starts"):
        parse_rate("10001/s")


def test_starts_are_remembered_as_long_as_the_slowest_rate_looks_back() -> None:
    assert longest_memory_s(Policy()) == 0.0
    assert longest_memory_s(Policy(start_rate=FIVE, queues=(SLOW,))) == 60.0


# ── held to it ──


def test_no_more_are_started_than_the_rate_allows_and_the_plan_says_when_the_next_one_is() -> None:
    decided = plan(world(8, [job(0)] * 7, start_rate=FIVE))
    assert list(started(decided)) == [1, 2, 3, 4, 5]
    assert decided.reasons[6] == "no more than 5 starts a second (start_rate)"
    assert decided.wake_at == 1001.0


def test_what_has_started_lately_counts_until_its_time_is_over() -> None:
    recent = [ago(0.9), ago(0.6), ago(0.5), ago(0.2)]
    snapshot = world(8, [job(0)] * 3, start_rate=FIVE)
    decided = plan(lately(snapshot, *recent))
    assert list(started(decided)) == [1]
    assert decided.wake_at == pytest.approx(1000.1), "when the first of the last five is out"
    over = [replace(one, at=one.at - 0.5) for one in recent]
    assert list(started(plan(lately(snapshot, *over)))) == [1, 2, 3]


def test_at_the_moment_that_the_plan_named_the_next_one_starts() -> None:
    """However the sums of the clock's figures are rounded."""
    for number in range(200):
        at = 1000.0 + number * 0.1
        recent = RecentStart(at=at)
        snapshot = world(1, [job(0)], now=at + 0.05, start_rate=Rate(count=1, per_s=1.0))
        waits = plan(lately(snapshot, recent))
        assert waits.decisions == ()
        assert waits.wake_at is not None
        then = replace(snapshot, now=waits.wake_at)
        assert list(started(plan(lately(then, recent)))) == [1]


def test_a_job_that_has_to_wait_for_a_gpu_uses_up_nothing_of_the_rate() -> None:
    one = Rate(count=1, per_s=1.0)
    decided = plan(world(1, [job(2), job(), job(0)], start_rate=one))
    assert list(started(decided)) == [2]


def test_the_rate_of_a_queue_holds_its_jobs_alone() -> None:
    queue = [in_slow(job(0)), in_slow(job(0, cpus=2)), job(0), job(0)]
    decided = plan(world(1, queue, queues=(SLOW,)))
    assert list(started(decided)) == [1, 3, 4]
    assert decided.reasons[2] == "no more than 1 start a minute (start_rate of queue slow)"
    assert decided.wake_at == 1060.0
    others = lately(world(1, queue, queues=(SLOW,)), ago(1), ago(1))
    assert list(started(plan(others))) == [1, 3, 4], "those were started from elsewhere"
    own = lately(world(1, queue, queues=(SLOW,)), ago(59, "slow"))
    assert list(started(plan(own))) == [3, 4]
    assert plan(own).wake_at == 1001.0


def test_the_later_of_two_rates_counts() -> None:
    both = world(1, [in_slow(job(0))], queues=(SLOW,), start_rate=FIVE)
    decided = plan(lately(both, *[ago(0.1, "slow")] * 5))
    assert decided.wake_at == 1059.9
    assert decided.reasons[1].endswith("(start_rate of queue slow)")


def test_it_is_looked_again_once_the_first_of_those_that_wait_may_start() -> None:
    quick = Queue(name="quick", start_rate=Rate(count=1, per_s=1.0))
    queue = [in_slow(job(0)), replace(job(0), queue="quick")]
    both = world(1, [queue[0], queue[1]], queues=(SLOW, quick))
    for waiting in (both, replace(both, waiting=both.waiting[::-1])):
        decided = plan(lately(waiting, ago(0.5, "slow"), ago(0.5, "quick")))
        assert (decided.decisions, decided.wake_at) == ((), 1000.5)


def test_the_order_stays_while_somebody_waits_for_the_rate() -> None:
    """A later one does not start in place of one that waits: not a smaller one, nor one of another
    user."""
    queue = [job(2, uid=1), job(0, uid=2), job(uid=3)]
    decided = plan(lately(world(8, queue, start_rate=FIVE), *[ago(0.5)] * 5))
    assert started(decided) == {}
    assert len({decided.reasons[number] for number in (1, 2, 3)}) == 1


def starts_of(decided: Plan) -> list[int]:
    return [one.job for one in decided.decisions if isinstance(one, Start)]


@given(
    count=st.integers(1, 6),
    per_s=st.sampled_from([0.5, 1.0, 7.0]),
    jobs=st.integers(1, 25),
    priorities=st.lists(st.integers(0, 2), min_size=25, max_size=25),
)
@STEADY
def test_in_no_stretch_of_that_length_are_there_more_starts(
    count: int, per_s: float, jobs: int, priorities: list[int]
) -> None:
    queue = {n: job(0, id=n, priority=priorities[n - 1]) for n in range(1, jobs + 1)}
    moments: list[RecentStart] = []
    order: list[int] = []
    now = 1000.0
    while queue:
        snapshot = world(
            1, queue.values(), now=now, cpu_slots=99, start_rate=Rate(count=count, per_s=per_s)
        )
        decided = plan(lately(snapshot, *moments))
        begun = starts_of(decided)
        assert begun, "the plan woke somebody who may not start"
        for number in begun:
            del queue[number]
            moments.append(RecentStart(at=now))
        order += begun
        if queue:
            assert decided.wake_at is not None
            now = decided.wake_at
    assert order == sorted(order, key=lambda n: (-priorities[n - 1], n))
    for first, last in zip(moments, moments[count:], strict=False):
        assert last.at >= first.at + per_s
    assert now == pytest.approx(1000.0 + ((jobs - 1) // count) * per_s), "and no later than it may"
