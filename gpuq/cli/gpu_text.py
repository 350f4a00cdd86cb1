"""GPUs as text. What is simulated says so in every row."""

import time
from collections.abc import Mapping, Sequence

from gpuq.cli.render import (
    DIM,
    RED,
    YELLOW,
    Cell,
    Column,
    Gpu,
    Job,
    Look,
    bar,
    memory,
    printable,
    tabbed,
    table,
)
from gpuq.core.units import count, format_bytes, format_ranges

COLOURS = {
    "free": DIM,
    "foreign": YELLOW,
    "cooling": YELLOW,
    "drained": YELLOW,
    "dirty": RED,
    "quarantined": RED,
    "lost": RED,
}
DAY_S = 86400.0
# Of a pipe.
GPU_COLUMNS = (
    "index",
    "uuid",
    "model",
    "kind",
    "state",
    "memory_used_bytes",
    "memory_total_bytes",
    "utilization_percent",
    "temperature_c",
    "power_w",
    "jobs",
    "reason",
)
GONE = "gone"
BARRED = ("drained", "quarantined")  # whose reason says it all


def gpu_table(
    gpus: Sequence[Gpu], jobs: Sequence[Job], look: Look, *, full: bool = False
) -> list[str]:
    """`full` adds what the list above the jobs has no room for."""
    by_id = {job["id"]: job for job in jobs}
    columns = [
        Column("GPU", lambda gpu: str(gpu["index"])),
        Column("", lambda gpu: "simulated" if gpu["simulated"] else ""),
        Column("MODEL", lambda gpu: printable(gpu["model"]) if full else ""),
        Column("MEM", _memory, right=True),
        Column("", lambda gpu: bar(gpu["memory_used_bytes"], gpu["memory_total_bytes"])),
        Column(
            "UTIL", lambda gpu: _reading(gpu["utilization_percent"], "%"), right=True, unused="–"
        ),
        Column("TEMP", lambda gpu: _reading(gpu["temperature_c"], "C"), right=True, unused="–"),
        Column("W", lambda gpu: _power(gpu, full), right=True, unused="–"),
        Column("JOB", lambda gpu: _occupation(gpu, by_id, look.now)),
    ]
    return table(columns, gpus, look)


def _memory(gpu: Gpu) -> str:
    return memory(gpu["memory_used_bytes"], gpu["memory_total_bytes"])


def _reading(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:.0f}{unit}"


def _power(gpu: Gpu, full: bool) -> str:
    watts = _reading(gpu["power_w"], "")
    if full and gpu["power_limit_w"] is not None:
        return f"{watts}/{gpu['power_limit_w']:.0f}"
    return watts


def _occupation(gpu: Gpu, jobs: Mapping[int, Job], now: float) -> Cell:
    """Whose it is, or why it is nobody's, and for whom it is reserved."""
    words, colour = _held(gpu, jobs)
    return ", ".join([str(words), *reserved_words(gpu, now)]), colour


def reserved_words(gpu: Gpu, now: float) -> list[str]:
    reserved = gpu.get("reservations") or ()
    return [f"reserved for {printable(one['user'])} {span(one, now)}" for one in reserved]


def span(one: Job, now: float) -> str:
    """When a reservation is: "18:00-06:00", with the day where that would be another one."""
    begin, end = (time.localtime(one[name]) for name in ("begin_at", "end_at"))
    day = "" if abs(one["begin_at"] - now) < DAY_S else "%m-%d "
    last = "" if one["end_at"] - one["begin_at"] < DAY_S else "%m-%d "
    return time.strftime(f"{day}%H:%M", begin) + "-" + time.strftime(f"{last}%H:%M", end)


def _held(gpu: Gpu, jobs: Mapping[int, Job]) -> tuple[str, str]:
    """Whose it is, or why it is nobody's."""
    colour = COLOURS.get(gpu["state"], "")
    if gpu["jobs"]:
        is_barred = gpu["state"] in (*BARRED, "lost") and gpu["reason"]
        mark = "! lost: " if gpu["state"] == "lost" else ""
        bars = [mark + printable(gpu["reason"])] if is_barred else []
        return ", ".join(_tenants(gpu, jobs) + _intruders(gpu) + bars), colour
    if gpu["state"] in BARRED:
        return printable(gpu["reason"] or gpu["state"]), colour
    if gpu["state"] == "foreign":
        return ", ".join(_intruders(gpu)) or f"! {printable(gpu['reason'] or 'foreign')}", colour
    reason = printable(gpu["reason"] or "")
    return f"{gpu['state']}: {reason}" if reason else str(gpu["state"]), colour


def _tenants(gpu: Gpu, jobs: Mapping[int, Job]) -> list[str]:
    tenants = [_tenant(number, jobs.get(number)) for number in gpu["jobs"]]
    is_shared = len(gpu["jobs"]) > 1 or not gpu.get("exclusive", True)
    return [*tenants, "shared"] if is_shared else tenants


def _tenant(number: int, job: Job | None) -> str:
    if job is None:
        return str(number)
    name = f" {printable(job['name'])}" if job["name"] else ""
    return f"{number}{name} ({printable(job['user'])})"


def _intruders(gpu: Gpu) -> list[str]:
    foreign = foreign_processes(gpu)
    if not foreign:
        return []
    first = foreign[0]
    more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
    return [f"! outside gpuq: pid {first['pid']} {printable(first['user'] or '')}".rstrip() + more]


def foreign_processes(gpu: Gpu) -> list[Job]:
    """Those of nobody's job, and that the settings do not pass over."""
    return [one for one in gpu["processes"] if not one["ours"] and not one.get("ignored")]


def process_table(gpus: Sequence[Gpu], look: Look) -> list[str]:
    rows = [(gpu, process) for gpu in gpus for process in gpu["processes"]]
    columns = [
        Column("GPU", lambda row: str(row[0]["index"])),
        Column("", lambda row: "simulated" if row[0]["simulated"] else ""),
        Column("PID", lambda row: str(row[1]["pid"]), right=True),
        Column("USER", lambda row: printable(row[1]["user"] or "–")),
        Column("MEM", lambda row: format_bytes(row[1]["memory_bytes"]), right=True),
        Column("JOB", lambda row: _whose(row[1])),
        Column("IN", lambda row: printable(row[1].get("unit") or "")),
        Column("COMMAND", lambda row: printable(row[1]["command"] or "–")),
    ]
    return table(columns, rows, look)


def _whose(process: Job) -> Cell:
    if process["ours"]:
        return str(process["job"])
    return ("ignored", DIM) if process.get("ignored") else ("outside gpuq", YELLOW)


def process_row(gpu: Gpu, process: Job) -> str:
    """For a pipe."""
    names = ("pid", "user", "memory_bytes", "job", "command", "unit")
    values = [process.get(name) for name in names]
    return tabbed([gpu["index"], gpu["uuid"], kind(gpu), *values])


def gone_process_row(gpu: Gpu, process: Job) -> str:
    """The same of one that was there and is no more: it holds nothing, and that is said at the end."""
    return process_row(gpu, {**process, "memory_bytes": None}) + f"\t{GONE}"


def gone_gpu_row(gpu: Gpu) -> str:
    """The columns of `gpu_row` for one that is no more among them: what it is stays, and nothing is
    read from it."""
    read = ("memory_used_bytes", "utilization_percent", "temperature_c", "power_w", "reason")
    return gpu_row({**gpu, **dict.fromkeys(read), "jobs": [], "state": GONE})


def gpu_row(gpu: Gpu) -> str:
    """For a pipe: the same columns always."""
    return tabbed(list(gpu_values(gpu).values()))


def gpu_values(gpu: Gpu) -> dict[str, object]:
    """What a pipe is told of it, by column."""
    made = {"kind": kind(gpu), "jobs": ",".join(map(str, gpu["jobs"]))}
    return {name: made[name] if name in made else gpu[name] for name in GPU_COLUMNS}


def drained_words(gpu: Gpu) -> str:
    """What came of draining it."""
    words = f"GPU {gpu['index']} is drained: {gpu['reason']}"
    if gpu["jobs"]:
        verb = "goes" if len(gpu["jobs"]) == 1 else "go"
        jobs = f"{count(len(gpu['jobs']), 'job')} on it ({format_ranges(gpu['jobs'])})"
        return f"{words}; {jobs} {verb} on"
    return words


def resumed_words(gpu: Gpu) -> str:
    """What came of giving it out again."""
    what = {
        "resumed": "is given out again",
        "readmitted": "is given out again, untested",
        "testing": f"is tested first; it was set aside: {gpu['reason']}",
        "waits": f"is given out again after a test, and cannot be tested now: {gpu['reason']}",
        "nothing": "was neither drained nor set aside",
    }
    return f"GPU {gpu['index']} {what.get(gpu['done'], gpu['done'])}"


def are_simulated(gpus: Sequence[Gpu]) -> bool:
    return any(gpu["simulated"] for gpu in gpus)


def kind(gpu: Gpu) -> str:
    return "simulated" if gpu["simulated"] else "real"


def census(gpus: Sequence[Gpu]) -> str:
    """ "4 simulated GPUs", "8 GPUs"."""
    simulated = sum(bool(gpu["simulated"]) for gpu in gpus)
    if not simulated:
        return count(len(gpus), "GPU")
    real = len(gpus) - simulated
    return (f"{count(real, 'GPU')} and " if real else "") + count(simulated, "simulated GPU")
