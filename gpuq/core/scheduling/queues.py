"""Named queues: who may use one, what it gives a job, and what it keeps from it."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from gpuq.core.gpus.fitting import is_meant
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Snapshot, WaitingJob
from gpuq.core.policy import Policy, Queue
from gpuq.core.units import format_seconds
from gpuq.errors import NotPermitted, UsageError


def find_queue(name: str, policy: Policy) -> Queue | None:
    return next((queue for queue in policy.queues if queue.name == name), None)


def named_queue(name: str, policy: Policy) -> Queue | None:
    """The queue of that name, None for no name; UsageError tells which there are."""
    queue = find_queue(name, policy) if name else None
    if name and queue is None:
        there = ", ".join(one.name for one in policy.queues)
        are = "there is" if len(policy.queues) == 1 else "there are"
        known = f"{are} {there}" if there else "the settings have none ([queues.NAME])"
        raise UsageError(f"there is no queue {name!r}: {known}. Nothing was queued.")
    return queue


def require_open(queue: Queue, user: str, groups: Collection[str]) -> None:
    """NotPermitted where neither this user nor one of these groups may use it."""
    if not is_open_to(queue, user, groups):
        raise NotPermitted(
            f"queue {queue.name} is for {', '.join(queue.users)}, and {user} is not among them. "
            "Submit to another one (gpuq queues), or without -q. Nothing was queued."
        )


def is_open_to(queue: Queue, user: str, groups: Collection[str]) -> bool:
    if not queue.users or user in queue.users:
        return True
    return any(word.startswith("@") and word[1:] in groups for word in queue.users)


def time_limit_in(queue: Queue, asked_s: float | None) -> float | None:
    """How long a job of this queue may run, where it asked for so long; UsageError where that is more
    than the queue allows."""
    most = queue.max_time_limit_s
    if asked_s is None:
        return most if queue.time_limit_s is None else _least(queue.time_limit_s, most)
    if most is not None and asked_s > most:
        raise UsageError(
            f"--time {format_seconds(asked_s)} is more than the {format_seconds(most)} that a job of "
            f"queue {queue.name} may run (max_time_limit). Nothing was queued."
        )
    return asked_s


def _least(seconds: float, most: float | None) -> float:
    return seconds if most is None else min(seconds, most)


def is_gone(job: WaitingJob, policy: Policy) -> bool:
    return bool(job.queue) and find_queue(job.queue, policy) is None


def why_gone(job: WaitingJob) -> str:
    return f"queue {job.queue} is not in the settings any more"


def with_priorities(snapshot: Snapshot) -> Snapshot:
    """The same with what its queue adds to the priority of each job."""
    added = {queue.name: queue.priority for queue in snapshot.policy.queues if queue.priority}
    if not added:
        return snapshot
    waiting = (
        replace(job, priority=job.priority + added.get(job.queue, 0)) for job in snapshot.waiting
    )
    active = (
        replace(job, priority=job.priority + added.get(job.queue, 0)) for job in snapshot.active
    )
    return replace(snapshot, waiting=tuple(waiting), active=tuple(active))


def gpus_of(queue: Queue | None, gpus: Sequence[Gpu]) -> list[Gpu]:
    """Those of these GPUs that the jobs of a queue may have."""
    if queue is None or not queue.gpus:
        return list(gpus)
    return [gpu for gpu in gpus if any(is_meant(gpu, word) for word in queue.gpus)]


def barred_gpus(queue: Queue | None, gpus: Sequence[Gpu]) -> frozenset[str]:
    """The uuids of the GPUs that a queue keeps from its jobs."""
    open_to_it = {gpu.uuid for gpu in gpus_of(queue, gpus)}
    return frozenset(gpu.uuid for gpu in gpus if gpu.uuid not in open_to_it)


def bar_words(queue: Queue) -> str:
    """ "queue night has GPU 0, 1 only"."""
    return f"queue {queue.name} has GPU {', '.join(queue.gpus)} only"
