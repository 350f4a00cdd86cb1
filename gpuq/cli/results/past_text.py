"""What has been as text: hours, shares and small bars, and the tables that are made of them. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

from gpuq.cli.render import (
    DIM,
    NAME_LEAST,
    RED,
    YELLOW,
    Cell,
    Column,
    Look,
    bar,
    clip,
    clock,
    fitting,
    moment,
    paint,
    plain,
    printable,
    rfc3339,
    table,
)
from gpuq.core.units import count, format_bytes, format_energy, format_seconds

View = dict[str, Any]

BAR_CELLS = (10, 5)  # as long as there is room for
BAR_IS_OPTIONAL = 9
SMALL_S = 3600.0  # of GPU time: what is less all over is told to a third of a second
NOTHING = "–"
OTHERS = "(others')"  # jobs whose names, groups or last words the reader is not told
NO_GPU = "no GPU"


def shown(
    columns_with: Callable[[int], list[Column]], rows: Sequence[View], look: Look
) -> list[str]:
    """A table with bars as long as it has room for, and below it how many columns have none."""
    for cells in BAR_CELLS:
        columns = columns_with(cells)
        kept = fitting(columns, rows, look)
        if len(kept) == len(columns):
            break
    lines, left_out = table(kept, rows, look), {one.title for one in columns if one not in kept}
    number = len(left_out - {""})
    return lines + (foot(f"+{count(number, 'column')}: --json has all", look) if number else [])


def foot(said: str, look: Look) -> list[str]:
    """What is to be known of a table, below it."""
    return [paint(clip(plain(said, look), look.width), DIM, look)] if said else []


def rest(shown: int, more: int, none: str) -> str:
    """That there were none, or more than are shown."""
    if not shown:
        return none
    return f"{more} more not shown" if more else ""


def bars(rows: Sequence[View], name: str, cells: int, *, but: View | None = None) -> Column:
    """The longest for the most; none for one that is all of the others together."""
    most = max((row[name] for row in rows), default=0)
    return Column(
        "",
        lambda row: "" if row is but else bar(row[name], most, cells),
        optional=BAR_IS_OPTIONAL,
    )


def hours_of(rows: Sequence[View]) -> Callable[[float | None], str]:
    """GPU seconds as hours with as many digits in each row: "2.50", where all are short "0.0021"."""
    digits = 2 if any(row["leased_gpu_s"] >= SMALL_S for row in rows) else 4

    def hours(gpu_s: float | None) -> str:
        return NOTHING if gpu_s is None else f"{gpu_s / 3600:.{digits}f}"

    return hours


def percent(part: float | None, whole: float) -> str:
    return NOTHING if part is None or not whole else f"{100 * part / whole:.0f}%"


def _number(name: str, title: str, *, unused: str | None = "", optional: int = 0) -> Column:
    return Column(title, lambda row: str(row[name]), right=True, unused=unused, optional=optional)


# ── usage ──

HAD = (
    "attempts",
    "gpu_s",
    "leased_gpu_s",
    "busy_gpu_s",
    "idle_gpu_s",
    "unmeasured_gpu_s",
    "energy_j",
    "cost",
    "simulated_gpu_s",
)


def usage_table(by: str, rows: Sequence[View], total: View, look: Look) -> list[str]:
    """With all of them together in the last line, where they are several."""
    lines = [*rows, total] if len(rows) > 1 else rows
    standing = _standing(total) if by == "user" else []
    return shown(
        lambda cells: [*_who(by, total), *_had(rows, total, cells), *standing], lines, look
    )


def _who(by: str, total: View) -> list[Column]:
    if by == "user":
        return [
            Column(
                "USER",
                lambda row: "all" if row is total else printable(row["user"]),
                least=NAME_LEAST,
            )
        ]
    if by == "group":
        return [
            Column("GROUP", lambda row: "all" if row is total else row["group"] or OTHERS),
            Column(
                "NAME",
                lambda row: "" if row is total else printable(row["name"] or ""),
                least=NAME_LEAST,
            ),
        ]
    return [
        Column("GPU", lambda row: "all" if row is total else str(row["index"])),
        Column(
            "MODEL", lambda row: "" if row is total else printable(row["model"]), least=NAME_LEAST
        ),
        Column(
            "LEASED",
            lambda row: "" if row is total else percent(row["leased_gpu_s"], row["seconds"]),
            right=True,
        ),
    ]


def _had(rows: Sequence[View], total: View, cells: int) -> list[Column]:
    hours = hours_of([*rows, total])
    some_simulated = 0 < total["simulated_gpu_s"] < total["leased_gpu_s"]

    def busy(row: View) -> str:
        part = percent(row["busy_gpu_s"], row["leased_gpu_s"])
        return NOTHING if part == NOTHING else f"{hours(row['busy_gpu_s'])} ({part})"

    return [
        Column("GPU HOURS", lambda row: hours(row["leased_gpu_s"]), right=True),
        bars(rows, "leased_gpu_s", cells, but=total),
        Column(
            "SIMULATED", lambda row: hours(row["simulated_gpu_s"]) if some_simulated else "", True
        ),
        Column("BUSY", busy, right=True),
        Column("IDLE", lambda row: hours(row["idle_gpu_s"]), right=True),
        Column(
            "UNMEASURED",
            lambda row: hours(row["unmeasured_gpu_s"]),
            right=True,
            unused=hours(0.0),
            optional=1,
        ),
        Column("ENERGY", lambda row: format_energy(row["energy_j"]), right=True, unused=NOTHING),
        Column("COST", lambda row: "" if row["cost"] is None else f"{row['cost']:.2f}", right=True),
        _number("attempts", "RUNS", optional=BAR_IS_OPTIONAL + 1),
    ]


def simulated_hours(total: View) -> str:
    """That no real GPU did it, or how much of it none did."""
    simulated = total["simulated_gpu_s"]
    if not simulated:
        return ""
    if simulated >= total["leased_gpu_s"]:
        what = "hours and energy" if total["cost"] is None else "hours, energy and cost"
        return f"all on simulated GPUs: {what} are simulated"
    return f"{hours_of([total])(simulated)} of the GPU hours are of simulated GPUs"


def _gpus_now(row: View) -> str:
    return count(row["gpus"], "GPU") if row["gpus"] else ""


def _standing(total: View) -> list[Column]:
    """What each has now, and what fair share goes by."""
    return [
        Column("NOW", lambda row: "" if row is total else _gpus_now(row), right=True),
        Column(
            "SHARE", lambda row: "" if row is total else f"{row['share_percent']:.0f}%", right=True
        ),
    ]


# ── stats ──

FARED = (
    "jobs",
    "queued",
    "running",
    "succeeded",
    "failed",
    "attempts",
    "wait_p50_s",
    "wait_p95_s",
    "run_p50_s",
    "run_p95_s",
    "memory_peak_bytes",
    "gpu_peak_bytes",
    "fell_back",
    "simulated",
)


def stats_table(by: str, rows: Sequence[View], look: Look) -> list[str]:
    parts = (
        []
        if by == "state"
        else [_number(name, title, unused="0", optional=rank) for name, title, rank in _PARTS]
    )

    def columns(cells: int) -> list[Column]:
        return [
            Column(by.upper(), lambda row: _key(row["key"]), least=NAME_LEAST),
            _number("jobs", "JOBS"),
            bars(rows, "jobs", cells),
            *parts,
            _number("fell_back", "ON CPU", unused="0"),
            _number("attempts", "RUNS", unused="0", optional=BAR_IS_OPTIONAL + 1),
            _seconds("wait_p50_s", "WAIT P50"),
            _seconds("wait_p95_s", "WAIT P95", optional=4),
            _seconds("run_p50_s", "RUN P50"),
            _seconds("run_p95_s", "RUN P95"),
            _bytes("memory_peak_bytes", "MEMORY", optional=3),
            _bytes("gpu_peak_bytes", "GPU MEM", optional=2),
        ]

    return shown(columns, rows, look)


def simulated_runs(rows: Sequence[View]) -> str:
    simulated, all_ = (sum(row[name] for row in rows) for name in ("simulated", "attempts"))
    return f"{simulated} of {count(all_, 'run')} on simulated GPUs" if simulated else ""


_PARTS = (
    ("queued", "QUEUED", 1),
    ("running", "RUNNING", 1),
    ("succeeded", "OK", 0),
    ("failed", "FAILED", 0),
)


def _seconds(name: str, title: str, *, optional: int = 0) -> Column:
    return Column(
        title, lambda row: format_seconds(row[name]), right=True, unused="-", optional=optional
    )


def _bytes(name: str, title: str, *, optional: int) -> Column:
    return Column(
        title, lambda row: format_bytes(row[name]), right=True, unused=NOTHING, optional=optional
    )


def _key(key: Any) -> str:
    """Jobs of no queue have the empty name."""
    return OTHERS if key is None else printable(str(key)) or "-"


# ── errors ──


def errors_table(by: str, rows: Sequence[View], look: Look) -> list[str]:
    def columns(cells: int) -> list[Column]:
        return [
            Column("ERRORS", lambda row: (str(row["errors"]), RED), right=True),
            bars(rows, "errors", cells),
            Column("OF", lambda row: "" if row["ended"] is None else str(row["ended"]), right=True),
            _number("jobs", "JOBS"),
            _number("users", "USERS", unused="1"),
            Column("LAST", lambda row: moment(row["last_at"], look.now)),
            Column("LAST JOB", lambda row: str(row["last_job"]), right=True),
            Column(by.upper(), lambda row: error_key(by, row), least=ERROR_LEAST),
        ]

    return shown(columns, rows, look)


ERROR_LEAST = 24


def error_key(by: str, row: View) -> str:
    """Which of them it is, for reading."""
    key = row["key"]
    if by == "gpu":
        return NO_GPU if key is None else str(row["index"] if row["index"] is not None else key)
    if by == "hour":
        return clock(key)[:-3]
    if key is None:
        return OTHERS
    return printable(key).replace("_", " ") if by == "outcome" else printable(key)


def error_key_for_pipe(by: str, key: Any) -> Any:
    return rfc3339(key) if by == "hour" else key


# ── history ──


def idle_words(job: View) -> Cell:
    """That it held a GPU and did not use it."""
    return ("idle", YELLOW) if job["held_idle"] else ""


def simulated_jobs(jobs: Sequence[View]) -> str:
    """That all who had GPUs had simulated ones; where only some had, their rows say so."""
    with_gpus = [job for job in jobs if job["gpus"]]
    if not with_gpus or not all(map(is_simulated, with_gpus)):
        return ""
    return "all on simulated GPUs: what they used is simulated, too"


def is_simulated(job: View) -> bool:
    return bool(job["gpus"] and job.get("gpus_simulated"))


def utilization(job: View) -> str:
    mean = job["gpu_util_mean"]
    return NOTHING if mean is None else f"{mean:.0f}%"


def why(job: View) -> str:
    """What it ended with: its last words where they are told, else the reason."""
    if job["outcome"] == "succeeded":
        return ""
    return printable(job["error_signature"] or job["reason"] or "")
