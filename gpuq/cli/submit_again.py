"""The line that would submit a job again, as far as the daemon tells what it was."""

from gpuq.cli.render import Job, rfc3339
from gpuq.core.units import parse_bytes

USUAL_GRACE_S = 10.0


def submit_line(job: Job) -> list[str]:
    """Its words. A variable of which the daemon tells the name alone stands there without a value, so
    that nobody runs the job with another by mistake: -e wants one."""
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
    line += ["--cpu-after", exact_time(job["cpu_after_s"])] if job.get("cpu_after_s") else []
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
    if job["substate"] == "held":
        line += ["--hold"]
    if job["substate"] == "delayed":
        line += ["--begin", rfc3339(job["delayed_until"]) or "now"]
    line += _ends(job)
    for option in ("output", "stderr"):
        line += [f"--{option}", job[option]] if job.get(option) else []
    for option in ("on_start", "on_end") if job.get("hooks_whole") else ():
        line += [f"--{option.replace('_', '-')}", job[option]] if job.get(option) else []
    line += ["--snapshot"] if job.get("snapshot") else []
    line += _variables(job)
    line += ["--seed", str(job["seed"])] if job.get("seed") is not None else []
    return [*line, "-C", job["cwd"], "--", *job["command"]]


def left_out(job: Job) -> list[str]:
    """What the line does not say, in sentences."""
    told = []
    if (names := job.get("env_names")) and "env" not in job:
        told.append(
            f"the values of {', '.join(names)}, which -e set: gpuq show --with-env {job['id']}"
        )
    if job.get("script"):
        told.append("the text of the script as it was: a script is read when it is submitted")
    if (job.get("on_start") or job.get("on_end")) and not job.get("hooks_whole"):
        told.append("its hooks, which are its owner's to see")
    return told


def _variables(job: Job) -> list[str]:
    """What -e said."""
    known, line = job.get("env", {}), []
    for name in job.get("env_names") or ():
        line += ["-e", f"{name}={known[name]}" if name in known else name]
    return line


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


def _ends(job: Job) -> list[str]:
    """When it is to be ended, and tried again."""
    line = []
    for option, field in (("-t", "time_limit_s"), ("--heartbeat", "heartbeat_s")):
        line += [option, exact_time(job[field])] if job.get(field) else []
    if job.get("grace_s", USUAL_GRACE_S) != USUAL_GRACE_S:
        line += ["--grace", exact_time(job["grace_s"])]
    line += ["--on-kill", job["on_kill"]] if job.get("on_kill") else []
    if job.get("stop_to", "all") != "all":
        line += ["--stop-to", job["stop_to"]]
    for option in ("retries", "backoff", "retry_on", "key"):
        value = job.get(option)
        line += [f"--{option.replace('_', '-')}", str(value)] if value else []
    if job.get("on_failure", "continue") != "continue":
        line += ["--on-failure", job["on_failure"]]
    return line


def exact_time(seconds: float) -> str:
    """ "2h", "20m", "90s": as the options of a time read it, and reads back to the same."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def exact_size(size: int) -> str:
    """A size as `--gpu-mem` and `--mem` read it, and reads back to the same number of bytes."""
    unit, scale = ("G", 2**30) if size >= 2**30 else ("M", 2**20)
    short = f"{size / scale:g}{unit}"
    if parse_bytes(short) == size:
        return short
    return f"{size / 2**10:.10f}".rstrip("0").rstrip(".") + "K"
