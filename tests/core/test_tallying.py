"""What the events add to the counters."""

import json
from math import inf
from typing import Any

import pytest

from gpuq.core.results.tallying import BUCKETS, GAP_S, WAIT_S, bucket, label_of, tally


def event(kind: str, job: int | None = 1, attempt: int | None = 1, **detail: Any) -> dict[str, Any]:
    told = json.dumps(detail) if detail else None
    return {"kind": kind, "job": job, "attempt": attempt, "detail": told}


def test_a_submission_counts_with_all_its_jobs() -> None:
    counts = tally([event("submitted", attempt=None, count=7), event("submitted", count=1)])
    assert counts == {("events", "submitted"): 2, ("submitted", ""): 8}


def test_the_end_of_a_run_of_jobs_counts_for_each_and_for_no_attempt() -> None:
    counts = tally([event("ended", job=3, attempt=None, outcome="cancelled", last=12)])
    assert counts == {("events", "ended"): 1, ("ended", "cancelled"): 10}


def test_an_attempt_that_another_follows_ends_no_job() -> None:
    counts = tally(
        [
            event("attempt_ended", outcome="failed", exit_code=3),
            event("ended", attempt=2, outcome="succeeded", exit_code=0),
        ]
    )
    assert counts["attempts_ended", "failed"] == counts["attempts_ended", "succeeded"] == 1
    assert {key: n for key, n in counts.items() if key[0] == "ended"} == {("ended", "succeeded"): 1}


def test_a_start_counts_its_wait_and_its_gap_where_they_are_known() -> None:
    counts = tally(
        [
            event("running", pid=7, waited_s=61.5, gap_s=0.004),
            event("running", pid=8, waited_s=0.2),
            event("running", attempt=2, pid=9),
        ]
    )
    assert counts["started", ""] == 3
    assert (counts["wait", "300"], counts["wait", "1"], counts["wait_sum", ""]) == (1, 1, 61.7)
    assert (counts["gap", "0.005"], counts["gap_sum", ""]) == (1, 0.004)


def test_a_kind_that_nobody_knows_is_counted_as_what_it_is() -> None:
    assert tally([event("something_new", job=None)]) == {("events", "something_new"): 1}


@pytest.mark.parametrize("name", BUCKETS)
def test_a_length_of_time_falls_into_the_first_bucket_that_holds_it(name: str) -> None:
    bounds = BUCKETS[name]
    assert list(bounds) == sorted(set(bounds))
    for bound in bounds:
        assert float(label_of(bound)) == bound, "what is stored is read back as the same"
        assert bucket(name, bound) == label_of(bound)
        assert float(bucket(name, bound * 1.0001)) > bound
    assert float(bucket(name, 1e9)) == inf
    assert bucket(name, -1.0) == label_of(bounds[0]), "a clock that was set back breaks nothing"


def test_a_week_in_the_queue_and_a_gap_of_an_exec_can_be_told_apart() -> None:
    assert WAIT_S[-1] == 7 * 86400
    assert GAP_S[0] <= 0.005
