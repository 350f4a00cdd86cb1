"""The settings that the scheduler goes by: values alone, read and checked elsewhere."""

from dataclasses import dataclass
from enum import StrEnum


class OverMemory(StrEnum):
    """What follows when a job uses more memory of a shared GPU than it asked for."""

    NOTHING = "off"
    WARN = "warn"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeekSpan:
    """A time that comes every week: minutes after midnight on these days, Monday being 0."""

    days: frozenset[int]
    begin: int
    end: int  # before `begin` where it reaches into the next day


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """So many starts in so many seconds, at the most."""

    count: int
    per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A named queue: what its jobs may have together, where and for how long. None: as much as there
    is."""

    name: str
    priority: int = 0  # added to the job's own
    gpus: tuple[str, ...] = ()  # index, uuid or bus id: only these; none named: all of them
    max_running: int | None = None
    max_gpus: int | None = None
    time_limit_s: float | None = None  # of a job that does not say
    max_time_limit_s: float | None = None
    users: tuple[str, ...] = ()  # names, and groups with an @ before them; none named: everybody
    start_rate: Rate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings that the scheduler goes by."""

    cpu_slots: int = 1
    max_jobs_per_gpu: int = 8
    max_bypass: int = 10
    headroom_bytes: int = 512 * 2**20
    idle_memory_bytes: int = 300 * 2**20  # over the GPU's own idle baseline
    idle_utilization_percent: int = 10
    calm_samples: int = 3
    calm_s: float = 3.0  # the time that these readings span at least
    cooling_s: float = 30.0
    settle_s: float = 15.0  # after a start, what a job takes of its GPU is not known yet
    allow_gpus: tuple[str, ...] = ()  # index, uuid or bus id; none named: all of them
    deny_gpus: tuple[str, ...] = ()
    gpu_order: tuple[str, ...] = ()  # those to give first, in this order
    reserve_idle: int = 0  # GPUs kept without a lease of ours
    reserve_hours: tuple[WeekSpan, ...] = ()  # when; none named: always
    ignore_processes: tuple[str, ...] = ()  # names of programs that are nobody's work
    ignore_users: tuple[str, ...] = ()
    over_memory: OverMemory = OverMemory.WARN
    idle_job_s: float = 600.0  # a job that computed nothing for so long holds its GPU idle
    idle_job_percent: int = 5
    fast_failures: int = 3  # so many in a row on one GPU, and it is tested
    fast_failure_s: float = 30.0
    strict_health: bool = False  # give nothing to a GPU that only warns
    max_running_per_user: int | None = None
    max_gpus_per_user: int | None = None
    queues: tuple[Queue, ...] = ()
    start_rate: Rate | None = None
    fair_share: bool = False
    fair_share_half_life_s: float = 7 * 86400.0  # after which what somebody had counts half
    unkillable_s: float = 60.0  # what lives so long after a KILL is said to be unkillable
    preempt_signal: int = 15  # what a job is sent to give way, unless it says what: SIGTERM
    preempt_after_s: float = 60.0  # a job that has run for less gives way to nobody yet
    unknown_job_s: float = 86400.0  # how long a job of which nobody knows runs before a reservation
