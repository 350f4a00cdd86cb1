"""What will be free when: who runs ends by a time limit, which gpuq sees to and which is a promise, or
probably by the time that runs of the same command took, which is a guess; or nobody knows.

Moments are on CLOCK_MONOTONIC (s). A limit counts with the grace that follows it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import inf

from gpuq.core.gpus.ledger import Ledger
from gpuq.core.model import ActiveJob, Lease, LeaseState, Request, Snapshot, WaitingJob

# From the decision to start a job until its time counts, and from its KILL until it is gone.
BESIDES_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """When a job will have ended at the latest."""

    at: float
    is_guess: bool = False


def end_of(job: ActiveJob, now: float) -> End | None:
    """None where nobody knows. A job that stands still may do so for any time, and one that has
    outlived what was guessed for it is not guessed at again."""
    if job.is_unkillable:
        return None
    told_at = _told_at(job, now)
    if told_at is not None:
        grace_s = job.grace_s if job.stop is None else job.stop.grace_s
        return End(at=max(told_at + grace_s, now))
    if job.paused_since is not None or job.pause_wished:
        return None
    began = now if job.running_since is None else job.running_since + job.paused_s
    if job.time_limit_s is not None:
        return End(at=max(began + job.time_limit_s + job.grace_s, now))
    if job.request.lasts_s is None or began + job.request.lasts_s <= now:
        return None
    return End(at=began + job.request.lasts_s, is_guess=True)


def _told_at(job: ActiveJob, now: float) -> float | None:
    """When it was told to end, or will be at once; from then on its grace runs."""
    if job.kill_sent_at is not None:
        return -inf
    is_to_end = job.stop is not None or job.requeue_wished
    moments = (job.term_sent_at, job.main_ended_at, now if is_to_end else None)
    return next((at for at in moments if at is not None), None)


def end_if_started(job: WaitingJob, now: float) -> End | None:
    """When it has ended at the latest if it is started now; None where nobody knows."""
    if job.time_limit_s is not None:
        return End(at=now + job.time_limit_s + job.grace_s)
    if job.request.lasts_s is None:
        return None
    return End(at=now + job.request.lasts_s, is_guess=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A job that is thought of as running, on these GPUs or wherever there is room for it."""

    job: int
    request: Request
    gpus: tuple[str, ...] | None = None


@dataclass(slots=True)
class Outlook:
    """The ledger of a turn at later moments, as far as those that run end by then."""

    snapshot: Snapshot
    ledger: Ledger
    _ends: dict[int, End | None] = field(init=False)
    _cpu_slots: dict[int, int] = field(init=False)
    _later: dict[tuple[float, bool], Ledger] = field(default_factory=dict)

    def __post_init__(self) -> None:
        world = self.snapshot
        self._ends = {job.id: end_of(job, world.now) for job in world.active}
        self._cpu_slots = {job.id: job.request.cpu_slots for job in world.active}

    def note_start(self, job: WaitingJob) -> None:
        """It has been given what it wants in this turn."""
        self._ends[job.id] = end_if_started(job, self.snapshot.now)
        self._cpu_slots[job.id] = job.request.cpu_slots
        self._later.clear()

    def earliest(
        self, request: Request, *, guessing: bool, since: float | None = None
    ) -> float | None:
        """The first moment at which there is room for such a job; None where that is not to be known.
        There is ever more room, so it is found by halving."""
        moments = self._moments(guessing, since)
        low, high = 0, len(moments) - 1
        if not self.has_room(request, moments[high], guessing=guessing):
            return None
        while low < high:
            middle = (low + high) // 2
            if self.has_room(request, moments[middle], guessing=guessing):
                high = middle
            else:
                low = middle + 1
        return moments[low]

    def has_room(
        self, request: Request, at: float, *, guessing: bool, beside: Sequence[Placed] = ()
    ) -> bool:
        """Will there be room at that moment, with those in place who run then too?"""
        if request.gpus:
            rivals = [one for one in beside if one.request.gpus]
            return _has_gpus(request, self._at(at, guessing), rivals)
        gone = self._gone(at, guessing)
        held = sum(slots for job, slots in self._cpu_slots.items() if job not in gone)
        wanted = sum(one.request.cpu_slots for one in beside) + request.cpu_slots
        return held + wanted <= self.snapshot.policy.cpu_slots

    def _moments(self, guessing: bool, since: float | None) -> list[float]:
        first = self.snapshot.now if since is None else since
        ends = (end for end in self._ends.values() if end is not None)
        later = {end.at for end in ends if end.at > first and (guessing or not end.is_guess)}
        return [first, *sorted(later)]

    def _gone(self, at: float, guessing: bool) -> frozenset[int]:
        ends = ((job, end) for job, end in self._ends.items() if end is not None)
        return frozenset(
            job for job, end in ends if end.at <= at and (guessing or not end.is_guess)
        )

    def _at(self, at: float, guessing: bool) -> Ledger:
        if (at, guessing) not in self._later:
            gone = self._gone(at, guessing)
            self._later[at, guessing] = self.ledger.without(
                lambda lease: is_over(lease, gone), calm=True
            )
        return self._later[at, guessing]


def is_over(lease: Lease, jobs: Collection[int]) -> bool:
    """Is it once these jobs have ended? What cools down is soon cool; of what is dirty nobody knows."""
    return lease.job in jobs if lease.is_active else lease.state is LeaseState.COOLING


def _has_gpus(request: Request, later: Ledger, beside: Sequence[Placed]) -> bool:
    try:
        for one in beside:
            gpus = later.choose(one.request) if one.gpus is None else one.gpus
            if gpus is None:
                return False
            later.take(gpus, one.job, one.request)
        return later.has_room(request)
    finally:
        for one in beside:
            later.give_back(one.job)
