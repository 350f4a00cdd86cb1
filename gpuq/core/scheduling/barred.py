"""The GPUs that are kept from a job for other reasons than who holds them just now: its queue has
others, or they are reserved for somebody else."""

from collections.abc import Mapping

from gpuq.core.gpus.fitting import matches
from gpuq.core.model import Snapshot, WaitingJob
from gpuq.core.scheduling.queues import bar_words, find_queue, gpus_of
from gpuq.core.scheduling.reservations import reserved_from
from gpuq.core.units import name_gpus


def barred_gpus(job: WaitingJob, snapshot: Snapshot) -> dict[str, str]:
    """By uuid, each with the reason in words; those of its queue's first."""
    policy, gpus = snapshot.policy, snapshot.gpus or ()
    queue = find_queue(job.queue, policy) if job.queue else None
    barred: dict[str, str] = {}
    if queue is not None and queue.gpus:
        open_to_it = {gpu.uuid for gpu in gpus_of(queue, gpus)}
        words = bar_words(queue)
        barred = {gpu.uuid: words for gpu in gpus if gpu.uuid not in open_to_it}
    if snapshot.reservations:
        barred = reserved_from(job, snapshot.reservations, snapshot.wall, policy) | barred
    return barred


def barred_words(job: WaitingJob, barred: Mapping[str, str], snapshot: Snapshot) -> str:
    """ "queue night has GPU 0, 1 only; GPUs 2,3 are reserved for alice from 18:00, and …": of those
    that it could use otherwise."""
    by_reason: dict[str, list[int]] = {}
    for gpu in snapshot.gpus or ():
        if gpu.uuid in barred and matches(gpu, job.request):
            by_reason.setdefault(barred[gpu.uuid], []).append(gpu.index)
    return "; ".join(_told(why, indices) for why, indices in by_reason.items())


def _told(why: str, indices: list[int]) -> str:
    if not why.startswith("reserved"):
        return why
    return f"{name_gpus(indices)} {'is' if len(indices) == 1 else 'are'} {why}"
