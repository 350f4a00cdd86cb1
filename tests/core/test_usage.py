"""What a job makes of its GPUs is reckoned from readings, and the reckoning is fair."""

from dataclasses import replace
from functools import reduce
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.gpus.gpu import Gpu, GpuProcess
from gpuq.core.gpus.usage import (
    LONGEST_STRETCH_S,
    TOLERANCE_BYTES,
    GpuUse,
    Stretch,
    add,
    busy_words,
    energy_between,
    find_excess,
    intruders,
    used_by,
    utilization,
)
from tests.builders import GIB, MIB, STEADY, foreign, gpu, lease, ours

NOTHING = GpuUse()


def folded(stretches: list[Stretch], use: GpuUse = NOTHING) -> GpuUse:
    return reduce(add, stretches, use)


percents = st.integers(0, 100)
stretch = st.builds(
    Stretch,
    seconds=st.floats(0.0, 60.0),
    used_bytes=st.none() | st.integers(0, 80 * GIB),
    utilizations=st.lists(percents, max_size=4).map(tuple),
    energy_j=st.none() | st.floats(0.0, 1e6),
)


# ─── the mean, the peaks and the energy ──────────────────────────────────────────────────────────


@STEADY
@given(st.lists(stretch, max_size=20))
def test_the_mean_lies_between_the_least_and_the_most(stretches: list[Stretch]) -> None:
    use = folded(stretches)
    counted = [p for one in stretches if one.seconds for p in one.utilizations]
    assert (use.util_mean is None) == (not counted)
    if use.util_mean is not None:
        assert min(counted) <= use.util_mean <= max(counted)
    assert use.measured_s == pytest.approx(sum(s.seconds for s in stretches if s.utilizations))


@STEADY
@given(st.lists(stretch, max_size=20))
def test_the_peaks_are_the_most_that_was_seen(stretches: list[Stretch]) -> None:
    use = folded(stretches)
    sizes = [one.used_bytes for one in stretches if one.used_bytes is not None]
    assert use.peak_bytes == max(sizes, default=None)
    assert use.util_peak == max([p for one in stretches for p in one.utilizations], default=None)


@STEADY
@given(st.lists(stretch, max_size=12), st.randoms())
def test_neither_the_order_of_readings_nor_their_number_matters(
    stretches: list[Stretch], luck: Random
) -> None:
    """A stretch that is cut in two is the same time, and a daemon that comes anew goes on with what
    the last one wrote down."""
    pieces = [half for one in stretches for half in cut(one, luck.random())]
    luck.shuffle(pieces)
    middle = len(pieces) // 2
    same(folded(pieces), folded(stretches))
    same(folded(pieces[middle:], folded(pieces[:middle])), folded(stretches))


def cut(one: Stretch, share: float) -> list[Stretch]:
    energy = one.energy_j
    return [
        replace(one, seconds=one.seconds * part, energy_j=None if energy is None else energy * part)
        for part in (share, 1 - share)
    ]


def same(one: GpuUse, other: GpuUse) -> None:
    assert (one.peak_bytes, one.util_peak) == (other.peak_bytes, other.util_peak)
    assert one.measured_s == pytest.approx(other.measured_s, abs=1e-9)
    assert one.util_mean == pytest.approx(other.util_mean, abs=1e-6)
    assert one.energy_j == pytest.approx(other.energy_j, abs=1e-6)


def test_a_long_time_counts_for_more_than_a_short_one() -> None:
    readings = [(9.0, 100), (1.0, 0)]
    use = folded([Stretch(seconds=s, utilizations=(percent,)) for s, percent in readings])
    assert (use.util_mean, use.measured_s) == (90.0, 10.0)


def test_the_mean_of_several_gpus_is_of_all_of_them_and_the_peak_of_the_busiest() -> None:
    use = folded([Stretch(seconds=1.0, utilizations=(10, 90))])
    assert (use.util_mean, use.util_peak) == (50.0, 90)


def test_what_nobody_tells_stays_unknown() -> None:
    """As of an instance of MIG, whose driver tells no utilisation."""
    use = folded([Stretch(seconds=5.0, used_bytes=GIB), Stretch(seconds=5.0)])
    assert use == GpuUse(peak_bytes=GIB)


# ─── energy of one GPU ───────────────────────────────────────────────────────────────────────────

joules = st.none() | st.floats(0.0, 1e9)
watts = st.none() | st.floats(0.0, 1000.0)


@STEADY
@given(joules, joules, watts, st.floats(0.1, 600.0), st.floats(0.0, 1.0))
def test_energy_is_never_negative_whatever_the_counter_does(
    before: float | None, now: float | None, power: float | None, gap_s: float, share: float
) -> None:
    energy = energy_between(
        gpu(energy_j=before), gpu(energy_j=now, power_w=power), gap_s=gap_s, seconds=gap_s * share
    )
    assert energy is None or energy >= 0


def test_energy_is_what_the_counter_has_counted() -> None:
    before, now = gpu(energy_j=1000.0, power_w=10.0), gpu(energy_j=1600.0, power_w=10.0)
    assert energy_between(before, now, gap_s=2.0, seconds=2.0) == 600.0
    assert energy_between(before, now, gap_s=2.0, seconds=0.5) == 150.0, "it started in between"
    assert energy_between(before, now, gap_s=600.0, seconds=600.0) == 600.0, "however long it was"


def test_a_counter_that_was_set_back_is_made_up_for_by_the_power() -> None:
    """As after a reset of the GPU, or where its driver was loaded anew."""
    before = gpu(energy_j=1000.0)
    assert energy_between(before, gpu(energy_j=5.0, power_w=300.0), gap_s=2.0, seconds=2.0) == 600.0
    assert energy_between(before, gpu(energy_j=5.0), gap_s=2.0, seconds=2.0) is None


def test_without_a_counter_energy_is_power_by_time_but_not_of_a_time_without_readings() -> None:
    now = gpu(power_w=300.0)
    assert energy_between(gpu(), now, gap_s=5.0, seconds=5.0) == 1500.0
    assert energy_between(None, now, gap_s=5.0, seconds=5.0) == 1500.0
    assert energy_between(gpu(), now, gap_s=900.0, seconds=900.0) == 300.0 * LONGEST_STRETCH_S
    assert energy_between(gpu(), gpu(), gap_s=5.0, seconds=5.0) is None


# ─── memory of one GPU ───────────────────────────────────────────────────────────────────────────


def test_a_jobs_memory_is_that_of_all_its_processes() -> None:
    two = gpu(processes=[ours(7, "2G"), replace(ours(7, "1G"), pid=1), ours(8, "5G"), foreign()])
    assert used_by(two, 7, alone=False) == 3 * GIB
    assert used_by(two, 9, alone=False) == 0


def test_where_the_driver_does_not_tell_sizes_all_is_his_who_is_alone() -> None:
    sizeless = gpu(processes=[ours(7, None)], used="5G", baseline_bytes=GIB)
    assert used_by(sizeless, 7, alone=True) == 4 * GIB
    assert used_by(sizeless, 7, alone=False) is None
    silent = gpu(processes=None, used="5G")
    assert used_by(silent, 7, alone=True) == 5 * GIB
    assert used_by(silent, 7, alone=False) is None


def test_where_a_stranger_is_there_too_nobody_can_tell() -> None:
    assert used_by(gpu(processes=[ours(7, None), foreign()]), 7, alone=True) is None
    desktop = replace(foreign("300M"), ignored=True)
    with_desktop = gpu(processes=[ours(7, None), desktop], used="2G", baseline_bytes=300 * MIB)
    assert used_by(with_desktop, 7, alone=True) == 2 * GIB, "a desktop is in the baseline"
    assert used_by(gpu(used=None, processes=None), 7, alone=True) is None


def test_a_baseline_that_shrank_makes_no_negative_memory() -> None:
    assert used_by(gpu(processes=None, baseline_bytes=GIB), 7, alone=True) == 0


# ─── idle ────────────────────────────────────────────────────────────────────────────────────────


def test_the_busiest_gpu_says_whether_anything_is_computed() -> None:
    assert utilization([gpu(0, utilization_percent=3), gpu(1, utilization_percent=90)]) == 90
    assert utilization([gpu(0, utilization_percent=None), gpu(1, utilization_percent=3)]) == 3
    assert utilization([gpu(0, utilization_percent=None)]) is None


@pytest.mark.parametrize(
    ("gpus", "seconds", "words"),
    [
        ([gpu(2)], None, "GPU 2 at 1 %"),
        ([gpu(2)], 600.0, "GPU 2 at 1 % for 10 min"),
        ([gpu(2)], 604.9, "GPU 2 at 1 % for 10 min"),
        ([gpu(0), gpu(1), gpu(3)], 45.0, "GPUs 0-1,3 at 1 % for 45 s"),
        ([gpu(2)], 7200.0, "GPU 2 at 1 % for 2 h"),
    ],
)
def test_how_busy_it_is_reads_as_a_person_says_it(
    gpus: list[Gpu], seconds: float | None, words: str
) -> None:
    assert busy_words(gpus, 1, seconds) == words


# ─── others on its GPU ───────────────────────────────────────────────────────────────────────────

DOCKER = GpuProcess(
    pid=40121,
    user="carol",
    command="python",
    memory_bytes=GIB,
    unit="docker 3f2a9c1b7d44",
)


def test_a_stranger_is_named_with_his_container_and_the_gpu() -> None:
    (found,) = intruders([gpu(3, processes=[DOCKER, ours(7)])], beside=())
    assert found.words == "python 40121 carol (docker 3f2a9c1b7d44) on GPU 3"
    assert (found.gpu, found.pid) == ("GPU-3", 40121)


def test_a_stranger_of_whom_little_is_known_is_named_all_the_same() -> None:
    nameless = GpuProcess(pid=7, user=None, command=None, memory_bytes=None)
    assert intruders([gpu(0, processes=[nameless])], ())[0].words == "process 7 on GPU 0"


def test_who_was_there_at_the_start_and_who_is_nobody_are_no_intruders() -> None:
    there = [foreign(pid=1), replace(foreign(pid=2), ignored=True), ours(7)]
    assert intruders([gpu(0, processes=there)], beside={1}) == []
    assert [one.pid for one in intruders([gpu(0, processes=there)], beside=())] == [1]
    assert intruders([gpu(0, processes=None)], beside=()) == []


def test_another_daemon_is_an_intruder() -> None:
    held = gpu(3, locked_by="held by another gpuq daemon (pid 77, bob)")
    (found,) = intruders([held], beside=())
    assert found.words == "GPU 3 is held by another gpuq daemon (pid 77, bob)"
    assert found.pid is None


# ─── more memory than it asked for ───────────────────────────────────────────────────────────────

CARD = gpu(0)
SHARE = lease(0, 12, "6G")


def test_more_than_it_asked_for_is_an_excess_and_a_little_more_is_none() -> None:
    allowed = 6 * GIB + TOLERANCE_BYTES
    assert find_excess([(CARD, SHARE)], {CARD.uuid: allowed}) is None
    excess = find_excess([(CARD, SHARE)], {CARD.uuid: allowed + 1})
    assert excess is not None
    assert (excess.used_bytes, excess.asked_bytes) == (allowed + 1, 6 * GIB)


@pytest.mark.parametrize(
    "held",
    [
        lease(0, 12),
        lease(0, 12, "6G", exclusive=True),
        lease(0, 12, None, exclusive=False),
    ],
)
def test_who_has_the_gpu_alone_cannot_use_too_much_of_it(held: object) -> None:
    assert find_excess([(CARD, held)], {CARD.uuid: 20 * GIB}) is None  # type: ignore[list-item]


def test_what_nobody_measured_is_no_excess() -> None:
    assert find_excess([(CARD, SHARE)], {CARD.uuid: None}) is None
    assert find_excess([(CARD, SHARE)], {}) is None


def test_of_several_gpus_the_worst_is_told_of() -> None:
    held = [(gpu(index), lease(index, 12, "6G")) for index in (0, 1, 2)]
    used = {"GPU-0": 7 * GIB, "GPU-1": 9 * GIB, "GPU-2": GIB}
    excess = find_excess(held, used)
    assert excess is not None
    assert excess.words == "it used 9G of GPU 1 and asked for 6G"


def test_an_excess_says_how_much_also_where_both_sizes_look_the_same() -> None:
    excess = find_excess([(CARD, lease(0, 12, "200G"))], {CARD.uuid: 200 * GIB + 70 * MIB})
    assert excess is not None
    assert excess.words == "it used 70M more of GPU 0 than the 200G that it asked for"
