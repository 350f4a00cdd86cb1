"""What a job makes of its GPUs, reckoned from readings: memory, how busy they are, energy.

Here is the arithmetic alone. An absent reading is None, and what nobody could tell stays None.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum

from gpuq.core.gpus.gpu import Gpu, GpuProcess
from gpuq.core.model import Lease
from gpuq.core.units import format_bytes, name_gpus

# The most time that one reading speaks for: what the driver said of a moment says nothing of the
# minutes in which it then did not answer. Three of the longest pauses between two readings.
LONGEST_STRETCH_S = 15.0
# So much over its request is nobody's fault: people round what they ask for, and the driver hands
# memory out in pages of 2 MiB and keeps some beside, by its version more or less of it.
TOLERANCE_BYTES = 64 * 2**20
# Who was told that a job uses too much is told again when it has grown by so much more.
TOLD_AGAIN = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """What an attempt made of its GPUs, all of them together, since it started."""

    measured_s: float = 0.0  # that the mean was taken over, pauses left out
    peak_bytes: int | None = None  # the most it used of one of them
    util_mean: float | None = None  # percent
    util_peak: int | None = None  # percent, of one of them
    energy_j: float | None = None  # its share where it had not the GPU alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What one reading says of the time before it: the use of each of an attempt's GPUs at its end,
    and the energy that went into them meanwhile."""

    seconds: float = 0.0
    used_bytes: int | None = None  # the most of one GPU
    utilizations: tuple[int, ...] = ()  # percent, of those GPUs that tell
    energy_j: float | None = None


def add(use: GpuUse, stretch: Stretch) -> GpuUse:
    """Time is weighed by its length, so it does not matter into how many stretches it was cut."""
    known = stretch.utilizations
    if known and stretch.seconds > 0:
        now = fsum(known) / len(known)
        measured_s = use.measured_s + stretch.seconds
        mean = _weighed(use.util_mean, now, stretch.seconds / measured_s)
        use = replace(use, measured_s=measured_s, util_mean=mean)
    return replace(
        use,
        peak_bytes=most((use.peak_bytes, stretch.used_bytes)),
        util_peak=most((use.util_peak, *known)),
        energy_j=total((use.energy_j, stretch.energy_j)),
    )


def _weighed(mean: float | None, now: float, weight: float) -> float:
    """Between the two of them, which rounding alone would not promise."""
    if mean is None:
        return now
    return min(max(mean + (now - mean) * weight, min(mean, now)), max(mean, now))


def most(numbers: Iterable[int | None]) -> int | None:
    """Of those that are known."""
    return max((number for number in numbers if number is not None), default=None)


def mean(numbers: Collection[float]) -> float | None:
    """None of none."""
    return fsum(numbers) / len(numbers) if numbers else None


def total(numbers: Iterable[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [number for number in numbers if number is not None]
    return fsum(known) if known else None


# ── one GPU at one reading ──


def used_by(gpu: Gpu, job: int, *, alone: bool) -> int | None:
    """Bytes of the GPU that a job uses; None where nobody can tell. Where the driver does not say
    which process has how much, all that is in use is the job's, if it is `alone` there."""
    ours = [process for process in gpu.processes or () if process.job == job]
    sizes = [process.memory_bytes for process in ours]
    if gpu.processes is not None and None not in sizes:
        return sum(size or 0 for size in sizes)
    if not alone or gpu.foreign_processes or gpu.memory_used_bytes is None:
        return None
    return max(gpu.memory_used_bytes - gpu.baseline_bytes, 0)


def energy_between(before: Gpu | None, now: Gpu, *, gap_s: float, seconds: float) -> float | None:
    """Joules that went into the GPU in the last `seconds` of the `gap_s` between two readings; None
    where the driver tells neither energy nor power.

    The driver counts from when it was loaded. A counter that runs backwards was set back meanwhile,
    and what it had counted is lost: then the power at this reading has to do.
    """
    if before is not None and before.energy_j is not None and now.energy_j is not None:
        difference = now.energy_j - before.energy_j
        if difference >= 0 and gap_s > 0:
            return difference * min(seconds / gap_s, 1.0)
    return energy_at(now.power_w, seconds)


def energy_at(power_w: float | None, seconds: float) -> float | None:
    """Joules at a power that was read once, for no longer than one reading speaks; None where it was
    not read."""
    return None if power_w is None else max(power_w, 0.0) * min(seconds, LONGEST_STRETCH_S)


# ── holding a GPU idle ──


def utilization(gpus: Iterable[Gpu]) -> int | None:
    """Percent, of the busiest of them; None where none tells."""
    return most(gpu.utilization_percent for gpu in gpus)


def busy_words(gpus: Sequence[Gpu], percent: int, seconds: float | None = None) -> str:
    """ "GPU 2 at 98 %", "GPUs 0-3 at 1 % for 10 min"."""
    words = f"{name_gpus([gpu.index for gpu in gpus])} at {percent} %"
    return words if seconds is None else f"{words} for {_length_words(seconds)}"


def _length_words(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min" if seconds < 7200 else f"{seconds // 3600:.0f} h"


# ── others on its GPU ──


@dataclass(frozen=True, slots=True, kw_only=True)
class Intruder:
    """Somebody outside gpuq on a GPU of a job: a process, or another daemon (no pid)."""

    gpu: str
    pid: int | None
    words: str


def intruders(gpus: Iterable[Gpu], beside: Collection[int]) -> list[Intruder]:
    """Those on these GPUs. `beside` are the pids that were there when the job was started: it was
    started there all the same, since it shares."""
    found = []
    for gpu in gpus:
        if gpu.locked_by is not None:
            words = f"GPU {gpu.index} is {gpu.locked_by}"
            found.append(Intruder(gpu=gpu.uuid, pid=None, words=words))
        for process in gpu.foreign_processes:
            if process.pid not in beside:
                words = f"{process_words(process)} on GPU {gpu.index}"
                found.append(Intruder(gpu=gpu.uuid, pid=process.pid, words=words))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """A process of a job on a GPU that the job was not given."""

    gpu: str
    words: str


def find_stray(job: int, given: Collection[str], gpus: Iterable[Gpu]) -> Stray | None:
    """The first of them, on the real GPUs of a machine; `given` are the uuids that the job has."""
    for gpu in gpus:
        if gpu.simulated or gpu.uuid in given:
            continue
        for process in gpu.processes or ():
            if process.job == job:
                words = (
                    f"{process_words(process)} of it is on GPU {gpu.index}, which it was not given"
                )
                return Stray(gpu=gpu.uuid, words=words)
    return None


def process_words(process: GpuProcess) -> str:
    """ "python 40121 carol (docker 3f2a9c1b7d44)"."""
    return process.words if process.unit is None else f"{process.words} ({process.unit})"


# ── more memory than it asked for ──


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """A sharing job uses more of a GPU than it asked for."""

    gpu: Gpu
    used_bytes: int
    asked_bytes: int

    @property
    def words(self) -> str:
        used, asked = format_bytes(self.used_bytes), format_bytes(self.asked_bytes)
        if used == asked:
            more = format_bytes(self.used_bytes - self.asked_bytes)
            return f"it used {more} more of GPU {self.gpu.index} than the {asked} that it asked for"
        return f"it used {used} of GPU {self.gpu.index} and asked for {asked}"


def find_excess(held: Sequence[tuple[Gpu, Lease]], used: Mapping[str, int | None]) -> Excess | None:
    """The worst of a job's GPUs, where it uses too much of any; `used` is by uuid. Who has the GPU to
    himself cannot use too much of it."""
    found = []
    for gpu, lease in held:
        used_bytes, asked_bytes = used.get(gpu.uuid), lease.memory_bytes
        if lease.exclusive or used_bytes is None or asked_bytes is None:
            continue
        if used_bytes > asked_bytes + TOLERANCE_BYTES:
            found.append(Excess(gpu=gpu, used_bytes=used_bytes, asked_bytes=asked_bytes))
    return max(found, key=lambda excess: excess.used_bytes - excess.asked_bytes, default=None)
