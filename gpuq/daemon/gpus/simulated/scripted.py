"""Plays a scenario: GPUs that do not exist, with other people's work, faults and hangs on them.

Nothing here is random: a reading follows from the story, the moment and the jobs on the GPUs. What a
reading cannot tell (how long a job has run, what XIDs were told, the energy so far) is kept where
the next probe finds it, because a probe that hangs is killed in the middle of the story.
"""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

from gpuq.core.gpus.gpu import Gpu, GpuProcess
from gpuq.daemon.gpus.backend import GpusUnavailable, Held
from gpuq.daemon.gpus.simulated.plain import BUSY_C, BUSY_SHARE, IDLE_C, IDLE_SHARE
from gpuq.daemon.gpus.simulated.scenario import (
    Behaviour,
    Fault,
    FaultKind,
    Now,
    Scenario,
    ScriptedGpu,
    Stranger,
    Tells,
)

NAP_S = 0.02
WARMS_IN_S = 15.0  # to about two thirds of the way towards where the load leads
RIPPLE_SHARE, RIPPLE_S = 0.02, 5.0  # of the power limit: a screen that stands still looks dead
PROHIBITED = "is in compute mode Prohibited: nvidia-smi --compute-mode=DEFAULT"


class ScriptedBackend:
    """`started_s` is when the daemon's first probe began, on the clock of `now` (CLOCK_MONOTONIC);
    `memory_fd` a file in which each probe of that daemon finds what the one before it knew."""

    def __init__(
        self,
        scenario: Scenario,
        started_s: float | None = None,
        memory_fd: int | None = None,
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[], None] = lambda: time.sleep(NAP_S),
    ) -> None:
        self._scenario = scenario
        self._now = now
        self._started_s = now() if started_s is None else started_s
        self._memory_fd = memory_fd
        self._wait = wait
        self._links = [scenario.links_of(index) for index in range(len(scenario.gpus))]
        self._memory = _recall(memory_fd, self._elapsed_s())

    def sample(self, held: Sequence[Held], *, processes: bool = True) -> list[Gpu]:
        """Raises GpusUnavailable. Does not return for as long as the driver hangs."""
        now = self._moment()
        if (why := self._scenario.unavailable(now)) is not None:
            raise GpusUnavailable(why)
        self._follow_jobs(held, now)
        faults = [self._scenario.faults_of(index, now) for index in range(len(self._links))]
        listed = [index for index, found in enumerate(faults) if FaultKind.MISSING not in found]
        gpus = [self._read(index, faults[index], set(listed), now) for index in listed]
        _keep(self._memory_fd, self._memory)
        return gpus

    def close(self) -> None:
        pass

    def _elapsed_s(self) -> float:
        return max(self._now() - self._started_s, 0.0)

    def _moment(self) -> Now:
        """Now, when the driver answers again where it hangs."""
        while True:
            now = self._scenario.moment(self._elapsed_s(), self._memory.files)
            self._memory.files = dict(now.files)
            if not self._scenario.hangs(now):
                return now
            self._wait()

    # ── gpuq's own jobs ──

    def _follow_jobs(self, held: Sequence[Held], now: Now) -> None:
        """Who is new starts now, and who is gone may leave memory behind."""
        here = {(uuid, job, pid): declared for uuid, job, pid, declared in held if pid}
        memory = self._memory
        memory.left = [left for left in memory.left if self._stays(left, now)]
        for job in memory.jobs:
            if (job.uuid, job.job, job.pid) not in here:
                memory.left += self._left_by(job, now)
        known = {(job.uuid, job.job, job.pid): job for job in memory.jobs}
        memory.jobs = [
            known.get(key) or _Job(uuid=key[0], job=key[1], pid=key[2], since_s=now.elapsed_s)
            for key in here
        ]
        for job, declared in zip(memory.jobs, here.values(), strict=True):
            job.declared_bytes = declared

    def _left_by(self, job: "_Job", now: Now) -> list["_Left"]:
        for index, gpu in enumerate(self._scenario.gpus):
            if gpu.uuid == job.uuid and job.used_bytes:
                release_s = self._scenario.behaviour(index, now).release_s
                if release_s == 0:
                    return []
                until_s = None if release_s is None else now.elapsed_s + release_s
                return [_Left(uuid=job.uuid, index=index, bytes=job.used_bytes, until_s=until_s)]
        return []

    def _stays(self, left: "_Left", now: Now) -> bool:
        if left.until_s is not None:
            return now.elapsed_s < left.until_s
        return self._scenario.behaviour(left.index, now).release_s is None

    # ── a GPU ──

    def _read(
        self, index: int, faults: dict[FaultKind, list[Fault]], listed: set[int], now: Now
    ) -> Gpu:
        gpu = self._scenario.gpus[index]
        so_far = self._memory.gpus.setdefault(gpu.uuid, _SoFar(told_s=self._memory.told_s))
        xids = self._new_xids(index, so_far, now)
        unread = [fault for kind in _UNREAD for fault in faults.get(kind, ())]
        if unread or gpu.is_prohibited:
            return _unread(index, gpu, xids, unread[0] if unread else None)
        load = self._load(index, gpu, now)
        defects = faults.get(FaultKind.DEFECT, [])
        reading = Gpu(
            index=index,
            uuid=gpu.uuid,
            model=gpu.model,
            simulated=True,
            bus_id=_bus_id(gpu),
            memory_total_bytes=gpu.memory_bytes,
            memory_used_bytes=load.used_bytes,
            memory_reserved_bytes=None if gpu.memory_bytes is None else gpu.reserved_bytes,
            processes=load.processes if gpu.tells is not Tells.NOTHING else None,
            is_lasting=any(defect.is_lasting for defect in defects),
            defect="; ".join(defect.says for defect in defects) or None,
            warnings=tuple(warning.says for warning in faults.get(FaultKind.WARNING, ())),
            xids=xids,
            parent=gpu.parent,
            one_process_only=gpu.one_process_only,
            links=self._links_among(index, listed),
        )
        if gpu.instance is not None:
            return reading  # the driver measures cards, not their instances
        return _measured(reading, gpu, load.percent, so_far, now)

    def _new_xids(self, index: int, so_far: "_SoFar", now: Now) -> tuple[int, ...]:
        after_s, so_far.told_s = so_far.told_s, now.elapsed_s
        repeat_s = self._scenario.repeat_s
        return tuple(
            code
            for xid in self._scenario.xids
            if index in xid.gpus
            for code in xid.codes * xid.times(after_s, now, repeat_s)
        )

    def _links_among(self, index: int, listed: set[int]) -> tuple[tuple[str, int], ...]:
        gpus = self._scenario.gpus
        return tuple(
            (gpus[other].uuid, int(closeness))
            for other, closeness in sorted(self._links[index].items())
            if other in listed
        )

    def _load(self, index: int, gpu: ScriptedGpu, now: Now) -> "_Load":
        """Where its memory is not enough for all, others come first, then what ended jobs left."""
        load = _Load(gpu)
        for use in self._scenario.uses_of(index, now):
            taken = load.take(use.memory_bytes, use.utilization.at(use.window.age_s(now)))
            if use.process is not None:
                load.show(_stranger(use.process, taken))
        for left in self._memory.left:
            if left.uuid == gpu.uuid:
                load.take(left.bytes)
        behaviour = self._scenario.behaviour(index, now)
        for job in self._memory.jobs:
            if job.uuid == gpu.uuid:
                age_s = now.elapsed_s - job.since_s
                percent = behaviour.utilization.at(age_s)
                job.used_bytes = load.take(_wanted(behaviour, job, age_s), percent)
                load.show(_ours(job))
        return load


_UNREAD = (FaultKind.LOST, FaultKind.RESET, FaultKind.UNREADABLE)


class _Load:
    """What is going on on one GPU at one moment, added up use by use."""

    def __init__(self, gpu: ScriptedGpu) -> None:
        self._gpu = gpu
        self._room = math.inf if gpu.room_bytes is None else gpu.room_bytes
        self._taken = 0
        self._percent = 0.0
        self._processes: list[GpuProcess] = []

    def take(self, wanted_bytes: int, percent: float = 0.0) -> int:
        """Returns what it got: there is no more than there is."""
        got = int(min(wanted_bytes, self._room - self._taken))
        self._taken += got
        self._percent += percent
        return got

    def show(self, process: GpuProcess) -> None:
        told = self._gpu.tells is Tells.ALL
        self._processes.append(process if told else replace(process, memory_bytes=None))

    @property
    def used_bytes(self) -> int | None:
        return None if self._gpu.memory_bytes is None else self._gpu.idle_bytes + self._taken

    @property
    def percent(self) -> int:
        return round(min(self._percent, 100.0))

    @property
    def processes(self) -> tuple[GpuProcess, ...]:
        return tuple(self._processes)


def _wanted(behaviour: Behaviour, job: "_Job", age_s: float) -> int:
    full = behaviour.undeclared_bytes
    if job.declared_bytes is not None:
        full = int(job.declared_bytes * behaviour.uses)
    return full if age_s >= behaviour.ramp_s else int(full * age_s / behaviour.ramp_s)


def _stranger(who: Stranger, memory_bytes: int) -> GpuProcess:
    return GpuProcess(
        pid=who.pid,
        user=who.user,
        command=who.command,
        memory_bytes=memory_bytes,
        unit=who.unit,
    )


def _ours(job: "_Job") -> GpuProcess:
    return GpuProcess(
        pid=job.pid, user=None, command=None, memory_bytes=job.used_bytes, job=job.job
    )


def _measured(reading: Gpu, gpu: ScriptedGpu, percent: int, so_far: "_SoFar", now: Now) -> Gpu:
    """With power and temperature as the load makes them."""
    ripple = RIPPLE_SHARE * (1 + math.sin(now.elapsed_s / RIPPLE_S + reading.index)) / 2
    share = IDLE_SHARE + (BUSY_SHARE - IDLE_SHARE) * percent / 100 + ripple
    target_c = IDLE_C + (BUSY_C - IDLE_C) * percent / 100 + reading.index % 4
    so_far.advance(now.elapsed_s, gpu.power_limit_w * share, target_c)
    return replace(
        reading,
        utilization_percent=percent,
        temperature_c=round(so_far.temperature_c),
        power_w=round(so_far.power_w, 1),
        power_limit_w=gpu.power_limit_w,
        energy_j=so_far.energy_j,
    )


def _unread(index: int, gpu: ScriptedGpu, xids: tuple[int, ...], fault: Fault | None) -> Gpu:
    return Gpu(
        index=index,
        uuid=gpu.uuid,
        model=gpu.model,
        simulated=True,
        bus_id=_bus_id(gpu),
        processes=None,
        fault=PROHIBITED if fault is None else fault.says,
        is_lasting=fault is not None and fault.is_lasting,
        xids=xids,
        parent=gpu.parent,
    )


def _bus_id(gpu: ScriptedGpu) -> str:
    return f"00000000:{gpu.card + 1:02X}:00.0"


def nap_for(daemon_pid: int) -> None:
    """A moment of a driver that hangs. Without its daemon a probe has nobody to hang for."""
    if os.getppid() != daemon_pid:
        raise SystemExit
    time.sleep(NAP_S)


# ── what outlives a probe ──


@dataclass(slots=True, kw_only=True)
class _Job:
    """A job of gpuq on a GPU; moments are s since the daemon started."""

    uuid: str
    job: int
    pid: int
    since_s: float
    declared_bytes: int | None = None
    used_bytes: int = 0


@dataclass(slots=True, kw_only=True)
class _Left:
    """Memory that a job left behind; without `until_s` for as long as the story keeps it."""

    uuid: str
    index: int
    bytes: int
    until_s: float | None


@dataclass(slots=True, kw_only=True)
class _SoFar:
    told_s: float = -1.0  # XIDs up to here are told
    measured_s: float | None = None
    power_w: float = 0.0
    temperature_c: float = 0.0
    energy_j: float = 0.0

    def advance(self, elapsed_s: float, power_w: float, target_c: float) -> None:
        """Energy by the trapezoidal rule between two readings; temperature follows the load late."""
        if self.measured_s is None:
            self.temperature_c = target_c
        else:
            passed_s = max(elapsed_s - self.measured_s, 0.0)
            self.energy_j += passed_s * (self.power_w + power_w) / 2
            gap = self.temperature_c - target_c
            self.temperature_c = target_c + gap * math.exp(-passed_s / WARMS_IN_S)
        self.measured_s, self.power_w = elapsed_s, power_w


@dataclass(slots=True, kw_only=True)
class _Memory:
    told_s: float = -1.0  # for GPUs that were never read
    files: dict[str, float] = field(default_factory=dict)  # that lay there, and since when
    gpus: dict[str, _SoFar] = field(default_factory=dict)
    jobs: list[_Job] = field(default_factory=list)
    left: list[_Left] = field(default_factory=list)


def _recall(fd: int | None, elapsed_s: float) -> _Memory:
    """What the probe before this one knew. One that was killed while it wrote leaves what cannot be
    read: then all XIDs up to now count as told, because none may be told twice."""
    text = b"" if fd is None else os.pread(fd, os.fstat(fd).st_size, 0)
    if not text:
        return _Memory()
    try:
        known = json.loads(text.partition(b"\n")[0])
    except ValueError:
        return _Memory(told_s=elapsed_s)
    return _Memory(
        told_s=known["told_s"],
        files=known["files"],
        gpus={uuid: _SoFar(**one) for uuid, one in known["gpus"].items()},
        jobs=[_Job(**one) for one in known["jobs"]],
        left=[_Left(**one) for one in known["left"]],
    )


def _keep(fd: int | None, memory: _Memory) -> None:
    """In one line. What a longer one before it has left behind that line is never read."""
    if fd is not None:
        os.pwrite(fd, json.dumps(asdict(memory)).encode() + b"\n", 0)
