"""How long a command runs, by how long it ran before."""

import pytest

from gpuq.core.scheduling.durations import FADING, SHORTEST_S, STRETCH, Ran, lasts_s, remember


def test_the_longest_run_counts_and_an_old_one_fades() -> None:
    first = remember(100.0, None, 7)
    assert first == Ran(longest_s=100.0, runs=1, last_job=7)
    longer = remember(200.0, first, 8)
    assert longer == Ran(longest_s=200.0, runs=2, last_job=8)
    assert remember(1.0, longer, 9).longest_s == 200.0 * FADING


def test_a_time_limit_goes_before_what_was_learned() -> None:
    before = Ran(longest_s=10.0, runs=3, last_job=7)
    assert lasts_s(3600.0, before) == lasts_s(3600.0, None) != lasts_s(None, before)
    assert lasts_s(None, None) is None


@pytest.mark.parametrize("seconds", [0.1, 16.0, 16.1, 59.0, 60.0, 600.0, 3600.0, 1e6])
def test_a_bound_is_no_shorter_and_not_much_longer(seconds: float) -> None:
    bound = lasts_s(seconds, None)
    assert bound is not None
    assert seconds - 0.1 <= bound <= max(seconds * 2**0.5 + 0.1, SHORTEST_S)


def test_times_that_hardly_differ_are_one() -> None:
    bounds = {lasts_s(float(seconds), None) for seconds in range(1, 86400)}
    assert len(bounds) == 26


def test_the_next_run_may_be_longer_than_any_before() -> None:
    bound = lasts_s(None, Ran(longest_s=1000.0, runs=1, last_job=1))
    assert bound is not None
    assert bound >= 1000.0 * STRETCH
