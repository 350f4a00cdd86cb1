"""Fair share: among jobs of the same priority those of who has had less of the GPUs go first.

What somebody has had fades: a GPU-second counts half after the half-life. The sum of what fades so is
an integral that can be carried on from any moment, so that one figure and its time are all that is
kept (the decay of Slurm's priority/multifactor plugin,
https://slurm.schedmd.com/priority_multifactor.html#fairshare).
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import groupby
from math import exp2, log

from gpuq.core.model import Request, WaitingJob

# What a start is charged with until the next turn knows better, where nobody knows how long it runs.
USUAL_RUN_S = 3600.0


def faded(gpu_s: float, age_s: float, half_life_s: float) -> float:
    """What is left of so many GPU-seconds after that time. A clock that was set back adds nothing."""
    return gpu_s * exp2(-max(age_s, 0.0) / half_life_s)


def fading_use(gpus: int, seconds: float, half_life_s: float) -> float:
    """GPU-seconds of so many GPUs over that time up to now, of which the first have faded most: the
    integral of gpus * 2^(-t / half_life_s) over t from 0 to `seconds`."""
    rate = log(2) / half_life_s
    return gpus * (1 - exp2(-max(seconds, 0.0) / half_life_s)) / rate


def charge(request: Request) -> float:
    """What a start counts for at once, in GPU-seconds: its GPUs for as long as it may run."""
    return request.gpus * (USUAL_RUN_S if request.lasts_s is None else request.lasts_s)


@dataclass(slots=True)
class FairOrder:
    """Who comes next, asked one by one: a start is charged before the next one is named, so that users
    alternate within one turn. `jobs` are in order of priority, then place; that stays between the
    jobs of one user, and between users who have had the same."""

    jobs: Sequence[WaitingJob]
    usage: Mapping[int, float]  # GPU-seconds by uid
    _charged: dict[int, float] = field(default_factory=dict)
    _named: list[WaitingJob] = field(default_factory=list)

    def __iter__(self) -> Iterator[WaitingJob]:
        for _, equals in groupby(self.jobs, lambda job: job.priority):
            yield from self._among(list(equals))

    def _among(self, jobs: Sequence[WaitingJob]) -> Iterator[WaitingJob]:
        lines: dict[int, deque[tuple[int, WaitingJob]]] = {}
        for place, job in enumerate(jobs):
            lines.setdefault(job.uid, deque()).append((place, job))
        first = [(self._had(uid), line[0][0], uid) for uid, line in lines.items()]
        heapify(first)
        while first:
            _, _, uid = heappop(first)
            _, job = lines[uid].popleft()
            self._named.append(job)
            yield job
            if lines[uid]:  # what was started meanwhile, if anything, is this one
                heappush(first, (self._had(uid), lines[uid][0][0], uid))

    def _had(self, uid: int) -> float:
        """GPU-seconds, with what was started in this turn."""
        return self.usage.get(uid, 0.0) + self._charged.get(uid, 0.0)

    def take(self, job: WaitingJob) -> None:
        self._charged[job.uid] = self._charged.get(job.uid, 0.0) + charge(job.request)

    def words(self, job: int) -> str | None:
        """Why a later one of somebody else goes first; None where none does."""
        place = next((n for n, one in enumerate(self._named) if one.id == job), 0)
        own, came = self._named[place], {one.id: n for n, one in enumerate(self.jobs)}
        for first in self._named[:place]:
            if came[first.id] > came[job]:
                had, theirs = self.usage.get(own.uid, 0.0), self.usage.get(first.uid, 0.0)
                return (
                    f"fair share: {first.id} goes first, {first.user} has had {hours(theirs)} "
                    f"lately and {own.user} {hours(had)}"
                )
        return None


def hours(gpu_s: float) -> str:
    """ "0.3 GPU seconds", "42 GPU seconds", "5.2 GPU minutes", "12.4 GPU hours", "120 GPU hours"."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if gpu_s >= length:
            number = gpu_s / length
            return f"{number:.1f} GPU {unit}" if number < 99.95 else f"{number:.0f} GPU {unit}"
    return f"{gpu_s:.1f} GPU seconds" if 0 < gpu_s < 9.95 else f"{gpu_s:.0f} GPU seconds"
