"""The nouns of gpuq as frozen values. An absent reading is None, never 0.

`Snapshot` is the whole world at one moment, as much of it as a decision needs: the scheduler sees
nothing else, and the reasons people read are made from the same Snapshot.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum


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


class Closeness(IntEnum):
    """How data gets from one GPU to another, the fastest way first (nvmlGpuTopologyLevel_t)."""

    NVLINK = 0
    BOARD = 1
    SWITCH = 2
    SWITCHES = 3
    HOST_BRIDGE = 4
    NODE = 5  # one NUMA node
    SYSTEM = 6
    UNKNOWN = 7


class EndCause(StrEnum):
    """Why gpuq ends a job that runs."""

    ASKED = "asked"
    TIME_LIMIT = "time_limit"
    HEARTBEAT = "heartbeat"
    GPU_MEMORY = "gpu_memory"  # it used more than it asked for, beside others
    HOST_MEMORY = "host_memory"  # the same of the machine's, where gpuq watches that
    SHUTDOWN = "shutdown"  # the machine goes down
    LOGOUT = "logout"  # systemd stops the services of its user


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A compute process that the driver sees on a GPU. `job` is None for a foreign one; `unit` is the
    container or the unit of systemd that it runs in; `ignored` is what the settings say is nobody's
    work, such as a desktop."""

    pid: int
    user: str | None
    command: str | None
    memory_bytes: int | None
    unit: str | None = None
    job: int | None = None
    ignored: bool = False

    @property
    def words(self) -> str:
        """ "python 40121 carol"."""
        return f"{self.command or 'process'} {self.pid} {self.user or ''}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Why a GPU is given to nobody though it can be read: somebody drained it, or gpuq set it aside."""

    state: GpuState  # DRAINED or QUARANTINED
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One reading of one GPU, the same value for every backend.

    `index` is the position in PCI bus order, which is what CUDA calls the GPU under
    CUDA_DEVICE_ORDER=PCI_BUS_ID. `memory_used_bytes` leaves out what the driver keeps for itself
    (`memory_reserved_bytes`); it is None where a GPU has no memory of its own. `calm_samples` counts
    the readings in a row in which nobody outside gpuq used the GPU; None means that this GPU owes
    nobody any. An instance of MIG is a Gpu of its own, with the uuid of the card in `parent`.
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
    is_lasting: bool = (
        False  # a fault or defect that no good reading ends: a reset or a reboot does
    )
    defect: str | None = None  # it can be read, and the driver says that its hardware is not well
    warnings: tuple[str, ...] = ()  # what somebody should see to, and that keeps no job away
    xids: tuple[int, ...] = ()  # errors that the driver told of since the last reading
    parent: str | None = None
    minor: int | None = None  # of its device file, which is not its index
    one_process_only: bool = False  # compute mode Exclusive_Process
    energy_j: float | None = None  # since its driver was loaded
    links: tuple[tuple[str, int], ...] = ()  # how far other GPUs are: (uuid, Closeness)
    recent_utilization_percent: int | None = (
        None  # the most of the last readings, once there are enough
    )
    locked_by: str | None = None  # another daemon of gpuq, in words
    bar: Bar | None = None
    cools_at_once: bool = False  # no memory is left on it when a job of ours has ended

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
    def ignored_bytes(self) -> int:
        """What is taken by what the settings call nobody's work, as far as it is told."""
        return sum(p.memory_bytes or 0 for p in self.processes or () if p.ignored)

    @property
    def foreign_processes(self) -> tuple[GpuProcess, ...]:
        return tuple(p for p in self.processes or () if p.job is None and not p.ignored)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a job asks of the machine. Jobs that ask the same wait in one class."""

    gpus: int = 1
    gpu_mem_bytes: int | None = None  # per GPU, the total footprint
    exclusive: bool = True
    gpu_model: str | None = None  # a part of the model's name, any case
    cpus: int = 1
    max_util: int | None = None  # percent: only where less is computed, by whomever
    gpu_ids: tuple[str, ...] = ()  # uuids: only on these
    exclude_gpus: tuple[str, ...] = ()  # uuids: not on these

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

    @property
    def is_active(self) -> bool:
        return self.state is LeaseState.ACTIVE


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
    uid: int = 0
    user: str = ""
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
    uid: int = 0
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
    over_memory: str | None = None  # that it uses more of a shared GPU than it asked for, in words
    mem_bytes: int | None = None  # what it may use of the machine's memory
    mem_used_bytes: int | None = None  # what it used at the last look, where that is watched


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
    unkillable_s: float = 60.0  # what lives so long after a KILL is said to be unkillable


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Nothing is to be started until somebody says otherwise."""

    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """What all of this runs on goes away: nothing is started, and what runs is to end. No grace lasts
    longer than to `kill_at` (CLOCK_MONOTONIC, s). The cause is SHUTDOWN or LOGOUT."""

    cause: EndCause
    kill_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeWish:
    """Somebody wants a GPU that is set aside given out again: after a good test, or without one."""

    actor: str
    untested: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuHealth:
    """What gpuq holds against a GPU that it knows by its uuid, and what somebody wishes of it."""

    gpu: str
    quarantine: str | None = None  # why it is set aside
    is_lasting: bool = False  # no good test ends that: a restart of the machine or a person does
    accepted: str | None = None  # the defect with which a person wants it used all the same
    fast_failures: int = 0  # of jobs, in a row
    failed_tests: int = 0  # in a row, since it was set aside
    tried_at: float | None = None  # last tested or set aside, CLOCK_BOOTTIME, s
    under_test: str | None = None  # why, while a test is under way
    drain: Drain | None = None
    resume: ResumeWish | None = None  # not acted on yet
    test_wished_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The world at `now` (CLOCK_MONOTONIC, s; `boottime` is the same moment on CLOCK_BOOTTIME).

    `waiting` holds the first few jobs of each class that may start, in the order in which they
    are to be considered; what is behind them cannot start before them. Where `jobs_per_class` is
    given, a class of which that many are shown may hold more. `gpus` is None until the probe has
    answered for the first time; `gpus_read_at` is when it last did, on the clock of `now`.
    `delayed` are the first few jobs whose delay ends, in that order. `health` has an entry for each
    GPU by whose uuid it will be known again.
    """

    now: float
    boottime: float = 0.0
    gpus: tuple[Gpu, ...] | None
    health: tuple[GpuHealth, ...] = ()
    leases: tuple[Lease, ...] = ()
    waiting: tuple[WaitingJob, ...] = ()
    active: tuple[ActiveJob, ...] = ()
    delayed: tuple[DelayedJob, ...] = ()
    drain: Drain | None = None
    closing: Closing | None = None
    start_trouble: str | None = None  # why nothing can be started just now
    policy: Policy = field(default_factory=Policy)
    jobs_per_class: int | None = None
    gpus_read_at: float | None = None
    gpu_trouble: str | None = None  # why there is no reading
    kept_idle: int = 0  # GPUs that are to be left without a lease just now


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAsideGpu:
    """Its hardware is not well: give it to nobody. Where that is lasting no good test ends it."""

    gpu: str
    reason: str
    is_lasting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TestGpu:
    """It is idle: find out whether it computes and remembers right."""

    gpu: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Readmit:
    """Give a GPU out again that was set aside. `accepts` is the defect that it still has then."""

    gpu: str
    why: str
    accepts: str | None = None


Decision = (
    Start
    | Cancel
    | Undelay
    | Signal
    | Pause
    | Resume
    | SetAside
    | Release
    | MarkDirty
    | SetAsideGpu
    | TestGpu
    | Readmit
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now, why the others wait, and when to look again without news."""

    decisions: tuple[Decision, ...] = ()
    reasons: Mapping[int, str] = field(default_factory=dict)
    heads: Mapping[int, int] = field(default_factory=dict)  # class → its first waiting job
    wake_at: float | None = None  # CLOCK_MONOTONIC, s
    undelay_at: float | None = None  # the same on CLOCK_BOOTTIME, s
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
    bound_hits: int | None = None  # how often its own --mem was the reason for that
    memory_peak_bytes: int | None = None  # of all of it together, as the control group counts it
    log_dropped_bytes: int = 0
    ended_at: float | None = None  # wall clock, s since the epoch
    ended_mono: float | None = None  # of its main process, CLOCK_MONOTONIC, s
    user_s: float | None = None
    system_s: float | None = None
    peak_rss_bytes: int | None = None
