"""Who gives way to whom, and that it comes to an end."""

import signal
from dataclasses import dataclass, field, replace
from itertools import combinations
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.decisions import Release, Signal, Start
from gpuq.core.model import (
    ActiveJob,
    EndCause,
    JobState,
    Lease,
    LeaseState,
    Snapshot,
    WaitingJob,
)
from gpuq.core.policy import Policy
from gpuq.core.scheduling.scheduler import plan
from tests.builders import (
    STEADY,
    active,
    carried_out,
    foreign,
    gpu,
    job,
    lease,
    ours,
    request,
    started,
    stop,
    world,
)

NOW = 1000.0
USR1, TERM, KILL = signal.SIGUSR1, signal.SIGTERM, signal.SIGKILL


def modest(id: int, gpus: int = 1, *, mem: str | None = None, **more: Any) -> ActiveJob:
    """It runs since long ago, and gives way."""
    asked = request(gpus, mem)
    return replace(active(id, gpus), request=asked, **({"preemptible": True, "attempt": 1} | more))


def told(snapshot: Snapshot) -> dict[int, int]:
    """Who is told to give way, and for whom."""
    return {one.job: one.gives_way_to or 0 for one in steps(snapshot)}


def steps(snapshot: Snapshot) -> list[Signal]:
    decided = plan(snapshot).decisions
    return [one for one in decided if isinstance(one, Signal) and one.gives_way_to is not None]


# ── who, and how ──


def test_a_job_gives_way_to_one_of_a_higher_priority() -> None:
    snapshot = world(1, [job(id=9, priority=10)], [lease(0, 3)], [modest(3)])
    (step,) = steps(snapshot)
    assert (step.job, step.signal, step.ends) == (3, TERM, EndCause.PREEMPTED)
    assert (step.only_main, step.gives_way_to, step.for_whom) == (True, 9, "9 (priority 10)")
    assert plan(snapshot).reasons[9].endswith("; job 3 gives way to it")


def test_it_is_told_so_by_the_signal_that_it_knows_of() -> None:
    own = modest(3, preempt_signal=USR1)
    assert steps(world(1, [job(id=9, priority=1)], [lease(0, 3)], [own]))[0].signal == USR1
    usual = world(1, [job(id=9, priority=1)], [lease(0, 3)], [modest(3)], preempt_signal=USR1)
    assert steps(usual)[0].signal == USR1


def test_who_has_no_grace_is_killed() -> None:
    (step,) = steps(world(1, [job(id=9, priority=1)], [lease(0, 3)], [modest(3, grace_s=0.0)]))
    assert (step.signal, step.only_main) == (KILL, False)


@pytest.mark.parametrize(
    "victim",
    [
        modest(3, priority=10),
        modest(3, priority=11),
        modest(3, preemptible=False),
        modest(3, state=JobState.STARTING, running_since=None),
        modest(3, stop=stop()),
        modest(3, main_ended_at=NOW - 1),
        modest(3, is_unkillable=True),
        modest(3, time_limit_s=10.0),
        modest(3, ending=EndCause.TIME_LIMIT, term_sent_at=NOW - 1),
    ],
    ids=[
        "as_high",
        "higher",
        "not_preemptible",
        "starting",
        "unwanted",
        "ended",
        "unkillable",
        "late",
        "ending",
    ],
)
def test_nobody_else_gives_way(victim: ActiveJob) -> None:
    assert not told(world(1, [job(id=9, priority=10)], [lease(0, 3)], [victim]))


def test_nobody_gives_way_to_who_can_start_without_that() -> None:
    snapshot = world(2, [job(id=9, priority=10)], [lease(0, 3)], [modest(3)])
    assert started(plan(snapshot)) == {9: (1,)}
    assert not told(snapshot)


def test_nobody_gives_way_where_it_would_not_be_enough() -> None:
    keeps = replace(modest(4), preemptible=False)
    leases = [lease(0, 3), lease(1, 4)]
    assert not told(world(2, [job(2, id=9, priority=10)], leases, [modest(3), keeps]))


def test_nobody_gives_way_to_who_waits_for_a_stranger() -> None:
    gpus = [gpu(0), gpu(1, processes=[foreign("1G")])]
    assert not told(world(gpus, [job(2, id=9, priority=10)], [lease(0, 3)], [modest(3)]))


def test_nobody_gives_way_to_who_waits_for_a_limit_of_his_user() -> None:
    own = active(2, uid=7)
    waits = job(id=9, priority=10, uid=7)
    leases = [lease(0, 3), lease(1, 2)]
    assert not told(world(2, [waits], leases, [modest(3), own], max_running_per_user=1))


def test_nobody_gives_way_to_who_is_behind_one_of_his_class() -> None:
    waits = [job(id=8, priority=10), job(id=9, priority=10)]
    leases = [lease(0, 3), lease(1, 4)]
    assert told(world(2, waits, leases, [modest(3), modest(4)])) == {4: 8}


def test_nobody_gives_way_while_nothing_is_started() -> None:
    args = (1, [job(id=9, priority=10)], [lease(0, 3)], [modest(3)])
    assert not told(world(*args, drain="new driver"))
    assert not told(world(*args, trouble="the driver does not answer"))


def test_who_is_about_to_leave_anyway_is_waited_for() -> None:
    """Its time is up: nobody else has to go for the sake of the same GPU."""
    leaving = modest(4, preemptible=False, stop=stop())
    leases = [lease(0, 3), lease(1, 4)]
    assert not told(world(2, [job(id=9, priority=10)], leases, [modest(3), leaving]))


def test_who_has_just_started_has_his_time_first() -> None:
    late = modest(3, running_since=NOW - 20)
    snapshot = world(1, [job(id=9, priority=10)], [lease(0, 3)], [late], preempt_after_s=60.0)
    assert not told(snapshot)
    assert plan(snapshot).wake_at == NOW + 40
    assert "gives way to it once it has run for 1:00" in plan(snapshot).reasons[9]
    assert told(replace(snapshot, now=NOW + 40)) == {3: 9}


def test_what_is_free_meanwhile_is_kept_for_the_one_who_waits_for_him() -> None:
    """Or each who came after would have to be told to go as well, a minute later."""
    late = modest(3, running_since=NOW - 20)
    waits = [job(2, id=9, priority=10), job(id=10)]
    snapshot = world(2, waits, [lease(0, 3)], [late], preempt_after_s=60.0)
    assert not started(plan(snapshot))
    assert plan(snapshot).reasons[10] == "behind 9, to which others give way"


# ── whom ──


def test_the_lowest_priority_goes_first_and_then_the_youngest() -> None:
    running = [
        modest(3, priority=1, running_since=100.0),
        modest(4, priority=0, running_since=200.0),
        modest(5, priority=0, running_since=300.0),
        modest(6, priority=0, running_since=250.0),
    ]
    leases = [lease(index, one.id) for index, one in enumerate(running)]
    for wanted, victims in ((1, {5}), (2, {5, 6}), (3, {4, 5, 6}), (4, {3, 4, 5, 6})):
        waits = job(wanted, id=9, priority=10)
        assert told(world(4, [waits], leases, running)).keys() == victims


def test_nobody_goes_who_is_not_needed() -> None:
    """The youngest are first to go, unless what they have is of no use."""
    gpus = [gpu(0, "80G"), gpu(1, "24G"), gpu(2, "80G")]
    running = [
        modest(3, running_since=1.0),
        modest(4, running_since=3.0),
        modest(5, running_since=2.0),
    ]
    leases = [lease(index, one.id) for index, one in enumerate(running)]
    whole = job(mem="60G", exclusive=True, id=9, priority=1)
    assert told(world(gpus, [whole], leases, running)).keys() == {5}


def test_of_those_who_share_a_gpu_as_many_go_as_it_takes() -> None:
    processes = [ours(3, "8G"), ours(4, "8G"), ours(5, "4G")]
    running = [modest(n, mem=f"{m}G", running_since=n) for n, m in ((3, 8), (4, 8), (5, 4))]
    leases = [lease(0, 3, "8G"), lease(0, 4, "8G", slot=1), lease(0, 5, "4G", slot=2)]
    shared = [gpu(0, "24G", used="0K", processes=processes)]
    for wanted, victims in (("7G", {5}), ("9G", {4}), ("12G", {4, 5}), ("20G", {3, 4, 5})):
        waits = job(mem=wanted, id=9, priority=1)
        assert told(world(shared, [waits], leases, running)).keys() == victims, wanted


def test_cpu_jobs_give_way_to_cpu_jobs() -> None:
    cpu = [replace(modest(n), request=request(0, cpus=2), running_since=n) for n in (3, 4, 5)]
    waits = job(0, cpus=4, id=9, priority=1)
    assert told(world(1, [waits], active=cpu, cpu_slots=7)).keys() == {4, 5}
    waits = replace(waits, request=request(1))
    assert not told(world([gpu(0, processes=[foreign()])], [waits], active=cpu, cpu_slots=6))


def test_two_who_wait_get_each_his_own() -> None:
    waits = [job(id=9, priority=10), job(id=10, mem="20G", exclusive=True, priority=10)]
    leases = [lease(0, 3), lease(1, 4)]
    assert sorted(told(world(2, waits, leases, [modest(3), modest(4)])).values()) == [9, 10]


def test_what_one_has_to_spare_serves_the_next() -> None:
    waits = [job(id=9, priority=10), job(id=10, mem="20G", exclusive=True, priority=10)]
    leases = [lease(0, 3), lease(1, 3), lease(2, 4)]
    running = [modest(3, 2, running_since=500.0), modest(4, running_since=400.0)]
    assert told(world(3, waits, leases, running)) == {3: 9}


# ── once it has begun ──


def giving_way(id: int, to: int, **more: Any) -> ActiveJob:
    told_so: dict[str, Any] = {"ending": EndCause.PREEMPTED, "term_sent_at": NOW - 1}
    return modest(id, gives_way_to=to, **(told_so | more))


def given_up(index: int, id: int, to: int, **more: Any) -> Lease:
    return replace(lease(index, id), given_up_for=to, **more)


def test_nobody_else_goes_while_somebody_does() -> None:
    """Though what he leaves is not enough any more: somebody came between."""
    leases = [given_up(0, 3, 9), lease(1, 4)]
    snapshot = world(2, [job(2, id=9, priority=10)], leases, [giving_way(3, 9), modest(4)])
    assert not told(snapshot)
    assert plan(snapshot).reasons[9].endswith("job 3 gives way to it")


def test_what_becomes_free_is_kept_while_the_rest_is_still_to_come() -> None:
    """Two gave way, and one of them is quicker: nobody gets between."""
    waits = [job(2, id=9, priority=10), job(id=10)]
    snapshot = world(2, waits, [given_up(1, 4, 9)], [giving_way(4, 9)])
    assert not started(plan(snapshot))
    assert plan(snapshot).reasons[10] == "behind 9, to which others give way"


def test_it_is_kept_while_its_memory_is_not_back() -> None:
    cooling = given_up(1, 4, 9, state=LeaseState.COOLING, cooling_since=NOW - 1)
    waits = [job(2, id=9, priority=10), job(id=10)]
    assert not started(plan(world(2, waits, [cooling])))


def test_who_does_not_die_is_not_waited_for() -> None:
    stuck = giving_way(3, 9, is_unkillable=True, kill_sent_at=NOW - 100, last_kill_at=NOW)
    leases = [given_up(0, 3, 9), lease(1, 4)]
    assert told(world(2, [job(id=9, priority=10)], leases, [stuck, modest(4)])) == {4: 9}


@pytest.mark.parametrize(
    ("wish", "step"),
    [({"stop": stop()}, EndCause.ASKED), ({"time_limit_s": 10.0}, EndCause.TIME_LIMIT)],
    ids=["a kill", "its time limit"],
)
def test_who_is_to_end_for_good_does_so_though_he_was_giving_way(
    wish: dict[str, Any], step: EndCause
) -> None:
    (one,) = plan(world(1, active=[giving_way(3, 9, **wish)])).decisions
    assert isinstance(one, Signal)
    assert (one.signal, one.ends, one.only_main) == (TERM, step, False)


def test_a_time_limit_is_noticed_while_it_gives_way() -> None:
    late = giving_way(3, 9, time_limit_s=NOW + 2)
    assert plan(world(1, active=[late])).wake_at == NOW + 2


def test_after_its_grace_all_of_it_is_killed() -> None:
    snapshot = world(1, active=[giving_way(3, 9, grace_s=5.0)])
    assert plan(snapshot).wake_at == NOW + 4
    (one,) = plan(replace(snapshot, now=NOW + 4)).decisions
    assert isinstance(one, Signal)
    assert (one.signal, one.ends, one.only_main) == (KILL, EndCause.PREEMPTED, False)


# ── any world ──


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Snapshot, int]:
    """Jobs on whole GPUs, and one that waits for some."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    spare = draw(st.integers(0, 2))
    running, leases, index = [], [], 0
    for id, size in enumerate(sizes, start=1):
        running.append(
            modest(
                id,
                size,
                priority=draw(st.integers(0, 3)),
                preemptible=draw(st.booleans()) or draw(st.booleans()),
                running_since=float(draw(st.integers(0, 5))),
            )
        )
        leases += [lease(index + n, id) for n in range(size)]
        index += size
    wanted = draw(st.integers(1, index + spare))
    waits = job(wanted, id=99, priority=draw(st.integers(0, 3)))
    return world(index + spare, [waits], leases, running), spare


@STEADY
@given(worlds())
def test_the_victims_are_as_few_as_can_be_and_the_right_ones(drawn: tuple[Snapshot, int]) -> None:
    snapshot, spare = drawn
    (waits,) = snapshot.waiting
    may = [one for one in snapshot.active if one.preemptible and one.priority < waits.priority]
    held = {one.id: one.request.gpus for one in snapshot.active}

    def is_enough(ids: set[int]) -> bool:
        return spare + sum(held[id] for id in ids) >= waits.request.gpus

    victims = set(told(snapshot))
    assert victims <= {one.id for one in may}
    if is_enough(set()) or not is_enough({one.id for one in may}):
        assert not victims
        return
    assert is_enough(victims)
    assert not any(is_enough(victims - {one}) for one in victims), "somebody goes for nothing"
    worst = max(one.priority for one in may if one.id in victims)
    below = {one.id for one in may if one.priority < worst}
    assert not is_enough(below), "those of lower priority would have been enough"
    if len({one.request.gpus for one in may}) == 1:
        best = min(
            (
                set(some)
                for n in range(len(may) + 1)
                for some in combinations(sorted(held), n)
                if set(some) <= {one.id for one in may} and is_enough(set(some))
            ),
            key=len,
        )
        assert len(victims) == len(best)


# ── lived through ──


@dataclass
class Yard:
    """A machine without readings to speak of, on which jobs of random sizes come, run, and go."""

    random: Random
    gpus: int
    policy: Policy
    now: float = 0.0
    waiting: dict[int, WaitingJob] = field(default_factory=dict)
    active: dict[int, ActiveJob] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    leases: list[Lease] = field(default_factory=list)
    ends_at: dict[int, float] = field(default_factory=dict)
    terms: dict[int, dict[str, Any]] = field(default_factory=dict)
    owed: dict[str, int] = field(default_factory=dict)  # GPUs, and to whom they were given up
    preempted: dict[int, int] = field(default_factory=dict)  # by beneficiary
    submitted_at: dict[int, float] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)

    def submit(self) -> None:
        id, luck = len(self.terms) + 1, self.random
        self.terms[id] = {
            "gpus": luck.randint(1, min(3, self.gpus)),
            "priority": luck.randint(0, 4),
            "preemptible": luck.random() < 0.7,
            "length": luck.choice([5.0, 40.0, 100.0, 300.0]),
            "grace": luck.choice([0.0, 3.0, 10.0]),
            "obeys": luck.random() < 0.8,
        }
        self.submitted_at[id] = self.now
        self.put_in_line(id)

    def put_in_line(self, id: int) -> None:
        own = self.terms[id]
        plain = job(own["gpus"], id=id, priority=own["priority"])
        attempt = self.attempts.get(id, 0) + 1
        self.waiting[id] = replace(plain, class_id=own["gpus"], place=id, attempt=attempt)

    def look(self) -> Snapshot:
        return Snapshot(
            now=self.now,
            gpus=tuple(gpu(index) for index in range(self.gpus)),
            leases=tuple(self.leases),
            waiting=tuple(self.waiting.values()),
            active=tuple(self.active.values()),
            policy=self.policy,
            gpus_read_at=self.now,
        )

    def turn(self) -> bool:
        decided = plan(self.look())
        for one in decided.decisions:
            match one:
                case Start():
                    self.start(one)
                case Signal():
                    self.signal(one)
                case Release():
                    self.leases = [h for h in self.leases if (h.gpu, h.slot) != (one.gpu, one.slot)]
                case _:
                    raise AssertionError(f"what for? {one}")
        self.wake_at = decided.wake_at
        return bool(decided.decisions)

    def start(self, one: Start) -> None:
        waits, own = self.waiting.pop(one.job), self.terms[one.job]
        for name in one.gpus:
            if (to := self.owed.pop(name, None)) not in (None, one.job) and to in self.waiting:
                other = self.waiting[to]
                before = (waits.priority, -waits.id) > (other.priority, -other.id)
                assert before, f"{one.job} got what was given up for {to}"
        self.owed = {name: to for name, to in self.owed.items() if to != one.job}
        self.attempts[one.job] = one.attempt
        self.active[one.job] = ActiveJob(
            id=one.job,
            attempt=one.attempt,
            state=JobState.RUNNING,
            request=waits.request,
            priority=own["priority"],
            preemptible=own["preemptible"],
            grace_s=own["grace"],
            running_since=self.now,
        )
        self.leases += [
            replace(lease(int(name[4:]), one.job), attempt=one.attempt) for name in one.gpus
        ]
        self.ends_at[one.job] = self.now + own["length"]

    def signal(self, one: Signal) -> None:
        runs = self.active[one.job]
        if one.gives_way_to is not None:
            self.check_preemption(one, runs)
            runs = replace(runs, gives_way_to=one.gives_way_to)
            for place, held in enumerate(self.leases):
                if (held.job, held.attempt) == (one.job, one.attempt):
                    self.leases[place] = replace(held, given_up_for=one.gives_way_to)
                    self.owed[held.gpu] = one.gives_way_to
        self.active[one.job] = carried_out(runs, one, self.now)
        if one.signal == KILL:
            self.ends_at[one.job] = self.now
        elif self.terms[one.job]["obeys"]:
            leaves_at = self.now + self.random.uniform(0, 2 * self.terms[one.job]["grace"])
            self.ends_at[one.job] = min(self.ends_at[one.job], leaves_at)

    def check_preemption(self, one: Signal, victim: ActiveJob) -> None:
        to = self.waiting[one.gives_way_to or 0]
        assert victim.preemptible
        assert victim.priority < to.priority
        assert victim.ending is None
        assert self.now >= (victim.running_since or 0.0) + self.policy.preempt_after_s
        others = [o for o in self.active.values() if o.gives_way_to == to.id]
        at_once = {
            o.id for o in others if o.term_sent_at != self.now and o.kill_sent_at != self.now
        }
        assert not at_once, f"{at_once} give way to {to.id} already"
        self.preempted[to.id] = self.preempted.get(to.id, 0) + 1

    def end(self, id: int) -> None:
        gone = self.active.pop(id)
        del self.ends_at[id]
        for place, held in enumerate(self.leases):
            if (held.job, held.attempt) == (id, gone.attempt):
                state = LeaseState.COOLING
                self.leases[place] = replace(held, state=state, cooling_since=self.now - 0.1)
        if gone.ending is EndCause.PREEMPTED:
            self.put_in_line(id)
        else:
            self.done.add(id)

    def live(self, arrivals: list[float]) -> None:
        for _ in range(5000):
            for _ in range(100):
                if not self.turn():
                    break
            else:
                raise AssertionError("it never comes to rest")
            moments = [*self.ends_at.values(), *arrivals[:1]]
            moments += [] if self.wake_at is None else [self.wake_at]
            if not moments:
                return
            self.now = max(min(moments), self.now)
            for id in [id for id, at in self.ends_at.items() if at <= self.now]:
                self.end(id)
            while arrivals and arrivals[0] <= self.now:
                arrivals.pop(0)
                self.submit()
        raise AssertionError("it never ends")


@pytest.mark.parametrize("seed", range(60))
def test_preemption_comes_to_an_end_and_each_makes_the_one_start_it_was_for(seed: int) -> None:
    random = Random(seed)
    after_s = random.choice([0.0, 10.0, 60.0])
    yard = Yard(random, random.randint(1, 5), Policy(preempt_after_s=after_s, max_bypass=3))
    arrivals = sorted(random.uniform(0, 400) for _ in range(random.randint(3, 25)))
    yard.live(arrivals)
    assert yard.done == set(yard.terms), "somebody never got to run to his end"
    for id, times in yard.preempted.items():
        own = yard.terms[id]
        higher = sum(other["priority"] > own["priority"] for other in yard.terms.values())
        starts = yard.attempts[id]
        assert times <= (starts + higher) * own["gpus"], f"{times} gave way to {id}"


def test_random_worlds_do_preempt() -> None:
    """The ones above are worth something."""
    total = 0
    for seed in range(60):
        random = Random(seed)
        after_s = random.choice([0.0, 10.0, 60.0])
        yard = Yard(random, random.randint(1, 5), Policy(preempt_after_s=after_s, max_bypass=3))
        yard.live(sorted(random.uniform(0, 400) for _ in range(random.randint(3, 25))))
        total += sum(yard.preempted.values())
    assert total > 100
