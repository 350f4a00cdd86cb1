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
    indices,
    printable,
    rfc3339,
    table,
)
from gpuq.core.units import count, format_bytes, format_energy, format_seconds, parse_bytes

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
        *("hidden", "differs_in", "place_of", "queue_place", "hooks_whole"),
        *("expected_start_is_guess", "expected_start_from", "ran_before"),
        *("gpu_peak_bytes", "gpu_util_mean", "gpu_util_peak", "gpu_energy_j"),
        *("cpu_bound", "cpu_bound_by", "mem_bytes", "mem_bound_by"),
        *("idle_since_at", "contended_at", "contended_by", "contended_now"),
        *("progress_from", "reported_at", "report_lines"),
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
    return indices(job["gpus"]) + (" (simulated)" if job.get("gpus_simulated") else "")


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
        Column("GPU", lambda attempt: indices(attempt["gpus"])),
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


def submit_line(job: Job) -> list[str]:
    """The words that would submit a job again, as far as the daemon tells them."""
    job = job | _as_written(job) | _where_submitted(job) | _with_its_gpus(job)
    line = ["gpuq", "submit", "-g", str(job["gpu_count"]), "-n", job["name"]]
    line += _element(job)
    if job.get("gpu_mem_from"):
        line += ["--gpu-mem", "auto"]
    elif job["gpu_mem_bytes"] is not None:
        line += ["--gpu-mem", exact_size(job["gpu_mem_bytes"])]
        line += ["--exclusive"] if job.get("exclusive") else []
    if job.get("gpu_model"):
        line += ["--gpu-model", job["gpu_model"]]
    for option, field in (("--gpu-id", "gpu_ids"), ("--exclude-gpu", "exclude_gpus")):
        line += [option, ",".join(job[field])] if job.get(field) else []
    line += ["--max-util", str(job["max_util"])] if job.get("max_util") else []
    line += ["--cpu-after", f"{job['cpu_after_s']:g}s"] if job.get("cpu_after_s") else []
    if job["cpus"] != 1 or job.get("cpu_bound"):
        line += ["-c", str(job["cpus"])]
    if job.get("mem_bytes"):
        line += ["--mem", exact_size(job["mem_bytes"])]
    if job["priority"]:
        line += ["-p", str(job["priority"])]
    line += ["-q", job["queue"]] if job.get("queue") else []
    line += ["--preemptible"] if job.get("preemptible") else []
    if job.get("preempt_signal"):
        line += ["--preempt-signal", job["preempt_signal"]]
    if job.get("visible", "auto") != "auto":
        line += ["--visible", job["visible"]]
    for tag in job["tags"]:
        line += ["--tag", tag]
    line += _after(job)
    if job["substate"] == "delayed":
        line += ["--begin", rfc3339(job["delayed_until"]) or "now"]
    line += _ends(job)
    for option in ("output", "stderr"):
        line += [f"--{option}", job[option]] if job.get(option) else []
    for option in ("on_start", "on_end") if job.get("hooks_whole") else ():
        line += [f"--{option.replace('_', '-')}", job[option]] if job.get(option) else []
    line += ["--snapshot"] if job.get("snapshot") else []
    return [*line, "-C", job["cwd"], "--", *job["command"]]


def _with_its_gpus(job: Job) -> Job:
    """As it was before the CPU had to do."""
    asked = job.get("cpu_fallback") or {}
    return asked | {"gpu_count": asked["gpus"]} if asked else {}


def _where_submitted(job: Job) -> Job:
    """Of a job in a copy of a work tree: the directory that it was submitted in, as far as the copy is
    there to tell."""
    if not job.get("snapshot"):
        return {}
    from gpuq.cli.snapshot_text import taken_in

    cwd = taken_in(job)
    return {"snapshot": None} if cwd is None else {"cwd": cwd}


def _as_written(job: Job) -> Job:
    """Its texts so that what stands for something in them is not put in once more."""
    files = ("output", "stderr")
    texts = {name: job[name].replace("%", "%%") for name in files if job.get(name)}
    if job.get("array_index") is None:
        return texts
    from gpuq.core.asked.arrays import INDEX, escape

    names = [INDEX, *job["parameters"]]
    texts = {name: escape(text, names) for name, text in (texts | {"name": job["name"]}).items()}
    return texts | {"command": [escape(word, names) for word in job["command"]]}


def _element(job: Job) -> list[str]:
    """The one element of an array, as an array of its own."""
    if job.get("array_index") is None:
        return []
    from gpuq.core.asked.arrays import write_axis

    line = ["--array", str(job["array_index"])]
    for name, value in job["parameters"].items():
        line += ["--grid", write_axis(name, value)]
    return line


def _after(job: Job) -> list[str]:
    """What it was to wait for."""
    line = []
    for need in job.get("after", ()):
        each = ":each" if need["each"] and "-" in need["jobs"] else ""
        line += ["--after", f"{need['jobs']}:{need['when']}{each}"]
    return line


def needs_words(needs: Sequence[Job]) -> str:
    """ "12-18 (ok, met), 20 (any)"."""
    said = []
    for need in needs:
        state = "" if need["state"] == "open" else f", {need['state']}"
        said.append(f"{need['jobs']} ({need['when']}{state})")
    return ", ".join(said)


def _ends(job: Job) -> list[str]:
    """When it is to be ended, and tried again."""
    line = []
    for option, field in (("-t", "time_limit_s"), ("--heartbeat", "heartbeat_s")):
        line += [option, f"{job[field]:g}s"] if job.get(field) else []
    line += ["--on-kill", job["on_kill"]] if job.get("on_kill") else []
    if job.get("stop_to", "all") != "all":
        line += ["--stop-to", job["stop_to"]]
    for option in ("retries", "backoff", "retry_on", "key"):
        value = job.get(option)
        line += [f"--{option.replace('_', '-')}", str(value)] if value else []
    if job.get("on_failure", "continue") != "continue":
        line += ["--on-failure", job["on_failure"]]
    return line


def exact_size(size: int) -> str:
    """A size as `--gpu-mem` and `--mem` read it, and reads back to the same number of bytes."""
    unit, scale = ("G", 2**30) if size >= 2**30 else ("M", 2**20)
    short = f"{size / scale:g}{unit}"
    if parse_bytes(short) == size:
        return short
    return f"{size / 2**10:.10f}".rstrip("0").rstrip(".") + "K"
