"""When a job that waits for GPUs turns to the CPU instead, and what it asks for then.

Nobody's job does so unasked. One that may keeps its claim to GPUs until there is room for it on the
CPU, so that whichever comes first is its; after that it is a job like any other without GPUs.
"""

from dataclasses import replace

from gpuq.core.model import Request, WaitingJob
from gpuq.core.units import count, format_seconds


def falls_at(job: WaitingJob) -> float | None:
    """When it has waited as long as it wanted to (CLOCK_MONOTONIC, s); None where nothing counts."""
    if job.gpu_wait_since is None or job.request.cpu_after_s is None:
        return None
    return job.gpu_wait_since + job.request.cpu_after_s


def on_cpu(request: Request, time_limit_s: float | None) -> Request:
    """What it asks for without its GPUs. How long it took with them says nothing of how long it takes
    now: only a time limit does."""
    return replace(
        request,
        gpus=0,
        gpu_mem_bytes=None,
        exclusive=True,
        gpu_model=None,
        max_util=None,
        gpu_ids=(),
        exclude_gpus=(),
        cpu_after_s=None,
        lasts_s=time_limit_s,
    )


def hope_words(request: Request) -> str | None:
    """ "after 10:00 of waiting it takes 1 CPU slot instead"."""
    if not request.gpus or request.cpu_after_s is None:
        return None
    slots = count(request.cpus, "CPU slot")
    return f"after {format_seconds(request.cpu_after_s)} of waiting it takes {slots} instead"
