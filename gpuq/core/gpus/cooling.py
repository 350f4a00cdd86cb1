"""When a GPU that a job has left may be given on: once its memory is back.

A reading taken after the job's end decides. Where the memory does not come back in time the GPU is
dirty, says who is on it, and is looked at with every later reading.
"""

from collections.abc import Mapping
from dataclasses import replace

from gpuq.core.decisions import Decision, MarkDirty, Release
from gpuq.core.gpus.condition import is_busy_outside
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Lease, LeaseState, Snapshot
from gpuq.core.policy import Policy
from gpuq.core.units import format_bytes


def plan_releases(snapshot: Snapshot) -> tuple[list[Decision], list[float]]:
    """What to do with each lease whose job has ended, and when to look again without news."""
    gpus = {gpu.uuid: gpu for gpu in snapshot.gpus or ()}
    decisions: list[Decision] = []
    deadlines: list[float] = []
    for lease in snapshot.leases:
        if lease.is_active or lease.cooling_since is None:
            continue
        warmth = _warmth(snapshot, lease, gpus.get(lease.gpu))
        deadline = lease.cooling_since + snapshot.policy.cooling_s
        if warmth is None and snapshot.now < deadline and _is_untold(snapshot, lease, gpus):
            deadlines.append(deadline)
        elif warmth is None:
            decisions.append(Release(gpu=lease.gpu, slot=lease.slot))
        elif lease.state is LeaseState.DIRTY:
            continue
        elif snapshot.now >= deadline:
            decisions.append(MarkDirty(gpu=lease.gpu, slot=lease.slot, dirt=warmth))
        else:
            deadlines.append(deadline)
    return decisions, deadlines


def _is_untold(snapshot: Snapshot, lease: Lease, gpus: Mapping[str, Gpu]) -> bool:
    """Nobody can say whether the memory in use is this one's or that of the jobs which still share
    the GPU: it is taken for both of theirs for as long as cooling may take."""
    gpu = gpus.get(lease.gpu)
    others = [one.job for one in snapshot.leases if one.gpu == lease.gpu and one.is_active]
    if gpu is None or not others:
        return False
    ours = [one for one in gpu.processes or () if one.job in others]
    return gpu.processes is None or any(one.memory_bytes is None for one in ours)


def _warmth(snapshot: Snapshot, lease: Lease, gpu: Gpu | None) -> str | None:
    """Why the GPU cannot be given on yet; None where it can."""
    assert lease.cooling_since is not None
    if (snapshot.gpus_read_at or 0.0) <= lease.cooling_since:
        return snapshot.gpu_trouble or "no reading of this GPU since its job ended"
    if gpu is None:  # gone from the machine: there is nothing to give on, and nothing to keep
        return None
    if gpu.fault is not None:
        return gpu.fault
    on_it = (other for other in snapshot.leases if other.gpu == lease.gpu)
    others = [other for other in on_it if other.is_active]
    if own := tuple(process for process in gpu.processes or () if process.job == lease.job):
        return is_busy_outside(replace(gpu, processes=own), others, snapshot.policy)
    if others:
        return None  # what has not come back counts as somebody's in the ledger
    if gpu.foreign_processes:
        return _unexplained(gpu, snapshot.policy)
    return is_busy_outside(gpu, others, snapshot.policy)


def _unexplained(gpu: Gpu, policy: Policy) -> str | None:
    """Memory that is neither the idle GPU's own nor that of the strangers on it; who they are keeps
    the GPU from others by itself, and is no fault of the job that has left."""
    sizes = [process.memory_bytes for process in gpu.processes or ()]
    if gpu.memory_used_bytes is None or None in sizes:
        return None
    left = gpu.memory_used_bytes - gpu.baseline_bytes - sum(size or 0 for size in sizes)
    if left <= policy.idle_memory_bytes:
        return None
    return f"{format_bytes(left)} in use, and no process to be seen"
