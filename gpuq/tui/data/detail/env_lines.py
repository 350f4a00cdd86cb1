"""Which variables a job has in its environment, by their names: a value may be a password."""

from collections.abc import Mapping
from typing import Any

from gpuq.cli.render import DIM
from gpuq.core.units import count
from gpuq.tui.data.pieces import BOLD, Pieces, said, sentences

LABEL = 21
# What every job finds, beside what its submitter has set.
EVERY_JOB_HAS = {
    "GPUQ_JOB_ID": "its number",
    "GPUQ_ATTEMPT": "1, 2, …",
    "GPUQ_GROUP": "its group",
    "GPUQ_ARRAY_INDEX": "of an element of an array: which",
    "GPUQ_ARRAY_COUNT": "and of how many",
    "GPUQ_GPU_INDICES": "its GPUs, by index",
    "GPUQ_GPU_UUIDS": "and by UUID",
    "GPUQ_DEVICE": "cuda, or cpu where that has to do",
    "GPUQ_OUTPUT_DIR": "a folder for what it makes",
    "GPUQ_SEED": "a number, the same on every attempt",
    "GPUQ_SOCKET": "where this daemon answers",
    "GPUQ_REPORT": "where what it reports goes",
    "GPUQ_PREEMPT_SIGNAL": "of a job that may have to give way: what it is sent then",
    "GPUQ_MARK": "how gpuq knows its processes",
    "CUDA_VISIBLE_DEVICES": "its GPUs, for CUDA",
}


def env_lines(job: Mapping[str, Any], user: str, room: int) -> list[Pieces]:
    """`user` is who looks."""
    names = job.get("env_names") or []
    lines: list[Pieces]
    if names:
        lines = [[(f"{count(len(names), 'variable')} set for it:", BOLD)]]
        lines += sentences(["  ".join(names)], room)
    elif job["user"] == user:
        lines = sentences(["No variable was set for it (gpuq submit --env)."], room)
    else:
        owner = job["user"]
        lines = sentences([f"Which variables were set for it is {owner}'s to see."], room)
    value = (
        f"The rest is as it was where it was submitted. Values: gpuq show --with-env {job['id']}"
    )
    lines += [*sentences([value], room, DIM), [("", "")], [("Every job finds:", BOLD)]]
    for name, about in EVERY_JOB_HAS.items():
        lines += said(f"{name:<{LABEL - 1}} ", about, room, label=LABEL)
    return lines
