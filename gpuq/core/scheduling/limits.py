"""What the jobs of one user, queue, group or tag may have at a time: so many that run, so many GPUs.

Who has that much waits for others under the same limit to end. Where a limit was lowered meanwhile
there may be more than it allows: what runs goes on.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gpuq.core.model import ActiveJob, Limit, LimitKind, Request, WaitingJob
from gpuq.core.policy import Policy
from gpuq.core.scheduling.queues import find_queue
from gpuq.core.units import count

Key = tuple[LimitKind, str]  # whose share it is: a user by uid, a group by its number


@dataclass(slots=True)
class _Share:
    jobs: int = 0
    gpus: int = 0  # a share of one counts as one


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cap:
    """One limit that holds for a job. `jobs_of` and `gpus_of` say whose limit that is; None: it is the
    one that the settings give to every user."""

    key: Key
    max_running: int | None
    max_gpus: int | None
    jobs_of: str | None
    gpus_of: str | None

    @property
    def is_private(self) -> bool:
        """Is all that counts there one user's own?"""
        return self.key[0] in (LimitKind.USER, LimitKind.GROUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a job has to wait for others, and of which limits it is to keep its part."""

    why: str
    keys: tuple[Key, ...]


class Caps:
    """What everybody has, held against the limits; `take` notes what this turn has given away."""

    def __init__(
        self, active: Iterable[ActiveJob], policy: Policy, limits: Iterable[Limit] = ()
    ) -> None:
        self._policy = policy
        self._limits = {(limit.kind, limit.name): limit for limit in limits}
        self._shares: defaultdict[Key, _Share] = defaultdict(_Share)
        self._known: dict[object, list[_Cap]] = {}
        self._are_none = not self._limits and not _has_limits(policy)
        for job in active:
            self._add(job)

    def take(self, job: WaitingJob) -> None:
        self._add(job)

    def _add(self, job: ActiveJob | WaitingJob) -> None:
        if self._are_none:
            return
        for key in _keys(job):
            self._shares[key].jobs += 1
            self._shares[key].gpus += job.request.gpus

    def keys_of(self, job: WaitingJob) -> tuple[Key, ...]:
        """The limits that hold for it."""
        return tuple(cap.key for cap in self._caps(job))

    def never(self, job: WaitingJob) -> str | None:
        """Why it does not start however much of ours ends: until the limit is another one nobody waits
        behind it."""
        for cap in self._caps(job):
            if cap.max_running == 0:
                return f"none may run: {cap.jobs_of}"
            if cap.max_gpus is not None and job.request.gpus > cap.max_gpus:
                return _too_large(job.request, cap)
        return None

    def refusal(self, job: WaitingJob) -> Refusal | None:
        """Why it has to wait for others under one of its limits; None where it need not.

        Who waits for what is his alone keeps no other's part: nobody has to wait for that. Who waits
        for what he shares with others keeps his part of all that he waits for, or somebody would be
        faster with one of them each time.
        """
        caps = self._caps(job)
        refused = [(cap, why) for cap in caps if (why := self._why(job, cap)) is not None]
        if not refused:
            return None
        private = [cap for cap, _ in refused if cap.is_private]
        return Refusal(why=refused[0][1], keys=tuple(cap.key for cap in private or caps))

    def _why(self, job: WaitingJob, cap: _Cap) -> str | None:
        share, wanted = self._shares[cap.key], job.request.gpus
        if cap.max_running is not None and share.jobs + 1 > cap.max_running:
            return _had_jobs(job.user, share.jobs, cap.max_running, cap.jobs_of)
        if cap.max_gpus is not None and wanted and share.gpus + wanted > cap.max_gpus:
            return _had_gpus(job, share.gpus, cap.max_gpus, cap.gpus_of)
        return None

    def takes_from(self, job: WaitingJob, other: WaitingJob) -> bool:
        """Would the other one have to wait for a limit that both are under if this one starts?"""
        shared = {cap.key for cap in self._caps(other)}
        return any(self._takes(cap, job, other) for cap in self._caps(job) if cap.key in shared)

    def _takes(self, cap: _Cap, job: WaitingJob, other: WaitingJob) -> bool:
        share = self._shares[cap.key]
        if cap.max_running is not None and share.jobs + 2 > cap.max_running:
            return True
        wanted = (job.request.gpus, other.request.gpus)
        return (
            cap.max_gpus is not None and 0 not in wanted and share.gpus + sum(wanted) > cap.max_gpus
        )

    def _caps(self, job: WaitingJob) -> list[_Cap]:
        """Found once for all that are under the same."""
        if self._are_none:
            return []
        marks = job.uid, job.user, job.queue, job.group, job.tags
        if marks not in self._known:
            self._known[marks] = _caps_of(job, self._limits, self._policy)
        return self._known[marks]


def _has_limits(policy: Policy) -> bool:
    """Does any of the settings hold for anybody?"""
    return bool(policy.queues) or (policy.max_running_per_user, policy.max_gpus_per_user) != (
        None,
        None,
    )


def _keys(job: ActiveJob | WaitingJob) -> list[Key]:
    """Every limit under which it would be counted, were there one."""
    keys = [(LimitKind.USER, str(job.uid))]
    keys += [(LimitKind.GROUP, str(job.group))] if job.group else []
    keys += [(LimitKind.QUEUE, job.queue)] if job.queue else []
    return [*keys, *((LimitKind.TAG, tag) for tag in dict.fromkeys(job.tags))]


def _caps_of(job: WaitingJob, limits: Mapping[Key, Limit], policy: Policy) -> list[_Cap]:
    """One's own first."""
    caps = [_user_cap(job, limits.get((LimitKind.USER, job.user)), policy)]
    for key in _keys(job)[1:]:
        kind, name = key
        limit = _queue_limit(name, policy) if kind is LimitKind.QUEUE else limits.get(key)
        if limit is not None:
            whose = whose_limit(limit)
            cap = _Cap(
                key=key,
                max_running=limit.max_running,
                max_gpus=limit.max_gpus,
                jobs_of=whose,
                gpus_of=whose,
            )
            caps.append(cap)
    return [cap for cap in caps if cap.max_running is not None or cap.max_gpus is not None]


def _user_cap(job: WaitingJob, own: Limit | None, policy: Policy) -> _Cap:
    """A user's own limit goes over the one of the settings."""
    jobs = None if own is None else own.max_running
    gpus = None if own is None else own.max_gpus
    whose = None if own is None else whose_limit(own)
    return _Cap(
        key=(LimitKind.USER, str(job.uid)),
        max_running=policy.max_running_per_user if jobs is None else jobs,
        max_gpus=policy.max_gpus_per_user if gpus is None else gpus,
        jobs_of=None if jobs is None else whose,
        gpus_of=None if gpus is None else whose,
    )


def _queue_limit(name: str, policy: Policy) -> Limit | None:
    queue = find_queue(name, policy)
    if queue is None:
        return None
    return Limit(
        kind=LimitKind.QUEUE, name=name, max_running=queue.max_running, max_gpus=queue.max_gpus
    )


def whose_limit(limit: Limit) -> str:
    """ "limit of tag big, set by root"."""
    name = f"g{limit.name}" if limit.kind is LimitKind.GROUP else limit.name
    by = "" if limit.actor is None else f", set by {limit.actor}"
    return f"limit of {limit.kind} {name}{by}"


def openly(reason: str) -> str:
    """The same for those who may not know which tags a job has."""
    said, of_tag, _ = reason.partition(f"limit of {LimitKind.TAG} ")
    return f"{said}limit of a {LimitKind.TAG}" if of_tag else reason


def more_than_allowed(job: WaitingJob, policy: Policy, limits: Iterable[Limit] = ()) -> str | None:
    """Why a job can never start, however little else runs under its limits; None where it can. A limit
    of 0 is somebody's "not now"."""
    known = {(limit.kind, limit.name): limit for limit in limits}
    for cap in _caps_of(job, known, policy):
        if cap.max_gpus and job.request.gpus > cap.max_gpus:
            return _too_large(job.request, cap)
    return None


def too_many_queued(queued: int, new: int, most: int | None) -> str | None:
    """Why a user who has so many queued may not queue so many new ones; None where that is no matter.
    Those that run count no longer."""
    if most is None or queued + new <= most:
        return None
    them = "this job" if new == 1 else f"these {new}"
    room = max(most - queued, 0)
    less = f", or submit {count(room, 'job')}" if room else ""
    return (
        f"cannot queue {them}: you have {queued} queued, and one user may have {most} "
        f"(max_queued_per_user). Nothing was queued. Wait until some have started, end some "
        f"(gpuq kill){less}"
    )


def _too_large(request: Request, cap: _Cap) -> str:
    wants = f"wants {count(request.gpus, 'GPU')}"
    if cap.gpus_of is None:
        return f"{wants}, and one user may have {cap.max_gpus} at a time (max_gpus_per_user)"
    return f"{wants}, and {cap.max_gpus} may be in use at a time: {cap.gpus_of}"


def _had_jobs(user: str, has: int, most: int, whose: str | None) -> str:
    if whose is None:
        return f"{_user_has(user, has, most, 'running job')} (max_running_per_user)"
    return f"{has} of {most} running: {whose}" if has <= most else f"{has} run, {most} may: {whose}"


def _had_gpus(job: WaitingJob, has: int, most: int, whose: str | None) -> str:
    wanted = job.request.gpus
    wants = f"wants {count(wanted, 'GPU')}, and " if wanted > 1 and has <= most else ""
    if whose is None:
        return f"{wants}{_user_has(job.user, has, most, 'GPU')} (max_gpus_per_user)"
    if has > most:
        return f"{count(has, 'GPU')} in use, {most} may be: {whose}"
    return f"{wants}{has} of {count(most, 'GPU')} in use: {whose}"


def _user_has(user: str, has: int, most: int, noun: str) -> str:
    """ "alice has 2 of the 2 GPUs that one user may have"."""
    if has > most:
        return f"{user} has {count(has, noun)}, and one user may have {most}"
    return f"{user} has {has} of the {count(most, noun)} that one user may have"
