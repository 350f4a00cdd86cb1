"""Who is considered before whom: by priority, and then first come, first served. Each user may put own
jobs into another order among the places that they hold, and nobody else waits longer for that."""

from collections import defaultdict
from collections.abc import Iterable

from gpuq.core.model import Snapshot, WaitingJob

Place = tuple[int, int]  # and the id, should two jobs have the same


def in_order(snapshot: Snapshot) -> list[WaitingJob]:
    """Those that may start, the first first."""
    candidates = [job for job in snapshot.waiting if job.stop is None]
    if len({job.rank for job in candidates}) <= 1:  # nobody wants another order: the usual case
        return sorted(candidates, key=lambda job: (-job.priority, job.place, job.id))
    places = own_places(candidates)
    return sorted(candidates, key=lambda job: (-job.priority, places[job.id]))


def own_places(jobs: Iterable[WaitingJob]) -> dict[int, Place]:
    """The place that each job has once its user's order counts: the k-th in that order has the k-th of
    the places that the user's jobs of the same priority hold."""
    own: defaultdict[tuple[int, int], list[WaitingJob]] = defaultdict(list)
    for job in jobs:
        own[job.uid, job.priority].append(job)
    places: dict[int, Place] = {}
    for jobs_of_one in own.values():
        held = sorted((job.place, job.id) for job in jobs_of_one)
        wanted = sorted(jobs_of_one, key=lambda job: (job.rank, job.place, job.id))
        places |= {job.id: place for job, place in zip(wanted, held, strict=True)}
    return places
