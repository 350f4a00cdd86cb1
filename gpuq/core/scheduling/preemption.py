"""Who gives way to whom: a job that said it may be preempted goes back to the queue for one of a
higher priority that cannot start otherwise.

For one that is blocked the smallest set of victims is looked for: those of the lowest priority first,
among them those that started last, and none that is not needed. What they set free is kept for the
job that it was done for, and nobody gives way to it again while somebody does; so each job that is
preempted makes one of a higher priority start, and that comes to an end. Whom no giving way helps
(he waits for a stranger, a limit, a reservation, the first of his class) makes nobody give way.
"""

import signal as signals
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from gpuq.core.decisions import Signal
from gpuq.core.ends.ending import cause_to_end
from gpuq.core.gpus.ledger import Ledger
from gpuq.core.model import (
    ActiveJob,
    EndCause,
    JobState,
    Lease,
    LeaseState,
    Request,
    Snapshot,
    WaitingJob,
)
from gpuq.core.policy import Policy
from gpuq.core.units import format_ranges, format_seconds

# No search is begun in a turn that has reckoned so often what would be free if some were gone, which
# takes half a millisecond each time where many share each GPU: the next turn follows at once.
MOST_QUESTIONS = 32
# Nor for more than the first of those in line where nobody's going helps.
MOST_SEARCHES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What is made free for a blocked job: the GPUs to keep for it, none of them for a CPU job, and
    how that stands, in words."""

    gpus: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A blocked job and what is left for it. `ledger` and `cpu_free` are as this turn has left them;
    `wanted` are the GPUs that it could use if all jobs of ours ended, `kept` those that are kept for
    others, and `claimed` those that are reserved for its user just now."""

    job: WaitingJob
    request: Request
    ledger: Ledger
    cpu_free: int
    wanted: Collection[str] = ()
    kept: Collection[str] = ()
    claimed: Collection[str] = ()


@dataclass(slots=True)
class Preemption:
    """What one turn decides: `signals` are the first steps, and `ripe_at` the moments (CLOCK_MONOTONIC,
    s) from which on somebody who has just started may give way."""

    snapshot: Snapshot
    signals: list[Signal] = field(default_factory=list)
    ripe_at: list[float] = field(default_factory=list)
    is_idle: bool = False  # there is nobody who could give way, or does
    _leaving: set[tuple[int, int]] = field(default_factory=set)  # (job, attempt) that end anyway
    _held: dict[tuple[int, int], list[str]] = field(default_factory=dict)  # GPUs of each attempt
    _searches: int = 0
    _questions: int = 0

    def __post_init__(self) -> None:
        world = self.snapshot
        self.is_idle = not (
            any(job.preemptible for job in world.active)
            or any(lease.given_up_for is not None for lease in world.leases)
        )
        if self.is_idle:
            return
        for lease in world.leases:
            self._held.setdefault((lease.job, lease.attempt), []).append(lease.gpu)
        stuck = {job.id for job in world.active if job.is_unkillable}
        ending = [
            job
            for job in world.active
            if job.id not in stuck and cause_to_end(job, world.now, world.policy) is not None
        ]
        cooling = [lease for lease in world.leases if lease.state is LeaseState.COOLING]
        self._leaving = {(job.id, job.attempt) for job in ending}
        self._leaving |= {(lease.job, lease.attempt) for lease in cooling}

    def make_room(self, need: Need) -> Room | None:
        """Has others give way to the job if that lets it start; None where it does not, or where it
        starts without that."""
        giving_way = self._giving_way_to(need.job.id)
        if (gpus := self._serve(need, ())) is not None:
            return Room(gpus=gpus, why=_words(giving_way)) if giving_way else None
        if giving_way:  # somebody came between: what they set free is not to be lost as well
            return Room(gpus=self._given_up_for(need.job.id), why=_words(giving_way))
        candidates = self._candidates(need)
        if not candidates or self._is_tired():
            return None
        self._searches += 1
        ripe = [job for job in candidates if self._ripe_at(job) <= self.snapshot.now]
        victims = self._smallest(need, ripe)
        if victims is None:
            return self._wait_for_ripeness(need, ripe, candidates)
        gpus = self._serve(need, victims)
        assert gpus is not None
        self._send(victims, need)
        return Room(gpus=gpus, why=_words([job.id for job in victims]))

    def _is_tired(self) -> bool:
        return self._searches >= MOST_SEARCHES or self._questions >= MOST_QUESTIONS

    def _wait_for_ripeness(
        self, need: Need, ripe: Sequence[ActiveJob], candidates: Sequence[ActiveJob]
    ) -> Room | None:
        """Somebody who has just started is needed, and has his time first. What is free by then is
        kept, or others who came would have to give way in their turn."""
        unripe = sorted((job for job in candidates if job not in ripe), key=self._ripe_at)
        number = self._fewest(need, [*ripe, *unripe])
        if number is None:
            return None
        last = unripe[number - len(ripe) - 1]
        self.ripe_at.append(self._ripe_at(last))
        gpus = self._serve(need, [*ripe, *unripe][:number])
        after = format_seconds(self.snapshot.policy.preempt_after_s)
        return Room(
            gpus=gpus or (), why=f"job {last.id} gives way to it once it has run for {after}"
        )

    def _giving_way_to(self, job: int) -> list[int]:
        """The jobs that give way to it, or whose memory is not free yet after that."""
        active = {one.id: one for one in self.snapshot.active if not one.is_unkillable}
        told = {one.id for one in active.values() if one.gives_way_to == job}
        cooling = {
            lease.job
            for lease in self.snapshot.leases
            if lease.given_up_for == job and lease.state is LeaseState.COOLING
        }
        return sorted(told | cooling)

    def _given_up_for(self, job: int) -> tuple[str, ...]:
        return tuple(one.gpu for one in self.snapshot.leases if one.given_up_for == job)

    def _candidates(self, need: Need) -> list[ActiveJob]:
        """Who may give way to it and has something that it could use, whom to ask first first."""

        def has_something(job: ActiveJob) -> bool:
            if not need.request.gpus:
                return job.request.cpu_slots > 0
            return any(gpu in need.wanted for gpu in self._held_by(job))

        def may_be_asked(job: ActiveJob) -> bool:
            if job.priority < need.job.priority:
                return True
            is_in_the_way = any(gpu in need.claimed for gpu in self._held_by(job))
            return job.uid != need.job.uid and is_in_the_way

        found = [
            job
            for job in self.snapshot.active
            if self._may_give_way(job) and has_something(job) and may_be_asked(job)
        ]
        return sorted(found, key=lambda job: (job.priority, -(job.running_since or 0.0), -job.id))

    def _may_give_way(self, job: ActiveJob) -> bool:
        return (
            job.preemptible
            and job.state is JobState.RUNNING
            and job.running_since is not None
            and job.main_ended_at is None
            and not job.is_unkillable
            and (job.id, job.attempt) not in self._leaving
        )

    def _ripe_at(self, job: ActiveJob) -> float:
        assert job.running_since is not None
        return job.running_since + self.snapshot.policy.preempt_after_s

    # ── the smallest set ──

    def _smallest(self, need: Need, ordered: Sequence[ActiveJob]) -> list[ActiveJob] | None:
        """As few of the first as do, and of those none that is not needed."""
        number = self._fewest(need, ordered)
        if number is None:
            return None
        victims = self._on_what_it_gets(need, ordered[:number])
        for job in reversed(victims[:-1]):  # the last one is needed: without it they were too few
            without = [one for one in victims if one is not job]
            if self._is_enough(need, without):
                victims = without
        return victims

    def _on_what_it_gets(self, need: Need, victims: Sequence[ActiveJob]) -> list[ActiveJob]:
        """Those of them who hold anything of that, as far as that is enough: with many who share each
        GPU it spares most of the questions that follow."""
        gpus = self._serve(need, victims)
        holders = [job for job in victims if any(gpu in (gpus or ()) for gpu in self._held_by(job))]
        return holders if self._is_enough(need, holders) else list(victims)

    def _held_by(self, job: ActiveJob) -> Sequence[str]:
        return self._held.get((job.id, job.attempt), ())

    def _fewest(self, need: Need, ordered: Sequence[ActiveJob]) -> int | None:
        """How many of the first it takes: with more there is never less room."""
        if not self._is_enough(need, ordered):
            return None
        too_few, enough = 0, len(ordered)
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if self._is_enough(need, ordered[:middle]):
                enough = middle
            else:
                too_few = middle
        return enough

    def _is_enough(self, need: Need, victims: Sequence[ActiveJob]) -> bool:
        """Could the job start once these, and those that leave anyway, are gone?"""
        self._questions += 1
        gone = self._leaving | {(job.id, job.attempt) for job in victims}
        if need.request.gpus:
            return self._later(need, gone).has_room(_wish(need))
        left = [job for job in self.snapshot.active if (job.id, job.attempt) in gone]
        free = need.cpu_free + sum(job.request.cpu_slots for job in left)
        return need.request.cpu_slots <= free and not need.kept

    def _serve(self, need: Need, victims: Sequence[ActiveJob]) -> tuple[str, ...] | None:
        """What the job gets then, of GPUs; None where that is not enough."""
        if not need.request.gpus:
            return () if self._is_enough(need, victims) else None
        gone = self._leaving | {(job.id, job.attempt) for job in victims}
        return self._later(need, gone).choose(_wish(need))

    def _later(self, need: Need, gone: Collection[tuple[int, int]]) -> Ledger:
        return need.ledger.without(_is_of(gone))

    def _send(self, victims: Sequence[ActiveJob], need: Need) -> None:
        for job in victims:
            is_reserved = job.priority >= need.job.priority
            self.signals.append(self._first_step(job, need.job, is_reserved=is_reserved))
            self._leaving.add((job.id, job.attempt))

    def _first_step(self, victim: ActiveJob, job: WaitingJob, *, is_reserved: bool) -> Signal:
        """To its main process, which knows what to save; who has no grace is killed at once."""
        right = f"for whose user, {job.user}, its GPU is reserved" if is_reserved else None
        usual = preempt_signal(victim, self.snapshot.policy)
        signal = usual if victim.grace_s > 0 else int(signals.SIGKILL)
        return Signal(
            job=victim.id,
            attempt=victim.attempt,
            signal=signal,
            ends=EndCause.PREEMPTED,
            only_main=signal != signals.SIGKILL,
            gives_way_to=job.id,
            for_whom=f"{job.id} ({right or f'priority {job.priority}'})",
        )


def preempt_signal(job: ActiveJob, policy: Policy) -> int:
    """What tells the job that it is to give way."""
    return policy.preempt_signal if job.preempt_signal is None else job.preempt_signal


def _wish(need: Need) -> Request:
    """What it asks for, of what is not kept for others."""
    return replace(need.request, exclude_gpus=(*need.request.exclude_gpus, *need.kept))


def _is_of(attempts: Collection[tuple[int, int]]) -> Callable[[Lease], bool]:
    return lambda lease: (
        (lease.job, lease.attempt) in attempts and lease.state is not LeaseState.DIRTY
    )


def _words(jobs: Sequence[int]) -> str:
    one = len(jobs) == 1
    return f"job{'' if one else 's'} {format_ranges(list(jobs))} give{'s' if one else ''} way to it"
