"""What a Client takes and gives, for type checkers and for readers. Plain dicts at run time, as
`--json` prints them: fields are only ever added. Imported by nothing that runs.

Times are seconds since the epoch, lengths of time seconds, sizes bytes; None is an absent value.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

# Jobs by id, "12-18", "@", "g12"; one or several.
Refs: TypeAlias = Iterable[int | str] | int | str

State = Literal["queued", "starting", "running", "ended"]
Substate = Literal["held", "delayed", "backoff", "paused", "stopping", "unkillable"]
Outcome = Literal[
    "succeeded", "failed", "cancelled", "timed_out", "out_of_memory", "lost", "skipped"
]
# "nan", "inf" and "-inf" stand for the numbers that JSON has not.
Metric: TypeAlias = float | int | str | bool | None


class After(TypedDict):
    """Jobs that have to end first."""

    jobs: str  # "12-18,20"
    when: Literal["ok", "any", "fail"]
    each: bool
    state: str


class GpuUse(TypedDict):
    """How the GPUs of a job or an attempt were used, None where that was not measured."""

    gpu_peak_bytes: int | None
    gpu_util_mean: float | None
    gpu_util_peak: float | None
    gpu_energy_j: float | None
    idle_since_at: float | None
    contended_at: float | None
    contended_by: str | None
    over_memory: str | None
    gpu_errors: list[str]


class Report(TypedDict):
    """What a job or an attempt told by gpuq.job or `gpuq report`."""

    progress: float | None  # 0 to 1
    progress_from: Literal["report", "log"] | None
    metrics: dict[str, Metric]  # the last value of each name
    reported_at: float | None
    report_lines: int
    report_trouble: str | None


class Job(GpuUse, Report):
    """A job as `gpuq status --json` has it."""

    id: int
    name: str
    user: str
    group: str
    array_index: int | None
    parameters: dict[str, str]
    differs_in: list[str]
    queue: str
    tags: list[str]
    state: State
    substate: Substate | None
    outcome: Outcome | None
    exit_code: int | None
    signal: int | None
    attempt: int
    retries: int
    backoff: str | None
    retry_on: str | None
    delayed_until: float | None
    pid: int | None
    gpu_count: int
    gpus: list[int]
    gpu_uuids: list[str]
    gpus_simulated: bool
    gpu_mem_bytes: int | None
    gpu_mem_from: str | None
    exclusive: bool
    gpu_model: str | None
    gpu_ids: list[str]
    exclude_gpus: list[str]
    max_util: int | None
    cpus: int
    mem_bytes: int | None
    cpu_bound: float | None
    mem_bound_by: str | None
    cpu_bound_by: str | None
    memory_peak_bytes: int | None
    peak_rss_bytes: int | None
    time_limit_s: float | None
    heartbeat_s: float | None
    paused_s: float
    grace_s: float
    stop_to: Literal["main", "all"]
    preemptible: bool
    preempt_signal: str | None
    preemptions: int
    key: str | None
    visible: str
    seed: int | None
    priority: int
    after: list[After]
    submitted_at: float
    started_at: float | None
    ended_at: float | None
    reason: str | None
    expected_start: float | None
    expected_start_is_guess: bool
    expected_start_from: str | None
    command: list[str]
    script: bool
    as_slurm: bool
    cwd: str
    log: str | None
    output: str | None
    stderr: str | None
    output_dir: str | None
    files_removed_at: float | None
    commit: str | None
    snapshot: str | None
    idle: bool
    contended: bool
    contended_now: bool
    error_signature: str | None
    device: Literal["cuda", "cpu"]
    cpu_after_s: float | None
    cpu_fallback: dict[str, Any] | None
    on_failure: str | None
    on_kill: str | None
    on_start: str | None
    on_end: str | None
    hooks_whole: bool
    container: str | None
    hidden: bool
    queue_place: NotRequired[int | None]
    last_id: NotRequired[int]


class Folded(Job):
    """A group of several jobs: the most alive of them, with what there is of the others."""

    jobs: str  # "12-18,20"
    count: int
    counts: dict[str, int]  # by state, or by outcome where they have ended
    indices: str | None  # of the array that it is


class Attempt(GpuUse, Report):
    """One run of a job."""

    attempt: int
    committed_at: float
    started_at: float | None
    ended_at: float | None
    outcome: Outcome | None
    reason: str | None
    exit_code: int | None
    signal: int | None
    stage: str | None
    error: str | None
    lost: str | None
    leftovers: int | None
    leftover_names: str | None
    user_s: float | None
    system_s: float | None
    peak_rss_bytes: int | None
    memory_peak_bytes: int | None
    log_dropped_bytes: int | None
    paused_s: float
    unkillable: str | None
    cgroup: str | None
    error_signature: str | None
    pid: int | None
    mem_bound_by: str | None
    cpu_bound_by: str | None
    gpus: list[int]
    log: str | None
    output_dir: str | None


class JobInFull(Job):
    """A job as `gpuq show --json` has it."""

    attempts: list[Attempt]
    place: int | None
    place_of: int | None
    needed_by: str | None
    env_names: list[str]  # that were set for it; its owner's to see
    env: NotRequired[dict[str, str]]  # those with their values, where they were asked for
    ran_before: NotRequired[dict[str, float]]


class JobProcess(TypedDict):
    """A process of a job."""

    pid: int
    ppid: int
    state: str  # a letter, as ps(1) has it
    command: list[str]  # empty where it is its owner's to see
    cpu_s: float
    rss_bytes: int
    gpu_memory_bytes: int | None


class JobProcesses(TypedDict):
    job: int
    attempt: int
    at: float  # s, by a clock that nobody sets
    processes: list[JobProcess]
    left_out: int  # of very many
    hidden: bool
    why: str | None  # why there are none


class Done(TypedDict):
    """What was done to a run of jobs, from `id` to `last_id`."""

    id: int
    last_id: int
    done: str
    why: NotRequired[str | None]
    by: NotRequired[str | None]
    grace_s: NotRequired[float | None]


class Submission(TypedDict):
    first: int
    count: int
    group: str
    entries: list[tuple[int, int]]
    note: str | None
    is_new: NotRequired[bool]


class Verdict(TypedDict):
    """What would become of a job."""

    words: str
    count: int
    starting: int
    gpus: list[int]
    gpu_uuids: list[str]
    reason: str | None
    waits_for: list[int]
    expected_start_at: float | None


class Event(TypedDict):
    seq: int
    at: float
    kind: str
    job: int | None
    attempt: int | None
    gpu: str | None
    gpu_index: int | None
    actor: str | None
    cause: str | None
    detail: dict[str, Any] | None


class GpuProcess(TypedDict):
    pid: int
    user: str | None
    command: str | None
    memory_bytes: int | None
    unit: str | None
    ours: bool
    job: int | None
    ignored: bool


class Gpu(TypedDict):
    index: int
    uuid: str
    model: str
    simulated: bool
    state: Literal[
        "free", "leased", "foreign", "cooling", "dirty", "drained", "quarantined", "lost"
    ]
    reason: str | None
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    memory_free_bytes: int | None
    memory_reserved_bytes: int | None
    memory_usage_percent: float | None
    utilization_percent: float | None
    temperature_c: float | None
    power_w: float | None
    power_limit_w: float | None
    energy_j: float | None
    parent: str | None
    is_available: bool
    jobs: list[int]
    exclusive: bool
    processes: list[GpuProcess]
    warnings: list[str]
    locked_by: str | None
    under_test: str | None
    drained: dict[str, Any] | None
    quarantine: str | None
    quarantined_at: float | None
    tested_at: float | None
    test: dict[str, Any] | None
    reservations: NotRequired[list[dict[str, Any]]]


class Gpus(TypedDict):
    gpus: list[Gpu]
    gpu_origin: str
    gpu_backend: str
    gpu_trouble: str | None


class GpuReadings(TypedDict):
    """Means, one for each step."""

    utilization_percent: list[float | None]
    memory_used_bytes: list[int | None]
    power_w: list[float | None]
    temperature_c: list[float | None]


class GpuHistory(TypedDict):
    begin_at: float
    step_s: float
    gpus: dict[str, GpuReadings]  # by uuid


class JobOptions(TypedDict, total=False):
    """What `submit` takes beside argv; without one of them the usual holds."""

    gpus: int
    gpu_mem_bytes: int
    gpu_mem: Literal["auto"]
    exclusive: bool
    max_util: int
    gpu_model: str
    gpu_ids: Sequence[str | int]
    exclude_gpus: Sequence[str | int]
    visible: str
    cpus: int
    mem_bytes: int
    name: str
    queue: str
    priority: int
    tags: Sequence[str]
    key: str
    cwd: str
    env: Mapping[str, str]
    umask: int
    limits: Mapping[str, int]
    output: str
    stderr: str
    seed: int
    snapshot: bool
    time_limit_s: float
    grace_s: float
    heartbeat_s: float
    cpu_after_s: float
    on_start: str
    on_end: str
    on_kill: str
    stop_to: Literal["main", "all"]
    retries: int
    backoff: str
    retry_on: str
    on_failure: str
    preemptible: bool
    preempt_signal: str | int
    held: bool
    begin_at: float
    begin_in_s: float
    after: Sequence[Mapping[str, Any]]
    array: str | Mapping[str, Any]
    grid: Mapping[str, Iterable[object]]
    params: Sequence[Mapping[str, object]]
    script: str
    interpreter: Sequence[str]
    as_slurm: bool


class NewJob(JobOptions):
    """One of those that `submit_many` takes."""

    argv: Sequence[str]
