"""A group of jobs as the JSON that people see: what became of it so far, and a row for each job with
its parameters beside its metrics. Pure: rows come in, views go out."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gpuq.core.model import JobState, Outcome
from gpuq.core.results.estimate import Estimate
from gpuq.core.results.giving_up import FAILURES
from gpuq.core.results.ranking import Goal, is_number
from gpuq.core.states import signal_name
from gpuq.daemon.callers import discretion
from gpuq.daemon.callers.discretion import Sight
from gpuq.daemon.particulars import particulars
from gpuq.daemon.requests.report_view import report_trouble
from gpuq.daemon.store.connection import Row

View = dict[str, Any]
# What `particulars` fills in beside the name, and no table shows.
_LEFT_OUT = {"argv": b"", "output": None, "stderr": None}


def tally(counts: Mapping[str, int], held: int) -> View:
    """Each job is in one of these, so they add up to the total."""
    return {
        "total": sum(counts.values()),
        "unstarted": counts[JobState.QUEUED],
        "running": counts[JobState.STARTING] + counts[JobState.RUNNING],
        "succeeded": counts[Outcome.SUCCEEDED],
        "failed": sum(counts[outcome] for outcome in FAILURES),
        "cancelled": counts[Outcome.CANCELLED],
        "skipped": counts[Outcome.SKIPPED],
        "held": held,
        "counts": dict(counts),
    }


def best_view(row: View | None, goal: Goal) -> View | None:
    """None where no job has reported a number by that name."""
    value = None if row is None else row["metrics"].get(goal.metric)
    if row is None or not is_number(value):
        return None
    kept = ("id", "name", "state", "outcome", "parameters")
    about = {"metric": goal.metric, "direction": "max" if goal.highest else "min", "value": value}
    return about | {"job" if name == "id" else name: row[name] for name in kept}


def estimate_view(estimate: Estimate | None, now: float) -> View | None:
    """Whole seconds: a moment that is looked at twice is to be the same."""
    if estimate is None:
        return None
    return {
        "at": round(now + estimate.left_s),
        "earliest_at": _at(now, estimate.earliest_s),
        "latest_at": _at(now, estimate.latest_s),
        "sureness": estimate.sureness.value,
        "runs": estimate.runs,
        "mean_s": estimate.mean_s,
        "at_once": estimate.at_once,
    }


def _at(now: float, seconds: float | None) -> int | None:
    return None if seconds is None else round(now + seconds)


def error_view(row: Row) -> View:
    return {
        "count": row["number"],
        "what": row["signature"] or _end_words(row),
        "outcome": row["outcome"],
        "job": row["job"],
    }


def _end_words(row: Row) -> str:
    """Where nothing is known of what it wrote, or it is not to be told."""
    words = str(row["outcome"]).replace("_", " ")
    if row["signal"] is not None:
        return f"{words}, ended by {signal_name(row['signal'])}"
    return words if row["exit_code"] is None else f"{words}, exit code {row['exit_code']}"


def row_view(row: Row, sight: Sight) -> View:
    """One job, or a run of jobs that have not begun, from `id` to `last_id`: those have no parameters
    in common, and so none are told."""
    is_run = row["last_id"] > row["id"]
    own = particulars(row | _LEFT_OUT | ({"element": None} if is_run else {}), row["id"])
    has_ended_so = row["attempt_outcome"] == row["outcome"] and not row["cancelled_queued"]
    element = own.element
    view = {
        "id": row["id"],
        "name": own.name,
        "user": row["user"],
        "group": f"g{row['group_id']}",
        "array_index": None if element is None else element.index,
        "parameters": {} if element is None else dict(element.parameters),
        "state": row["state"],
        "outcome": row["outcome"],
        "exit_code": row["exit_code"] if has_ended_so else None,
        "signal": row["signal"] if has_ended_so else None,
        "attempt": row["attempt"],
        "gpus_simulated": bool(row["gpus_simulated"]),
        "started_at": row["started_at"],
        "ended_at": row["ended_at"],
        "paused_s": row["paused_s"] or 0.0,
        "progress": row["progress"],
        "metrics": json.loads(row["metrics"] or "{}"),
        "report_trouble": report_trouble(row),
    }
    return discretion.of_job(view, sight) | {"last_id": row["last_id"]}


ValuesOf = Callable[[int, range], Mapping[int, str]]


def each_job(row: Row, after: int | None, most: int, values_of: ValuesOf) -> Iterator[Row]:
    """The jobs of a row behind that one, up to so many, each as a row of its own."""
    first = row["id"] if after is None else max(row["id"], after + 1)
    last = min(row["last_id"], first + most - 1)
    if row["last_id"] == row["id"]:
        yield row
        return
    if row["element"] is None:
        yield from (row | {"id": job, "last_id": job} for job in range(first, last + 1))
        return
    begin = row["element"] - row["id"]
    values = values_of(row["spec"], range(begin + first, begin + last + 1))
    for job in range(first, last + 1):
        own = {"id": job, "last_id": job, "element": begin + job}
        yield row | own | {"values": values.get(begin + job)}


def behind(row: Row, after: int | None) -> Row:
    """As much of a run as lies behind that job."""
    first = row["id"] if after is None else max(row["id"], after + 1)
    return row | {"id": first}
