"""A GPU that a job has left is given on once its memory is back, and never before."""

import pytest

from gpuq.core.decisions import Decision, MarkDirty, Release
from gpuq.core.gpus.gpu import Gpu, GpuProcess
from gpuq.core.model import Lease, Snapshot
from gpuq.core.scheduling.scheduler import plan
from tests.builders import foreign, gpu, job, lease, ours, started, uuid, world

NOW = 1000.0
RELEASE = Release(gpu=uuid(0), slot=0)
WARM = gpu(used="5G")
WARMTH = "outside gpuq: 5G in use, and no process to be seen"


def cooling(
    reading: Gpu | None,
    *others: Lease,
    read_at: float | None,
    now: float = NOW,
    dirt: str | None = None,
    trouble: str | None = None,
) -> Snapshot:
    """A job waits for the GPU that job 7 has left a second ago."""
    gpus = None if read_at is None else [reading] if reading else []
    left = lease(0, 7, cooling_since=NOW - 1, dirt=dirt)
    return world(gpus, [job()], [left, *others], now=now, read_at=read_at, trouble=trouble)


def ends(snapshot: Snapshot) -> list[Decision]:
    return [one for one in plan(snapshot).decisions if isinstance(one, Release | MarkDirty)]


def starts(snapshot: Snapshot) -> dict[int, tuple[int, ...]]:
    return started(plan(snapshot))


# ── cool ──


def test_a_gpu_is_cool_only_by_a_reading_newer_than_the_end() -> None:
    stale, fresh = cooling(gpu(), read_at=NOW - 1), cooling(gpu(), read_at=NOW - 0.9)
    assert (ends(stale), starts(stale)) == ([], {})
    assert plan(stale).wake_at == NOW + 29
    assert ends(fresh) == [RELEASE]
    assert starts(fresh) == {1: (0,)}


def test_a_gpu_that_has_cooled_is_the_first_ones_in_line_at_once() -> None:
    """In the next turn a later job would have taken the other GPU already."""
    cooled = [lease(0, 99, cooling_since=NOW - 1)]
    assert starts(world(2, [job(gpus=2), job()], cooled, now=NOW, read_at=NOW)) == {1: (0, 1)}


def test_a_cooling_gpu_that_no_reading_shows_any_more_is_let_go() -> None:
    assert ends(cooling(None, read_at=NOW)) == [RELEASE]
    assert not ends(cooling(None, read_at=NOW - 2))


def test_a_restarted_daemon_waits_for_its_first_reading() -> None:
    assert not ends(cooling(gpu(), read_at=None))


def test_memory_of_those_who_still_share_a_gpu_does_not_keep_it_warm() -> None:
    reading = gpu(processes=[ours(8, "5G")])
    assert ends(cooling(reading, lease(0, 8, "5G", slot=1), read_at=NOW)) == [RELEASE]


@pytest.mark.parametrize("size", ["5G", None])
def test_a_stranger_is_no_fault_of_the_job_that_has_left(size: str | None) -> None:
    """He keeps the next job away by himself, and says who he is."""
    visited = cooling(gpu(processes=[foreign(size)]), read_at=NOW)
    assert ends(visited) == [RELEASE]
    assert starts(visited) == {}


def test_a_share_cools_beside_a_stranger_who_was_there_before() -> None:
    reading = gpu(processes=[foreign("5G"), ours(8, "5G")])
    assert ends(cooling(reading, lease(0, 8, "5G", slot=1), read_at=NOW)) == [RELEASE]


def test_two_jobs_that_cool_on_one_gpu_do_not_answer_for_each_other() -> None:
    other = lease(0, 8, "5G", slot=1, cooling_since=NOW - 1)
    assert not ends(cooling(gpu(used="10G"), other, read_at=NOW))
    assert len(ends(cooling(gpu(), other, read_at=NOW))) == 2


def test_the_room_of_a_cooling_share_is_not_given_away() -> None:
    held = [lease(0, 7, "20G", cooling_since=NOW - 1)]
    assert starts(world(1, [job(mem="5G")], held, now=NOW, read_at=NOW - 1)) == {}


@pytest.mark.parametrize("processes", [None, [ours(8, None)]], ids=["told none", "no sizes"])
def test_where_no_sizes_are_told_a_share_cools_for_as_long_as_it_may(
    processes: list[GpuProcess] | None,
) -> None:
    """The 10G may be of the job that ended, and the other has yet to take its own."""
    other = lease(0, 8, "10G", slot=1)
    reading = gpu(used="10G", processes=processes)
    early = cooling(reading, other, read_at=NOW, now=NOW)
    assert not ends(early)
    assert plan(early).wake_at == NOW + 29
    assert ends(cooling(reading, other, read_at=NOW + 29, now=NOW + 29)) == [RELEASE]


# ── not in time ──

UNREAD = "no reading of this GPU since its job ended"
SILENT = "the GPU driver does not answer"


@pytest.mark.parametrize(
    ("reading", "read_ago", "trouble", "dirt"),
    [
        (WARM, 0, None, WARMTH),
        (
            gpu(processes=[ours(7)]),
            0,
            None,
            "job 7 uses it without holding it: process 1007 ann",
        ),
        (
            gpu(used="5G", processes=[foreign()]),
            0,
            None,
            "5G in use, and no process to be seen",
        ),
        (gpu(fault="has fallen off the bus"), 0, None, "has fallen off the bus"),
        (gpu(), 31, None, UNREAD),
        (gpu(), 31, SILENT, SILENT),
        (WARM, 5, SILENT, WARMTH),
    ],
    ids=[
        "memory",
        "its own process",
        "memory beside a stranger",
        "a fault",
        "no reading",
        "trouble",
        "both",
    ],
)
def test_what_is_not_cool_after_30_seconds_is_dirty_and_says_why(
    reading: Gpu, read_ago: float, trouble: str | None, dirt: str
) -> None:
    for waited in (1.0, 29.0, 29.9):
        now = NOW - 1 + waited
        early = cooling(reading, read_at=now - read_ago, now=now, trouble=trouble)
        assert (ends(early), starts(early)) == ([], {})
        assert plan(early).wake_at == NOW + 29
    late = cooling(reading, read_at=NOW + 29 - read_ago, now=NOW + 29, trouble=trouble)
    assert ends(late) == [MarkDirty(gpu=uuid(0), slot=0, dirt=dirt)]
    assert starts(late) == {}


def test_a_daemon_that_has_seen_nothing_at_all_says_so_too() -> None:
    late = cooling(None, read_at=None, now=NOW + 29)
    assert ends(late) == [MarkDirty(gpu=uuid(0), slot=0, dirt=UNREAD)]


# ── dirty ──


def test_a_dirty_gpu_is_looked_at_with_every_reading_and_wakes_nobody() -> None:
    still = cooling(WARM, read_at=NOW + 900, now=NOW + 900, dirt="5G in use")
    assert (ends(still), starts(still), plan(still).wake_at) == ([], {}, None)


def test_a_dirty_gpu_is_given_on_once_it_is_clean() -> None:
    clean = cooling(gpu(), read_at=NOW + 900, now=NOW + 900, dirt="5G in use")
    assert ends(clean) == [RELEASE]
    assert starts(clean) == {1: (0,)}


def test_a_dirty_gpu_is_not_given_on_by_an_old_reading() -> None:
    """Nor is it one that its fault, or the driver's silence, hides from us."""
    assert not ends(cooling(gpu(), read_at=NOW - 2, now=NOW + 900, dirt=UNREAD))
    assert not ends(cooling(gpu(fault="lost"), read_at=NOW + 9, now=NOW + 9, dirt="lost"))


def test_a_dirty_gpu_that_is_gone_keeps_nothing() -> None:
    assert ends(cooling(None, read_at=NOW + 900, now=NOW + 900, dirt="lost")) == [RELEASE]


def test_a_dirty_gpu_is_given_to_nobody_and_its_state_says_why() -> None:
    dirty = cooling(WARM, read_at=NOW + 900, now=NOW + 900, dirt="5G in use")
    reason = plan(dirty).reasons[1]
    assert "GPU 0 memory of job 7 has not come back: 5G in use" in reason


def test_each_gpu_cools_by_itself() -> None:
    left = [lease(0, 7, cooling_since=NOW - 1), lease(1, 7, cooling_since=NOW - 31)]
    decided = plan(world([WARM, gpu(1, used="5G")], (), left, now=NOW, read_at=NOW))
    assert decided.decisions == (MarkDirty(gpu=uuid(1), slot=0, dirt=WARMTH),)
    assert decided.wake_at == NOW + 29
