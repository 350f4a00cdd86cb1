"""When a group will have ended: exact where its jobs run alike, honest where they do not."""

import heapq
import random

import pytest

from gpuq.core.results.estimate import Estimate, RunTimes, Sureness, estimate


def times_of(*seconds: float) -> RunTimes:
    found = RunTimes.of(seconds)
    assert found is not None
    return found


ALIKE = times_of(60.0, 60.0, 60.0, 60.0, 60.0)


def left_s(found: Estimate | None) -> float:
    assert found is not None
    return found.left_s


def simulated(running: list[float], waiting: list[float]) -> float:
    """When the last one ends, if each that waits takes the first place that is free."""
    places = list(running)
    heapq.heapify(places)
    for seconds in waiting:
        heapq.heapreplace(places, places[0] + seconds)
    return max(places)


def test_nothing_is_known_before_the_first_end() -> None:
    assert RunTimes.of([]) is None
    assert estimate(None, [10.0], 3) is None


def test_nothing_is_known_of_a_group_of_which_nothing_runs() -> None:
    assert estimate(ALIKE, [], 3) is None


@pytest.mark.parametrize(
    ("running_s", "waiting", "expected_s"),
    [
        ([15.0], 0, 45.0),
        ([15.0], 1, 105.0),
        ([0.0, 0.0], 2, 120.0),
        ([0.0, 0.0], 3, 180.0),
        ([10.0, 30.0], 1, 90.0),  # it takes the place that is free first
        ([50.0, 0.0], 1, 70.0),
        ([58.0, 0.0], 1, 62.0),
        ([30.0, 20.0, 10.0], 7, 210.0),
    ],
)
def test_jobs_that_run_alike_end_to_the_second(
    running_s: list[float], waiting: int, expected_s: float
) -> None:
    found = estimate(ALIKE, running_s, waiting)
    assert left_s(found) == expected_s
    assert simulated([60.0 - ran for ran in running_s], [60.0] * waiting) == expected_s


def test_any_number_of_places_and_jobs_gives_what_a_simulation_gives() -> None:
    draw = random.Random(7)
    for _ in range(300):
        running = [draw.uniform(0.0, 60.0) for _ in range(draw.randint(1, 9))]
        waiting = draw.randint(0, 40)
        found = estimate(ALIKE, running, waiting)
        truth = simulated([60.0 - ran for ran in running], [60.0] * waiting)
        assert left_s(found) == pytest.approx(truth)


def test_a_million_that_wait_cost_no_more_than_one() -> None:
    assert left_s(estimate(ALIKE, [0.0], 1_000_000)) == 60.0 * 1_000_001


def test_more_places_end_sooner() -> None:
    assert left_s(estimate(ALIKE, [0.0] * 4, 8)) < left_s(estimate(ALIKE, [0.0] * 2, 10))


def test_a_job_that_runs_longer_than_the_others_is_not_said_to_have_ended() -> None:
    assert left_s(estimate(times_of(50.0, 60.0, 70.0), [500.0], 0)) > 0.0


def test_quick_failures_say_nothing_of_those_that_have_run_longer() -> None:
    times = times_of(1.0, 1.0, 100.0, 100.0)
    assert left_s(estimate(times, [40.0], 0)) == 60.0
    assert left_s(estimate(times, [0.0], 0)) == 50.5


def test_short_jobs_find_room_before_a_long_one_ends() -> None:
    times = times_of(10.0, 10.0, 10.0, 10.0, 1000.0)  # 208 on average
    assert left_s(estimate(times, [500.0, 0.0], 1)) == 500.0
    assert left_s(estimate(times, [500.0, 0.0], 2)) == simulated([500.0, 208.0], [208.0] * 2)


def test_a_single_run_says_nothing_of_how_sure_it_is() -> None:
    found = estimate(times_of(60.0), [0.0], 0)
    assert found is not None
    assert (found.left_s, found.earliest_s, found.latest_s) == (60.0, None, None)
    assert found.sureness is Sureness.ROUGH


def test_more_runs_that_differ_less_are_surer() -> None:
    def sureness(*seconds: float) -> Sureness:
        found = estimate(times_of(*seconds), [0.0], 3)
        assert found is not None
        return found.sureness

    assert sureness(60.0, 61.0) is Sureness.ROUGH  # they may be alike by chance
    assert sureness(60.0, 62.0, 58.0, 61.0) is Sureness.FAIR
    assert sureness(60.0, 61.0, 59.0, 60.5, 59.5, 60.0) is Sureness.GOOD
    assert sureness(10.0, 200.0, 60.0, 5.0, 90.0, 20.0) is Sureness.ROUGH


def test_runs_side_by_side_say_little_of_those_that_come_after_them() -> None:
    """What four have in common, such as a machine that was busier then, does not show among them."""
    first = times_of(7.4, 7.5, 7.5, 7.6)
    found = estimate(first, [0.0] * 4, 4)
    assert found is not None
    assert found.earliest_s is not None
    assert found.latest_s is not None
    assert found.sureness is Sureness.ROUGH
    assert found.earliest_s <= 0.76 * found.left_s
    assert found.latest_s >= 1.24 * found.left_s
    later = estimate(times_of(7.4, 7.5, 7.5, 7.6, 7.5, 7.4), [0.0] * 4, 2)
    assert later is not None
    assert later.sureness is Sureness.GOOD, "some ran after others by now"
    over = estimate(first, [1.0] * 4, 0)
    assert over is not None
    assert over.sureness is Sureness.FAIR, "and nobody comes after those that run"


def test_of_ten_sweeps_about_eight_end_between_the_bounds() -> None:
    draw = random.Random(11)
    inside = 0
    for _ in range(400):
        known = [draw.gauss(100.0, 15.0) for _ in range(6)]
        running = [max(draw.gauss(100.0, 15.0), 1.0) for _ in range(2)]
        waiting = [draw.gauss(100.0, 15.0) for _ in range(8)]
        found = estimate(times_of(*known), [0.0, 0.0], len(waiting))
        assert found is not None
        assert found.earliest_s is not None
        assert found.latest_s is not None
        inside += found.earliest_s <= simulated(running, waiting) <= found.latest_s
    assert 0.7 <= inside / 400 <= 0.95


def test_runs_of_no_length_end_at_once() -> None:
    assert left_s(estimate(times_of(0.0, 0.0), [0.0], 5)) == 0.0


def test_runs_that_were_all_alike_promise_nothing_to_the_second() -> None:
    """What waits has other parameters."""
    times = RunTimes.of([10.0] * 12)
    assert times is not None
    found = estimate(times, [5.0], 9)
    assert found is not None
    assert found.earliest_s is not None
    assert found.latest_s is not None
    assert found.latest_s - found.left_s == pytest.approx(0.1 * found.left_s)
    assert found.left_s - found.earliest_s == pytest.approx(0.1 * found.left_s)
