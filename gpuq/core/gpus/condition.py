"""How a GPU is at this moment: whose it is, whether anybody uses it who was not given it, and whether
it can be given to anybody.
"""

from collections.abc import Sequence
from dataclasses import replace

from gpuq.core.gpus.fitting import is_allowed
from gpuq.core.gpus.gpu import Gpu, GpuProcess, GpuState
from gpuq.core.model import Lease, LeaseState
from gpuq.core.policy import Policy
from gpuq.core.units import format_bytes


def is_busy_outside(gpu: Gpu, leases: Sequence[Lease], policy: Policy) -> str | None:
    """Who uses this GPU without having been given it, in words; None if nobody does."""
    if gpu.locked_by is not None:
        return gpu.locked_by
    if gpu.foreign_processes:
        return f"outside gpuq: {_processes_words(gpu.foreign_processes)}"
    if stray := strays(gpu, leases):
        return f"job {stray[0].job} uses it without holding it: {_stray_words(stray)}"
    if leases or any(process.job is not None for process in gpu.processes or ()):
        return None  # memory and utilisation are our own jobs' then, or were at the reading
    used = None if gpu.memory_used_bytes is None else gpu.memory_used_bytes - gpu.ignored_bytes
    if used is not None and used > gpu.baseline_bytes + policy.idle_memory_bytes:
        return f"outside gpuq: {format_bytes(used)} in use, and no process to be seen"
    if any(process.ignored for process in gpu.processes or ()):
        return None  # what is computed there may be by those who do not count
    if (gpu.utilization_percent or 0) >= policy.idle_utilization_percent:
        return f"outside gpuq: {gpu.utilization_percent} % busy, and no process to be seen"
    return None


def strays(gpu: Gpu, leases: Sequence[Lease]) -> tuple[GpuProcess, ...]:
    """Processes of our jobs on a GPU that those do not hold, as of a script that sets
    CUDA_VISIBLE_DEVICES itself. On a simulated GPU they are of a job that has just ended."""
    if gpu.simulated:
        return ()
    holders = {lease.job for lease in leases}
    ours = (process for process in gpu.processes or () if process.job is not None)
    return tuple(process for process in ours if process.job not in holders)


def _stray_words(processes: Sequence[GpuProcess]) -> str:
    """Without the names of programs: this is everybody's to read, and what a job runs may not be."""
    return _processes_words([replace(process, command=None) for process in processes])


def _processes_words(processes: Sequence[GpuProcess]) -> str:
    words = processes[0].words
    return words if len(processes) == 1 else f"{words} and {len(processes) - 1} more"


def count_calm(before: Gpu | None, now: Gpu, leases: Sequence[Lease], policy: Policy) -> int | None:
    """The calm readings that a GPU has given, or None where it owes none (any longer).

    Asked of a GPU that is new or was last seen in use by somebody outside gpuq, and never between
    two of gpuq's own jobs. Simulated GPUs start calm.
    """
    if is_busy_outside(now, leases, policy) is not None:
        return 0
    if before is None:
        return None if now.simulated or leases else 1
    if before.calm_samples is None or before.calm_samples + 1 >= policy.calm_samples:
        return None
    return before.calm_samples + 1


def assess(gpu: Gpu, leases: Sequence[Lease], policy: Policy) -> tuple[GpuState, str | None]:
    """The state of a GPU and the sentence for it, as every screen shows them."""
    if gpu.fault is not None:
        return GpuState.LOST, gpu.fault
    if gpu.bar is not None:
        return gpu.bar.state, gpu.bar.reason
    active = [lease for lease in leases if lease.is_active]
    if active:
        return GpuState.LEASED, None
    if dirty := [lease for lease in leases if lease.state is LeaseState.DIRTY]:
        return GpuState.DIRTY, f"memory of job {dirty[0].job} has not come back: {dirty[0].dirt}"
    if leases:
        return GpuState.COOLING, "waiting until the memory of the last job is free again"
    if not is_allowed(gpu, policy):
        return GpuState.DRAINED, "the settings keep it from gpuq (allow_gpus, deny_gpus)"
    if busy := is_busy_outside(gpu, leases, policy):
        return GpuState.FOREIGN, busy
    if gpu.calm_samples is not None:
        seen = f"{gpu.calm_samples} of {policy.calm_samples} readings"
        return GpuState.FOREIGN, f"not known to be free yet: calm for {seen}"
    return GpuState.FREE, None


# In these states nothing is started on a GPU, however much of it is free.
CLOSED = (GpuState.LOST, GpuState.QUARANTINED, GpuState.DRAINED)
