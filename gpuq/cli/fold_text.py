"""A group of jobs as one row: what the daemon says of it when it is asked to fold."""

from collections.abc import Sequence

from gpuq.cli.render import Gpu, Job, printable
from gpuq.core.units import parse_ranges

ACTIVE = ("queued", "starting", "running")
ORDER = ("running", "starting", "queued")


def is_folded(job: Job) -> bool:
    return "counts" in job


def ids_of(job: Job) -> str:
    """ "187-196" of a group, "187" of a job."""
    return str(job["jobs"] if is_folded(job) else job["id"])


def first_id(job: Job) -> int:
    return parse_ranges(job["jobs"])[0].start if is_folded(job) else int(job["id"])


def name_of(job: Job) -> str:
    """With the indices of the array that it is: "grid[0-9]"."""
    name = str(job["name"])
    indices = job.get("indices")
    return f"{name}[{indices}]" if indices and name and "{" not in name else name


def reason_of(job: Job) -> str | None:
    """How many do what; where all of a group wait, why the first of them does."""
    if not is_folded(job):
        reason: str | None = job["reason"]
        return reason
    counts = {word: number for word, number in job["counts"].items() if number}
    if list(counts) == ["queued"] and job["reason"]:
        return str(job["reason"])
    words = sorted(counts, key=lambda word: ORDER.index(word) if word in ORDER else len(ORDER))
    return ", ".join(f"{counts[word]} {word.replace('_', ' ')}" for word in words)


def active_in(jobs: Sequence[Job]) -> int:
    """How many jobs that have not ended stand in these rows."""
    return sum(sum(job["counts"][word] for word in ACTIVE) if is_folded(job) else 1 for job in jobs)


def on_gpus(gpus: Sequence[Gpu], jobs: Sequence[Job]) -> list[Job]:
    """The jobs that are on these GPUs as far as they are among the rows, each with an id of its own."""
    spans = [(span, job) for job in jobs if is_folded(job) for span in parse_ranges(job["jobs"])]
    running = {number for gpu in gpus for number in gpu["jobs"]}
    folded = [job | {"id": n} for n in running for span, job in spans if n in span]
    return [job for job in jobs if not is_folded(job)] + folded


def run_of(done: Job) -> str:
    """ "12-499" of a run of jobs to which the same was done, "12" of one."""
    last = done.get("last_id", done["id"])
    return str(done["id"]) if last == done["id"] else f"{done['id']}-{last}"


def called(done: Job) -> str:
    """ "Job 12", "Jobs 12-499"."""
    run = run_of(done)
    return printable(f"Job{'s' if '-' in run else ''} {run}")
