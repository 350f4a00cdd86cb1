"""What can be copied of a job, and the report on how it ended."""

from collections.abc import Mapping, Sequence
from typing import Any

from gpuq.cli.fold_text import name_of
from gpuq.cli.job_text import elapsed, farewell, gpus_of
from gpuq.cli.render import Gpu, Job, clock, command_line, printable
from gpuq.cli.submit_again import submit_line
from gpuq.core.units import format_seconds

LAST_LINES = 20
LONGEST_LINE = 400  # signs: a terminal takes no more than some 70 kB in one go


def copyable(job: Job) -> dict[str, str]:
    """By what it is called in the menu; a job that is somebody else's to know of has less."""
    parts = {"id": str(job["id"])}
    if not job.get("hidden"):
        parts |= {"command": command_line(job["command"]), "submit": command_line(submit_line(job))}
        parts |= {"log": _path(job["log"])} if job.get("log") else {}
        parts |= {"cwd": _path(job["cwd"])} if job.get("cwd") else {}
    return parts


def copyable_gpu(gpu: Gpu, *, drain: str, daemon: Sequence[str]) -> dict[str, str]:
    """By what it is called in the menu. `drain` is the line that takes it out of use, or gives it out
    again; `daemon` are the options that tell which daemon is meant."""
    return {
        "index": str(gpu["index"]),
        "uuid": str(gpu["uuid"]),
        "model": str(gpu["model"]),
        "drain": drain,
        "why": command_line(["gpuq", *daemon, "why", f"gpu:{gpu['index']}"]),
    }


def _path(path: str) -> str:
    """As it is, or so that a shell reads it back."""
    return path if path.isprintable() else command_line([path])


def report(job: Job, lines: Sequence[str], now: float) -> str:
    """What ran, how it ended, what it said. `lines` are the last of its log."""
    head = farewell(job) if job["state"] == "ended" else f"Job {job['id']} is {job['state']}"
    said = {
        "said": job.get("error_signature"),
        "name": name_of(job),
        "user": job["user"],
        "command": command_line(job["command"]),
        "cwd": _path(job["cwd"] or ""),
        "GPUs": _gpus(job),
        "attempt": f"{job['attempt']} of {1 + (job['retries'] or 0)}",
        "started": None if job["started_at"] is None else clock(job["started_at"]),
        "ended": _end(job, now),
        "log": _path(job["log"] or ""),
    }
    wide = max(map(len, said))
    told = [f"{name:<{wide}}  {printable(str(value))}" for name, value in said.items() if value]
    shown = [line[:LONGEST_LINE] for line in lines]
    log = [f"last {len(shown)} lines of the log:", *shown] if shown else ["the log is empty"]
    return "\n".join([head, *told, *log]) + "\n"


def _gpus(job: Mapping[str, Any]) -> str:
    """With how they are called everywhere, and not only by their places in this machine."""
    uuids = f" ({', '.join(job['gpu_uuids'])})" if job.get("gpu_uuids") else ""
    return f"{gpus_of(job)}{uuids}"


def _end(job: Job, now: float) -> str | None:
    if job["ended_at"] is None:
        return None
    return f"{clock(job['ended_at'])}, after {format_seconds(elapsed(job, now))}"
