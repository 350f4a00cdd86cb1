"""The demo as text: a picture that is drawn over itself on a terminal, a line per news elsewhere."""

import re
import sys
from collections.abc import Mapping, Sequence

from gpuq.cli import console
from gpuq.cli.gpu_text import gpu_table
from gpuq.cli.render import GREEN, RED, Cell, Column, Gpu, Job, Look, bar, table
from gpuq.core.units import format_seconds

STEP = re.compile(r"step (\d+)/(\d+) loss (\S+)")


class Progress:
    """Shows the jobs and GPUs of one moment after the other."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._drawn = 0
        self._told: dict[int, str] = {}

    def show(self, jobs: Sequence[Job], gpus: Sequence[Gpu], said: Mapping[int, str]) -> None:
        if sys.stdout.isatty():
            lines = [*gpu_table(gpus, jobs, self._look), "", *self._jobs(jobs, said)]
            console.draw_over(lines, up=self._drawn)
            self._drawn = len(lines)
            return
        for job in jobs:
            state = job["outcome"] or job["state"]
            if self._told.get(job["id"]) != state:
                self._told[job["id"]] = state
                sys.stdout.write(_news(job, state, gpus) + "\n")
        sys.stdout.flush()

    def _jobs(self, jobs: Sequence[Job], said: Mapping[int, str]) -> list[str]:
        columns = [
            Column("ID", lambda job: str(job["id"]), right=True),
            Column("TRIAL", lambda job: job["name"]),
            Column("STATE", _state),
            Column("GPU", lambda job: ",".join(map(str, job["gpus"])) or "-"),
            Column("", lambda job: _progress_bar(said[job["id"]], job)),
            Column("LAST WORDS", lambda job: said[job["id"]] or job["reason"] or ""),
        ]
        return table(columns, jobs, self._look)


def _news(job: Job, state: str, gpus: Sequence[Gpu]) -> str:
    if state == "ended" or job["outcome"]:
        return f"job {job['id']} {job['name']}: {state} ({job['reason']})"
    simulated = any(gpu["simulated"] for gpu in gpus if gpu["index"] in job["gpus"])
    where = f" on {'simulated ' if simulated else ''}GPU {job['gpus'][0]}" if job["gpus"] else ""
    why = f" ({job['reason']})" if state == "queued" and job["reason"] else ""
    return f"job {job['id']} {job['name']}: {state}{where}{why}"


def _state(job: Job) -> Cell:
    if job["outcome"] is None:
        return str(job["state"])
    return job["outcome"], GREEN if job["outcome"] == "succeeded" else RED


def _progress_bar(said: str, job: Job) -> str:
    if job["outcome"] == "succeeded" or said.startswith("done"):
        return bar(1, 1)
    match = STEP.match(said)
    return bar(int(match[1]), int(match[2])) if match else bar(0, 1)


def result_table(
    jobs: Sequence[Job],
    rates: Mapping[int, str],
    results: Mapping[int, Job],
    look: Look,
) -> list[str]:
    """Each trial's outcome, loss and GPU, and which was best."""
    columns = [
        Column("TRIAL", lambda job: str(job["id"]), right=True),
        Column("LEARNING RATE", lambda job: rates[job["id"]], right=True),
        Column("OUTCOME", _state),
        Column("VAL LOSS", lambda job: _loss(results[job["id"]]), right=True),
        Column("GPU", lambda job: ",".join(map(str, job["gpus"])) or "-", right=True),
        Column("TIME", _time, right=True),
        Column("", lambda job: "" if job["outcome"] == "succeeded" else job["reason"] or ""),
    ]
    return [*table(columns, jobs, look), "", _best(jobs, rates, results)]


def _loss(result: Job) -> str:
    loss = result.get("val_loss")
    return "–" if loss is None else f"{loss:.4f}"


def _time(job: Job) -> str:
    if job["started_at"] is None or job["ended_at"] is None:
        return "-"
    return format_seconds(job["ended_at"] - job["started_at"])


def _best(jobs: Sequence[Job], rates: Mapping[int, str], results: Mapping[int, Job]) -> str:
    done = [job["id"] for job in jobs if results[job["id"]].get("val_loss") is not None]
    if not done:
        return "No trial came to a result."
    best = min(done, key=lambda number: float(results[number]["val_loss"]))
    return f"Best: learning rate {rates[best]}, held-out loss {_loss(results[best])}."
