"""The families of metrics that are given out: names, labels and meaning, after the conventions of
https://prometheus.io/docs/practices/naming. No label has a value that grows with time: no job, no
command, no sentence stands in one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gpuq.core.results import tallying


class Kind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """`name` is whole, with the `_total` of a counter. A counter or histogram shows the tally of that
    name, by its one label or by none."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    tally: str | None = None
    always: tuple[str, ...] = ()  # values of its label that are there before anything was counted


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a gauge, with the values of its family's labels in their order."""

    family: str
    value: float
    labels: tuple[str, ...] = ()


GPU = ("uuid", "index")
OUTCOMES = (
    "succeeded",
    "failed",
    "cancelled",
    "timed_out",
    "out_of_memory",
    "lost",
)


def _gauge(name: str, help: str, *labels: str) -> Family:
    return Family(name=f"gpuq_{name}", kind=Kind.GAUGE, help=help, labels=labels)


def _counter(name: str, help: str, tally: str, *labels: str, always: Sequence[str] = ()) -> Family:
    return Family(
        name=f"gpuq_{name}_total",
        kind=Kind.COUNTER,
        help=help,
        labels=labels,
        tally=tally,
        always=tuple(always),
    )


def _histogram(name: str, help: str, tally: str) -> Family:
    return Family(name=f"gpuq_{name}", kind=Kind.HISTOGRAM, help=help, tally=tally)


FAMILIES = (
    _gauge("info", "Which gpuq this is; always 1.", "version", "mode"),
    _gauge("start_time_seconds", "When this daemon was started, since the epoch."),
    _gauge("uptime_seconds", "How long this daemon has run."),
    _gauge("drained", "1 while nothing is to be started."),
    _gauge("database_bytes", "Size of the database."),
    _gauge(
        "jobs",
        "Jobs that have not ended; substate is empty for those that just wait or run.",
        "state",
        "substate",
        "queue",
    ),
    _gauge("gpus_readable", "1 while the GPUs can be read; 0: nobody knows how they are."),
    _gauge("gpu_info", "What GPU this is; always 1.", *GPU, "model", "simulated"),
    _gauge("gpu_state", "1 for the state that the GPU is in, 0 for the others.", *GPU, "state"),
    _gauge("gpu_utilization_ratio", "How busy it is, from 0 to 1.", *GPU),
    _gauge("gpu_memory_total_bytes", "All its memory.", *GPU),
    _gauge("gpu_memory_used_bytes", "Memory in use, without what its driver keeps.", *GPU),
    _gauge("gpu_memory_driver_bytes", "Memory that its driver keeps for itself.", *GPU),
    _gauge("gpu_temperature_celsius", "Its temperature.", *GPU),
    _gauge("gpu_power_watts", "What it draws.", *GPU),
    _gauge("gpu_power_limit_watts", "What it may draw.", *GPU),
    _gauge("gpu_energy_joules", "What it has drawn since its driver was loaded.", *GPU),
    _gauge("gpu_leases", "Leases on it: of running jobs, and of ended ones.", *GPU, "state"),
    _gauge("gpu_holder", "How many leases this user's jobs have on it.", *GPU, "user"),
    _gauge("gpu_holder_job_id", "The number of the job in this slot of it.", *GPU, "slot"),
    _gauge("gpu_memory_leased_bytes", "What the ledger counts for jobs on it.", *GPU),
    _gauge("gpu_memory_declared_bytes", "What jobs on it asked for.", *GPU),
    _gauge("gpu_memory_outside_bytes", "What the ledger counts for others on it.", *GPU),
    _gauge("gpu_memory_room_bytes", "What the ledger has left for a job that shares it.", *GPU),
    _gauge("gpu_quarantined", "1 while gpuq has set it aside.", *GPU),
    _gauge("gpu_drained", "1 while somebody has drained it.", *GPU),
    _gauge("gpu_fast_failures", "Quick failures of jobs on it in a row.", *GPU),
    _gauge("gpu_failed_tests", "Failed tests in a row since it was set aside.", *GPU),
    _counter("jobs_submitted", "Jobs that were submitted.", tallying.SUBMITTED),
    _counter("attempts_started", "Attempts whose command was started.", tallying.STARTED),
    _counter(
        "attempts_ended",
        "Attempts that ended, those with another one behind them too.",
        tallying.ATTEMPTS_ENDED,
        "outcome",
        always=OUTCOMES,
    ),
    _counter(
        "jobs_ended",
        "Jobs that ended; one that was run once more ends once more.",
        tallying.ENDED,
        "outcome",
        always=(*OUTCOMES, "skipped"),
    ),
    _counter("events", "What was recorded, by the kind of event.", tallying.EVENTS, "kind"),
    _histogram(
        "job_wait_seconds", "From the submission to the start of the first attempt.", tallying.WAIT
    ),
    _histogram(
        "gpu_gap_seconds",
        "From the end of a job to the start of one on its GPU that waited for it by then.",
        tallying.GAP,
    ),
    _histogram("turn_seconds", "How long the daemon took for a turn.", tallying.TURN),
    _histogram("commit_seconds", "How long the database took to commit.", tallying.COMMIT),
)

BY_NAME: Mapping[str, Family] = {family.name: family for family in FAMILIES}
