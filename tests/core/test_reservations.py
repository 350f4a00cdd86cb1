"""GPUs set aside for a user and a time: who starts there, when, and who makes room."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.decisions import Signal
from gpuq.core.model import ActiveJob, Request, Reservation, Snapshot, WaitingJob
from gpuq.core.scheduling import reservations
from gpuq.core.scheduling.reservations import Candidate
from gpuq.core.scheduling.scheduler import plan
from tests.builders import STEADY, active, job, lease, started, uuid, world

WALL = 1_700_000_000.0
HOUR, DAY = 3600.0, 86400.0
ALICE, BOB = 1000, 1001


def reserved(
    *gpus: int, begin: float = HOUR, length: float = 12 * HOUR, id: int = 1, uid: int = ALICE
) -> Reservation:
    """For alice, from in an hour on."""
    return Reservation(
        id=id,
        uid=uid,
        user="alice",
        gpus=tuple(uuid(index) for index in gpus),
        begin_at=WALL + begin,
        end_at=WALL + begin + length,
        begin_words="18:00",
        end_words="06:00 (tomorrow)",
    )


def told(
    gpus: int, jobs: list[WaitingJob], *them: Reservation, wall: float = WALL, **more: Any
) -> Snapshot:
    return replace(world(gpus, jobs, **more), wall=wall, reservations=them)


def lasting(
    limit_s: float | None, *, grace_s: float = 10.0, guess_s: float | None = None
) -> WaitingJob:
    plain = job(id=9, uid=BOB, user="bob")
    asked = replace(plain.request, lasts_s=limit_s if limit_s is not None else guess_s)
    return replace(plain, request=asked, time_limit_s=limit_s, grace_s=grace_s)


def starts(snapshot: Snapshot) -> dict[int, tuple[int, ...]]:
    return started(plan(snapshot))


# ── while it lasts ──


def test_only_the_one_whom_it_is_for_starts_there() -> None:
    now = reserved(0, 1, begin=-HOUR)
    mine, others = job(id=8, uid=ALICE), job(id=9, uid=BOB)
    assert starts(told(2, [mine], now)) == {8: (0,)}
    waits = told(2, [others], now)
    assert starts(waits) == {}
    assert plan(waits).reasons[9] == (
        "wants 1 GPU, 0 free (0 left to it); GPUs 0,1 are reserved for alice until 06:00 (tomorrow)"
    )


def test_others_have_what_is_not_reserved() -> None:
    assert starts(told(2, [job(id=9, uid=BOB)], reserved(0, begin=-HOUR))) == {9: (1,)}
    both = [job(2, id=9, uid=BOB)]
    assert starts(told(2, both, reserved(0, begin=-HOUR))) == {}


def test_who_has_reserved_takes_that_first() -> None:
    """What nobody else can use is not left idle for what others could."""
    assert starts(told(3, [job(id=8, uid=ALICE)], reserved(2, begin=-HOUR))) == {8: (2,)}
    assert starts(told(3, [job(2, id=8, uid=ALICE)], reserved(2, begin=-HOUR))) == {8: (2, 0)}
    assert starts(told(3, [job(id=8, uid=ALICE)], reserved(2))) == {8: (0,)}


def test_cpu_jobs_do_not_care() -> None:
    assert starts(told(1, [job(0, id=9, uid=BOB)], reserved(0, begin=-HOUR))) == {9: ()}


def test_when_it_is_over_nobody_is_kept_away() -> None:
    over = reserved(0, begin=-13 * HOUR)
    assert starts(told(1, [job(id=9, uid=BOB)], over)) == {9: (0,)}


# ── before it ──


@pytest.mark.parametrize(
    ("limit_s", "grace_s", "may"),
    [
        (HOUR - 10, 10.0, True),
        (HOUR - 9, 10.0, False),
        (HOUR, 0.0, True),
        (60.0, 10.0, True),
        (2 * HOUR, 10.0, False),
    ],
)
def test_others_start_there_if_they_end_in_time_with_their_grace(
    limit_s: float, grace_s: float, may: bool
) -> None:
    snapshot = told(1, [lasting(limit_s, grace_s=grace_s)], reserved(0))
    assert starts(snapshot) == ({9: (0,)} if may else {})
    if not may:
        assert (
            "GPU 0 is reserved for alice from 18:00, and it may run for"
            in plan(snapshot).reasons[9]
        )


def test_a_job_of_which_nobody_knows_counts_as_long_as_the_settings_say() -> None:
    snapshot = told(4, [lasting(None)], reserved(2, 3), reserved(0, 1, begin=25 * HOUR, id=2))
    assert starts(snapshot) == {9: (0,)}
    kept = told(4, [lasting(None)], reserved(2, 3), reserved(0, 1, begin=23 * HOUR, id=2))
    assert starts(kept) == {}
    why = "GPUs 0-3 are reserved for alice from 18:00, and it has no time limit (-t)"
    assert why in plan(kept).reasons[9]
    assert starts(told(1, [lasting(None)], reserved(0), unknown_job_s=60.0)) == {9: (0,)}


def test_what_its_command_took_before_counts_where_nothing_better_is_known() -> None:
    assert starts(told(1, [lasting(None, guess_s=HOUR / 2)], reserved(0))) == {9: (0,)}
    late = told(1, [lasting(None, guess_s=2 * HOUR)], reserved(0))
    assert starts(late) == {}
    assert "such a job takes up to ~2:00:00; it has no time limit (-t)" in plan(late).reasons[9]


def test_his_own_jobs_run_into_it() -> None:
    assert starts(told(1, [job(id=8, uid=ALICE)], reserved(0))) == {8: (0,)}


def test_a_smaller_job_is_let_by_where_the_first_is_kept_away() -> None:
    """Who waits for a reservation to end keeps nothing from who ends before it begins."""
    long, short = replace(lasting(None), id=8), replace(lasting(60.0), id=9)
    assert starts(told(1, [long, short], reserved(0))) == {9: (0,)}


# ── the clock ──


def test_the_clock_on_the_wall_tells_when_to_look_again() -> None:
    them = (reserved(0), reserved(1, begin=-HOUR, length=1.5 * HOUR, id=2))
    waits = [job(2, id=9, uid=BOB)]
    assert plan(told(2, waits, *them)).wall_at == WALL + HOUR / 2
    assert plan(told(2, waits, *them, wall=WALL + HOUR / 2)).wall_at == WALL + HOUR
    assert plan(told(2, waits, *them, wall=WALL + HOUR)).wall_at == WALL + 13 * HOUR
    assert plan(told(2, waits, *them, wall=WALL + 14 * HOUR)).wall_at is None
    assert plan(told(2, [], *them)).wall_at is None, "nobody waits for it"


def test_nothing_is_ended_for_it() -> None:
    runs = replace(active(3), uid=BOB)
    snapshot = told(
        1, [job(id=8, uid=ALICE)], reserved(0, begin=-1.0), leases=[lease(0, 3)], active=[runs]
    )
    assert not plan(snapshot).decisions
    assert "in use by job 3" in plan(snapshot).reasons[8]


# ── preemptible jobs of others ──


def modest(id: int, **more: Any) -> ActiveJob:
    return replace(active(id), preemptible=True, **({"uid": BOB} | more))


def gives_way(snapshot: Snapshot) -> dict[int, str]:
    return {
        one.job: str(one.for_whom)
        for one in plan(snapshot).decisions
        if isinstance(one, Signal) and one.gives_way_to is not None
    }


def test_a_preemptible_job_of_another_gives_way_whatever_its_priority() -> None:
    held = {"leases": [lease(0, 3)], "active": [modest(3, priority=50)]}
    mine = [job(id=8, uid=ALICE, user="alice")]
    now = told(1, mine, reserved(0, begin=-1.0), **held)
    assert gives_way(now) == {3: "8 (for whose user, alice, its GPU is reserved)"}
    assert gives_way(told(1, mine, reserved(0), **held)) == {}, "it has not begun"
    assert gives_way(told(1, [], reserved(0, begin=-1.0), **held)) == {}, "nobody needs it"


def test_his_own_jobs_do_not_give_way_to_each_other_for_it() -> None:
    held = {"leases": [lease(0, 3)], "active": [modest(3, uid=ALICE)]}
    assert gives_way(told(1, [job(id=8, uid=ALICE)], reserved(0, begin=-1.0), **held)) == {}


def test_elsewhere_priority_counts_as_ever() -> None:
    held = {"leases": [lease(1, 3)], "active": [modest(3, priority=0)]}
    mine = [job(2, id=8, uid=ALICE)]
    assert gives_way(told(2, mine, reserved(0, begin=-1.0), **held)) == {}


def test_nobody_gives_way_for_a_gpu_that_is_reserved_for_another() -> None:
    held = {"leases": [lease(0, 3)], "active": [modest(3)]}
    urgent = [job(id=9, uid=BOB + 1, priority=10)]
    assert gives_way(told(1, urgent, reserved(0, begin=-1.0), **held)) == {}


# ── making one ──


def test_those_that_are_idle_the_soonest_are_taken() -> None:
    them = [
        Candidate(uuid="a", index=0, idle_at=None),
        Candidate(uuid="b", index=1, idle_at=50.0),
        Candidate(uuid="c", index=2, idle_at=10.0),
        Candidate(uuid="d", index=3, idle_at=10.0),
    ]
    assert reservations.choose(them, 1, ()) == ("c",)
    assert reservations.choose(them, 2, ()) == ("c", "d")
    assert reservations.choose(them, 2, {"c"}) == ("b", "d")
    assert reservations.choose(them, 4, ()) == ("a", "b", "c", "d")
    assert reservations.choose(them, 4, {"a"}) is None


def test_two_overlap_where_they_share_a_moment() -> None:
    one = reserved(0, 1)
    begin, end = one.begin_at, one.end_at
    assert not reservations.taken_by(begin - HOUR, begin, [one])
    assert not reservations.taken_by(end, end + HOUR, [one])
    for span in ((begin - 1, begin + 1), (begin, end), (end - 1, end + 9), (begin - 9, end + 9)):
        assert reservations.taken_by(*span, [one]).keys() == {uuid(0), uuid(1)}
    taken = reservations.taken_by(begin, end, [one])
    assert reservations.overlap_words(taken, {uuid(0): 0, uuid(2): 2}, [uuid(0), uuid(2)]) == (
        "GPU 0 for alice from 18:00 to 06:00 (tomorrow) (reservation 1)"
    )
    assert reservations.overlap_words(taken, {uuid(2): 2}, [uuid(2)]) is None


# ── any world ──


@STEADY
@given(st.data())
def test_nobody_else_is_on_a_reserved_gpu_who_could_have_known(data: st.DataObject) -> None:
    """Every start of another leaves in time by its limit; the owner's never wait for it."""
    gpus = data.draw(st.integers(1, 4))
    them = [
        reserved(
            *data.draw(st.sets(st.integers(0, gpus - 1), min_size=1)),
            begin=data.draw(st.sampled_from([-HOUR, 60.0, HOUR, 30 * HOUR])),
            length=data.draw(st.sampled_from([1800.0, 12 * HOUR])),
            id=number,
            uid=data.draw(st.sampled_from([ALICE, BOB])),
        )
        for number in range(data.draw(st.integers(0, 3)))
    ]
    jobs = []
    for number in range(data.draw(st.integers(1, 5))):
        limit = data.draw(st.sampled_from([None, 30.0, HOUR - 10, 5 * HOUR]))
        plain = job(
            data.draw(st.integers(1, 2)),
            id=number + 1,
            uid=data.draw(st.sampled_from([ALICE, BOB, 5])),
        )
        asked: Request = replace(plain.request, lasts_s=limit)
        jobs.append(replace(plain, request=asked, time_limit_s=limit))
    snapshot = told(gpus, jobs, *them)
    for id, given_gpus in starts(snapshot).items():
        (it,) = [one for one in jobs if one.id == id]
        ends = WALL + (DAY if it.time_limit_s is None else it.time_limit_s + it.grace_s)
        for one in them:
            if one.uid != it.uid and {uuid(index) for index in given_gpus} & set(one.gpus):
                assert ends <= one.begin_at or one.end_at <= WALL
