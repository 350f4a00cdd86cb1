"""Jobs, leases and wishes as frozen values, and the Snapshot of them all. An absent reading is None,
never 0.

`Snapshot` is the whole world at one moment, as much of it as a decision needs: the scheduler sees
nothing else, and the reasons people read are made from the same Snapshot.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gpuq.core.asked.needs import When
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.policy import Policy


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


class LeaseState(StrEnum):
    ACTIVE = "active"
    COOLING = "cooling"  # its job has ended; its memory may not be free yet
    DIRTY = "dirty"  # it did not cool in time


class EndCause(StrEnum):
    """Why gpuq ends a job that runs."""

    ASKED = "asked"
    TIME_LIMIT = "time_limit"
    HEARTBEAT = "heartbeat"
    GPU_MEMORY = "gpu_memory"  # it used more than it asked for, beside others
    HOST_MEMORY = "host_memory"  # the same of the machine's, where gpuq watches that
    SHUTDOWN = "shutdown"  # the machine goes down
    LOGOUT = "logout"  # systemd stops the services of its user
    PREEMPTED = "preempted"  # it gives way to a job of a higher priority, and runs again later
    REQUEUED = "requeued"  # somebody wants it to begin anew


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
    lasts_s: float | None = None  # how long it runs at the most, as far as anybody knows
    cpu_after_s: float | None = None  # so long it waits for its GPUs; then the CPU is enough

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
    given_up_for: int | None = None  # the job to which its own gives way, or gave way

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
    last: int | None = None  # of those from `id` on that are only to be cancelled, all alike
    class_id: int  # of jobs with equal user, queue and request
    request: Request
    uid: int = 0
    user: str = ""
    queue: str = ""
    group: int | None = None  # where its group has a limit
    tags: tuple[str, ...] = ()  # those that have a limit
    priority: int = 0
    rank: int = 0  # among its user's own: lower goes first
    place: int = 0  # in the queue
    passes: int = 0  # how many later jobs have started on what this one waits for
    attempt: int = 1  # the number its next attempt gets
    version: int = 0  # of what is wished of it
    time_limit_s: float | None = None
    grace_s: float = 10.0
    stop: StopWish | None = None
    gpu_wait_since: float | None = None  # where that counts: CLOCK_MONOTONIC, s


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayedJob:
    """A job that is not to start before a moment on CLOCK_BOOTTIME (s), on which the time counts in
    which the machine is suspended; or `by_wall` before one of the clock on the wall (s since the
    epoch), whoever sets it."""

    id: int
    until: float
    by_wall: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedJob:
    """How a job ended, with the reason as anybody may read it."""

    id: int
    outcome: Outcome
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TouchedNeed:
    """What jobs wait for, and how far that has come. `breaker` is the first of those waited for that
    ended as it was not to; one that did so and of which nothing is known any more is `forgotten`. One
    that is mixed is waited for element by element, and not all of these
    fared alike."""

    id: int
    when: When
    is_unended: bool  # is any of those waited for still to end?
    breaker: EndedJob | None = None
    is_mixed: bool = False
    forgotten: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveJob:
    """A job that has processes. Moments are on CLOCK_MONOTONIC (s), which stands still while the
    machine is suspended and knows nothing of a clock that somebody sets."""

    id: int
    attempt: int
    state: JobState
    request: Request
    uid: int = 0
    user: str = ""
    queue: str = ""
    group: int = 0
    tags: tuple[str, ...] = ()
    priority: int = 0
    preemptible: bool = False
    preempt_signal: int | None = None  # as it was told at its start; None: the usual
    preemptions: int = 0  # how often it gave way before
    gives_way_to: int | None = None  # the job for which it was told to
    requeue_wished: bool = False
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """GPUs (uuids) set aside for a user from one moment of the clock on the wall to another (s since
    the epoch), with both in words of that clock."""

    id: int
    uid: int
    user: str
    gpus: tuple[str, ...]
    begin_at: float
    end_at: float
    begin_words: str
    end_words: str
    reason: str | None = None
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Nothing is to be started until somebody says otherwise."""

    actor: str
    reason: str


class LimitKind(StrEnum):
    USER = "user"
    QUEUE = "queue"
    GROUP = "group"
    TAG = "tag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What the jobs of one user, queue, group or tag may have at a time. None: as much as there is,
    or for a user what the settings say. The name of a group is its number."""

    kind: LimitKind
    name: str
    max_running: int | None = None
    max_gpus: int | None = None
    actor: str | None = None  # who set it; None: the settings


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentStart:
    """That a job was started, from which queue, and when (CLOCK_MONOTONIC, s)."""

    at: float
    queue: str = ""


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
    """The world at `now` (CLOCK_MONOTONIC, s; `boottime` is the same moment on CLOCK_BOOTTIME, and
    `wall` by the clock on the wall, s since the epoch).

    `waiting` holds the first few jobs of each class that may start, in the order in which they
    are to be considered; what is behind them cannot start before them. Where `jobs_per_class` is
    given, a class of which that many are shown may hold more. `gpus` is None until the probe has
    answered for the first time; `gpus_read_at` is when it last did, on the clock of `now`.
    `delayed` are the first few jobs whose delay ends, by each of the two clocks, in that order.
    `health` has an entry for each GPU by whose uuid it will be known again.
    """

    now: float
    boottime: float = 0.0
    wall: float = 0.0
    gpus: tuple[Gpu, ...] | None
    health: tuple[GpuHealth, ...] = ()
    leases: tuple[Lease, ...] = ()
    waiting: tuple[WaitingJob, ...] = ()
    active: tuple[ActiveJob, ...] = ()
    delayed: tuple[DelayedJob, ...] = ()
    to_requeue: tuple[
        int, ...
    ] = ()  # jobs that do not run and that somebody wants (back) in the queue
    to_clock: tuple[int, ...] = ()  # rows of jobs whose wait for a GPU counts, and has just begun
    reservations: tuple[Reservation, ...] = ()  # that have not ended
    touched_needs: tuple[TouchedNeed, ...] = ()  # the first few about which there is news
    drain: Drain | None = None
    closing: Closing | None = None
    start_trouble: str | None = None  # why nothing can be started just now
    policy: Policy = field(default_factory=Policy)
    jobs_per_class: int | None = None
    gpus_read_at: float | None = None
    gpu_trouble: str | None = None  # why there is no reading
    kept_idle: int = 0  # GPUs that are to be left without a lease just now
    limits: tuple[Limit, ...] = ()  # that somebody set; others stand in the policy
    recent_starts: tuple[RecentStart, ...] = ()
    usage: Mapping[int, float] = field(default_factory=dict)  # GPU-seconds by uid, fading with time


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
    on_kill_code: int | None = None  # of its --on-kill command; minus the signal that ended that
    on_kill_trouble: str | None = None  # why that did not end by itself, or could not begin
    container_trouble: str | None = None  # why its container may be there still
    oom_kills: int | None = None  # by the kernel in its control group; None where that cannot tell
    bound_hits: int | None = None  # how often its own --mem was the reason for that
    memory_peak_bytes: int | None = None  # of all of it together, as the control group counts it
    log_dropped_bytes: int = 0
    nothing_reported: bool = False  # by the job; False too where nobody has looked
    ended_at: float | None = None  # wall clock, s since the epoch
    ended_mono: float | None = None  # of its main process, CLOCK_MONOTONIC, s
    user_s: float | None = None
    system_s: float | None = None
    peak_rss_bytes: int | None = None
