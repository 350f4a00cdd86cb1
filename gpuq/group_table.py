"""A group with the rows of its table, asked page by page: for the command line and `Client.group`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

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
    gpus_simulated: bool
    started_at: float | None  # s since the epoch, of its last attempt
    ended_at: float | None
    paused_s: float
    progress: float | None  # 0 to 1
    metrics: dict[str, Any]  # number, text, bool or None; a number that is not finite is a text
    report_trouble: str | None  # what was not taken of what it reported
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
    simulated: int  # ran, or run, on simulated GPUs at last
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
    beginning is asked for, where no more is wanted. NothingMatched: all of it is over, and what it is
    to be sorted or best by was never reported."""
    asked = {"ref": ref, "best": best, "each": each, **whose}
    if limit and sort is not None:
        answer = call("group", sort=sort, limit=limit, **asked)
        if answer["sorted"]:
            return _checked(_joined(answer["group"], answer["jobs"]), best, sort)
    enough = limit if sort is None or limit == 0 else None
    found = list(pages(call, ref, best=best, each=each, limit=enough, **whose))
    group: GroupInFull = found[0]
    jobs: list[Any] = [job for page in found for job in page["jobs"]]
    if sort is not None:
        from gpuq.core.results.ranking import in_order, parse_order

        jobs = in_order(jobs, parse_order(sort))
    return _joined(_checked(_joined(group, jobs), best, sort), jobs[:limit])


def pages(
    call: Call,
    ref: str,
    *,
    best: str | None = None,
    each: bool = True,
    limit: int | None = None,
    **whose: Any,
) -> Iterator[GroupInFull]:
    """The group with its first `limit` jobs in the order of their ids, some at a time, as a million of
    them need not be held. NothingMatched, before the first of them, as in `read`."""
    asked = {"ref": ref, "best": best, "each": each, **whose}
    answer = call("group", limit=limit, **asked)
    group = _joined(answer["group"], [])
    _checked(group, best, None)
    left = limit
    while True:
        jobs = answer["jobs"][:left]
        yield _joined(group, jobs)
        left = None if left is None else left - len(jobs)
        if answer["after"] is None or left == 0:
            return
        answer = call("group", after=answer["after"], limit=left, **asked)


def _checked(group: GroupInFull, best: str | None, sort: str | None) -> GroupInFull:
    if not group["unstarted"] and not group["running"] and (why := unreported(group, best, sort)):
        from gpuq.errors import NothingMatched

        raise NothingMatched(why)
    return group


def unreported(group: GroupInFull, best: str | None, sort: str | None) -> str | None:
    """That nobody has reported what it is to be best or sorted by, and what was reported instead. None
    too where nobody has reported anything, and where jobs wait whose parameters are not told."""
    metrics, jobs = group["reported"], group["jobs"]
    if not metrics:
        return None
    told = ", ".join(metrics)
    metric = "" if best is None else best.rpartition(":")[0]
    if metric and group["best"] is None and metric not in metrics:
        return f"nobody has reported {metric!r}. Reported: {told}"
    name = "" if sort is None else sort.removeprefix("-")
    known = {name for job in jobs for what in (job["metrics"], job["parameters"]) for name in what}
    if not name or not jobs or name in known or any(job["last_id"] > job["id"] for job in jobs):
        return None
    parameters = dict.fromkeys(name for job in jobs for name in job["parameters"])
    given = f". Parameters: {', '.join(parameters)}" if parameters else ""
    return f"nobody has reported {name!r}. Reported: {told}{given}"


def _joined(group: Mapping[str, Any], jobs: list[dict[str, Any]]) -> GroupInFull:
    return cast("GroupInFull", {**group, "jobs": jobs})
