"""Several jobs in a few sentences: how they ended, why they wait, and which they are."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from gpuq.cli.fold_text import lines_of, span_of
from gpuq.cli.job_text import farewell, words
from gpuq.cli.render import Job, printable
from gpuq.client import Client
from gpuq.core.units import count, format_spans, parse_ranges
from gpuq.errors import NothingMatched

MOST_RUNS = 2_000  # looked at for a summary
MOST_REASONS = 12
_DO = {
    "queued": ("waits", "wait"),
    "delayed": ("waits", "wait"),
    "backoff": ("waits", "wait"),
    "held": ("is held", "are held"),
    "starting": ("starts", "start"),
    "running": ("runs", "run"),
    "paused": ("stands still", "stand still"),
    "stopping": ("is being ended", "are being ended"),
    "unkillable": ("survives KILL", "survive KILL"),
}


class Several(NamedTuple):
    """What a reference names if it is not one job: runs of jobs that are alike, in order. Of
    very many (`is_part`) they are the last."""

    ref: str
    runs: list[Job]
    is_part: bool

    @property
    def number(self) -> int:
        return sum(map(length, self.runs))

    @property
    def first(self) -> int:
        return int(self.runs[0]["id"])

    @property
    def jobs(self) -> str:
        """ "88-93,95"."""
        return format_spans(sorted(map(span_of, self.runs), key=lambda ids: ids.start))

    @property
    def words(self) -> str:
        """ "g24 (lr) is 6 jobs: 24-29"."""
        names = {job["name"] for job in self.runs if job["name"]}
        called = f" ({printable(names.pop())})" if len(names) == 1 else ""
        more = "more than " if self.is_part else ""
        return (
            f"{printable(self.ref)}{called} is {more}{count(self.number, 'job')}: {_few(self.jobs)}"
        )


def several(client: Client, ref: str) -> Several | None:
    """None where it is one job or nothing: who asks for that is answered so."""
    if ref.isdecimal():
        return None
    try:
        runs = client.jobs([ref], runs=True, limit=MOST_RUNS + 1)
    except NothingMatched:
        return None
    if len(runs) == 1 and length(runs[0]) == 1:
        return None
    return Several(ref, runs[-MOST_RUNS:], len(runs) > MOST_RUNS)


def length(run: Job) -> int:
    return len(span_of(run))


def _few(jobs: str) -> str:
    """Of many spans the first."""
    spans = parse_ranges(jobs)
    return (
        jobs if len(spans) <= len(lines_of(spans)[0]) else f"{format_spans(lines_of(spans)[0])},…"
    )


def reasons(found: Several) -> list[str]:
    """ "6 failed (88-93): exit code 1." by what became of them and why, the first job first."""
    alike: dict[tuple[str, str], list[range]] = {}
    for run in found.runs:
        alike.setdefault(_became(run), []).append(span_of(run))
    lines = [_sentence(*became, spans) for became, spans in list(alike.items())[:MOST_REASONS]]
    rest = sum(len(ids) for spans in list(alike.values())[MOST_REASONS:] for ids in spans)
    if rest:
        lines.append(f"{rest} more for other reasons: gpuq status {found.ref}")
    if found.is_part:
        lines.append(f"Those before {found.first} were not looked at.")
    return lines


def _became(run: Job) -> tuple[str, str]:
    """In one word, and why."""
    word, reason = run["substate"] or run["outcome"] or run["state"], printable(run["reason"] or "")
    return word, "" if run["exit_code"] == 0 else reason


def _sentence(word: str, reason: str, spans: Sequence[range]) -> str:
    number = sum(map(len, spans))
    said = _DO[word][number > 1] if word in _DO else words(word)
    reason = _plural(reason) if number > 1 else reason
    jobs = _few(format_spans(sorted(spans, key=lambda ids: ids.start)))
    if reason.startswith(said):
        said, reason = reason, ""
    return f"{number} {said} ({jobs}){f': {reason}' if reason else ''}."


def farewells(jobs: Iterable[Job]) -> list[str]:
    """How jobs ended, those together that ended alike: `Jobs 94-287 succeeded`."""
    alike: dict[str, list[range]] = {}
    for job in sorted(jobs, key=lambda job: int(job["id"])):
        alike.setdefault(farewell(job).removeprefix(f"Job {job['id']} "), []).append(span_of(job))
    told: list[tuple[int, str]] = []
    for said, spans in alike.items():
        for line in lines_of(spans):
            told.append((line[0].start, _of_all(line, said)))
    return [sentence for _, sentence in sorted(told)]


def _of_all(spans: Sequence[range], said: str) -> str:
    if sum(map(len, spans)) == 1:
        return f"Job {spans[0].start} {said}"
    return f"Jobs {format_spans(spans)} {_plural(said)}"


def _plural(said: str) -> str:
    """What the daemon says of one job, of several."""
    its = {", on its ": ", on their ", "while it was queued": "while they were queued"}
    for one, many in its.items():
        said = said.replace(one, many)
    return said


def to_choose_from(found: Several) -> str:
    """ "24-25 run, 26-29 wait", what is alive first."""
    order = ("running", "starting", "queued", "ended")
    by_state: dict[str, list[range]] = {}
    for run in found.runs:
        by_state.setdefault(run["state"], []).append(span_of(run))
    said = [
        f"{_few(format_spans(spans))} {'have ended' if state == 'ended' else _DO[state][1]}"
        for state in order
        if (spans := by_state.get(state))
    ]
    return ", ".join(said)


def ids_of_first(found: Several, most: int) -> list[int]:
    """As many of the jobs as that, the first first."""
    ids = (job for run in found.runs for job in span_of(run))
    return list(islice(ids, most))


def attempt_of(job: Job, number: int | None) -> Job:
    """The view of that attempt; the job's own, which is that of its last one, unless said."""
    if number is None:
        return job
    for one in job["attempts"]:
        if one["attempt"] == number:
            found: Job = one
            return found
    raise NothingMatched(f"job {job['id']} has no attempt {number}. See: gpuq show {job['id']}")
