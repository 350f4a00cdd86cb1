"""What --after says, as the daemon takes it; and Slurm's way of saying it."""

import re
from collections.abc import Sequence
from typing import Any

from gpuq.errors import UsageError

WHENS = ("ok", "any", "fail")
HOW = "write it like 12, 12-18,20:any, @, g12:ok:each"
_JOB = re.compile(r"g?\d+|\d+-\d+|@(~\d+)?", re.ASCII)
_SLURM = {"afterok": "ok", "afterany": "any", "afternotok": "fail", "aftercorr": "ok"}


def read_after(said: Sequence[str] | None) -> list[dict[str, Any]]:
    """ "12-18,20:any" and "g12:ok:each" as {"jobs": …, "when": …, "each": …} each. A condition is for
    all the jobs since the one before it: 12:ok,13,14:any."""
    needs = []
    for text in said or ():
        jobs: list[str] = []
        for part in text.split(","):
            job, *conditions = (word.strip() for word in part.split(":"))
            jobs.append(job)
            if conditions:
                needs.append(_need(jobs, conditions, text))
                jobs = []
        if jobs:
            needs.append(_need(jobs, [], text))
    return needs


def _need(jobs: Sequence[str], conditions: Sequence[str], text: str) -> dict[str, Any]:
    whens = [word for word in conditions if word in WHENS]
    eaches = [word for word in conditions if word == "each"]
    if not all(jobs) or len(whens) + len(eaches) < len(conditions):
        other = next((word for word in conditions if word not in (*WHENS, "each")), None)
        why = "it names no job" if other is None else f"{other!r} is none of {', '.join(WHENS)}"
        raise UsageError(f"--after {text}: {why}; {HOW}")
    if len(whens) > 1 or len(eaches) > 1:
        raise UsageError(f"--after {text}: one condition for each of the jobs; {HOW}")
    return {"jobs": ",".join(jobs), "when": whens[0] if whens else "ok", "each": bool(eaches)}


def read_dependency(text: str) -> list[dict[str, Any]]:
    """Slurm's spelling: "afterok:7:8,afterany:9"; aftercorr is from element to element."""
    if "?" in text:
        raise UsageError(
            f"--dependency {text}: gpuq waits for all of them; one of several (?) it cannot wait for"
        )
    needs = []
    for part in text.split(","):
        kind, *jobs = part.strip().split(":")
        if kind not in _SLURM:
            known = ", ".join(_SLURM)
            raise UsageError(f"--dependency {text}: {kind!r} is not known here; {known} are")
        if not jobs or not all(_JOB.fullmatch(job) for job in jobs):
            raise UsageError(f"--dependency {text}: {part!r} names no job; write it like {kind}:7")
        each = kind == "aftercorr"
        if each:  # to Slurm the number of an array is that of all its elements
            jobs = [f"g{job}" if job.isdecimal() else job for job in jobs]
            needs += [{"jobs": job, "when": "ok", "each": True} for job in jobs]
        else:
            needs.append({"jobs": ",".join(jobs), "when": _SLURM[kind], "each": False})
    return needs
