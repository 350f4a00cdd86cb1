"""A group with the rows of its table, asked page by page: for the command line and `Client.group`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[..., dict[str, Any]]


class GroupJob(TypedDict):
    """A job of a group, or with `each` False a run of jobs that have not begun, `id` to `last_id`."""

    id: int
    last_id: int
    name: str
    user: str
    group: str
    array_index: int | None
    parameters: dict[str, str]
    state: Literal["queued", "starting", "running", "ended"]
    outcome: str | None
    exit_code: int | None
    signal: int | None
    attempt: int
    started_at: float | None  # s since the epoch, of its last attempt
    ended_at: float | None
    paused_s: float
    progress: float | None  # 0 to 1
    metrics: dict[str, Any]  # number, text, bool or None; a number that is not finite is a text
    hidden: bool


class Best(TypedDict):
    metric: str
    direction: Literal["max", "min"]
    value: float
    job: int
    name: str
    state: str
    outcome: str | None
    parameters: dict[str, str]


class EstimatedEnd(TypedDict):
    """By `runs` that have ended, `mean_s` each, while `at_once` jobs run. Of ten such ends eight lie
    between the bounds, which are None where there was one run."""

    at: int  # s since the epoch
    earliest_at: int | None
    latest_at: int | None
    sureness: Literal["rough", "fair", "good"]
    runs: int
    mean_s: float
    at_once: int


class GroupError(TypedDict):
    count: int
    what: str
    outcome: str
    job: int  # the first that ended so


class GroupInFull(TypedDict):
    """What came of a group. `unstarted` to `skipped` add up to `total`."""

    name: str
    kind: Literal["group", "name", "tag"]
    total: int
    unstarted: int  # in the queue, those that wait for their next attempt too
    running: int
    succeeded: int
    failed: int  # with those that timed out, ran out of memory or were lost
    cancelled: int
    skipped: int
    held: int  # of those that wait
    counts: dict[str, int]  # by state, or by outcome where they have ended
    forgotten: int | None  # of a submission; None of names and tags
    best: Best | None  # None: not asked for, or nobody reported a number
    reported: list[str]  # names of metrics
    estimated_end: EstimatedEnd | None  # None: nothing has ended, runs, or is left
    errors: list[GroupError]  # the most frequent first
    on_failure: str | None  # of a submission: "continue", "stop:3"
    why_cancelled: str | None  # of the first that was cancelled while it waited
    jobs: list[GroupJob]


def read(
    call: Call,
    ref: str,
    *,
    best: str | None = None,
    sort: str | None = None,
    each: bool = True,
    limit: int | None = None,
    **whose: Any,
) -> GroupInFull:
    """The group with its `jobs`, the first `limit` of them in that order. `each`: jobs that have not
    begun are told one by one, and not as runs. Of a long table that is sorted by a metric only the
    beginning is asked for, where no more is wanted."""
    asked = {"ref": ref, "best": best, "each": each, **whose}
    if limit and sort is not None:
        answer = call("group", sort=sort, limit=limit, **asked)
        if answer["sorted"]:
            return _joined(answer["group"], answer["jobs"])
    enough = limit if sort is None else None
    answer = call("group", limit=0 if limit == 0 else enough, **asked)
    group, jobs = answer["group"], answer["jobs"]
    while answer["after"] is not None and (enough is None or len(jobs) < enough):
        answer = call("group", after=answer["after"], limit=enough, **asked)
        jobs = jobs + answer["jobs"]
    if sort is not None:
        from gpuq.core.results.ranking import in_order, parse_order

        jobs = in_order(jobs, parse_order(sort))
    return _joined(group, jobs[:limit])


def _joined(group: dict[str, Any], jobs: list[dict[str, Any]]) -> GroupInFull:
    return cast("GroupInFull", {**group, "jobs": jobs})
