"""How an attempt went, in a bounded number of points: none is lost, none is made up."""

import json
from math import fsum, isclose

from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.results.series import MOST_POINTS, Series, read_series

moments = st.floats(min_value=0, max_value=1e7, allow_nan=False)
values = st.integers(min_value=0, max_value=2**37)
measured = st.lists(st.tuples(moments, values), min_size=1, max_size=60)


def of(found: list[tuple[float, int]]) -> Series:
    series = Series()
    for at_s, value in found:
        series.add(at_s, {"x": value})
    return series


@given(measured)
def test_it_is_bounded_however_long_it_lasts(found: list[tuple[float, int]]) -> None:
    series = of(found)
    assert 1 <= len(series) <= MOST_POINTS
    latest = max(at_s for at_s, _ in found)
    assert latest < series.width_s * MOST_POINTS
    assert series.width_s == 1 or latest >= series.width_s / 2 * MOST_POINTS, (
        "no coarser than needed"
    )


@given(measured)
def test_least_mean_and_most_are_those_of_all_that_was_measured(
    found: list[tuple[float, int]],
) -> None:
    told = of(found).told()["quantities"]["x"]
    every = [value for _, value in found]
    assert (told["min"], told["max"]) == (min(every), max(every))
    assert isclose(told["mean"], fsum(every) / len(every), rel_tol=1e-9, abs_tol=0.001)
    assert sum(count for *_, count in told["points"]) == len(every)


@given(measured)
def test_a_point_speaks_for_its_own_stretch_alone(found: list[tuple[float, int]]) -> None:
    series = of(found)
    for number, point in series.points["x"].items():
        begin = number * series.width_s
        inside = [value for at_s, value in found if begin <= at_s < begin + series.width_s]
        assert point.count == len(inside)
        assert point.most == max(inside)
        assert isclose(point.mean, fsum(inside) / len(inside), rel_tol=1e-9, abs_tol=0.001)


@given(measured, measured)
def test_what_was_stored_is_gone_on_with(
    found: list[tuple[float, int]], later: list[tuple[float, int]]
) -> None:
    series = read_series(json.loads(json.dumps(of(found).told())))
    for at_s, value in later:
        series.add(at_s, {"x": value})
    whole, told = of([*found, *later]).told(), series.told()
    assert told["width_s"] == whole["width_s"]
    (ours,), (theirs,) = told["quantities"].values(), whole["quantities"].values()
    assert [(p[0], p[2], p[3]) for p in ours["points"]] == [
        (p[0], p[2], p[3]) for p in theirs["points"]
    ]
    assert (ours["min"], ours["max"]) == (theirs["min"], theirs["max"])


def test_when_it_is_full_two_stretches_become_one() -> None:
    series = of([(at, at) for at in range(MOST_POINTS)])
    assert (series.width_s, len(series)) == (1, MOST_POINTS)
    series.add(MOST_POINTS, {"x": 7})
    assert (series.width_s, len(series)) == (2, MOST_POINTS // 2 + 1)
    first = series.points["x"][0]
    assert (first.count, first.mean, first.most) == (2, 0.5, 1)


def test_all_quantities_have_the_same_stretches_and_an_absent_one_leaves_no_trace() -> None:
    series = Series()
    series.add(0, {"x": 1, "y": None})
    series.add(5, {"x": None, "y": None})
    assert (list(series.points), len(series)) == (["x"], 1)
    series.add(MOST_POINTS, {"x": None, "y": 3})
    assert series.width_s == 2
    assert {name: sorted(points) for name, points in series.points.items()} == {
        "x": [0],
        "y": [MOST_POINTS // 2],
    }


def test_what_is_measured_before_the_beginning_counts_for_the_beginning() -> None:
    """Clocks of two readings may differ by a little."""
    assert list(of([(-0.2, 1)]).points["x"]) == [0]
