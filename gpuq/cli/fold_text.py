"""A group of jobs as one row: what the daemon says of it when it is asked to fold."""

from collections.abc import Sequence

from gpuq.cli.render import Gpu, Job, printable
from gpuq.core.units import format_spans, parse_ranges

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
    """With the indices of the array that it is, "grid[0-9]", or its own in one, "grid[2]"; unless the
    name has them in it."""
    name = str(job["name"])
    if is_folded(job):
        indices = job.get("indices")
        return f"{name}[{indices}]" if indices and name and "{" not in name else name
    index = job.get("array_index")
    is_apart = index is None or "name" in job.get("differs_in", ())
    return name if is_apart or not name else f"{name}[{index}]"


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


SPANS_A_LINE = 8


def lines_of(spans: Sequence[range]) -> list[list[range]]:
    """In order and joined, as many as can be read on a line, and copied from it."""
    joined = parse_ranges(format_spans(sorted(spans, key=lambda span: span.start)))
    return [joined[at : at + SPANS_A_LINE] for at in range(0, len(joined), SPANS_A_LINE)]


def span_of(run: Job) -> range:
    """The ids of a run of jobs, or of one."""
    return range(run["id"], (run.get("last_id") or run["id"]) + 1)


def together(done: Sequence[Job]) -> list[Job]:
    """Jobs and runs of them to which the same was done as one, wherever they lie."""
    alike: dict[str, list[Job]] = {}
    for run in done:
        alike.setdefault(_what_was_done(run), []).append(run)
    merged = []
    for runs in alike.values():
        for line in lines_of([span_of(run) for run in runs]):
            jobs, why = format_spans(line), _without_own_id(runs[0])
            run = runs[0] | {"id": line[0].start, "last_id": line[-1].stop - 1, "jobs": jobs}
            merged.append(run | ({} if why is None else {"why": why.replace(OWN_ID, jobs)}))
    return merged


OWN_ID = "\0"


def _what_was_done(run: Job) -> str:
    told = {name: value for name, value in run.items() if name not in ("id", "last_id")}
    return repr(sorted((told | {"why": _without_own_id(run)}).items()))


def _without_own_id(run: Job) -> str | None:
    import re

    why = run.get("why")
    return None if why is None else re.sub(rf"\b{run['id']}\b", OWN_ID, why)


def run_of(done: Job) -> str:
    """ "12-499" of a run of jobs to which the same was done, "12" of one; "12-18,20" of those that
    are told of together."""
    if "jobs" in done:
        return str(done["jobs"])
    last = done.get("last_id", done["id"])
    return str(done["id"]) if last == done["id"] else f"{done['id']}-{last}"


def called(done: Job) -> str:
    """ "Job 12", "Jobs 12-499"."""
    run = run_of(done)
    return printable(f"Job{'' if run == str(done['id']) else 's'} {run}")
