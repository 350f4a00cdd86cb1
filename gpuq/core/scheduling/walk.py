"""One turn's walk through those that wait, in order: who starts, on what, and why not the others.

Each is asked the same questions one after the other: does anything stand still, is one of its class
before it, does a limit hold it, is there room for it, would it keep an earlier one waiting. Who waits
for a limit keeps nothing from anybody else: only what that limit allows is contended for then, and
the first of those that wait for it is overtaken no more often than one that waits for a GPU.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from gpuq.core.decisions import FallBack, Start
from gpuq.core.gpus.ledger import Ledger
from gpuq.core.model import ActiveJob, Request, Snapshot, WaitingJob
from gpuq.core.scheduling.barred import barred_gpus, barred_words
from gpuq.core.scheduling.fair_share import FairOrder
from gpuq.core.scheduling.fallback import falls_at, hope_words, on_cpu
from gpuq.core.scheduling.limits import Caps, Key
from gpuq.core.scheduling.precedence import in_order
from gpuq.core.scheduling.preemption import Need, Preemption
from gpuq.core.scheduling.protection import CPU_SLOTS, Blocked, Protection, behind
from gpuq.core.scheduling.queues import is_gone, why_gone
from gpuq.core.scheduling.rate import StartRates
from gpuq.core.scheduling.reasons import Reasons, standstill
from gpuq.core.scheduling.reservations import claimed_by
from gpuq.core.units import count


@dataclass(slots=True)
class Walk:
    """Keeps what has been given away and to whom."""

    snapshot: Snapshot
    starts: list[Start] = field(default_factory=list)
    falls: list[FallBack] = field(default_factory=list)
    heads: dict[int, int] = field(default_factory=dict)  # class → its first waiting job
    reasons: Reasons = field(init=False)
    caps: Caps = field(init=False)
    rates: StartRates = field(init=False)
    fair: FairOrder | None = None
    # The GPUs that are kept from a job, and why.
    bars: dict[int, tuple[WaitingJob, Mapping[str, str]]] = field(default_factory=dict)
    ledger: Ledger = field(init=False)
    protection: Protection = field(init=False)
    preemption: Preemption = field(init=False)
    rooms: dict[int, str] = field(default_factory=dict)  # who gives way to a job, in words
    cpu_free: int = field(init=False)
    _falls_at: list[float] = field(default_factory=list)  # when others may turn to the CPU
    _standstill: str | None = field(init=False)
    _first_under: dict[Key, Blocked] = field(default_factory=dict)  # each limit, of those that wait
    _started: dict[int, int] = field(default_factory=dict)  # how many of each class

    def __post_init__(self) -> None:
        world = self.snapshot
        self.caps = Caps(world.active, world.policy, world.limits)
        self.rates = StartRates(world.recent_starts, world.policy, world.now)
        if world.policy.fair_share:
            self.fair = FairOrder(in_order(world), world.usage)
        self.ledger = Ledger(
            world.gpus or (),
            world.leases,
            world.policy,
            kept_idle=world.kept_idle,
            settling=[job.id for job in world.active if settles_at(job, world) > world.now],
        )
        self.protection = Protection(world, self.ledger)
        self.preemption = Preemption(world)
        taken = sum(job.request.cpu_slots for job in world.active)
        self.cpu_free = world.policy.cpu_slots - taken
        self.reasons = Reasons(self._explain)
        self._standstill = standstill(world)

    def through_all(self) -> None:
        """Considers them one after the other, as far as their order can be seen."""
        for job in in_order(self.snapshot) if self.fair is None else self.fair:
            self.consider(job)
            if job.gpu_wait_since is not None:
                self._fall_back_if_due(job)
            if self._has_used_up(job.class_id):
                break  # more of its class may come before the next job in line: look again

    def wakes(self) -> list[float]:
        """When somebody may start who may not just now, though nothing else happens."""
        rate = [] if self.rates.wake_at is None else [self.rates.wake_at]
        return rate + _settled(self.snapshot) + self.preemption.ripe_at + self._falls_at

    def consider(self, job: WaitingJob) -> None:
        if self._standstill is not None:
            self.reasons.said[job.id] = self._standstill
        elif job.class_id in self.heads:
            self.reasons.said[job.id] = f"behind {self.heads[job.class_id]}"
        elif (why := self._limit_of(job)) is not None:
            self._hold_up(job, why)
        else:
            self._place(job, self._within_bars(job))

    def _has_used_up(self, class_id: int) -> bool:
        """Did all the jobs start that the snapshot shows of a class that may hold more?"""
        shown = self.snapshot.jobs_per_class
        return shown is not None and self._started.get(class_id, 0) >= shown

    def _hold_up(self, job: WaitingJob, why: str) -> None:
        """All of its class wait behind it."""
        self.heads[job.class_id] = job.id
        self.reasons.said[job.id] = why

    # ── limits ──

    def _limit_of(self, job: WaitingJob) -> str | None:
        """Why it has to wait for others under a limit, if so."""
        if is_gone(job, self.snapshot.policy):
            return why_gone(job)
        if (never := self.caps.never(job)) is not None:
            return never  # until the limit is another one: nobody waits behind it
        if (refusal := self.caps.refusal(job)) is not None:
            self._guard(Blocked(job, job.request, frozenset(), job.passes), refusal.keys)
            return refusal.why
        first = max(self._losing_by(job), key=lambda one: one.passes, default=None)
        if first is not None and first.passes >= self.snapshot.policy.max_bypass:
            return behind(first)
        return self.rates.refusal(job)

    def _guard(self, blocked: Blocked, keys: Iterable[Key]) -> None:
        for key in keys:
            self._first_under.setdefault(key, blocked)

    def _losing_by(self, job: WaitingJob) -> list[Blocked]:
        """Earlier jobs that would have to wait for a limit if this one starts."""
        if not self._first_under:
            return []
        keys = self.caps.keys_of(job)
        first = {id(one): one for key in keys if (one := self._first_under.get(key)) is not None}
        return [one for one in first.values() if self.caps.takes_from(job, one.job)]

    # ── room ──

    def _within_bars(self, job: WaitingJob) -> Request:
        """What it asks for without the GPUs that are kept from it for other reasons than who holds
        them."""
        if not job.request.gpus or not (job.queue or self.snapshot.reservations):
            return job.request
        barred = barred_gpus(job, self.snapshot)
        if not barred:
            return job.request
        self.bars[job.id] = job, barred
        excluded = (*job.request.exclude_gpus, *sorted(barred))
        return replace(job.request, exclude_gpus=excluded)

    def _claimed(self, job: WaitingJob) -> frozenset[str]:
        """The GPUs that are reserved for its user just now."""
        return claimed_by(job.uid, self.snapshot.reservations, self.snapshot.wall)

    def _place(self, job: WaitingJob, request: Request) -> None:
        """`request` is what it may have of what it asked for."""
        gpus = self._find(request, self._claimed(job))
        if gpus is None:
            self.heads[job.class_id] = job.id
            self.reasons.unexplained[job.id] = request
            if not (request.gpus and self._is_blind):
                self._make_room(self._protect(job, request))
            return
        verdict = self.protection.judge(job, request, gpus)
        if verdict.why is None:
            self._start(job, request, gpus, verdict.overtaken)
        else:  # who comes after it has to respect it like the other
            self._hold_up(job, verdict.why)
            self._protect(job, request, verdict.stopped_by)

    def _find(self, request: Request, claimed: frozenset[str]) -> tuple[str, ...] | None:
        """The GPUs for a request, none of them for a CPU job; None where it has to wait. Those that
        are reserved for its user are of use to nobody else, and taken first."""
        if not request.gpus:
            return () if request.cpu_slots <= self.cpu_free else None
        if self._is_blind:
            return None
        reluctance = self.protection.reluctance
        if not claimed:
            return self.ledger.choose(request, reluctance)
        return self.ledger.choose(request, lambda gpu: (gpu not in claimed) * 3 + reluctance(gpu))

    @property
    def _is_blind(self) -> bool:
        """No GPU is given away while the driver does not answer: what starts would hang in it."""
        return self.snapshot.gpus is None or self.snapshot.gpu_trouble is not None

    def _protect(
        self, job: WaitingJob, request: Request, behind: Blocked | None = None
    ) -> Blocked | None:
        keys = self.caps.keys_of(job)
        if behind is None and not keys and self.preemption.is_idle:
            self.protection.protect_from_later(job, request)
            return None  # and nobody needs it
        blocked = self.protection.protect(job, request, behind)
        if blocked is not None:
            self._guard(blocked, keys)
        return blocked

    def _make_room(self, blocked: Blocked | None) -> None:
        """Others give way to it, where there are such and that helps."""
        if blocked is None or self.preemption.is_idle:
            return
        room = self.preemption.make_room(
            Need(
                job=blocked.job,
                request=blocked.request,
                ledger=self.ledger,
                cpu_free=self.cpu_free,
                wanted=blocked.wanted,
                kept=self.protection.kept_from(blocked),
                claimed=self._claimed(blocked.job),
            )
        )
        if room is not None:
            self.rooms[blocked.job.id] = room.why
            self.protection.keep(blocked, frozenset(room.gpus or (CPU_SLOTS,)))

    def _start(
        self,
        job: WaitingJob,
        request: Request,
        gpus: tuple[str, ...],
        overtaken: tuple[Blocked, ...],
    ) -> None:
        others = [one for one in self._losing_by(job) if one not in overtaken]
        passed = [*overtaken, *others]
        self.caps.take(job)
        self.rates.take(job)
        if self.fair is not None:
            self.fair.take(job)
        self.ledger.take(gpus, job.id, request)
        self.cpu_free -= request.cpu_slots
        self._started[job.class_id] = self._started.get(job.class_id, 0) + 1
        self.protection.note_start(job, passed)
        self.reasons.said[job.id] = "about to start"
        ids = tuple(one.job.id for one in passed)
        self.starts.append(Start(job=job.id, attempt=job.attempt, gpus=gpus, passed=ids))

    # ── the CPU instead ──

    def _fall_back_if_due(self, job: WaitingJob) -> None:
        """One that could not start, and has waited for its GPUs as long as it wanted to, turns to the
        CPU once there is room for it: until then whichever comes first is its."""
        if self._standstill is not None or self._has_started(job):
            return
        due_at = falls_at(job)
        if due_at is None or (self.snapshot.gpus is None and not self._is_in_trouble):
            return
        if due_at > self.snapshot.now:
            self._falls_at.append(due_at)
            return
        request = on_cpu(job.request, job.time_limit_s)
        instead = replace(job, request=request)
        if request.cpu_slots > self.cpu_free or self._is_held_up(instead):
            return
        why = self._why_blocked(job.request)
        self.falls.append(FallBack(job=job.id, version=job.version, why=why))
        self.cpu_free -= request.cpu_slots
        self.reasons.said[job.id] = "about to fall back to the CPU"

    def _has_started(self, job: WaitingJob) -> bool:
        return any(start.job == job.id for start in self.starts)

    @property
    def _is_in_trouble(self) -> bool:
        return self.snapshot.gpu_trouble is not None

    def _is_held_up(self, job: WaitingJob) -> bool:
        """Would it wait on the CPU as well, for a limit or for its turn?"""
        if is_gone(job, self.snapshot.policy) or self.caps.never(job) is not None:
            return True
        if self.caps.refusal(job) is not None or self.rates.refusal(job) is not None:
            return True
        return self.protection.judge(job, job.request, ()).why is not None

    # ── why not ──

    def _explain(self, job: int, request: Request) -> str:
        words = [self._why_blocked(request)]
        hope = hope_words(request)
        if job in self.bars:
            asked, barred = self.bars[job]
            words = [self._why_blocked(request, asked.request)]
            words.append(barred_words(asked, barred, self.snapshot))
        words += [self.rooms[job]] if job in self.rooms else []
        words += [hope] if hope is not None else []
        if self.fair is not None and (fair := self.fair.words(job)) is not None:
            words.append(fair)
        return "; ".join(words)

    def _why_blocked(self, request: Request, asked: Request | None = None) -> str:
        if not request.gpus:
            slots = count(self.snapshot.policy.cpu_slots, "CPU slot")
            return (
                f"wants {count(request.cpus, 'CPU slot')}, {max(self.cpu_free, 0)} of {slots} free"
            )
        if self.snapshot.gpu_trouble is not None:
            return self.snapshot.gpu_trouble
        if self.snapshot.gpus is None:
            return "waiting for the first reading of the GPUs"
        return self.ledger.wants(request, asked)


def settles_at(job: ActiveJob, snapshot: Snapshot) -> float:
    """When it has shown what it computes; CLOCK_MONOTONIC, s."""
    began = snapshot.now if job.running_since is None else job.running_since
    return began + snapshot.policy.settle_s


def _settled(snapshot: Snapshot) -> list[float]:
    """The moments at which a GPU may open to those who want little computed beside them."""
    if all(job.request.max_util is None for job in snapshot.waiting):
        return []
    moments = (settles_at(job, snapshot) for job in snapshot.active if job.request.gpus)
    return [at for at in moments if at > snapshot.now]
