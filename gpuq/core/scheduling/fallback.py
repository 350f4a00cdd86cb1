"""When a job that waits for GPUs turns to the CPU instead, and what it asks for then.

Nobody's job does so unasked. One that may keeps its claim to GPUs until there is room for it on the
CPU, so that whichever comes first is its; after that it is a job like any other without GPUs.
"""

from dataclasses import replace

from gpuq.core.model import Request, WaitingJob
from gpuq.core.scheduling.durations import lasts_s
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


def on_gpus_again(request: Request, given_up: Request, time_limit_s: float | None) -> Request:
    """What it asks for with the GPUs that it has given up. Whatever else was changed of it meanwhile
    stays."""
    return replace(
        request,
        gpus=given_up.gpus,
        gpu_mem_bytes=given_up.gpu_mem_bytes,
        exclusive=given_up.exclusive,
        gpu_model=given_up.gpu_model,
        max_util=given_up.max_util,
        gpu_ids=given_up.gpu_ids,
        exclude_gpus=given_up.exclude_gpus,
        cpu_after_s=given_up.cpu_after_s,
        lasts_s=given_up.lasts_s if time_limit_s is None else lasts_s(time_limit_s, None),
    )


def hope_words(request: Request) -> str | None:
    """ "after 10:00 of waiting it takes 1 CPU slot instead"."""
    if not request.gpus or request.cpu_after_s is None:
        return None
    slots = count(request.cpus, "CPU slot")
    return f"after {format_seconds(request.cpu_after_s)} of waiting it takes {slots} instead"
