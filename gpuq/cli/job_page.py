"""One job in full, as text: its fields, its attempts, and the line that would submit it again."""

from collections.abc import Sequence
from typing import Any

from gpuq.cli.expected_text import expected_start, runs_about
from gpuq.cli.job_text import elapsed, metrics_of, words
from gpuq.cli.render import (
    Column,
    Job,
    Look,
    clock,
    command_line,
    printable,
    table,
)
from gpuq.core.units import count, format_bytes, format_energy, format_indices, format_seconds

# In the order in which a person asks; what the daemon says beyond that comes after it.
SHOWN_FIRST = (
    "state",
    "reason",
    "expected_start",
    "runs",
    "after",
    "needed_by",
    "place",
    "command",
    "cwd",
    "user",
    "group",
    "tags",
    "priority",
    "gpu_count",
    "cpu_fallback",
    "gpu_mem_bytes",
    "gpu_mem_from",
    "exclusive",
    "gpu_model",
    "gpu_ids",
    "exclude_gpus",
    "max_util",
    "gpus",
    "gpu_uuids",
    "cpus",
    "memory",
    "memory_peak_bytes",
    "submitted_at",
    "started_at",
    "ended_at",
    "progress",
    "metrics",
    "reported",
    "report_trouble",
    "gpu_use",
    "idle",
    "contended",
    "over_memory",
    "gpu_errors",
)
SHOWN_ELSEWHERE = frozenset(
    (
        *("id", "name", "substate", "outcome", "attempts", "environment", "gpus_simulated"),
        *("env", "env_names"),
        *("hidden", "differs_in", "place_of", "queue_place", "hooks_whole"),
        *("expected_start_is_guess", "expected_start_from", "ran_before"),
        *("gpu_peak_bytes", "gpu_util_mean", "gpu_util_peak", "gpu_energy_j"),
        *("cpu_bound", "cpu_bound_by", "mem_bytes", "mem_bound_by"),
        *("idle_since_at", "contended_at", "contended_by", "contended_now"),
        *("progress_from", "reported_at", "report_lines", "peak_rss_bytes"),
    )
)


# What is so unless somebody asks for something else needs no line.
USUAL = {"as_slurm": False, "retries": 0, "stop_to": "all", "visible": "auto", "paused_s": 0.0}
USUAL |= {"preemptible": False, "preemptions": 0, "on_failure": "continue", "device": "cuda"}


def job_fields(job: Job, now: float = 0.0) -> list[tuple[str, str]]:
    """Every field that says something, the important ones first."""
    known = dict(job, state=_state(job), gpus=_gpus(job), gpu_use=gpu_use(job))
    known |= {"idle": _idle(job), "contended": _contended(job)}
    known |= {"expected_start": expected_start(job, now), "runs": runs_about(job)}
    known |= {"memory": _memory(job), "cpus": _cpus(job), "cpu_fallback": _cpu_fallback(job)}
    known |= {"progress": _progress(job), "reported": _reported(job)}
    known |= {"metrics": metrics_of(job)}
    if not job["gpu_count"]:
        known["exclusive"] = None  # of nothing
    known |= {"script": "as it was at submit" if job.get("script") else None}
    if job["substate"] == "delayed":
        known["not_before"] = known.pop("delayed_until")
    names = [*SHOWN_FIRST, *(name for name in known if name not in SHOWN_FIRST)]
    pairs = [("job", f"{job['id']} {job['name']}".rstrip())]
    if job.get("hidden"):
        pairs.append(("hidden", f"what it runs and where is {job['user']}'s to see"))
    for name in names:
        value = known.get(name)
        if name not in SHOWN_ELSEWHERE and not _says_nothing(value) and USUAL.get(name) != value:
            pairs.append((label(name), shown(name, value)))
    return pairs


def _says_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, list | dict | str) and not value)


def _gpus(job: Job) -> str:
    return format_indices(job["gpus"]) + (" (simulated)" if job.get("gpus_simulated") else "")


def gpu_use(job: Job) -> str | None:
    """ "peak 6.1G of 8G asked, mean 71 %, peak 98 %, 0.42 kWh"."""
    parts = []
    if (peak_bytes := job.get("gpu_peak_bytes")) is not None:
        asked = job.get("gpu_mem_bytes")
        of_asked = f" of {format_bytes(asked)} asked" if asked is not None else ""
        parts.append(f"peak {format_bytes(peak_bytes)}{of_asked}")
    if (mean := job.get("gpu_util_mean")) is not None:
        parts.append(f"mean {mean:.0f} %")
    if (peak := job.get("gpu_util_peak")) is not None:
        parts.append(f"peak {peak} %")
    if (energy_j := job.get("gpu_energy_j")) is not None:
        parts.append(format_energy(energy_j))
    return ", ".join(parts) or None


def _idle(job: Job) -> str | None:
    if not job.get("idle"):
        return None
    return f"since {clock(job['idle_since_at'])}: it holds its GPUs and computes nothing"


def _contended(job: Job) -> str | None:
    if not job.get("contended"):
        return None
    still = ", and somebody is there still" if job["contended_now"] else ""
    return f"{job['contended_by']}, seen at {clock(job['contended_at'])}{still}"


def _progress(job: Job) -> str | None:
    if job.get("progress") is None:
        return None
    said_by = ", by the bar in its log" if job.get("progress_from") == "log" else ""
    return f"{job['progress'] * 100:.3g} %{said_by}"


def _reported(job: Job) -> str | None:
    if not job.get("report_lines"):
        return None
    return f"{clock(job['reported_at'])}, the last of {count(job['report_lines'], 'report')}"


def _cpu_fallback(job: Job) -> str | None:
    """ "it asked for 2 GPUs; gpuq requeue 12 asks for them again"."""
    if not job.get("cpu_fallback"):
        return None
    gpus = count(job["cpu_fallback"]["gpus"], "GPU")
    return f"it asked for {gpus}; gpuq requeue {job['id']} asks for them again"


def _memory(job: Job) -> str | None:
    """ "8G, watched once a second and not enforced by the kernel"."""
    if job["mem_bytes"] is None:
        return None
    weaker = ", watched once a second and not enforced by the kernel"
    return format_bytes(job["mem_bytes"]) + (weaker if job.get("mem_bound_by") == "watched" else "")


def _cpus(job: Job) -> str:
    return f"{job['cpus']}{', not enforced' if job.get('cpu_bound_by') == 'nobody' else ''}"


def _state(job: Job) -> str:
    return ", ".join(words(w) for w in (job["state"], job["substate"], job["outcome"]) if w)


def label(name: str) -> str:
    for unit in ("_at", "_bytes", "_s"):
        name = name.removesuffix(unit)
    known = {"gpu_count": "gpus", "gpus": "on gpu", "delayed_until": "next attempt"}
    return known.get(name, name.replace("_", " "))


def shown(name: str, value: Any) -> str:
    """A value as people read it, by the unit that its name says."""
    if name == "command":
        return command_line(value)
    if name == "after":
        return needs_words(value)
    if name.endswith("_at") or name in ("delayed_until", "not_before"):
        return clock(value)
    if name.endswith("_bytes"):
        return format_bytes(value)
    if name.endswith("_s"):
        return format_seconds(value)
    return _plainly(value)


def _plainly(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    if isinstance(value, dict):
        return " ".join(f"{key}={part}" for key, part in value.items())
    return str(value)


def attempt_table(attempts: Sequence[Job], look: Look) -> list[str]:
    columns = [
        Column("ATTEMPT", lambda attempt: str(attempt["attempt"])),
        Column(
            "STARTED",
            lambda attempt: clock(attempt["started_at"]) if attempt["started_at"] else "-",
        ),
        Column("TIME", lambda attempt: format_seconds(elapsed(attempt, look.now)), right=True),
        Column("GPU", lambda attempt: format_indices(attempt["gpus"])),
        Column("CPU TIME", lambda attempt: format_seconds(_cpu_seconds(attempt)), unused="-"),
        Column("PEAK", lambda attempt: format_bytes(attempt["peak_rss_bytes"]), unused="–"),
        Column(
            "MEMORY", lambda attempt: format_bytes(attempt.get("memory_peak_bytes")), unused="–"
        ),
        Column("GPU PEAK", lambda attempt: format_bytes(attempt.get("gpu_peak_bytes")), unused="–"),
        Column("END", lambda attempt: printable(end_of(attempt))),
    ]
    return table(columns, attempts, look)


def _cpu_seconds(attempt: Job) -> float | None:
    if attempt["user_s"] is None:
        return None
    return float(attempt["user_s"]) + float(attempt["system_s"] or 0.0)


def end_of(attempt: Job) -> str:
    if attempt["ended_at"] is None:
        return attempt.get("unkillable") or "-"
    return str(attempt["reason"] or words(attempt["outcome"]))


def needs_words(needs: Sequence[Job]) -> str:
    """ "12-18 (ok, met), 20 (any)"."""
    said = []
    for need in needs:
        state = "" if need["state"] == "open" else f", {need['state']}"
        said.append(f"{need['jobs']} ({need['when']}{state})")
    return ", ".join(said)
