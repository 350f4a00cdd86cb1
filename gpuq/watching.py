"""Waiting for jobs: until all have ended, one by one as they end, or at each change.

The daemon is asked to answer when something has happened, so whoever waits costs nothing meanwhile.
Each request is bounded, so that a daemon that died is noticed.
"""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gpuq.core.events import jobs_of
from gpuq.core.units import format_spans, merged, parse_ranges, without
from gpuq.errors import NothingMatched, WaitTimedOut

if TYPE_CHECKING:
    from gpuq.client import Client
    from gpuq.typed import Event, Job

SLICE_S = 30.0


class _Patience:
    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._until = None if timeout_s is None else time.monotonic() + timeout_s

    def slice_s(self) -> float:
        if self._until is None:
            return SLICE_S
        return min(max(self._until - time.monotonic(), 0.0), SLICE_S)

    def is_over(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def check(self, jobs: str) -> None:
        if self.is_over():
            raise WaitTimedOut(f"not all ended within {self._timeout_s:g} s: {jobs}")


def wait(client: "Client", names: list[str], *, any_: bool, timeout_s: float | None) -> "list[Job]":
    patience = _Patience(timeout_s)
    while True:
        answer = client.call("wait", refs=names, any=any_, timeout_s=patience.slice_s())
        if not answer["timed_out"]:
            return client.jobs([answer["ended"]])
        patience.check(" ".join(names))


def as_completed(client: "Client", names: list[str], timeout_s: float | None) -> "Iterator[Job]":
    """Once it was told, a job is asked for no more; one that is back in the queue when it is looked at
    has not ended, and is told later."""
    patience = _Patience(timeout_s)
    left = _spans(client, names) if names else []
    while left:
        jobs = format_spans(left)
        answer = client.call("wait", refs=[jobs], any=True, timeout_s=patience.slice_s())
        if answer["timed_out"]:
            patience.check(jobs)
            continue
        ended, back = [], []
        for job in client.jobs([answer["ended"]]):
            if job["state"] == "ended":
                ended.append(job)
            else:
                back.append(range(job["id"], job["id"] + 1))
        gone = without(parse_ranges(answer["ended"]), back)
        left = [span for span in without(left, gone) if span]
        yield from sorted(ended, key=lambda job: (job["ended_at"] or 0.0, job["id"]))


def watch(client: "Client", names: list[str], every_s: float | None) -> "Iterator[Job]":
    """First the cursor, then the jobs: what happens between the two is told twice and not missed."""
    since = int(client.call("events", since=None)["last"])
    seen, look = _Seen(), _Patience(every_s)
    for job in client.jobs(names):
        seen.take(job)
        yield job
    while not names or seen.living:
        answer = client.call("events", refs=names, since=since, timeout_s=look.slice_s())
        since = answer["last"]
        for job in _there(client, _jobs_of(answer["events"])):
            seen.take(job)
            yield job
        if look.is_over():
            look = _Patience(every_s)
            for job in _there(client, seen.spans()):
                if seen.take(job):
                    yield job


class _Seen:
    """The jobs that live, each with what it had reported when it was told."""

    def __init__(self) -> None:
        self.living: dict[int, tuple[Any, Any]] = {}

    def spans(self) -> list[range]:
        return [range(job, job + 1) for job in sorted(self.living)]

    def take(self, job: "Job") -> bool:
        """Whether it has reported something new, or has ended."""
        if job["state"] == "ended":
            return self.living.pop(job["id"], None) is not None
        reported = job["progress"], job["metrics"]
        before = self.living.get(job["id"])
        self.living[job["id"]] = reported
        return before != reported


def _spans(client: "Client", names: list[str]) -> list[range]:
    """Which jobs are meant, in order and apart."""
    runs = client.jobs(names, runs=True)
    spans = [range(run["id"], run.get("last_id", run["id"]) + 1) for run in runs]
    return parse_ranges(format_spans(spans))


def _there(client: "Client", spans: list[range]) -> "list[Job]":
    """Those of the jobs that were not removed since."""
    try:
        return client.jobs([format_spans(spans)]) if spans else []
    except NothingMatched:
        return []


def _jobs_of(events: "list[Event]") -> list[range]:
    """The jobs that they are about, in order and apart."""
    told = ((event["job"], event["detail"] or {}) for event in events)
    return merged(jobs_of(job, detail) for job, detail in told if job is not None)
