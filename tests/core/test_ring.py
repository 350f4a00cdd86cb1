"""What GPUs read over a day: means that are right, gaps that stay, no more memory than planned."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.gpus.ring import LASTS_S, MOST_RINGS, READINGS, TIERS, Ring, Rings, reach
from tests.builders import gpu

READ = {"utilization_percent": 40, "memory_used_bytes": 2**30, "power_w": 100.0}
Readings = list[tuple[float, float | None]]


def ring_of(readings: Readings, *, most: int = 20, lasts_s: float = LASTS_S) -> Ring:
    """One number a reading, in buckets of a second and of five."""
    ring = Ring([(1, most), (5, most)], readings=1, lasts_s=lasts_s)
    for at, value in readings:
        ring.add(at, [value])
    return ring


def means(ring: Ring, *, last: int, count: int, tier_s: int = 1, step_s: int = 1) -> list[object]:
    (row,) = ring.means(tier_s, step_s, last, count)
    return list(row)


def test_a_bucket_holds_the_mean_of_what_was_read_in_it() -> None:
    ring = ring_of([(7.0, 10.0), (7.5, 20.0), (8.1, 40.0)])
    assert means(ring, last=8, count=2) == [15.0, 40.0]
    assert means(ring, last=1, count=1, tier_s=5, step_s=5) == [pytest.approx(70.0 / 3)]


def test_several_buckets_make_one_step() -> None:
    ring = ring_of([(at + 0.5, float(at)) for at in range(12)])
    assert means(ring, last=3, count=4, step_s=3) == [1.0, 4.0, 7.0, 10.0]


def test_a_reading_holds_until_the_next_unless_that_is_long_in_coming() -> None:
    ring = ring_of([(0.0, 10.0), (5.0, 20.0), (19.0, 30.0)])
    held = [10.0] * 5 + [20.0] + [None] * 13 + [30.0]
    assert means(ring, last=19, count=20) == held


def test_what_was_not_read_is_absent_and_not_nothing() -> None:
    ring = ring_of([(0.0, 0.0), (1.0, None), (2.0, 5.0), (2.5, None)])
    assert means(ring, last=3, count=5) == [None, 0.0, None, 5.0, None]
    assert means(ring, last=0, count=1, step_s=3, tier_s=1) == [2.5], "a mean of what is there"


def test_a_long_silence_forgets_all_that_is_out_of_reach() -> None:
    ring = ring_of([(0.0, 1.0), (1.0, 2.0), (500.0, 3.0)])
    assert means(ring, last=500, count=20) == [None] * 19 + [3.0]
    held = ring_of([(0.0, 1.0), (500.0, 3.0)], lasts_s=inf)
    assert means(held, last=500, count=20) == [1.0] * 19 + [3.0]


def test_what_follows_a_break_says_nothing_of_it() -> None:
    ring = ring_of([(0.0, 1.0)], lasts_s=inf)
    ring.forget_last()
    ring.add(3.0, [2.0])
    assert means(ring, last=3, count=4) == [1.0, None, None, 2.0]


moments = st.lists(
    st.tuples(st.floats(0.0, 7.0), st.none() | st.integers(0, 100)), min_size=1, max_size=60
)


@given(moments)
def test_it_says_what_a_list_of_all_readings_would(steps: list[tuple[float, int | None]]) -> None:
    """Against the plainest there is: every reading kept, and those before held second by second."""
    at, readings, by_second = 0.0, [], dict[int, list[int | None]]()
    for apart_s, value in steps:
        before, at = at, at + apart_s
        if readings:
            held = readings[-1][1] if apart_s <= 5.0 else None
            by_second |= {n: [held] for n in range(int(before) + 1, int(at))}
        readings.append((at, value))
        by_second.setdefault(int(at), []).append(value)
    ring = ring_of(readings, most=20, lasts_s=5.0)  # type: ignore[arg-type]
    seen = means(ring, last=int(at), count=20)
    for number, mean in zip(range(int(at) - 19, int(at) + 1), seen, strict=True):
        known = [value for value in by_second.get(number, ()) if value is not None]
        expected = sum(known) / len(known) if known else None
        assert mean == (None if expected is None else pytest.approx(expected, rel=1e-6))


@given(st.lists(st.floats(0.0, 5000.0), max_size=60))
def test_it_is_never_larger_than_its_tiers(apart: list[float]) -> None:
    ring, at = Ring(TIERS, readings=len(READINGS)), 0.0
    for apart_s in apart:
        at += apart_s
        ring.add(at, [1.0] * len(READINGS))
        assert ring.size_bytes <= sum(count for _, count in TIERS) * len(READINGS) * 4


# ─── of many GPUs ────────────────────────────────────────────────────────────────────────────────


def read(rings: Rings, count: int, at: float, **readings: float | None) -> None:
    rings.add([replace(gpu(n), **(READ | readings)) for n in range(count)], at)


def test_a_day_of_a_gpu_is_small() -> None:
    rings = Rings()
    for at in range(0, 2 * 86400, 60):
        read(rings, 1, float(at))
    assert 30_000 < rings.size_bytes < 40_000, "16 of them are far below 2 MB"


def test_a_fresh_one_takes_no_room_for_what_was_not_read_yet() -> None:
    rings = Rings()
    read(rings, 16, 1000.0)
    assert rings.size_bytes < 1000


@pytest.mark.parametrize(
    ("window_s", "buckets", "step_s", "count"),
    [
        (60.0, 10, 6, 10),
        (300.0, 300, 1, 300),
        (300.0, 200, 2, 150),
        (3600.0, 300, 12, 300),
        (6 * 3600.0, 300, 120, 180),
        (86400.0, 500, 180, 480),
        (86400.0, 1, 86400, 1),
        (1.0, 500, 1, 1),
    ],
)
def test_a_window_is_told_in_no_more_steps_than_were_asked_for(
    window_s: float, buckets: int, step_s: int, count: int
) -> None:
    rings = Rings()
    read(rings, 1, 90_000.0)
    history = rings.history(window_s, buckets, 90_000.0)
    (readings,) = history.gpus.values()
    assert history.step_s == step_s
    assert {len(row) for row in readings.values()} == {count}
    assert history.begin + count * step_s > 90_000.0 >= history.begin
    assert readings["utilization_percent"][-1] == 40.0
    assert readings["temperature_c"][-1] is None


def test_a_gpu_that_comes_back_goes_on_with_its_own() -> None:
    rings = Rings()
    read(rings, 2, 100.0)
    read(rings, 1, 101.0, utilization_percent=50)
    read(rings, 2, 130.0, utilization_percent=60)
    gone = rings.history(60.0, 60, 130.0).gpus[gpu(1).uuid]["utilization_percent"]
    assert [n for n, value in enumerate(gone) if value is not None] == [29, 59]
    assert (gone[29], gone[59]) == (40.0, 60.0)


def test_gpus_that_come_and_go_do_not_pile_up() -> None:
    rings = Rings()
    for at in range(200):
        rings.add([gpu(0), replace(gpu(1), uuid=f"MIG-{at}")], float(at))
    told = rings.history(300.0, 300, 200.0).gpus
    assert len(told) == MOST_RINGS
    assert {gpu(0).uuid, "MIG-199"} <= told.keys()
    assert "MIG-0" not in told


def test_the_finest_tier_that_reaches_far_enough_is_taken() -> None:
    assert [reach(TIERS, window_s)[0] for window_s in (1.0, 300.0, 301.0, 3600.0, 3601.0, 1e9)] == [
        1, 1, 12, 12, 60, 60,
    ]  # fmt: skip
