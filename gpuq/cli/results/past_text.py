"""What has been as text: hours, shares and small bars, and the tables that are made of them. Pure."""

from collections.abc import Sequence
from typing import Any

from gpuq.cli.render import RED, YELLOW, Cell, Column, Look, bar, clock, printable, rfc3339, table
from gpuq.core.units import count, format_bytes, format_energy, format_seconds

View = dict[str, Any]

BAR_CELLS = 10
WIDE = 100  # a terminal of so many columns has room for bars beside the figures
NOTHING = "–"
OTHERS = "(others')"  # jobs whose names, groups or last words the reader is not told
NO_GPU = "no GPU"


def bars(rows: Sequence[View], name: str, look: Look, *, but: View | None = None) -> list[Column]:
    """The longest for the most; none for one that is all of the others together."""
    most = max((row[name] for row in rows), default=0)
    if look.width < WIDE:
        return []
    return [Column("", lambda row: "" if row is but else bar(row[name], most, BAR_CELLS))]


def hours(gpu_s: float | None) -> str:
    """ "2.50", "0.0021" of a few seconds."""
    if gpu_s is None:
        return NOTHING
    digits = 4 if 0.2 <= gpu_s < 360 else 2
    return f"{gpu_s / 3600:.{digits}f}"


def percent(part: float | None, whole: float) -> str:
    return NOTHING if part is None or not whole else f"{100 * part / whole:.0f}%"


def _number(name: str, title: str, *, unused: str | None = "") -> Column:
    return Column(title, lambda row: str(row[name]), right=True, unused=unused)


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
)


def usage_table(by: str, rows: Sequence[View], total: View, look: Look) -> list[str]:
    """With all of them together in the last line, where they are several."""
    lines = [*rows, total] if len(rows) > 1 else rows
    columns = [*_who(by, total), *_had(rows, total, look)]
    return table([*columns, *(_standing(total) if by == "user" else [])], lines, look)


def _who(by: str, total: View) -> list[Column]:
    if by == "user":
        return [Column("USER", lambda row: "all" if row is total else printable(row["user"]))]
    if by == "group":
        return [
            Column("GROUP", lambda row: "all" if row is total else row["group"] or OTHERS),
            Column("NAME", lambda row: "" if row is total else printable(row["name"] or "")),
        ]
    return [
        Column("GPU", lambda row: "all" if row is total else str(row["index"])),
        Column("MODEL", lambda row: "" if row is total else printable(row["model"])),
        Column(
            "LEASED",
            lambda row: "" if row is total else percent(row["leased_gpu_s"], row["seconds"]),
            right=True,
        ),
    ]


def _had(rows: Sequence[View], total: View, look: Look) -> list[Column]:
    return [
        Column("GPU HOURS", lambda row: hours(row["leased_gpu_s"]), right=True),
        *bars(rows, "leased_gpu_s", look, but=total),
        Column("BUSY", _busy, right=True),
        Column("IDLE", lambda row: hours(row["idle_gpu_s"]), right=True),
        Column("UNMEASURED", lambda row: hours(row["unmeasured_gpu_s"]), right=True, unused="0.00"),
        Column("ENERGY", lambda row: format_energy(row["energy_j"]), right=True, unused=NOTHING),
        Column("COST", lambda row: "" if row["cost"] is None else f"{row['cost']:.2f}", right=True),
        _number("attempts", "RUNS"),
    ]


def _busy(row: View) -> str:
    part = percent(row["busy_gpu_s"], row["leased_gpu_s"])
    return NOTHING if part == NOTHING else f"{hours(row['busy_gpu_s'])} ({part})"


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
)


def stats_table(by: str, rows: Sequence[View], look: Look) -> list[str]:
    columns = [
        Column(by.upper(), lambda row: _key(row["key"])),
        _number("jobs", "JOBS"),
        *bars(rows, "jobs", look),
        *([] if by == "state" else [_number(*part, unused="0") for part in _PARTS]),
        _number("attempts", "RUNS", unused="0"),
        _seconds("wait_p50_s", "WAIT P50"),
        _seconds("wait_p95_s", "P95"),
        _seconds("run_p50_s", "RUN P50"),
        _seconds("run_p95_s", "P95"),
        _bytes("memory_peak_bytes", "MEMORY"),
        _bytes("gpu_peak_bytes", "GPU MEM"),
    ]
    return table(columns, rows, look)


_PARTS = (("queued", "QUEUED"), ("running", "RUNNING"), ("succeeded", "OK"), ("failed", "FAILED"))


def _seconds(name: str, title: str) -> Column:
    return Column(title, lambda row: format_seconds(row[name]), right=True, unused="-")


def _bytes(name: str, title: str) -> Column:
    return Column(title, lambda row: format_bytes(row[name]), right=True, unused=NOTHING)


def _key(key: Any) -> str:
    """Jobs of no queue have the empty name."""
    return OTHERS if key is None else printable(str(key)) or "-"


# ── errors ──


def errors_table(by: str, rows: Sequence[View], look: Look) -> list[str]:
    columns = [
        Column("ERRORS", lambda row: (str(row["errors"]), RED), right=True),
        *bars(rows, "errors", look),
        Column("OF", lambda row: "" if row["ended"] is None else str(row["ended"]), right=True),
        _number("jobs", "JOBS"),
        _number("users", "USERS", unused="1"),
        Column("LAST", lambda row: clock(row["last_at"])),
        Column("LAST JOB", lambda row: str(row["last_job"]), right=True),
        Column(by.upper(), lambda row: error_key(by, row)),
    ]
    return table(columns, rows, look)


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


def utilization(job: View) -> str:
    mean = job["gpu_util_mean"]
    return NOTHING if mean is None else f"{mean:.0f}%"


def why(job: View) -> str:
    """What it ended with: its last words where they are told, else the reason."""
    if job["outcome"] == "succeeded":
        return ""
    return printable(job["error_signature"] or job["reason"] or "")
