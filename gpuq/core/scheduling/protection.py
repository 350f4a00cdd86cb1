"""Who waits for what our own jobs hold, and how often later jobs may take of that before him.

A later job that provably keeps him from nothing may start, however often that happens. Proofs are made
of time limits, which gpuq sees to:

- it has ended, by its own limit and its grace, before he could start at all; or
- he finds what he wants beside it at the moment at which he could start by the limits of those that
  run, with whoever waits before him in place as well.

Where it is certain that it would keep the first in line waiting beyond that moment, it does not start.
Where nobody can tell, for lack of a limit, it may: that is a pass, and after `max_bypass` of them what
he wants is kept for him.

What runs of the same command took is no promise. A job that keeps him from nothing if all goes as it
went before has passed him all the same, so that a wrong guess has a bound too; but since he most
likely loses nothing by it, it may do so when the other passes are used up.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from gpuq.core.gpus.ledger import Ledger
from gpuq.core.model import Request, Snapshot, WaitingJob
from gpuq.core.scheduling.foresight import BESIDES_S, Outlook, Placed, end_if_started
from gpuq.core.units import count, format_seconds

# What CPU jobs compete for, as the others do for a GPU.
CPU_SLOTS = "CPU slots"
# So many of the first in line are kept from being overtaken for ever; who is behind them is behind
# them. Without a bound each shape of request that waits would cost each turn its share.
MOST_PROTECTED = 64
# For so many of them it is looked at when they will start; past the others a pass is a pass.
MOST_FORESEEN = 4
# So many questions are asked of the future in one turn. A question takes a tenth of a millisecond.
MOST_PROOFS = 64
# Passes by those that will most likely have ended in time, in multiples of `max_bypass`.
LIKELY_PASSES = 10


@dataclass(slots=True)
class Blocked:
    """A job that waits for what other jobs of ours hold, and so must not be overtaken for ever."""

    job: WaitingJob
    request: Request
    wanted: frozenset[str]  # the GPUs that it could use, or the CPU slots
    passes: int
    behind: "Blocked | None" = None  # for whom is kept what it would take
    becoming_free: frozenset[str] = frozenset()  # GPUs that are kept for it from the first
    made_free: frozenset[str] = frozenset()  # those that others give up for it
    starts_by: dict[bool, float | None] = field(default_factory=dict)  # by guesses too or without


class Harm(Enum):
    """What it does to a blocked job that a later one starts."""

    NONE = auto()
    UNLIKELY = auto()
    POSSIBLE = auto()
    CERTAIN = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """May a job start that has found its GPUs?"""

    stopped_by: Blocked | None = None
    why: str | None = None
    overtaken: tuple[Blocked, ...] = ()


class Protection:
    """The blocked of one turn, in order."""

    def __init__(self, world: Snapshot, ledger: Ledger) -> None:
        self._world = world
        self._ledger = ledger
        self._unseen: list[tuple[WaitingJob, Request]] = []  # blocked, and nobody has come since
        self._started: list[WaitingJob] = []
        self._known_outlook: Outlook | None = None
        self._blocked: list[Blocked] = []
        self._wanted: set[str] = set()  # by any of them
        self._kept: set[str] = set()  # for those who waited enough
        self._once_ours_end: Ledger | None = None
        self._proofs = 0

    def reluctance(self, uuid: str) -> int:
        """Nobody is overtaken, nor kept back, where a GPU will do that no other waits for."""
        self._see()
        return 2 if uuid in self._kept else int(uuid in self._wanted)

    # ── who is protected ──

    def protect_from_later(self, job: WaitingJob, request: Request) -> None:
        """As `protect`, once a later job comes for which there is room: what is left has not changed by
        then. To reckon what a job waits for is more than half of a turn, and mostly nobody comes."""
        self._unseen.append((job, request))

    def _see(self) -> None:
        unseen, self._unseen = self._unseen, []
        for job, request in unseen:
            self.protect(job, request)

    def protect(
        self, job: WaitingJob, request: Request, behind: Blocked | None = None
    ) -> Blocked | None:
        """None where it waits for nobody whom the patience of others would help, or too many wait."""
        self._see()
        if len(self._blocked) >= MOST_PROTECTED:
            return None
        if behind is None and not self._waits_for_ours(request):
            return None
        wanted = frozenset({CPU_SLOTS})
        if request.gpus:  # a GPU that a stranger keeps from it is of no use to it
            wanted = self._later().accepting(request)
        blocked = Blocked(job, request, wanted, job.passes, behind)
        if request.exclusive:
            blocked.becoming_free = self._becoming_free(wanted)
        self._blocked.append(blocked)
        self._wanted |= wanted
        self._kept |= blocked.becoming_free
        self._keep_if_due(blocked)
        return blocked

    def _waits_for_ours(self, request: Request) -> bool:
        """Would it start if all our jobs ended? Where not, it waits for a stranger, a missing GPU, a
        larger machine: nobody's waiting behind it would help."""
        if not request.gpus:
            return request.cpu_slots <= self._world.policy.cpu_slots
        return self._later().has_room(request)

    def _later(self) -> Ledger:
        if self._once_ours_end is None:
            self._once_ours_end = self._ledger.without_ours()
        return self._once_ours_end

    def _becoming_free(self, wanted: frozenset[str]) -> frozenset[str]:
        """A GPU that somebody outside has just left owes some seconds of calm to a job that wants it
        alone. Sharing jobs need none, and would be on it each time before those are over."""
        calming = (gpu.uuid for gpu in self._world.gpus or () if gpu.calm_samples)
        return frozenset(uuid for uuid in calming if uuid in wanted)

    def _keep_if_due(self, blocked: Blocked) -> None:
        if self._is_due(blocked):
            self._kept |= blocked.wanted

    def _is_due(self, blocked: Blocked) -> bool:
        return blocked.passes >= self._world.policy.max_bypass

    def keep(self, blocked: Blocked, made_free: frozenset[str]) -> None:
        """Others give way for this one: nobody else gets what they leave, however soon he would be
        gone."""
        blocked.made_free = made_free
        self._kept |= made_free

    def kept_from(self, blocked: Blocked) -> frozenset[str]:
        """The GPUs that are kept for others than this one."""
        kept: set[str] = set()
        for other in self._blocked:
            if other is not blocked:
                kept |= other.made_free | other.becoming_free
                kept |= other.wanted if self._is_due(other) else frozenset()
        return frozenset(kept)

    @property
    def _outlook(self) -> Outlook:
        """In most turns nobody asks for it."""
        if self._known_outlook is None:
            self._known_outlook = Outlook(self._world, self._ledger)
            for job in self._started:
                self._known_outlook.note_start(job)
        return self._known_outlook

    # ── who may start all the same ──

    def judge(self, job: WaitingJob, request: Request, gpus: tuple[str, ...]) -> Verdict:
        """Those that it would overtake, or the one for whose sake it has to wait."""
        self._see()
        taken = gpus or (CPU_SLOTS,)
        overtaken = []
        for place, other in enumerate(self._blocked):
            if not other.made_free.isdisjoint(taken):
                words = f"behind {other.job.id}, to which others give way"
                return Verdict(stopped_by=other, why=words)
            if other.wanted.isdisjoint(taken):
                continue
            harm = self._harm(place, job, Placed(job=job.id, request=request, gpus=gpus))
            if harm is Harm.NONE:
                continue
            objection = self._objection(other, harm, taken, job)
            if objection is not None:
                return Verdict(stopped_by=other, why=objection)
            overtaken.append(other)
        return Verdict(overtaken=tuple(overtaken))

    def note_start(self, job: WaitingJob, overtaken: Iterable[Blocked]) -> None:
        self._started.append(job)
        if self._known_outlook is not None:
            self._known_outlook.note_start(job)
        for other in overtaken:
            other.passes += 1
            other.starts_by.clear()
            self._keep_if_due(other)

    def _objection(
        self, other: Blocked, harm: Harm, taken: tuple[str, ...], job: WaitingJob
    ) -> str | None:
        if harm is Harm.CERTAIN:
            return f"behind {other.job.id}, which it would keep waiting: {_may_take(job)}"
        patience = self._world.policy.max_bypass
        if harm is Harm.UNLIKELY:
            patience *= LIKELY_PASSES
        if other.passes >= patience:
            return behind(other)
        if not other.becoming_free.isdisjoint(taken):
            return f"behind {other.job.id}, for which a GPU is becoming free"
        return None

    def _harm(self, place: int, job: WaitingJob, placed: Placed) -> Harm:
        other = self._blocked[place]
        if place >= MOST_FORESEEN or self._proofs >= MOST_PROOFS:
            return Harm.POSSIBLE
        self._proofs += 1
        end = end_if_started(job, self._world.now)
        by = self._starts_by(other, guessing=False)
        ends_at = None if end is None or end.is_guess else end.at + self._lingers_s(placed)
        if by is not None and self._is_harmless(place, placed, by, ends_at, guessing=False):
            return Harm.NONE
        if by is not None and ends_at is not None and place == 0:
            return Harm.CERTAIN
        if not self._is_due(other):  # no more is to be known: it is a pass in any case
            return Harm.POSSIBLE
        by = self._starts_by(other, guessing=True)
        ends_at = None if end is None else end.at + self._lingers_s(placed)
        if by is not None and self._is_harmless(place, placed, by, ends_at, guessing=True):
            return Harm.UNLIKELY
        return Harm.POSSIBLE

    def _is_harmless(
        self, place: int, placed: Placed, by: float, ends_at: float | None, *, guessing: bool
    ) -> bool:
        if ends_at is not None and ends_at <= by:
            return True
        before = [Placed(job=-1, request=one.request) for one in self._blocked[:place]]
        request = self._blocked[place].request
        return self._outlook.has_room(request, by, guessing=guessing, beside=[placed, *before])

    def _lingers_s(self, placed: Placed) -> float:
        """How long it may hold its GPUs beyond its end, until their memory is back."""
        own = (gpu for gpu in self._world.gpus or () if gpu.uuid in (placed.gpus or ()))
        if all(gpu.simulated for gpu in own):
            return BESIDES_S
        return BESIDES_S + self._world.policy.cooling_s

    def _starts_by(self, blocked: Blocked, *, guessing: bool) -> float | None:
        """When it could start at the earliest if nobody ends before his time is up: for the first in
        line a promise, for the others the least that they have to wait."""
        if guessing not in blocked.starts_by:
            blocked.starts_by[guessing] = self._find_start(blocked, guessing)
        return blocked.starts_by[guessing]

    def _find_start(self, blocked: Blocked, guessing: bool) -> float | None:
        if blocked.behind is None:
            return self._outlook.earliest(blocked.request, guessing=guessing)
        first = self._starts_by(blocked.behind, guessing=guessing)
        if first is None:
            return None
        after = self._outlook.earliest(blocked.request, guessing=guessing, since=first)
        if not blocked.request.gpus:
            return after
        barred = sorted({*blocked.request.exclude_gpus, *blocked.behind.wanted})
        elsewhere = replace(blocked.request, exclude_gpus=tuple(barred))
        before = self._outlook.earliest(elsewhere, guessing=guessing)
        return min((at for at in (after, before) if at is not None), default=None)


def behind(blocked: Blocked) -> str:
    return f"behind {blocked.job.id}, which has been overtaken {count(blocked.passes, 'time')}"


def _may_take(job: WaitingJob) -> str:
    return f"its time limit is {format_seconds(job.time_limit_s)}"
