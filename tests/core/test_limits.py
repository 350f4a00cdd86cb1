"""What the jobs of one user, queue, group or tag may have at a time, and who waits for that."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuq.core.decisions import Plan, Start
from gpuq.core.model import ActiveJob, Lease, Limit, LimitKind, Request, Snapshot, WaitingJob
from gpuq.core.policy import Policy, Queue
from gpuq.core.scheduling.limits import more_than_allowed, too_many_queued
from gpuq.core.scheduling.protection import MOST_PROTECTED
from gpuq.core.scheduling.scheduler import plan
from tests.builders import STEADY, active, gpu, job, lease, request, started, world

ALICE, BOB, CAROL = 2001, 2002, 2003
NAMES = {ALICE: "alice", BOB: "bob", CAROL: "carol"}


def of(uid: int, waiting: WaitingJob) -> WaitingJob:
    return replace(waiting, uid=uid, user=NAMES[uid])


def held(uid: int, *indices: int, first: int = 90) -> tuple[list[Lease], list[ActiveJob]]:
    """A running job of that user on each of these GPUs."""
    leases = [lease(index, first + index) for index in indices]
    return leases, [active(first + index, uid=uid) for index in indices]


# ── how many GPUs ──


def test_a_user_gets_no_more_gpus_than_one_user_may_have() -> None:
    queue = [of(ALICE, job()), of(ALICE, job()), of(ALICE, job()), of(BOB, job())]
    decided = plan(world(4, queue, max_gpus_per_user=2))
    assert started(decided) == {1: (0,), 2: (1,), 4: (2,)}
    assert decided.reasons[3] == (
        "alice has 2 of the 2 GPUs that one user may have (max_gpus_per_user)"
    )


def test_what_runs_already_counts() -> None:
    leases, running = held(ALICE, 0)
    queue = [of(ALICE, job(gpus=2)), of(ALICE, job()), of(BOB, job(gpus=2))]
    decided = plan(world(4, queue, leases, running, max_gpus_per_user=2))
    assert started(decided) == {2: (1,), 3: (2, 3)}
    assert decided.reasons[1] == (
        "wants 2 GPUs, and alice has 1 of the 2 GPUs that one user may have (max_gpus_per_user)"
    )


def test_a_share_of_a_gpu_counts_as_one() -> None:
    queue = [of(ALICE, job(mem="1G"))] * 3
    assert started(plan(world(1, queue, max_gpus_per_user=2))) == {1: (0,), 2: (0,)}


def test_a_gpu_that_cools_down_is_nobodys_any_more() -> None:
    cooling = [lease(0, 90, cooling_since=999.0)]
    assert started(plan(world(2, [of(ALICE, job())], cooling, max_gpus_per_user=1))) == {1: (1,)}


def test_cpu_jobs_hold_no_gpus() -> None:
    leases, running = held(ALICE, 0)
    queue = [of(ALICE, job()), of(ALICE, job(0))]
    assert started(plan(world(2, queue, leases, running, max_gpus_per_user=1))) == {2: ()}


# ── how many jobs ──


def test_a_user_runs_no_more_jobs_than_one_user_may() -> None:
    leases, running = held(ALICE, 0)
    queue = [of(ALICE, job(0)), of(ALICE, job()), of(BOB, job(0)), of(BOB, job())]
    decided = plan(world(4, queue, leases, running, max_running_per_user=2))
    assert started(decided) == {1: (), 3: (), 4: (1,)}
    assert decided.reasons[2] == (
        "alice has 2 of the 2 running jobs that one user may have (max_running_per_user)"
    )


def test_root_is_a_user_like_others() -> None:
    queue = [job(user="root")] * 2
    assert started(plan(world(2, queue, max_running_per_user=1))) == {1: (0,)}


def test_without_a_limit_there_is_none() -> None:
    assert len(started(plan(world(8, [of(ALICE, job())] * 8)))) == 8


# ── where a limit was lowered ──


def test_a_lowered_limit_ends_nothing_and_says_so_to_those_who_wait() -> None:
    leases, running = held(ALICE, 0, 1, 2)
    decided = plan(world(4, [of(ALICE, job())], leases, running, max_gpus_per_user=2))
    assert decided.decisions == ()
    assert decided.reasons[1] == ("alice has 3 GPUs, and one user may have 2 (max_gpus_per_user)")
    decided = plan(world(4, [of(ALICE, job())], leases, running, max_running_per_user=1))
    assert decided.decisions == ()
    assert decided.reasons[1] == (
        "alice has 3 running jobs, and one user may have 1 (max_running_per_user)"
    )


def test_a_job_that_may_never_start_any_more_holds_up_nobody_not_even_its_user() -> None:
    queue = [of(ALICE, job(gpus=3, passes=10)), of(ALICE, job()), of(BOB, job())]
    decided = plan(world(4, queue, max_gpus_per_user=2))
    assert started(decided) == {2: (0,), 3: (1,)}
    assert all(one.passed == () for one in decided.decisions if isinstance(one, Start))
    assert decided.reasons[1] == (
        "wants 3 GPUs, and one user may have 2 at a time (max_gpus_per_user)"
    )


# ── nobody else waits for it ──


def test_who_waits_for_his_own_limit_keeps_no_gpu_from_others() -> None:
    leases, running = held(ALICE, 0)
    queue = [of(ALICE, job(gpus=2, passes=10)), of(BOB, job(gpus=2))]
    decided = plan(world(3, queue, leases, running, max_gpus_per_user=2))
    assert started(decided) == {2: (1, 2)}
    assert not any(one.passed for one in decided.decisions if isinstance(one, Start))


def test_any_number_of_shapes_that_wait_for_a_limit_takes_nobodys_place() -> None:
    """Only so many of the first in line are kept from being overtaken for ever."""
    leases, running = held(ALICE, 0)
    shapes = [of(ALICE, job(mem=f"{number}M")) for number in range(1, 2 * MOST_PROTECTED)]
    bobs = [of(BOB, job(gpus=2, passes=10, id=900)), of(CAROL, job(id=901))]
    decided = plan(world(2, [*shapes, *bobs], leases, running, max_running_per_user=1))
    assert decided.reasons[901] == "behind 900, which has been overtaken 10 times"


def test_a_class_at_its_limit_is_no_barrier_for_those_behind_it() -> None:
    """Though it may hold more jobs than are seen."""
    queue = [of(ALICE, job())] * 100_000 + [of(BOB, job())]
    snapshot = world(4, queue, per_class=2, max_gpus_per_user=1)
    assert len(snapshot.waiting) == 3
    decided = plan(snapshot)
    assert started(decided) == {1: (0,), 100_001: (1,)}
    assert decided.heads[1] == 2


@given(
    shapes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=8),
    theirs=st.lists(st.tuples(st.sampled_from([BOB, CAROL]), st.integers(0, 3)), max_size=8),
    order=st.randoms(use_true_random=False),
)
@STEADY
def test_who_is_at_the_limit_is_not_there_for_the_others(
    shapes: list[tuple[int, int]], theirs: list[tuple[int, int]], order: "object"
) -> None:
    leases, running = held(ALICE, 0, 1)
    alices = [of(ALICE, job(gpus, passes=10, priority=more)) for gpus, more in shapes]
    others = [of(uid, job(gpus, passes=gpus * 4)) for uid, gpus in theirs]
    queue = [*alices, *others]
    order.shuffle(queue)  # type: ignore[attr-defined]
    queue = [replace(one, id=number) for number, one in enumerate(queue, start=1)]
    limits = {"max_running_per_user": 2, "cpu_slots": 2}
    full = plan(world(5, queue, leases, running, **limits))
    alone = [one for one in queue if one.uid != ALICE]
    without = plan(world(5, alone, leases, running, **limits))
    assert full.decisions == without.decisions
    assert {one.id: full.reasons[one.id] for one in alone} == dict(without.reasons)


# ── among the jobs of one user ──


def test_a_smaller_job_of_the_same_user_passes_one_at_the_limit_only_so_often() -> None:
    leases, running = held(ALICE, 0)
    for passes in range(11):
        queue = [of(ALICE, job(gpus=2, passes=passes)), of(ALICE, job()), of(BOB, job())]
        decided = plan(world(4, queue, leases, running, max_gpus_per_user=2))
        if passes < 10:
            assert started(decided) == {2: (1,), 3: (2,)}
            assert [one.passed for one in decided.decisions if isinstance(one, Start)] == [(1,), ()]
    assert started(decided) == {3: (1,)}
    assert decided.reasons[2] == "behind 1, which has been overtaken 10 times"


@pytest.mark.parametrize("setting", ["max_gpus_per_user", "max_running_per_user"])
def test_a_job_that_waits_for_a_gpu_is_not_overtaken_for_ever_in_what_its_user_may_have(
    setting: str,
) -> None:
    """The others take other GPUs, and yet what it wants of the limit."""
    cards = [gpu(0, model="A100"), gpu(1, model="T4"), gpu(2, model="T4")]
    leases, running = held(BOB, 0)
    head = of(ALICE, job(model="A100"))
    later = of(ALICE, job(model="T4"))
    first = plan(world(cards, [head, later], leases, running, **{setting: 1}))
    assert [one.passed for one in first.decisions if isinstance(one, Start)] == [(1,)]
    waited = [replace(head, passes=10), later]
    assert started(plan(world(cards, waited, leases, running, **{setting: 1}))) == {}
    enough = plan(world(cards, waited, leases, running, **{setting: 2}))
    assert started(enough) == {2: (1,)}, "there is enough for both"


# ── lived through ──

SHAPES = [request(), request(2), request(3), request(mem="5G"), request(0), request(0, cpus=2)]


@dataclass
class Life:
    """Jobs of some users on four GPUs; carries out what is planned."""

    limits: dict[str, int | None]
    per_class: int | None
    shared: tuple[Limit, ...] = ()
    queues: tuple[Queue, ...] = ()
    queue: dict[int, WaitingJob] = field(default_factory=dict)
    running: dict[int, ActiveJob] = field(default_factory=dict)
    leases: list[Lease] = field(default_factory=list)
    last: int = 0

    def submit(self, uid: int, wish: Request, **more: object) -> int:
        self.last += 1
        known = WaitingJob(id=self.last, class_id=0, request=wish, uid=uid, user=NAMES[uid])
        self.queue[self.last] = replace(known, **more)  # type: ignore[arg-type]
        return self.last

    def look(self) -> Snapshot:
        known = world(
            4,
            self.queue.values(),
            self.leases,
            list(self.running.values()),
            per_class=self.per_class,
            max_bypass=2,
            cpu_slots=3,
            queues=self.queues,
            **self.limits,
        )
        return replace(known, limits=self.shared)

    def turn(self) -> None:
        while starts := [one for one in plan(self.look()).decisions if isinstance(one, Start)]:
            for start in starts:
                self.start(start)
            self.check()

    def start(self, start: Start) -> None:
        wanted = self.queue.pop(start.job)
        self.running[start.job] = active(
            start.job,
            request=wanted.request,
            uid=wanted.uid,
            queue=wanted.queue,
            tags=wanted.tags,
            group=wanted.group or 0,
        )
        for uuid in start.gpus:
            index = int(uuid.removeprefix("GPU-"))
            slot = sum(one.gpu == uuid for one in self.leases)
            mem = None if wanted.request.exclusive else "5G"
            self.leases.append(lease(index, start.job, mem, slot=slot))
        for other in start.passed:
            self.queue[other] = replace(self.queue[other], passes=self.queue[other].passes + 1)

    def check(self) -> None:
        """Counted by what is held and not by what is asked for."""
        owners = {job: one.uid for job, one in self.running.items()}
        jobs, gpus = self.limits["max_running_per_user"], self.limits["max_gpus_per_user"]
        for uid in NAMES:
            assert jobs is None or list(owners.values()).count(uid) <= jobs
            gpus_held = sum(owners[one.job] == uid for one in self.leases)
            assert gpus is None or gpus_held <= gpus
        for limit in self.shared:
            under = [one for one in self.running.values() if is_under(one, limit)]
            assert limit.max_running is None or len(under) <= limit.max_running
            gpus_held = sum(one.job in {job.id for job in under} for one in self.leases)
            assert limit.max_gpus is None or gpus_held <= limit.max_gpus

    def end(self, which: int) -> None:
        job = sorted(self.running)[which % len(self.running)]
        del self.running[job]
        self.leases = [one for one in self.leases if one.job != job]

    def may_ever_start(self, waiting: WaitingJob) -> bool:
        most = self.limits["max_gpus_per_user"]
        return most is None or waiting.request.gpus <= most


def is_under(one: ActiveJob | WaitingJob, limit: Limit) -> bool:
    if limit.kind is LimitKind.TAG:
        return limit.name in one.tags
    if limit.kind is LimitKind.QUEUE:
        return limit.name == one.queue
    return limit.name == str(one.group)


LIMITS = st.fixed_dictionaries(
    {
        "max_running_per_user": st.sampled_from([None, 1, 2, 3]),
        "max_gpus_per_user": st.sampled_from([None, 1, 2, 3]),
    }
)
JOBS = st.lists(st.tuples(st.sampled_from(list(NAMES)), st.sampled_from(SHAPES)), max_size=14)


@given(
    limits=LIMITS,
    per_class=st.sampled_from([None, 1, 2]),
    jobs=JOBS,
    later=JOBS,
    ends=st.lists(st.integers(0, 99), min_size=40, max_size=40),
)
@STEADY
def test_nobody_ever_has_more_and_everybody_gets_there(
    limits: dict[str, int | None],
    per_class: int | None,
    jobs: list[tuple[int, Request]],
    later: list[tuple[int, Request]],
    ends: list[int],
) -> None:
    life = Life(limits, per_class)
    for uid, wish in jobs:
        life.submit(uid, wish)
    for which in ends:
        life.turn()
        if later:
            life.submit(*later.pop())
        if life.running:
            life.end(which)
    life.turn()
    left = [one for one in life.queue.values() if life.may_ever_start(one)]
    assert not left or life.running, f"{left} wait, and nothing runs: {plan(life.look()).reasons}"
    for _ in range(2 * life.last):
        if life.running:
            life.end(0)
        life.turn()
    assert not any(life.may_ever_start(one) for one in life.queue.values())


SHARED = (
    Limit(kind=LimitKind.TAG, name="one", max_running=1, actor="root"),
    Limit(kind=LimitKind.TAG, name="two", max_gpus=2, actor="root"),
    Limit(kind=LimitKind.GROUP, name="7", max_running=2, actor="alice"),
    Limit(kind=LimitKind.QUEUE, name="night", max_running=2, max_gpus=3),
)
NIGHT_SHIFT = Queue(name="night", max_running=2, max_gpus=3, priority=1)
TAGS = st.sampled_from([(), ("one",), ("two",), ("one", "two")])
MARKED = st.lists(
    st.tuples(
        st.sampled_from(list(NAMES)),
        st.sampled_from([one for one in SHAPES if one.gpus < 3]),
        st.fixed_dictionaries({"tags": TAGS, "queue": st.sampled_from(["", "night"])}),
        st.booleans(),
    ),
    min_size=1,
    max_size=16,
)


@given(
    limits=LIMITS,
    jobs=MARKED,
    later=MARKED,
    ends=st.lists(st.integers(0, 99), min_size=30, max_size=30),
)
@settings(STEADY, max_examples=40)
def test_under_limits_of_every_kind_nobody_has_more_and_everybody_gets_there(
    limits: dict[str, int | None],
    jobs: list[tuple[int, Request, dict[str, Any], bool]],
    later: list[tuple[int, Request, dict[str, Any], bool]],
    ends: list[int],
) -> None:
    life = Life(limits, 2, SHARED, (NIGHT_SHIFT,))

    def submit(uid: int, wish: Request, marks: dict[str, Any], grouped: bool) -> None:
        is_alices = uid == ALICE and grouped  # a group is one user's
        life.submit(uid, wish, **marks, group=7 if is_alices else None)

    for one in jobs:
        submit(*one)
    for which in ends:
        life.turn()
        if later:
            submit(*later.pop())
        if life.running:
            life.end(which)
    life.turn()
    left = [one for one in life.queue.values() if life.may_ever_start(one)]
    assert not left or life.running, f"{left} wait, and nothing runs: {plan(life.look()).reasons}"
    for _ in range(2 * life.last):
        if life.running:
            life.end(0)
        life.turn()
    assert not any(life.may_ever_start(one) for one in life.queue.values())


def test_a_stream_of_small_jobs_starves_no_large_one_under_a_shared_limit() -> None:
    """Nor one that needs two limits at once, each of them taken by others by turns."""
    shared = (
        Limit(kind=LimitKind.TAG, name="one", max_running=1, actor="root"),
        Limit(kind=LimitKind.TAG, name="two", max_running=1, actor="root"),
    )
    life = Life({"max_running_per_user": None, "max_gpus_per_user": None}, None, shared)
    life.submit(BOB, request(), tags=("one",))
    life.turn()
    life.submit(CAROL, request(), tags=("two",))
    life.turn()
    both = life.submit(ALICE, request(), tags=("one", "two"))
    for number in range(40):
        mark = ("one", "two")[number % 2]
        life.submit(BOB, request(), tags=(mark,))
        life.turn()
        if both not in life.queue:
            return
        life.end(0)
    raise AssertionError(f"{plan(life.look()).reasons[both]}")


@pytest.mark.parametrize("stream", [request(), request(mem="5G")])
@pytest.mark.parametrize("by", [ALICE, BOB])
def test_a_stream_of_small_jobs_starves_no_large_one(by: int, stream: Request) -> None:
    """Whether they are its own user's or another one's."""
    life = Life({"max_running_per_user": None, "max_gpus_per_user": 3}, None)
    for _ in range(3):
        life.submit(by, stream)
    life.turn()
    large = life.submit(ALICE, request(3))
    for _ in range(40):
        life.submit(by, stream)
        life.turn()
        if large not in life.queue:
            return
        life.end(0)
    raise AssertionError(f"{plan(life.look()).reasons[large]}")


# ── of a queue, a group, a tag, and of one user alone ──

NIGHT = Queue(name="night", max_running=2, max_gpus=3)


def limit(kind: LimitKind, name: str, running: int | None = None, gpus: int | None = None) -> Limit:
    return Limit(kind=kind, name=name, max_running=running, max_gpus=gpus, actor="root")


def limited(snapshot: Snapshot, *limits: Limit) -> Snapshot:
    return replace(snapshot, limits=limits)


def passed(decided: Plan) -> list[tuple[int, ...]]:
    return [one.passed for one in decided.decisions if isinstance(one, Start)]


BIG = limit(LimitKind.TAG, "big", running=2)


def test_a_queue_runs_no_more_than_it_may() -> None:
    queue = [of(ALICE, replace(job(0), queue="night"))] * 3 + [of(BOB, job(0))]
    decided = plan(world(4, queue, queues=(NIGHT,)))
    assert started(decided) == {1: (), 2: (), 4: ()}
    assert decided.reasons[3] == "2 of 2 running: limit of queue night"


def test_a_queue_holds_no_more_gpus_than_it_may_whosever_they_are() -> None:
    leases, running = held(BOB, 0, 1)
    running = [replace(one, queue="night") for one in running]
    wide = replace(NIGHT, max_running=None)
    queue = [of(ALICE, replace(job(2), queue="night")), of(ALICE, replace(job(), queue="night"))]
    decided = plan(world(4, queue, leases, running, queues=(wide,)))
    assert started(decided) == {2: (2,)}
    assert decided.reasons[1] == "wants 2 GPUs, and 2 of 3 GPUs in use: limit of queue night"


def test_the_jobs_of_a_tag_share_its_limit_across_users() -> None:
    queue = [of(uid, replace(job(0), tags=("big",))) for uid in (ALICE, BOB, CAROL)]
    decided = plan(limited(world(1, [*queue, of(CAROL, job(0))]), BIG))
    assert started(decided) == {1: (), 2: (), 4: ()}
    assert decided.reasons[3] == "2 of 2 running: limit of tag big, set by root"


def test_a_job_is_under_the_limits_of_all_its_tags() -> None:
    one, two = limit(LimitKind.TAG, "one", running=1), limit(LimitKind.TAG, "two", running=1)
    both = of(ALICE, replace(job(0), tags=("one", "two")))
    decided = plan(
        limited(world(1, [both, both, of(BOB, replace(job(0), tags=("two",)))]), one, two)
    )
    assert started(decided) == {1: ()}


def test_a_group_runs_no_more_of_its_elements_than_it_may() -> None:
    queue = [of(ALICE, replace(job(0), group=12))] * 5 + [of(ALICE, job(0))]
    decided = plan(limited(world(1, queue), limit(LimitKind.GROUP, "12", running=4)))
    assert list(started(decided)) == [1, 2, 3, 4, 6]
    assert decided.reasons[5] == "4 of 4 running: limit of group g12, set by root"


@pytest.mark.parametrize(("own", "runs"), [(1, [1, 3, 4]), (3, [1, 2, 3, 4])])
def test_a_users_own_limit_goes_over_the_one_of_the_settings(own: int, runs: list[int]) -> None:
    queue = [of(ALICE, job(0))] * 2 + [of(BOB, job(0))] * 3
    alices = limit(LimitKind.USER, "alice", running=own)
    decided = plan(limited(world(1, queue, max_running_per_user=2), alices))
    assert list(started(decided)) == runs
    if own == 1:
        assert decided.reasons[2] == "1 of 1 running: limit of user alice, set by root"


def test_what_a_users_own_limit_does_not_say_is_as_the_settings_have_it() -> None:
    alices = limit(LimitKind.USER, "alice", running=9)
    decided = plan(limited(world(4, [of(ALICE, job())] * 2, max_gpus_per_user=1), alices))
    assert started(decided) == {1: (0,)}
    assert decided.reasons[2].endswith("(max_gpus_per_user)")


def test_a_lowered_limit_of_a_tag_ends_nothing() -> None:
    leases, running = held(BOB, 0, 1, 2)
    running = [replace(one, tags=("big",)) for one in running]
    waits = of(ALICE, replace(job(), tags=("big",)))
    decided = plan(limited(world(4, [waits], leases, running), BIG))
    assert decided.decisions == ()
    assert decided.reasons[1] == "3 run, 2 may: limit of tag big, set by root"
    gpus = limit(LimitKind.TAG, "big", gpus=2)
    decided = plan(limited(world(4, [waits], leases, running), gpus))
    assert decided.reasons[1] == "3 GPUs in use, 2 may be: limit of tag big, set by root"


def test_where_nothing_may_run_nobody_waits_behind_it() -> None:
    closed = limit(LimitKind.TAG, "big", running=0)
    queue = [of(ALICE, replace(job(2, passes=10), tags=("big",))), of(ALICE, job(2))]
    decided = plan(limited(world(2, queue), closed))
    assert started(decided) == {2: (0, 1)}
    assert passed(decided) == [()]
    assert decided.reasons[1] == "none may run: limit of tag big, set by root"


def test_more_gpus_than_a_limit_has_are_never_given() -> None:
    wide = of(ALICE, replace(job(3), tags=("big",)))
    small = limit(LimitKind.TAG, "big", gpus=2)
    decided = plan(limited(world(4, [wide]), small))
    words = "wants 3 GPUs, and 2 may be in use at a time: limit of tag big, set by root"
    assert decided.reasons[1] == words == more_than_allowed(wide, Policy(), [small])
    closed = limit(LimitKind.TAG, "big", gpus=0)
    assert more_than_allowed(wide, Policy(), [closed]) is None, "it says only: not now"


# ── overtaking under a shared limit ──

GPUS_OF_TAG = limit(LimitKind.TAG, "big", gpus=2)


@pytest.mark.parametrize("by", [ALICE, BOB])
def test_the_first_that_waits_for_a_shared_limit_is_overtaken_only_so_often(by: int) -> None:
    leases, running = held(CAROL, 0)
    running = [replace(one, tags=("big",)) for one in running]
    for passes in (0, 9, 10):
        wide = of(ALICE, replace(job(2, passes=passes), tags=("big",)))
        queue = [wide, of(by, replace(job(), tags=("big",))), of(BOB, job())]
        decided = plan(limited(world(4, queue, leases, running), GPUS_OF_TAG))
        if passes < 10:
            assert passed(decided) == [(1,), ()]
    assert started(decided) == {3: (1,)}
    assert decided.reasons[2] == "behind 1, which has been overtaken 10 times"


def test_who_waits_for_a_limit_of_his_own_keeps_nothing_of_a_shared_one() -> None:
    """alice has what she may have: bob is not to wait until she has not."""
    leases, running = held(ALICE, 0)
    queue = [of(ALICE, replace(job(passes=10), tags=("big",)))]
    queue += [of(BOB, replace(job(), tags=("big",)))]
    full = world(4, queue, leases, running, max_running_per_user=1)
    decided = plan(limited(full, limit(LimitKind.TAG, "big", running=1)))
    assert started(decided) == {2: (1,)}
    assert passed(decided) == [()]


def test_who_waits_for_a_shared_limit_keeps_his_part_of_the_others() -> None:
    """Or two limits could be free by turns, and never at once."""
    leases, running = held(CAROL, 0)
    running = [replace(one, tags=("one",)) for one in running]
    one, two = limit(LimitKind.TAG, "one", running=1), limit(LimitKind.TAG, "two", running=1)
    waits = of(ALICE, replace(job(passes=10), tags=("one", "two")))
    later = of(BOB, replace(job(), tags=("two",)))
    decided = plan(limited(world(4, [waits, later], leases, running), one, two))
    assert started(decided) == {}
    assert decided.reasons[2] == "behind 1, which has been overtaken 10 times"


# ── named queues ──


def test_the_priority_of_a_queue_is_added_to_the_jobs_own() -> None:
    queue = [of(ALICE, job(priority=3)), of(BOB, replace(job(priority=-1), queue="night"))]
    decided = plan(world(1, queue, queues=(Queue(name="night", priority=5),)))
    assert list(started(decided)) == [2]


def test_a_queue_gives_its_jobs_only_its_gpus() -> None:
    two = Queue(name="night", gpus=("2-3",))
    queue = [of(ALICE, replace(job(), queue="night"))] * 3 + [of(BOB, job())]
    decided = plan(world(4, queue, queues=(two,)))
    assert started(decided) == {1: (2,), 2: (3,), 4: (0,)}
    assert decided.reasons[3] == (
        "wants 1 GPU, 0 free (in use by jobs 1-2); queue night has GPU 2-3 only"
    )


def test_jobs_of_a_queue_that_is_gone_wait_and_keep_nothing_from_anybody() -> None:
    queue = [of(ALICE, replace(job(passes=10), queue="night")), of(BOB, job())]
    decided = plan(world(1, queue))
    assert started(decided) == {2: (0,)}
    assert decided.reasons[1] == "queue night is not in the settings any more"


# ── at submit ──


@pytest.mark.parametrize(("gpus", "most", "fits"), [(2, 2, True), (3, 2, False), (9, None, True)])
def test_more_than_one_user_may_have_can_never_start(
    gpus: int, most: int | None, fits: bool
) -> None:
    why = more_than_allowed(of(ALICE, job(gpus)), Policy(max_gpus_per_user=most))
    sentence = "wants 3 GPUs, and one user may have 2 at a time (max_gpus_per_user)"
    assert why == (None if fits else sentence)


@pytest.mark.parametrize(
    ("queued", "new", "most", "why"),
    [
        (0, 5, None, None),
        (7, 3, 10, None),
        (
            8,
            5,
            10,
            "cannot queue these 5: you have 8 queued, and one user may have 10 "
            "(max_queued_per_user). Nothing was queued. Wait until some have started, end some "
            "(gpuq kill), or submit 2 jobs",
        ),
        (
            12,
            1,
            10,
            "cannot queue this job: you have 12 queued, and one user may have 10 "
            "(max_queued_per_user). Nothing was queued. Wait until some have started, end some "
            "(gpuq kill)",
        ),
    ],
)
def test_who_has_too_many_queued_is_told_the_numbers(
    queued: int, new: int, most: int | None, why: str | None
) -> None:
    assert too_many_queued(queued, new, most) == why
