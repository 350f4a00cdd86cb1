"""When those that wait will start, as far as it can be said: the queue is lived through ahead of time.

At each moment at which a job that runs will have ended, those that wait are walked through as in a
turn, and who starts there is taken to run for as long as his limit or the runs before him say. Of
whom nobody knows how long he runs it is assumed that he never ends: who waits for him waits for an
unknown time, and nothing is said of that. Most jobs end before their limit, so what is said is the
latest moment rather than the likeliest.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpuq.core.decisions import Start
from gpuq.core.gpus.fitting import matches
from gpuq.core.gpus.ledger import Ledger
from gpuq.core.model import (
    ActiveJob,
    JobState,
    Lease,
    RecentStart,
    Snapshot,
    WaitingJob,
)
from gpuq.core.scheduling.fair_share import charge
from gpuq.core.scheduling.foresight import End, end_if_started, end_of, is_over
from gpuq.core.scheduling.queues import with_priorities
from gpuq.core.scheduling.reasons import standstill
from gpuq.core.scheduling.reservations import next_change
from gpuq.core.scheduling.walk import Walk
from gpuq.core.units import format_ranges

# So many moments are looked at, and so many jobs in all: what is past that is too far away. A job that
# waits behind another of its class is no more work than a tenth of one.
MOST_MOMENTS = 200
MOST_LOOKS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """When a job is expected to start (CLOCK_MONOTONIC, s), and the jobs on whose ends that rests."""

    at: float
    waits_for: tuple[int, ...] = ()
    is_guess: bool = False  # one of those ends is only what runs of the same command took

    @property
    def words(self) -> str | None:
        """What it rests on; None where nothing has to end first."""
        if not self.waits_for:
            return None
        jobs = format_ranges(list(self.waits_for))
        if not self.is_guess:
            return f"by the time {'limit' if len(self.waits_for) == 1 else 'limits'} of {jobs}"
        return f"a guess, by how long jobs like {jobs} ran before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The starts that can be foreseen, and who runs for an unknown time."""

    starts: Mapping[int, Expected] = field(default_factory=dict)
    endless: Mapping[int, str] = field(default_factory=dict)  # jobs, and why nobody knows their end
    _in_the_way: Mapping[int, frozenset[int]] = field(default_factory=dict)

    def why_unknown(self, job: int) -> str | None:
        """ "181 has no time limit": what keeps anybody from saying when this job will start; None
        where it is to be said, or the job is too far behind for that."""
        holders = sorted(self._in_the_way.get(job, ()))
        if job in self.starts or not holders:
            return None
        first = holders[0]
        if len(holders) == 1 or len({self.endless[one] for one in holders}) > 1:
            return f"{first} {self.endless[first]}"
        return f"{format_ranges(holders)} {self.endless[first].replace('has ', 'have ', 1)}"


def forecast(snapshot: Snapshot) -> Forecast:
    """What is to be expected if all goes on as it stands, nobody comes and no more than is shown."""
    if standstill(snapshot) is not None:
        return Forecast()
    future = _Future(with_priorities(snapshot))
    future.live()
    return Forecast(
        starts=future.expected,
        endless={job.id: _why_endless(job) for job in future.endless()},
        _in_the_way={job.id: future.in_the_way(job) for job in future.world.waiting},
    )


class _Future:
    """A world that goes from one end to the next."""

    def __init__(self, world: Snapshot) -> None:
        self.world = world
        self.expected: dict[int, Expected] = {}
        self._ends: dict[int, End | None] = {job.id: end_of(job, world.now) for job in world.active}
        self._guessed: set[int] = set()  # jobs whose start or end is a guess
        self._left: dict[str, list[int]] = {}  # who had each GPU before
        self._left_now: list[int] = []  # who has ended just now
        shown = Counter(job.class_id for job in world.waiting)
        most = world.jobs_per_class
        # Classes of which there may be more than is seen.
        self._long = {one for one, seen in shown.items() if most is not None and seen >= most}

    def live(self) -> None:
        looks = 0
        for _ in range(MOST_MOMENTS):
            walk = Walk(self.world)
            walk.through_all()
            self._start(walk.starts)
            looks += len(walk.heads) + len(walk.starts) + len(self.world.waiting) // 10
            next_at = self._next_moment(walk)
            if next_at is None or looks > MOST_LOOKS or self._is_at_the_edge():
                return
            self._go_on_to(next_at)

    def _is_at_the_edge(self) -> bool:
        """Do those come next who are not seen?"""
        left = {job.class_id for job in self.world.waiting}
        return not self._long <= left or not left

    def endless(self) -> list[ActiveJob]:
        return [job for job in self.world.active if self._ends[job.id] is None]

    def in_the_way(self, job: WaitingJob) -> frozenset[int]:
        """The endless that hold what it could use."""
        if self.world.gpu_trouble is not None:
            return frozenset()
        if not job.request.gpus:
            return frozenset(one.id for one in self.endless() if one.request.cpu_slots)
        endless = {one.id for one in self.endless()}
        own = {gpu.uuid for gpu in self.world.gpus or () if matches(gpu, job.request)}
        held = (lease.job for lease in self.world.leases if lease.is_active and lease.gpu in own)
        return frozenset(one for one in held if one in endless)

    def _next_moment(self, walk: Walk) -> float | None:
        world = self.world
        moments = [end.at for end in self._ends.values() if end is not None] + walk.wakes()
        change_at = next_change(world.reservations, world.wall)
        if change_at is not None:
            moments.append(world.now + change_at - world.wall)
        return min((at for at in moments if at > world.now), default=None)

    # ── who starts ──

    def _start(self, starts: Sequence[Start]) -> None:
        if not starts:
            return
        waiting = {job.id: job for job in self.world.waiting}
        passed: defaultdict[int, int] = defaultdict(int)
        begun: list[ActiveJob] = []
        leases: list[Lease] = []
        for start in starts:
            job = waiting.pop(start.job)
            for other in start.passed:
                passed[other] += 1
            self._expect(job, start.gpus)
            begun.append(_begun(job, self.world.now))
            leases += [_lease(uuid, job) for uuid in start.gpus]
        for start in starts:
            self._left = {u: who for u, who in self._left.items() if u not in start.gpus}
        left = (
            replace(job, passes=job.passes + passed[job.id]) if job.id in passed else job
            for job in waiting.values()
        )
        self.world = replace(
            self.world,
            waiting=tuple(left),
            active=(*self.world.active, *begun),
            leases=(*self.world.leases, *leases),
            recent_starts=(*self.world.recent_starts, *map(self._noted, begun)),
            usage=_charged(self.world.usage, begun),
        )

    def _expect(self, job: WaitingJob, gpus: tuple[str, ...]) -> None:
        before = {one for uuid in gpus for one in self._left.get(uuid, ())} or set(self._left_now)
        is_guess = not before.isdisjoint(self._guessed)
        end = end_if_started(job, self.world.now)
        if is_guess or (end is not None and end.is_guess):
            self._guessed.add(job.id)
        self._ends[job.id] = end
        waits_for = tuple(sorted(before))
        self.expected[job.id] = Expected(at=self.world.now, waits_for=waits_for, is_guess=is_guess)

    def _noted(self, job: ActiveJob) -> RecentStart:
        return RecentStart(at=self.world.now, queue=job.queue)

    # ── who ends ──

    def _go_on_to(self, at: float) -> None:
        world = self.world
        ended = {job for job, end in self._ends.items() if end is not None and end.at <= at}
        self._guessed |= {job for job in ended if (end := self._ends[job]) and end.is_guess}
        for lease in world.leases:
            if lease.job in ended:
                self._left.setdefault(lease.gpu, []).append(lease.job)
        self._left_now = sorted(ended)
        self._ends = {job: end for job, end in self._ends.items() if job not in ended}
        later = Ledger(world.gpus or (), world.leases, world.policy)
        gpus = later.without(lambda lease: is_over(lease, ended), calm=True).gpus
        self.world = replace(
            world,
            now=at,
            wall=world.wall + at - world.now,
            boottime=world.boottime + at - world.now,
            gpus=None if world.gpus is None else gpus,
            leases=tuple(lease for lease in world.leases if not is_over(lease, ended)),
            active=tuple(job for job in world.active if job.id not in ended),
        )


def _begun(job: WaitingJob, now: float) -> ActiveJob:
    return ActiveJob(
        id=job.id,
        attempt=job.attempt,
        state=JobState.RUNNING,
        request=job.request,
        uid=job.uid,
        user=job.user,
        queue=job.queue,
        group=job.group or 0,
        tags=job.tags,
        priority=job.priority,
        grace_s=job.grace_s,
        time_limit_s=job.time_limit_s,
        running_since=now,
    )


def _lease(uuid: str, job: WaitingJob) -> Lease:
    """Its slot tells nothing: nobody stores it."""
    request = job.request
    return Lease(
        gpu=uuid,
        slot=0,
        job=job.id,
        attempt=job.attempt,
        exclusive=request.exclusive,
        memory_bytes=request.gpu_mem_bytes,
    )


def _charged(usage: Mapping[int, float], begun: Iterable[ActiveJob]) -> Mapping[int, float]:
    charged = defaultdict(float, usage)
    for job in begun:
        charged[job.uid] += charge(job.request)
    return dict(charged)


def _why_endless(job: ActiveJob) -> str:
    if job.paused_since is not None or job.pause_wished:
        return "is paused"
    if job.is_unkillable:
        return "survives KILL"
    if job.request.lasts_s is not None:
        return "has run for longer than any like it before"
    return "has no time limit"
