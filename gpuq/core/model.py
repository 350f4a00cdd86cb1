"""The nouns of gpuq as frozen values. An absent reading is None, never 0.

`Snapshot` is the whole world at one moment, as much of it as a decision needs: the scheduler sees
nothing else, and the reasons people read are made from the same Snapshot.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class JobState(StrEnum):
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


class Substate(StrEnum):
    HELD = "held"
    DELAYED = "delayed"
    BACKOFF = "backoff"
    PAUSED = "paused"
    STOPPING = "stopping"
    UNKILLABLE = "unkillable"


class Outcome(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"
    SKIPPED = "skipped"


class GpuState(StrEnum):
    FREE = "free"
    LEASED = "leased"
    FOREIGN = "foreign"
    COOLING = "cooling"
    DIRTY = "dirty"
    DRAINED = "drained"
    QUARANTINED = "quarantined"
    LOST = "lost"


class LeaseState(StrEnum):
    ACTIVE = "active"
    COOLING = "cooling"  # its job has ended; its memory may not be free yet
    DIRTY = "dirty"  # it did not cool in time


class EndCause(StrEnum):
    """Why gpuq ends a job that runs."""

    ASKED = "asked"
    TIME_LIMIT = "time_limit"
    HEARTBEAT = "heartbeat"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A compute process that the driver sees on a GPU. `job` is None for a foreign one."""

    pid: int
    user: str | None
    command: str | None
    memory_bytes: int | None
    job: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One reading of one GPU, the same value for every backend.

    `index` is the position in PCI bus order, which is what CUDA calls the GPU under
    CUDA_DEVICE_ORDER=PCI_BUS_ID. `memory_used_bytes` leaves out what the driver keeps for itself
    (`memory_reserved_bytes`). `calm_samples` counts the readings in a row in which nobody outside
    gpuq used the GPU; None means that this GPU owes nobody any.
    """

    index: int
    uuid: str
    model: str
    simulated: bool
    bus_id: str | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_reserved_bytes: int | None = None
    utilization_percent: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    processes: tuple[GpuProcess, ...] | None = ()  # None: the driver would not say
    baseline_bytes: int = 0  # what the idle GPU itself shows as used
    calm_samples: int | None = None
    fault: str | None = None  # why this GPU gave no reading

    @property
    def memory_free_bytes(self) -> int | None:
        if self.memory_total_bytes is None or self.memory_used_bytes is None:
            return None
        taken = self.memory_used_bytes + (self.memory_reserved_bytes or 0)
        return max(self.memory_total_bytes - taken, 0)

    @property
    def memory_usage_percent(self) -> float | None:
        """0.0 where the total is 0, so that no reader divides by it."""
        if self.memory_total_bytes is None or self.memory_used_bytes is None:
            return None
        if self.memory_total_bytes == 0:
            return 0.0
        return round(100.0 * self.memory_used_bytes / self.memory_total_bytes, 1)

    @property
    def is_available(self) -> bool:
        """More than 1000 MB free: information for people, not what gpuq schedules by."""
        return (self.memory_free_bytes or 0) > 1000 * 2**20

    @property
    def foreign_processes(self) -> tuple[GpuProcess, ...]:
        return tuple(process for process in self.processes or () if process.job is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a job asks of the machine. Jobs that ask the same wait in one class."""

    gpus: int = 1
    gpu_mem_bytes: int | None = None  # per GPU, the total footprint
    exclusive: bool = True
    gpu_model: str | None = None  # a part of the model's name, any case
    cpus: int = 1

    @property
    def cpu_slots(self) -> int:
        """GPU jobs take no CPU slot: their number is bounded by the GPUs."""
        return 0 if self.gpus else self.cpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A GPU, or a share of one, held for an attempt. An exclusive lease sits alone in slot 0."""

    gpu: str
    slot: int
    job: int
    attempt: int
    exclusive: bool
    memory_bytes: int | None = None
    state: LeaseState = LeaseState.ACTIVE
    cooling_since: float | None = None  # CLOCK_MONOTONIC, s
    dirt: str | None = None  # who still holds memory there


@dataclass(frozen=True, slots=True, kw_only=True)
class StopWish:
    """Somebody wants the job ended. A grace of 0 s is KILL at once."""

    grace_s: float
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJob:
    id: int
    class_id: int  # of jobs with equal user, queue and request
    request: Request
    priority: int = 0
    passes: int = 0  # how many later jobs have started on what this one waits for
    attempt: int = 1  # the number its next attempt gets
    stop: StopWish | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayedJob:
    """A job that waits between two attempts, until a moment on CLOCK_BOOTTIME (s): the time in which
    the machine is suspended counts."""

    id: int
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveJob:
    """A job that has processes. Moments are on CLOCK_MONOTONIC (s), which stands still while the
    machine is suspended and knows nothing of a clock that somebody sets."""

    id: int
    attempt: int
    state: JobState
    request: Request
    grace_s: float = 10.0
    time_limit_s: float | None = None
    heartbeat_s: float | None = None
    running_since: float | None = None
    paused_since: float | None = None
    resumed_at: float | None = None
    paused_s: float = 0.0  # all pauses before this one
    beat_at: float | None = None  # when it last reported
    stop: StopWish | None = None
    pause_wished: bool = False
    ending: EndCause | None = None  # what it was sent its first signal for
    term_sent_at: float | None = None
    term_delivered: bool = False
    kill_sent_at: float | None = None  # the first KILL
    last_kill_at: float | None = None
    main_ended_at: float | None = None  # its runner ends what the main process left behind
    is_unkillable: bool = False  # and said to be so
    signal_wishes: tuple[int, ...] = ()  # signals asked for by hand and not yet sent


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
    cooling_s: float = 30.0
    unkillable_s: float = 60.0  # what lives so long after a KILL is said to be unkillable


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Nothing is to be started until somebody says otherwise."""

    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The world at `now` (CLOCK_MONOTONIC, s; `boottime` is the same moment on CLOCK_BOOTTIME).

    `waiting` holds the first few jobs of each class that may start, in the order in which they
    are to be considered; what is behind them cannot start before them. Where `jobs_per_class` is
    given, a class of which that many are shown may hold more. `gpus` is None until the probe has
    answered for the first time; `gpus_read_at` is when it last did, on the clock of `now`.
    `delayed` are the first few jobs whose delay ends, in that order.
    """

    now: float
    boottime: float = 0.0
    gpus: tuple[Gpu, ...] | None
    leases: tuple[Lease, ...] = ()
    waiting: tuple[WaitingJob, ...] = ()
    active: tuple[ActiveJob, ...] = ()
    delayed: tuple[DelayedJob, ...] = ()
    drain: Drain | None = None
    start_trouble: str | None = None  # why nothing can be started just now
    policy: Policy = field(default_factory=Policy)
    jobs_per_class: int | None = None
    gpus_read_at: float | None = None
    gpu_trouble: str | None = None  # why there is no reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Start this attempt on these GPUs; `passed` are the earlier jobs that it overtakes."""

    job: int
    attempt: int
    gpus: tuple[str, ...] = ()
    passed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """End a job that has not started."""

    job: int
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Send a signal to everything the job is. `ends` is the cause where the signal is a step towards
    its end, and None where it is only a message."""

    job: int
    attempt: int
    signal: int
    ends: EndCause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Let all of the job stand still."""

    job: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    job: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """It survives KILL: find out what and why, and say so. Its GPUs stay with it."""

    job: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Undelay:
    """Its wait between two attempts is over."""

    job: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A GPU that was cooling is cool: give it on."""

    gpu: str
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkDirty:
    """A GPU did not cool in time: it is not given on until it has. `dirt` says who is on it."""

    gpu: str
    slot: int
    dirt: str


Decision = Start | Cancel | Undelay | Signal | Pause | Resume | SetAside | Release | MarkDirty


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now, why the others wait, and when to look again without news."""

    decisions: tuple[Decision, ...] = ()
    reasons: Mapping[int, str] = field(default_factory=dict)
    heads: Mapping[int, int] = field(default_factory=dict)  # class → its first waiting job
    wake_at: float | None = None  # CLOCK_MONOTONIC, s
    undelay_at: float | None = None  # CLOCK_BOOTTIME, s
    standstill: str | None = None  # why nothing at all is started


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How an attempt came to its end, as the kernel or the runner told it.

    One of three: `exit_code`, `signal`, or `lost` with the cause where nobody can say. Where the job
    could not be started, `stage` and `error` say at which step, beside the code a shell would give.
    """

    exit_code: int | None = None
    signal: int | None = None
    stage: str | None = None
    error: str | None = None
    lost: str | None = None
    leftovers: int = 0  # processes that the main one left behind and that were ended
    leftover_names: str | None = None
    last_output: str | None = None  # the end of what it wrote, where it did not succeed
    told_out_of_memory: str | None = None  # by the job itself, through its report
    oom_kills: int | None = None  # by the kernel in its control group; None where that cannot tell
    log_dropped_bytes: int = 0
    ended_at: float | None = None  # wall clock, s since the epoch
    ended_mono: float | None = None  # of its main process, CLOCK_MONOTONIC, s
    user_s: float | None = None
    system_s: float | None = None
    peak_rss_bytes: int | None = None
