"""Whether what jobs wait for has come, and the words for it.

A need is met once all of its jobs have ended as they were to, and broken as soon as one of them ended
otherwise. Nothing is remembered of how it came to that: who is run once more is waited for anew.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpuq.core.asked.needs import NeedState, When
from gpuq.core.decisions import Await, Divide, Meet, Settling, Skip
from gpuq.core.model import EndedJob, Outcome, TouchedNeed
from gpuq.core.units import format_spans

_FULFILLED = {
    When.OK: frozenset({Outcome.SUCCEEDED}),
    When.ANY: frozenset(Outcome),
    When.FAIL: frozenset(Outcome) - {Outcome.SUCCEEDED, Outcome.SKIPPED},
}
_TO_END = {When.OK: "it was to succeed first", When.FAIL: "it was to fail first"}
_ENDED = {
    Outcome.SUCCEEDED: "succeeded",
    Outcome.FAILED: "failed",
    Outcome.CANCELLED: "was cancelled",
    Outcome.TIMED_OUT: "timed out",
    Outcome.OUT_OF_MEMORY: "ran out of memory",
    Outcome.LOST: "was lost",
    Outcome.SKIPPED: "was skipped",
}
# So long a reason of another's end is told in passing.
LONGEST_REASON = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """Jobs that are waited for, what came of that, and how many of them have ended."""

    jobs: range
    when: When
    each: bool = False
    state: NeedState = NeedState.OPEN
    ended: int = 0


def judge(when: When, outcome: Outcome) -> NeedState:
    """What one job's end makes of a need that is for it alone."""
    return NeedState.MET if outcome in _FULFILLED[when] else NeedState.BROKEN


def breaking(when: When) -> tuple[Outcome, ...]:
    """The ends that break such a need."""
    return tuple(one for one in Outcome if judge(when, one) is NeedState.BROKEN)


def judge_needs(touched: Iterable[TouchedNeed]) -> list[Settling]:
    """What becomes of the needs about which there is news."""
    return [_judge_one(need) for need in touched]


def _judge_one(need: TouchedNeed) -> Settling:
    if need.is_mixed:
        return Divide(need=need.id)
    if (job := need.breaker) is not None and judge(need.when, job.outcome) is NeedState.BROKEN:
        return Skip(need=need.id, broken_by=job.id, reason=skip_reason(need.when, job))
    if need.forgotten is not None:  # it counts as it was judged when it was known
        return Skip(need=need.id, broken_by=need.forgotten, reason=forgotten_words(need.forgotten))
    return Await(need=need.id) if need.is_unended else Meet(need=need.id)


def skip_reason(when: When, job: EndedJob) -> str:
    """ "skipped: 12 failed (exit code 1), and it was to succeed first". The reason is told to whoever
    waits, who may be somebody else: it is to be the open one."""
    how = _ENDED[job.outcome]
    if job.outcome is Outcome.FAILED and job.reason and len(job.reason) <= LONGEST_REASON:
        how = f"{how} ({job.reason})"
    return f"skipped: {job.id} {how}, and {_TO_END[when]}"


def forgotten_words(job: int) -> str:
    return f"skipped: {job} did not end as it was to, and nothing more is known of it"


def after_words(needs: Sequence[Awaited]) -> str:
    """ "after 185 (ok), 186-190 (any): 3 of 6 have ended": what is still waited for."""
    left = [need for need in needs if need.state is not NeedState.MET]
    parts = [f"{jobs} ({when.value})" for (when, *_), jobs in alike(left).items()]
    total = sum(len(need.jobs) for need in left)
    said = f"after {', '.join(parts)}"
    if total == 1:
        return said
    ended = sum(need.ended for need in left)
    return f"{said}: {ended} of {total} {'has' if ended == 1 else 'have'} ended"


def stranded_words(ended: range, waiting: Sequence[range], will: str = "will") -> str:
    """Of jobs that wait for others, which somebody ends: "186 waits for 184 and will never start"; or
    "would", where nobody has done it yet."""
    many = sum(map(len, waiting)) > 1
    waits = "wait" if many else "waits"
    return f"{_named(waiting)} {waits} for {_named([ended])} and {will} never start"


def alike(needs: Sequence[Awaited]) -> dict[tuple[When, bool, NeedState], str]:
    """Needs of one kind and state as one, with their jobs like "12-18,20"."""
    spans: dict[tuple[When, bool, NeedState], list[range]] = {}
    for need in needs:
        spans.setdefault((need.when, need.each, need.state), []).append(need.jobs)
    return {kind: _named(jobs) for kind, jobs in spans.items()}


def _named(spans: Sequence[range]) -> str:
    return format_spans(sorted(spans, key=lambda span: span.start))
