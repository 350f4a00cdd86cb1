"""What to do now: `plan(snapshot)`.

The order is priority, then first come, first served. A later job may overtake a blocked one only
where it does no harm: always where the two want different things or where the blocked one waits for
somebody outside gpuq, whom no patience of ours will move; otherwise `max_bypass` times, and then
what the blocked job could use is kept for it. Who waits because his user has as much as one user may
have keeps nothing from anybody else: only what that user may have is contended for then, by the same
rule.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpuq.core.breaker import once_decided, plan_health
from gpuq.core.cooling import plan_releases
from gpuq.core.decisions import Cancel, Decision, Plan, Release, Start, Undelay
from gpuq.core.ending import plan_endings
from gpuq.core.ledger import Ledger
from gpuq.core.model import ActiveJob, Request, Snapshot, WaitingJob
from gpuq.core.states import CAUSES
from gpuq.core.units import count
from gpuq.core.user_limits import UserShares, more_than_allowed

# What CPU jobs compete for, as the others do for a GPU.
CPU_SLOTS = "CPU slots"
# So many of the first in line are kept from being overtaken for ever; who is behind them is behind
# them. Without a bound each shape of request that waits would cost each turn its share.
MOST_PROTECTED = 64


def plan(snapshot: Snapshot) -> Plan:
    """The decisions for this moment, a reason for each job left waiting, and the next deadline."""
    cancels = [Cancel(job=j.id, actor=j.stop.actor) for j in snapshot.waiting if j.stop]
    still_delayed = [j.until for j in snapshot.delayed if j.until > snapshot.boottime]
    undelays = [Undelay(job=j.id) for j in snapshot.delayed if j.until <= snapshot.boottime]
    endings, ending_deadlines = plan_endings(snapshot)
    releases, release_deadlines = plan_releases(snapshot)
    released = _once_released(snapshot, releases)
    health, test_deadlines = plan_health(released)
    queue = _Queue(once_decided(released, health))
    # Whose delay is over is back in line, and may come before all who are seen: look again.
    for job in [] if undelays else _in_order(snapshot):
        queue.consider(job)
        if queue.has_used_up(job.class_id):
            break  # more of its class may come before the next job in line: look again
    decisions: list[Decision] = [*cancels, *undelays, *endings, *releases, *health, *queue.starts]
    return Plan(
        decisions=tuple(decisions),
        reasons=_Reasons(queue),
        heads=queue.heads,
        wake_at=min([*ending_deadlines, *release_deadlines, *_settled(snapshot)], default=None),
        undelay_at=min([*still_delayed, *test_deadlines], default=None),
        standstill=_standstill(snapshot),
    )


def _once_released(snapshot: Snapshot, releases: Sequence[Decision]) -> Snapshot:
    """What cools no longer is there for whoever is first in line, before a later one takes a part
    of it: releases come before starts."""
    released = {(one.gpu, one.slot) for one in releases if isinstance(one, Release)}
    left = (lease for lease in snapshot.leases if (lease.gpu, lease.slot) not in released)
    return replace(snapshot, leases=tuple(left)) if released else snapshot


def _settles_at(job: ActiveJob, snapshot: Snapshot) -> float:
    """When it has shown what it computes; CLOCK_MONOTONIC, s."""
    began = snapshot.now if job.running_since is None else job.running_since
    return began + snapshot.policy.settle_s


def _settled(snapshot: Snapshot) -> list[float]:
    """The moments at which a GPU may open to those who want little computed beside them."""
    if all(job.request.max_util is None for job in snapshot.waiting):
        return []
    moments = (_settles_at(job, snapshot) for job in snapshot.active if job.request.gpus)
    return [at for at in moments if at > snapshot.now]


def _in_order(snapshot: Snapshot) -> list[WaitingJob]:
    candidates = (job for job in snapshot.waiting if job.stop is None)
    return sorted(candidates, key=lambda job: (-job.priority, job.id))


@dataclass(slots=True)
class _Blocked:
    """A job that waits for what other jobs of ours hold, and so must not be overtaken for ever."""

    job: WaitingJob
    wanted: frozenset[str]  # the GPUs that it could use, or the CPU slots
    passes: int


@dataclass(slots=True)
class _Queue:
    """Walks through the waiting jobs in order; keeps what has been given away and to whom."""

    snapshot: Snapshot
    starts: list[Start] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    unexplained: dict[int, Request] = field(default_factory=dict)  # blocked jobs
    heads: dict[int, int] = field(default_factory=dict)
    blocked: list[_Blocked] = field(default_factory=list)
    wanted: set[str] = field(default_factory=set)  # by any of the blocked
    kept_for: dict[str, _Blocked] = field(default_factory=dict)  # the blocked that waited enough
    first_of: dict[int, _Blocked] = field(default_factory=dict)  # of each user's that wait for ours
    started: dict[int, int] = field(default_factory=dict)  # how many of each class
    shares: UserShares = field(init=False)
    ledger: Ledger = field(init=False)
    cpu_free: int = field(init=False)
    once_ours_end: Ledger | None = None

    def __post_init__(self) -> None:
        world = self.snapshot
        self.shares = UserShares(world.active, world.policy)
        self.ledger = Ledger(
            world.gpus or (),
            world.leases,
            world.policy,
            kept_idle=world.kept_idle,
            settling=[job.id for job in world.active if _settles_at(job, world) > world.now],
        )
        taken = sum(job.request.cpu_slots for job in world.active)
        self.cpu_free = world.policy.cpu_slots - taken

    def consider(self, job: WaitingJob) -> None:
        if (standstill := _standstill(self.snapshot)) is not None:
            self.reasons[job.id] = standstill
            return
        if job.class_id in self.heads:
            self.reasons[job.id] = f"behind {self.heads[job.class_id]}"
            return
        if (limit := self._limit_of_user(job)) is not None:
            self.heads[job.class_id] = job.id
            self.reasons[job.id] = limit
            return
        uuids = self._find(job.request)
        if uuids is None:
            self._block(job)
            return
        kept = [self.kept_for[one] for one in uuids or (CPU_SLOTS,) if one in self.kept_for]
        if kept:
            self._keep_back(job, kept[0])
        else:
            self._start(job, uuids)

    def has_used_up(self, class_id: int) -> bool:
        """Did all the jobs start that the snapshot shows of a class that may hold more?"""
        shown = self.snapshot.jobs_per_class
        return shown is not None and self.started.get(class_id, 0) >= shown

    def _limit_of_user(self, job: WaitingJob) -> str | None:
        """Why it has to wait for others of its own user, if so. The first of those that do is overtaken
        by later ones no more often than a job that waits for a GPU."""
        if (never := more_than_allowed(job.request, self.snapshot.policy)) is not None:
            return never  # until the setting is another one: nobody waits behind it
        if (refusal := self.shares.refusal(job)) is not None:
            self.first_of.setdefault(job.uid, _Blocked(job, frozenset(), job.passes))
            return refusal
        first = self._first_that_loses_by(job)
        if first is None or first.passes < self.snapshot.policy.max_bypass:
            return None
        return _behind(first)

    def _first_that_loses_by(self, job: WaitingJob) -> _Blocked | None:
        """An earlier job of the same user that would have to wait for a limit if this one starts."""
        first = self.first_of.get(job.uid)
        return first if first is not None and self.shares.takes_from(job, first.job) else None

    def _find(self, request: Request) -> tuple[str, ...] | None:
        """The GPUs for a request, none of them for a CPU job; None where it has to wait."""
        if not request.gpus:
            return () if request.cpu_slots <= self.cpu_free else None
        if self._is_blind:
            return None
        return self.ledger.choose(request, self._reluctance)

    @property
    def _is_blind(self) -> bool:
        """No GPU is given away while the driver does not answer: what starts would hang in it."""
        return self.snapshot.gpus is None or self.snapshot.gpu_trouble is not None

    def _reluctance(self, uuid: str) -> int:
        """Nobody is overtaken, nor kept back, where a GPU will do that no other waits for."""
        return 2 if uuid in self.kept_for else int(uuid in self.wanted)

    def _start(self, job: WaitingJob, uuids: tuple[str, ...]) -> None:
        taken = uuids or (CPU_SLOTS,)
        overtaken = [b for b in self.blocked if not b.wanted.isdisjoint(taken)]
        first = self._first_that_loses_by(job)
        if first is not None and first not in overtaken:
            overtaken.append(first)
        self.shares.take(job)
        self.ledger.take(uuids, job.id, job.request)
        self.cpu_free -= job.request.cpu_slots
        self.started[job.class_id] = self.started.get(job.class_id, 0) + 1
        for other in overtaken:
            other.passes += 1
            self._keep_if_due(other)
        self.reasons[job.id] = "about to start"
        passed = tuple(other.job.id for other in overtaken)
        self.starts.append(Start(job=job.id, attempt=job.attempt, gpus=uuids, passed=passed))

    def _block(self, job: WaitingJob) -> None:
        self.heads[job.class_id] = job.id
        self.unexplained[job.id] = job.request
        if len(self.blocked) < MOST_PROTECTED and self._waits_for_ours(job.request):
            self._protect(job)

    def _keep_back(self, job: WaitingJob, other: _Blocked) -> None:
        """It could start but for the other; who comes after it has to respect it like the other."""
        self.heads[job.class_id] = job.id
        if other.passes >= self.snapshot.policy.max_bypass:
            self.reasons[job.id] = _behind(other)
        else:
            self.reasons[job.id] = f"behind {other.job.id}, for which a GPU is becoming free"
        self._protect(job)

    def _protect(self, job: WaitingJob) -> None:
        wanted = frozenset({CPU_SLOTS})
        if job.request.gpus:  # a GPU that a stranger keeps from it is of no use to it
            wanted = self._later().accepting(job.request)
        blocked = _Blocked(job, wanted, job.passes)
        self.blocked.append(blocked)
        self.first_of.setdefault(job.uid, blocked)
        self.wanted |= wanted
        self._keep_if_due(blocked)
        if job.request.exclusive:
            self._keep_what_becomes_free(blocked)

    def _keep_what_becomes_free(self, blocked: _Blocked) -> None:
        """A GPU that somebody outside has just left owes some seconds of calm to a job that wants it
        alone. Sharing jobs need none, and would be on it each time before those are over."""
        for gpu in self.snapshot.gpus or ():
            if gpu.calm_samples and gpu.uuid in blocked.wanted:
                self.kept_for.setdefault(gpu.uuid, blocked)

    def _keep_if_due(self, blocked: _Blocked) -> None:
        if blocked.passes >= self.snapshot.policy.max_bypass:
            for one in blocked.wanted:
                self.kept_for.setdefault(one, blocked)

    def _waits_for_ours(self, request: Request) -> bool:
        """Would it start if all our jobs ended? Where not, it waits for a stranger, a missing GPU, a
        larger machine: nobody's waiting behind it would help."""
        if not request.gpus:
            return request.cpu_slots <= self.snapshot.policy.cpu_slots
        if self._is_blind:
            return False
        return self._later().choose(request) is not None

    def _later(self) -> Ledger:
        if self.once_ours_end is None:
            self.once_ours_end = self.ledger.without_ours()
        return self.once_ours_end

    def explain(self, job: int) -> str:
        return self._why_blocked(self.unexplained[job])

    def _why_blocked(self, request: Request) -> str:
        if not request.gpus:
            slots = count(self.snapshot.policy.cpu_slots, "CPU slot")
            return (
                f"wants {count(request.cpus, 'CPU slot')}, {max(self.cpu_free, 0)} of {slots} free"
            )
        if self.snapshot.gpu_trouble is not None:
            return self.snapshot.gpu_trouble
        if self.snapshot.gpus is None:
            return "waiting for the first reading of the GPUs"
        return self.ledger.wants(request)


def _behind(blocked: _Blocked) -> str:
    return f"behind {blocked.job.id}, which has been overtaken {count(blocked.passes, 'time')}"


class _Reasons(Mapping[int, str]):
    """The reasons of a plan. To find out what keeps a blocked job costs more than to see that something
    does, so it is done for those that somebody asks about."""

    def __init__(self, queue: _Queue) -> None:
        self._queue = queue
        self._said = queue.reasons

    def __getitem__(self, job: int) -> str:
        if job not in self._said:
            self._said[job] = self._queue.explain(job)
        return self._said[job]

    def __iter__(self) -> Iterator[int]:
        return iter(
            [*self._queue.reasons.keys() - self._queue.unexplained, *self._queue.unexplained]
        )

    def __len__(self) -> int:
        return len(self._queue.reasons.keys() | self._queue.unexplained)


def _standstill(snapshot: Snapshot) -> str | None:
    """Why nothing at all is started."""
    if (closing := snapshot.closing) is not None:
        return CAUSES[closing.cause]
    if (drain := snapshot.drain) is not None:
        return f"the queue is drained by {drain.actor}: {drain.reason}"
    return snapshot.start_trouble
