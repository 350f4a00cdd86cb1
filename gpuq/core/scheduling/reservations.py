"""GPUs set aside for a user and a time: what that keeps from others, and which GPUs to take for it.

During that time only jobs of that user start there. Before it others start there if they have ended
when it begins, by their time limit and the grace that follows it; a job of which nobody knows how long
it takes counts as long as the settings say. Nothing is ended for it, but for jobs that are preemptible
and in the way of that user's own. Moments are of the clock on the wall, in seconds since the epoch.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gpuq.core.model import Reservation, WaitingJob
from gpuq.core.policy import Policy
from gpuq.core.units import count, format_seconds, name_gpus

LONGEST_S = 366 * 86400.0


def reserved_from(
    job: WaitingJob, reservations: Sequence[Reservation], wall: float, policy: Policy
) -> dict[str, str]:
    """The GPUs on which the job may not start now, each with the reason in words behind "GPU 2 is"."""
    barred: dict[str, str] = {}
    for one in sorted(reservations, key=lambda one: (one.begin_at, one.id)):
        if one.uid == job.uid or (why := _why_barred(job, one, wall, policy)) is None:
            continue
        for gpu in one.gpus:
            barred.setdefault(gpu, why)
    return barred


def _why_barred(job: WaitingJob, one: Reservation, wall: float, policy: Policy) -> str | None:
    if wall >= one.end_at:
        return None
    if wall >= one.begin_at:
        return f"reserved for {one.user} until {one.end_words}"
    lasts_s, words = _length(job, policy)
    if wall + lasts_s <= one.begin_at:
        return None
    return f"reserved for {one.user} from {one.begin_words}, and {words}"


def _length(job: WaitingJob, policy: Policy) -> tuple[float, str]:
    """How long it may take, in seconds and in words."""
    if job.time_limit_s is not None:
        grace = f" and {format_seconds(job.grace_s)} of grace" if job.grace_s else ""
        words = f"it may run for {format_seconds(job.time_limit_s)} (-t){grace}"
        return job.time_limit_s + job.grace_s, words
    if job.request.lasts_s is not None:
        took = format_seconds(job.request.lasts_s)
        return job.request.lasts_s, f"such a job takes up to ~{took}; it has no time limit (-t)"
    return policy.unknown_job_s, "it has no time limit (-t)"


def claimed_by(uid: int, reservations: Sequence[Reservation], wall: float) -> frozenset[str]:
    """The GPUs that are reserved for this user just now."""
    own = (one for one in reservations if one.uid == uid and one.begin_at <= wall < one.end_at)
    return frozenset(gpu for one in own for gpu in one.gpus)


def next_change(reservations: Sequence[Reservation], wall: float) -> float | None:
    """When the next one begins or ends."""
    moments = (at for one in reservations for at in (one.begin_at, one.end_at))
    return min((at for at in moments if at > wall), default=None)


# ── making one ──


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A GPU that could be reserved. `idle_at` is when those that hold it will have ended, as far as
    anybody knows; None: nobody does."""

    uuid: str
    index: int
    idle_at: float | None


def taken_by(
    begin_at: float, end_at: float, reservations: Sequence[Reservation]
) -> dict[str, Reservation]:
    """The GPUs that are reserved for somebody in that time, and the first that does."""
    taken: dict[str, Reservation] = {}
    for one in sorted(reservations, key=lambda one: (one.begin_at, one.id)):
        if one.begin_at < end_at and begin_at < one.end_at:
            for gpu in one.gpus:
                taken.setdefault(gpu, one)
    return taken


def choose(
    candidates: Sequence[Candidate], number: int, taken: Collection[str]
) -> tuple[str, ...] | None:
    """The GPUs to reserve: of those that nobody else has reserved for that time the ones that are idle
    the soonest, and among equals the first ones; None where they are too few."""
    free = [one for one in candidates if one.uuid not in taken]
    if len(free) < number:
        return None
    soonest = sorted(free, key=_idleness)[:number]
    return tuple(one.uuid for one in sorted(soonest, key=lambda one: one.index))


def _idleness(one: Candidate) -> tuple[bool, float, int]:
    return one.idle_at is None, one.idle_at or 0.0, one.index


def overlap_words(
    taken: Mapping[str, Reservation], indices: Mapping[str, int], wanted: Collection[str]
) -> str | None:
    """Who has reserved GPUs that are wanted; None where nobody has."""
    clashes = {taken[gpu].id: taken[gpu] for gpu in wanted if gpu in taken}
    parts = []
    for one in clashes.values():
        gpus = name_gpus(sorted(indices[gpu] for gpu in wanted if taken.get(gpu) is one))
        span = f"{one.begin_words} to {one.end_words}"
        parts.append(f"{gpus} for {one.user} from {span} (reservation {one.id})")
    return ", ".join(parts) or None


def too_few_words(number: int, gpus: int, free: int) -> str:
    there = count(gpus, "GPU")
    if number > gpus:
        return f"this machine has {there}, and {number} were asked for"
    return f"{free} of {there} are free of other reservations then, and {number} were asked for"
