"""What is counted of the events, for those who plot what goes on: how often things happened, and how
long was waited."""

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any

HOUR_S, DAY_S = 3600.0, 86400.0
# Upper bounds of buckets, in seconds. A wait in the queue takes from no time to days; the GPU is idle
# between two jobs for milliseconds, or for as long as its memory takes to come back; the daemon's own
# work takes from a fraction of a millisecond on.
WAIT_S = (1, 5, 15, 60, 300, 900, HOUR_S, 4 * HOUR_S, 12 * HOUR_S, DAY_S, 3 * DAY_S, 7 * DAY_S)
GAP_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 30, 60, 300)
WORK_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

Key = tuple[str, str]  # of a tally: its name and label

EVENTS, SUBMITTED, STARTED = "events", "submitted", "started"
ENDED, ATTEMPTS_ENDED = "ended", "attempts_ended"
WAIT, GAP, TURN, COMMIT = "wait", "gap", "turn", "commit"
BUCKETS: Mapping[str, Sequence[float]] = {WAIT: WAIT_S, GAP: GAP_S, TURN: WORK_S, COMMIT: WORK_S}


def sum_of(histogram: str) -> str:
    return f"{histogram}_sum"


def bucket(histogram: str, seconds: float) -> str:
    """The label of the bucket that a length of time falls into: its upper bound."""
    bounds = BUCKETS[histogram]
    place = bisect_left(bounds, seconds)
    return label_of(bounds[place] if place < len(bounds) else inf)


def label_of(bound: float) -> str:
    """ "0.005", "60", "inf"."""
    return f"{bound:g}"


def tally(events: Iterable[Mapping[str, Any]]) -> dict[Key, float]:
    """What these events add to the counters: kind, job, attempt and detail (JSON) of each are read."""
    counts: dict[Key, float] = defaultdict(float)
    for event in events:
        counts[EVENTS, event["kind"]] += 1
        count = _COUNTED.get(event["kind"])
        if count is not None:
            count(counts, event, json.loads(event["detail"] or "{}"))
    return dict(counts)


Counts = dict[Key, float]
Event = Mapping[str, Any]


def _submitted(counts: Counts, event: Event, detail: Event) -> None:
    counts[SUBMITTED, ""] += detail.get("count", 1)


def _running(counts: Counts, event: Event, detail: Event) -> None:
    counts[STARTED, ""] += 1
    for histogram, field in ((WAIT, "waited_s"), (GAP, "gap_s")):
        if (seconds := detail.get(field)) is not None:
            counts[histogram, bucket(histogram, seconds)] += 1
            counts[sum_of(histogram), ""] += seconds


def _ended(counts: Counts, event: Event, detail: Event) -> None:
    jobs = detail.get("last", event["job"]) - event["job"] + 1
    counts[ENDED, detail["outcome"]] += jobs
    if event["attempt"] is not None:
        _attempt_ended(counts, event, detail)


def _attempt_ended(counts: Counts, event: Event, detail: Event) -> None:
    counts[ATTEMPTS_ENDED, detail["outcome"]] += 1


_COUNTED = {
    "submitted": _submitted,
    "running": _running,
    "ended": _ended,
    "attempt_ended": _attempt_ended,
}
