"""What one user may have at a time, whoever it is: so many jobs that run, so many GPUs.

Who has that much waits for jobs of their own to end, and nobody else waits for it. Where a limit was
lowered meanwhile a user may have more than it allows: what runs goes on.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from gpuq.core.model import ActiveJob, Request, WaitingJob
from gpuq.core.policy import Policy
from gpuq.core.units import count


@dataclass(slots=True)
class _Share:
    jobs: int = 0
    gpus: int = 0  # a share of one counts as one


class UserShares:
    """What each user has, held against the limits; `take` notes what this turn has given away."""

    def __init__(self, active: Iterable[ActiveJob], policy: Policy) -> None:
        self._policy = policy
        self._shares: defaultdict[int, _Share] = defaultdict(_Share)
        for job in active:
            self._add(job.uid, job.request)

    def take(self, job: WaitingJob) -> None:
        self._add(job.uid, job.request)

    def _add(self, uid: int, request: Request) -> None:
        self._shares[uid].jobs += 1
        self._shares[uid].gpus += request.gpus

    def refusal(self, job: WaitingJob) -> str | None:
        """Why it has to wait for other jobs of its user, with numbers; None where it need not."""
        share = self._shares[job.uid]
        jobs, gpus = self._policy.max_running_per_user, self._policy.max_gpus_per_user
        if jobs is not None and share.jobs + 1 > jobs:
            had = _had(job.user, share.jobs, jobs, "running job")
            return f"{had} (max_running_per_user)"
        if gpus is not None and job.request.gpus and share.gpus + job.request.gpus > gpus:
            had = _had(job.user, share.gpus, gpus, "GPU")
            wants = f"wants {count(job.request.gpus, 'GPU')}, and " if job.request.gpus > 1 else ""
            return f"{wants}{had} (max_gpus_per_user)"
        return None

    def takes_from(self, job: WaitingJob, other: WaitingJob) -> bool:
        """Would the other one, of the same user, have to wait for a limit if this job starts?"""
        share = self._shares[job.uid]
        jobs, gpus = self._policy.max_running_per_user, self._policy.max_gpus_per_user
        if jobs is not None and share.jobs + 2 > jobs:
            return True
        wanted = (job.request.gpus, other.request.gpus)
        return gpus is not None and 0 not in wanted and share.gpus + sum(wanted) > gpus


def more_than_allowed(request: Request, policy: Policy) -> str | None:
    """Why a job can never start, however little else its user has; None where it can."""
    most = policy.max_gpus_per_user
    if most is None or request.gpus <= most:
        return None
    wants = f"wants {count(request.gpus, 'GPU')}"
    return f"{wants}, and one user may have {most} at a time (max_gpus_per_user)"


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


def _had(user: str, has: int, most: int, noun: str) -> str:
    """ "alice has 2 of the 2 GPUs that one user may have"."""
    if has > most:
        return f"{user} has {count(has, noun)}, and one user may have {most}"
    return f"{user} has {has} of the {count(most, noun)} that one user may have"
