"""Whole days of a queue in milliseconds: jobs come, run and end on simulated GPUs by a simulated clock,
and `plan` decides at each moment at which something happens.

    lived = live(World(gpus=2, tasks=(Task(1, runs_s=60.0), Task(2, gpus=2, limit_s=90.0))))
    lived.started_at[2]

What may be on a GPU together, and when a job could start at the latest, is reckoned here by other means
than the scheduler's, so that it is held against another opinion.
"""

import signal as signals
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import inf

from gpuq.core.decisions import Plan, Signal, Start
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import ActiveJob, JobState, Lease, Request, Snapshot, WaitingJob
from gpuq.core.policy import Policy
from gpuq.core.scheduling.precedence import in_order
from gpuq.core.scheduling.scheduler import plan
from tests.builders import GIB, carried_out, foreign, gpu, ours, uuid, window

CARD_GIB = 24
HEADROOM_GIB = 0.5
MOST_ON_ONE = 3
PER_CLASS = 4
GRACE_S = 10.0
# So many turns at one moment, and the scheduler starts without end.
MOST_TURNS = 100


@dataclass(frozen=True, slots=True)
class Task:
    """A job as it truly is. It runs for `runs_s` unless its limit ends it: one that is stubborn only
    dies of the KILL after its grace. `mem_gib`: it shares its GPUs."""

    id: int
    gpus: int = 1
    runs_s: float = 60.0
    comes_at: float = 0.0
    limit_s: float | None = None
    lasts_s: float | None = None  # as runs of the same command took
    mem_gib: int | None = None
    cpus: int = 1
    priority: int = 0
    rank: int = 0
    uid: int = 0
    is_stubborn: bool = False

    @property
    def request(self) -> Request:
        return Request(
            gpus=self.gpus,
            gpu_mem_bytes=None if self.mem_gib is None else self.mem_gib * GIB,
            exclusive=self.mem_gib is None,
            cpus=self.cpus,
            lasts_s=self.lasts_s if self.limit_s is None else self.limit_s,
        )

    @property
    def holds_s(self) -> float:
        """How long it truly holds what it has."""
        if self.limit_s is None or self.runs_s <= self.limit_s:
            return self.runs_s
        return self.limit_s + (GRACE_S if self.is_stubborn else 0.0)

    @property
    def bound_s(self) -> float:
        """The longest that it can hold it by its limit."""
        return inf if self.limit_s is None else self.limit_s + GRACE_S


@dataclass(frozen=True, slots=True)
class Stranger:
    """Somebody outside gpuq who has a GPU for a while."""

    gpu: int
    comes_at: float
    goes_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    gpus: int
    tasks: tuple[Task, ...]
    strangers: tuple[Stranger, ...] = ()
    cpu_slots: int = 8
    max_bypass: int = 3


@dataclass(slots=True)
class Lived:
    """What became of everybody."""

    world: World
    started_at: dict[int, float] = field(default_factory=dict)
    ended_at: dict[int, float] = field(default_factory=dict)
    passes: Counter[int] = field(default_factory=Counter)
    first_since: dict[int, float] = field(default_factory=dict)  # first in line, and blocked
    promised: dict[int, float] = field(default_factory=dict)  # to the first in line, at that moment

    @property
    def makespan_s(self) -> float:
        return max(self.ended_at.values(), default=0.0)

    def utilisation(self) -> float:
        """The share of all GPU time that was used, until the last one ended."""
        used = sum(task.gpus * task.holds_s for task in self.world.tasks)
        return used / (self.world.gpus * self.makespan_s) if self.makespan_s else 1.0

    def mean_wait_s(self) -> float:
        waits = [self.started_at[task.id] - task.comes_at for task in self.world.tasks]
        return sum(waits) / len(waits)

    def head_delay_s(self) -> float:
        """The most by which somebody started later than was promised when he was first in line."""
        late = (self.started_at[id] - by for id, by in self.promised.items() if by < inf)
        return max((max(one, 0.0) for one in late), default=0.0)


Decide = Callable[[Snapshot], Plan]


def live(world: World, decide: Decide = plan) -> Lived:
    """Until all have ended. AssertionError where somebody never starts, where more is given away than
    there is, or where the order is not kept."""
    course = _Course(world, decide)
    course.live()
    return course.lived


def strictly_in_order(snapshot: Snapshot) -> Plan:
    """Nobody passes anybody: what a queue does that only looks at its first."""
    first = in_order(snapshot)[:1]
    return plan(replace(snapshot, waiting=tuple(first), jobs_per_class=None))


@dataclass(slots=True)
class _Course:
    world: World
    decide: Decide
    now: float = 0.0
    lived: Lived = field(init=False)
    tasks: dict[int, Task] = field(init=False)
    waiting: dict[int, WaitingJob] = field(default_factory=dict)
    active: dict[int, ActiveJob] = field(default_factory=dict)
    leases: list[Lease] = field(default_factory=list)
    to_come: list[Task] = field(init=False)
    classes: dict[tuple[int, Request], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lived = Lived(self.world)
        self.tasks = {task.id: task for task in self.world.tasks}
        self.to_come = sorted(self.world.tasks, key=lambda task: (task.comes_at, task.id))

    def live(self) -> None:
        while True:
            self._come()
            self._end()
            wake_at = self._decide()
            moments = [*self._news(), *([] if wake_at is None else [wake_at])]
            later = [at for at in moments if at > self.now]
            if not later:
                break
            self.now = min(later)
        stuck = {id: plan(self._look()).reasons.get(id) for id in self.waiting}
        assert not stuck, f"they never start: {stuck} in {self.world}"

    # ── what happens by itself ──

    def _news(self) -> Iterable[float]:
        yield from (task.comes_at for task in self.to_come[:1])
        for job in self.active.values():
            assert job.running_since is not None
            yield job.running_since + self.tasks[job.id].runs_s
        for one in self.world.strangers:
            yield from (one.comes_at, one.goes_at)

    def _come(self) -> None:
        while self.to_come and self.to_come[0].comes_at <= self.now:
            task = self.to_come.pop(0)
            key = task.uid, task.request
            self.waiting[task.id] = WaitingJob(
                id=task.id,
                class_id=self.classes.setdefault(key, len(self.classes) + 1),
                request=task.request,
                uid=task.uid,
                priority=task.priority,
                rank=task.rank,
                place=len(self.tasks) - len(self.to_come),
                time_limit_s=task.limit_s,
                grace_s=GRACE_S,
            )

    def _end(self) -> None:
        for job in list(self.active.values()):
            assert job.running_since is not None
            if job.running_since + self.tasks[job.id].runs_s <= self.now:
                self._is_gone(job.id)

    def _is_gone(self, id: int) -> None:
        del self.active[id]
        self.leases = [lease for lease in self.leases if lease.job != id]
        self.lived.ended_at[id] = self.now

    # ── what is decided ──

    def _look(self) -> Snapshot:
        return Snapshot(
            now=self.now,
            gpus=tuple(self._card(index) for index in range(self.world.gpus)),
            leases=tuple(self.leases),
            waiting=tuple(window(self.waiting.values(), PER_CLASS)),
            active=tuple(self.active.values()),
            policy=Policy(
                cpu_slots=self.world.cpu_slots,
                max_bypass=self.world.max_bypass,
                max_jobs_per_gpu=MOST_ON_ONE,
            ),
            jobs_per_class=PER_CLASS,
        )

    def _card(self, index: int) -> Gpu:
        there = [lease for lease in self.leases if lease.gpu == uuid(index)]
        own = tuple((one.job, one.memory_bytes or GIB) for one in there)
        return _card(index, own, self._has_stranger(index))

    def _has_stranger(self, index: int) -> bool:
        here = (one for one in self.world.strangers if one.gpu == index)
        return any(one.comes_at <= self.now < one.goes_at for one in here)

    def _decide(self) -> float | None:
        for _ in range(MOST_TURNS):
            seen = self._look()
            decided = self.decide(seen)
            acted = [self._do(one) for one in decided.decisions]
            if not any(acted):
                self._look_at_the_first()
                return decided.wake_at
            self._check_order(decided, [job.id for job in in_order(seen)])
        raise AssertionError("it decides without end")

    def _do(self, decision: object) -> bool:
        match decision:
            case Start():
                self._start(decision)
            case Signal():
                self._signal(decision)
            case _:
                raise AssertionError(f"{decision} has no place here")
        return True

    def _start(self, start: Start) -> None:
        job = self.waiting.pop(start.job)
        self.lived.started_at[job.id] = self.now
        for other in start.passed:
            self.lived.passes[other] += 1
            if other in self.waiting:
                earlier = self.waiting[other]
                self.waiting[other] = replace(earlier, passes=earlier.passes + 1)
        self.active[job.id] = ActiveJob(
            id=job.id,
            attempt=1,
            state=JobState.RUNNING,
            request=job.request,
            uid=job.uid,
            priority=job.priority,
            grace_s=GRACE_S,
            time_limit_s=job.time_limit_s,
            running_since=self.now,
        )
        for name in start.gpus:
            there = [lease for lease in self.leases if lease.gpu == name]
            self.leases.append(
                Lease(
                    gpu=name,
                    slot=len(there),
                    job=job.id,
                    attempt=1,
                    exclusive=job.request.exclusive,
                    memory_bytes=job.request.gpu_mem_bytes,
                )
            )
        self._check_leases(start)

    def _signal(self, sent: Signal) -> None:
        """A job leaves at its TERM unless it is stubborn, and at the KILL in any case."""
        self.active[sent.job] = carried_out(self.active[sent.job], sent, self.now)
        if sent.signal == signals.SIGKILL or not self.tasks[sent.job].is_stubborn:
            self._is_gone(sent.job)

    # ── the promises ──

    def _check_leases(self, start: Start) -> None:
        assert len(set(start.gpus)) == len(start.gpus) == self.tasks[start.job].gpus
        for name in start.gpus:
            index = int(name.removeprefix("GPU-"))
            sharing = [self.tasks[one.job].mem_gib for one in self.leases if one.gpu == name]
            assert _may_share(sharing, self._has_stranger(index)), f"too much on {name}: {sharing}"
        cpus = sum(self.tasks[id].cpus for id in self.active if not self.tasks[id].gpus)
        assert cpus <= self.world.cpu_slots

    def _check_order(self, decided: Plan, line: Sequence[int]) -> None:
        """Whoever is first of those that wait now did not find room, nor would he without those that
        came after him and have just started."""
        first = next((id for id in line if id in self.waiting), None)
        if first is None:
            return
        starts = [one.job for one in decided.decisions if isinstance(one, Start)]
        later = {id for id in starts if line.index(id) > line.index(first)}
        has_room = later and self._fits(self.tasks[first], gone=later)
        assert not has_room, f"{later} started before {self.tasks[first]}"

    def _first(self) -> Task | None:
        ordered = in_order(replace(self._look(), waiting=tuple(self.waiting.values())))
        return self.tasks[ordered[0].id] if ordered else None

    def _look_at_the_first(self) -> None:
        """When he could start at the latest, from the moment at which he became the first."""
        first = self._first()
        if first is None or first.id in self.lived.promised:
            return
        self.lived.first_since[first.id] = self.now
        self.lived.promised[first.id] = self._latest_start(first)

    def _latest_start(self, first: Task) -> float:
        ends = {id: self._latest_end(id) for id in self.active}
        for at in sorted({self.now, *ends.values()} - {inf}):
            if self._fits(first, gone={id for id, end in ends.items() if end <= at}):
                return at
        return inf

    def _latest_end(self, id: int) -> float:
        job = self.active[id]
        assert job.running_since is not None
        return job.running_since + self.tasks[id].bound_s

    def _fits(self, task: Task, gone: Iterable[int]) -> bool:
        left = set(self.active) - set(gone)
        if not task.gpus:
            cpus = sum(self.tasks[id].cpus for id in left if not self.tasks[id].gpus)
            return cpus + task.cpus <= self.world.cpu_slots
        fitting = 0
        for index in range(self.world.gpus):
            there = [one.job for one in self.leases if one.gpu == uuid(index) and one.job in left]
            sharing = [*(self.tasks[job].mem_gib for job in there), task.mem_gib]
            fitting += _may_share(sharing, self._has_stranger(index))
        return fitting >= task.gpus


@cache
def _card(index: int, own: tuple[tuple[int, int], ...], has_stranger: bool) -> Gpu:
    processes = [ours(job, f"{memory // GIB}G") for job, memory in own]
    strangers = [foreign("20G")] if has_stranger else []
    return gpu(index, f"{CARD_GIB}G", simulated=True, processes=[*processes, *strangers])


def _may_share(sharing: Sequence[int | None], has_stranger: bool) -> bool:
    """May jobs of these sizes (GiB; None: alone) be on one GPU together?"""
    if None in sharing:
        return len(sharing) == 1 and not has_stranger
    others = 20 if has_stranger else 0
    total = sum(size or 0 for size in sharing) + others + HEADROOM_GIB
    return len(sharing) <= MOST_ON_ONE and total <= CARD_GIB
