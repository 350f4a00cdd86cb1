"""Worlds in a line: `world(gpus=2, jobs=[job(gpus=4)])`. Say what matters, the rest is usual.

GPUs are numbered; `lease(0, job=7)` is on the first one. Sizes are written as people write them.
"""

import signal as signals
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from hypothesis import settings

from gpuq.core.decisions import Decision, Pause, Plan, Resume, SetAside, Signal, Start
from gpuq.core.gpus.gpu import Gpu, GpuProcess
from gpuq.core.model import (
    ActiveJob,
    Closing,
    DelayedJob,
    Drain,
    EndCause,
    JobState,
    Lease,
    LeaseState,
    Request,
    Snapshot,
    StopWish,
    WaitingJob,
)
from gpuq.core.policy import Policy
from gpuq.core.states import GIVES_BACK
from gpuq.core.units import parse_bytes

MIB, GIB = 2**20, 2**30

# Found once is found always, on a slow machine too.
STEADY = settings(deadline=None, derandomize=True)


def size(text: str | None) -> int | None:
    return None if text is None else parse_bytes(text)


def uuid(index: int) -> str:
    return f"GPU-{index}"


def gpu(
    index: int = 0,
    mem: str | None = "24G",
    *,
    model: str = "RTX 4090",
    simulated: bool = False,
    used: str | None = "0K",
    processes: Sequence[GpuProcess] | None = (),
    **more: object,
) -> Gpu:
    """An idle GPU; what its processes hold is used too."""
    held = sum(process.memory_bytes or 0 for process in processes or ())
    used_bytes = size(used)
    idle = Gpu(
        index=index,
        uuid=uuid(index),
        model=model,
        simulated=simulated,
        memory_total_bytes=size(mem),
        memory_used_bytes=None if used_bytes is None else used_bytes + held,
        utilization_percent=0,
        processes=None if processes is None else tuple(processes),
    )
    return replace(idle, **more)  # type: ignore[arg-type]


def foreign(mem: str | None = "1G", *, pid: int = 4242, user: str | None = "bob") -> GpuProcess:
    """A process of somebody outside gpuq."""
    return GpuProcess(pid=pid, user=user, command="python", memory_bytes=size(mem))


def ours(job: int, mem: str | None = "1G") -> GpuProcess:
    return GpuProcess(pid=1000 + job, user="ann", command="train", memory_bytes=size(mem), job=job)


def request(
    gpus: int = 1,
    mem: str | None = None,
    *,
    exclusive: bool | None = None,
    model: str | None = None,
    cpus: int = 1,
    max_util: int | None = None,
    gpu_ids: tuple[str, ...] = (),
    exclude_gpus: tuple[str, ...] = (),
) -> Request:
    """Sharing where memory is asked for, exclusive otherwise, as on the command line."""
    return Request(
        gpus=gpus,
        gpu_mem_bytes=size(mem),
        exclusive=mem is None if exclusive is None else exclusive,
        gpu_model=model,
        cpus=cpus,
        max_util=max_util,
        gpu_ids=gpu_ids,
        exclude_gpus=exclude_gpus,
    )


def job(
    gpus: int = 1,
    mem: str | None = None,
    *,
    id: int = 0,
    exclusive: bool | None = None,
    model: str | None = None,
    cpus: int = 1,
    priority: int = 0,
    passes: int = 0,
    stop: StopWish | None = None,
    uid: int = 0,
    user: str = "",
    limit_s: float | None = None,
    lasts_s: float | None = None,
    **more: object,
) -> WaitingJob:
    """A waiting job. Without an id it gets its place in the world's list, counted from 1. Its time
    limit is a promise; `lasts_s` is only what it took before."""
    asked = request(gpus, mem, exclusive=exclusive, model=model, cpus=cpus)
    plain = WaitingJob(
        id=id,
        class_id=0,
        uid=uid,
        user=user,
        request=replace(asked, lasts_s=lasts_s if limit_s is None else limit_s),
        priority=priority,
        passes=passes,
        stop=stop,
        time_limit_s=limit_s,
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def active(
    id: int,
    gpus: int = 1,
    *,
    cpus: int = 1,
    state: JobState = JobState.RUNNING,
    grace_s: float | None = None,
    ending: EndCause | None = None,
    **more: object,
) -> ActiveJob:
    """A running job, since a while; with `grace_s` somebody wants it ended. A signal that was sent
    was sent for that, unless `ending` says for what. What it holds is said by leases."""
    was_sent = {"term_sent_at", "kill_sent_at"} & set(more)
    plain = ActiveJob(
        id=id,
        attempt=1,
        state=state,
        request=request(gpus, cpus=cpus),
        running_since=None if state is JobState.STARTING else 0.0,
        stop=None if grace_s is None else stop(grace_s),
        ending=EndCause.ASKED if was_sent and ending is None else ending,
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def stop(grace_s: float = 10.0) -> StopWish:
    return StopWish(grace_s=grace_s, actor="ann")


def lease(
    index: int,
    job: int,
    mem: str | None = None,
    *,
    slot: int = 0,
    exclusive: bool | None = None,
    cooling_since: float | None = None,
    dirt: str | None = None,
) -> Lease:
    """Held; with `cooling_since` its job has ended, and with `dirt` its memory did not come back."""
    after = LeaseState.COOLING if dirt is None else LeaseState.DIRTY
    return Lease(
        gpu=uuid(index),
        slot=slot,
        job=job,
        attempt=1,
        exclusive=mem is None if exclusive is None else exclusive,
        memory_bytes=size(mem),
        state=LeaseState.ACTIVE if cooling_since is None else after,
        cooling_since=cooling_since,
        dirt=dirt,
    )


def world(
    gpus: int | Sequence[Gpu] | None = 1,
    jobs: Iterable[WaitingJob] = (),
    leases: Sequence[Lease] = (),
    active: Sequence[ActiveJob] = (),
    *,
    now: float = 1000.0,
    boottime: float = 5000.0,
    read_at: float | None = None,
    trouble: str | None = None,
    delayed: Sequence[DelayedJob] = (),
    drain: str | None = None,
    closing: Closing | None = None,
    per_class: int | None = None,
    **policy: object,
) -> Snapshot:
    """What the scheduler sees. Jobs that ask the same make a class; with `per_class` only the first
    few of each class are seen. `drain` is bob's reason for it. `policy` are settings that differ
    from the usual ones."""
    if isinstance(gpus, int):
        gpus = [gpu(index) for index in range(gpus)]
    numbered = [one if one.id else replace(one, id=n) for n, one in enumerate(jobs, start=1)]
    classes: dict[object, int] = {}
    sorted_out = [
        replace(one, class_id=classes.setdefault(_kind(one), len(classes) + 1)) for one in numbered
    ]
    settings: dict[str, object] = {"cpu_slots": 8} | policy
    return Snapshot(
        now=now,
        boottime=boottime,
        gpus=None if gpus is None else tuple(gpus),
        leases=tuple(leases),
        waiting=tuple(window(sorted_out, per_class)),
        active=tuple(active),
        delayed=tuple(delayed),
        drain=None if drain is None else Drain(actor="bob", reason=drain),
        closing=closing,
        policy=Policy(**settings),  # type: ignore[arg-type]
        jobs_per_class=per_class,
        gpus_read_at=read_at,
        gpu_trouble=trouble,
    )


def _kind(one: WaitingJob) -> object:
    """What jobs of one class have in common."""
    return one.uid, one.request, one.queue, one.group, one.tags


def window(jobs: Iterable[WaitingJob], per_class: int | None) -> list[WaitingJob]:
    """The first few of each class, as the store shows them; jobs only to be cancelled beside."""
    classes: dict[int, list[WaitingJob]] = defaultdict(list)
    for one in jobs:
        classes[0 if one.stop else one.class_id].append(one)
    leaving = classes.pop(0, [])
    heads = (sorted(held, key=_in_class) for held in classes.values())
    return [one for held in heads for one in held[:per_class]] + leaving


def _in_class(job: WaitingJob) -> tuple[int, int, int, int]:
    return -job.priority, job.rank, job.place, job.id


def started(plan: Plan) -> dict[int, tuple[int, ...]]:
    """The jobs that a plan starts, each with the indices of its GPUs."""
    return {
        one.job: tuple(int(name.removeprefix("GPU-")) for name in one.gpus)
        for one in plan.decisions
        if isinstance(one, Start)
    }


def carried_out(running: ActiveJob, decision: Decision, now: float) -> ActiveJob:
    """The job as the store shows it once that has been done, which is noted before it is."""
    match decision:
        case Pause():
            return replace(running, paused_since=now)
        case Resume():
            return _resumed(running, now)
        case SetAside():
            return replace(running, is_unkillable=True)
        case Signal(ends=None):
            return replace(running, signal_wishes=running.signal_wishes[1:])
        case Signal(signal=signals.SIGKILL, ends=cause):
            first = now if running.kill_sent_at is None else running.kill_sent_at
            noted = replace(running, kill_sent_at=first, last_kill_at=now)
        case Signal(ends=cause):
            noted = replace(running, term_sent_at=now)
        case _:
            raise AssertionError(f"{decision} is not for a job that runs")
    is_final = running.ending is not None and running.ending not in GIVES_BACK
    return replace(_resumed(noted, now), ending=running.ending if is_final else cause)


def _resumed(running: ActiveJob, now: float) -> ActiveJob:
    if running.paused_since is None:
        return running
    stood_s = max(now - running.paused_since, 0.0)
    return replace(running, paused_since=None, resumed_at=now, paused_s=running.paused_s + stood_s)
