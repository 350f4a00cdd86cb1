"""What jobs wait for, in the database: touched when somebody ends, settled by the loop."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.asked.elements import Elements
from gpuq.core.asked.needs import Need, NeedState, When
from gpuq.core.decisions import Await, Divide, Meet, Settling, Skip
from gpuq.core.model import Exit, JobState, LimitKind, Outcome
from gpuq.core.scheduling.judging import judge_needs
from gpuq.daemon.check.waiting import judge_waiting
from gpuq.daemon.store import Store, audit_needs
from gpuq.daemon.store.audit import open_audit
from gpuq.daemon.store.needs import ROWS_PER_STEP, TOUCHED_PER_TURN
from tests.stored import (
    ALICE,
    BOB,
    BOOT,
    MONO,
    NOW,
    attempt_of,
    end,
    events,
    job_in,
    kinds,
    row,
    run,
    spec,
    start,
    submit,
    submit_one,
    with_gpus,
)

ENDED, RUNNING = JobState.ENDED, JobState.RUNNING


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "gpuq.db")) as store:
        store.database.value("pragma synchronous = off")  # `check` reads it, and no crash is tried
        yield with_gpus(store)


def array(store: Store, count: int, **changes: Any) -> range:
    return submit(store, elements=Elements(indices=(range(count),)), **changes)


def on(*jobs: int | range, when: When = When.OK, each: bool = False) -> tuple[Need, ...]:
    spans = [one if isinstance(one, range) else range(one, one + 1) for one in jobs]
    return tuple(Need(jobs=span, when=when, each=each) for span in spans)


def settle_once(store: Store) -> int:
    """What one turn of the loop does; returns how many needs it looked at."""
    judged = judge_needs(store.needs.touched())
    with store.transaction():
        store.needs.take_up([one.need for one in judged])
        for one in judged:
            settle_one(store, one)
    return len(judged)


def settle_one(store: Store, one: Settling) -> None:
    match one:
        case Meet():
            store.needs.meet(one.need, now=NOW)
        case Await():
            store.needs.wait(one.need, now=NOW)
        case Divide():
            store.needs.divide(one.need)
        case Skip():
            store.needs.skip(one.need, broken_by=one.broken_by, reason=one.reason, now=NOW)


def settle(store: Store) -> int:
    """Turns until there is no more news; returns how many."""
    turns = 0
    while settle_once(store):
        turns += 1
        assert turns < 1000, "there is always news"
    return turns


def succeed(store: Store, job: int) -> None:
    start(store, job)
    run(store, job)
    end(store, job)


def fail(store: Store, job: int) -> None:
    start(store, job)
    run(store, job)
    end(store, job, exit=Exit(exit_code=1, ended_at=NOW), outcome=Outcome.FAILED)


def requeue(store: Store, job: int, now: float = NOW) -> None:
    """As somebody wished it and the loop does it."""
    store.changed.requeue(job, job, actor="alice", now=now)
    store.returned.requeue(job, now=NOW, boottime=MONO, boot_id=BOOT)


def eligible(store: Store) -> list[int]:
    return sorted(job.id for job in store.current.waiting(1000))


def outcomes(store: Store, jobs: range) -> list[str | None]:
    """Of each of these, an element or not."""
    return [row(store, job)["outcome"] for job in jobs]


def states(store: Store) -> list[tuple[int, int, str]]:
    rows = store.database.rows("select first, last, state from needs order by entry, number, first")
    return [(one["first"], one["last"], one["state"]) for one in rows]


def breaches(store: Store) -> list[str]:
    with open_audit(store.database.path) as audit:
        found = judge_waiting(audit_needs.miscounted(audit), audit_needs.unjudged(audit))
        return [breach.sentence for breach in found]


# ─── one waits for another ───────────────────────────────────────────────────────────────────────


def test_a_job_is_not_eligible_until_what_it_needs_has_succeeded(store: Store) -> None:
    first = submit_one(store)
    then = submit_one(store, needs=on(first))
    settle(store)
    assert eligible(store) == [first]
    assert not start(store, then)  # whatever a plan says
    succeed(store, first)
    settle(store)
    assert eligible(store) == [then]


@pytest.mark.parametrize("when", [When.ANY, When.FAIL])
def test_who_waits_for_a_failure_or_for_any_end_starts_after_a_failure(
    store: Store, when: When
) -> None:
    first = submit_one(store)
    then = submit_one(store, needs=on(first, when=when))
    fail(store, first)
    settle(store)
    assert eligible(store) == [then]


def test_a_failed_need_skips_with_a_sentence_and_so_on_down_the_line(store: Store) -> None:
    first = submit_one(store)
    then = submit_one(store, needs=on(first))
    last = submit_one(store, needs=on(then))
    settle(store)
    fail(store, first)
    settle(store)
    said = f"skipped: {first} failed (exit code 1), and it was to succeed first"
    assert (row(store, then)["outcome"], row(store, then)["reason"]) == ("skipped", said)
    said = f"skipped: {then} was skipped, and it was to succeed first"
    assert (row(store, last)["outcome"], row(store, last)["reason"]) == ("skipped", said)
    told = [(one["kind"], one["job"], one["cause"]) for one in events(store)][-1]
    assert told == ("ended", last, said)


def test_a_need_on_what_has_ended_already_is_judged_at_once(store: Store) -> None:
    done, broken = job_in(store, ENDED), submit_one(store)
    fail(store, broken)
    one, two = submit_one(store, needs=on(done)), submit_one(store, needs=on(broken))
    settle(store)
    assert eligible(store) == [one]
    assert outcomes(store, range(two, two + 1)) == ["skipped"]


def test_somebody_elses_words_are_not_told_to_who_waits(store: Store) -> None:
    theirs = submit_one(store, by=BOB)
    mine = submit_one(store, needs=on(theirs))
    start(store, theirs)
    run(store, theirs)
    end(
        store,
        theirs,
        exit=Exit(exit_code=1, ended_at=NOW),
        outcome=Outcome.FAILED,
        reason="secret",
        open_reason="exit code 1",
    )
    settle(store)
    assert "secret" not in row(store, mine)["reason"]


def test_an_end_that_a_verdict_brings_about_is_news_to_the_others_of_its_turn(
    store: Store,
) -> None:
    """They were judged before it."""
    first = submit_one(store)
    fail(store, first)
    then = submit_one(store, needs=on(first))
    last = submit_one(store, needs=on(then))
    settle(store)  # both for the first time
    assert outcomes(store, range(then, last + 1)) == ["skipped", "skipped"]
    requeue(store, first)
    requeue(store, then)
    settle(store)
    assert outcomes(store, range(then, last + 1)) == [None, None]


def test_a_retry_is_no_end(store: Store) -> None:
    from tests.stored import fail as fail_and_retry

    first = submit_one(store, retries=1)
    then = submit_one(store, needs=on(first))
    settle(store)
    start(store, first)
    run(store, first)
    fail_and_retry(store, first)
    assert settle(store) == 0
    assert row(store, then)["state"] == "queued"


def test_a_cancelled_job_breaks_what_needs_it(store: Store) -> None:
    first = submit_one(store)
    then = submit_one(store, needs=on(first))
    settle(store)
    store.wished.stop(first, grace_s=0.0, actor="alice", now=NOW)
    store.happened.cancel(first, actor="alice", now=NOW)
    settle(store)
    assert row(store, then)["outcome"] == "skipped"


def test_who_is_to_be_cancelled_is_not_skipped_instead(store: Store) -> None:
    first = submit_one(store)
    then = submit_one(store, needs=on(first))
    settle(store)
    store.wished.stop(then, grace_s=0.0, actor="alice", now=NOW)
    fail(store, first)
    settle(store)
    assert row(store, then)["state"] == "queued"
    store.happened.cancel(then, actor="alice", now=NOW)
    assert row(store, then)["outcome"] == "cancelled"


def test_entries_of_one_submission_wait_for_each_other(store: Store) -> None:
    store.asked.keep_environment(ALICE.uid, spec().environment, b"HOME=/home/alice\0")
    two = spec(elements=Elements(indices=(range(2),)))
    chain = [two, spec(needs=(Need(entry=0),)), spec(needs=(Need(entry=1), Need(entry=0)))]
    assert len(store.asked.submit(ALICE, chain, now=NOW)) == 4
    settle(store)
    for job in (1, 2, 3):
        assert job in eligible(store)
        assert max(eligible(store)) <= max(job, 2)
        succeed(store, job)
        settle(store)
    assert eligible(store) == [4]


# ─── many ────────────────────────────────────────────────────────────────────────────────────────


def test_a_span_is_met_once_none_of_it_is_left(store: Store) -> None:
    before = array(store, 5)
    then = submit_one(store, needs=on(before))
    settle(store)
    for job in before:
        assert then not in eligible(store)
        succeed(store, job)
        settle(store)
    assert eligible(store) == [then]


def test_one_bad_end_in_a_span_is_enough(store: Store) -> None:
    before = array(store, 5)
    then = submit_one(store, needs=on(before))
    settle(store)
    fail(store, before[3])
    settle(store)
    assert row(store, then)["reason"].startswith(f"skipped: {before[3]} failed")


def test_ends_that_decide_nothing_touch_nothing(store: Store) -> None:
    """However many wait for a long array: they are looked at when it is over."""
    before = array(store, 50)
    submit(store, 20, needs=on(before))
    settle(store)
    for job in before[:-1]:
        succeed(store, job)
        assert store.needs.touched() == []
    succeed(store, before[-1])
    assert len(store.needs.touched()) == 20


def test_an_array_that_is_cancelled_as_one_row_skips_one_that_waits_as_one_row(
    store: Store,
) -> None:
    before = array(store, 1000)
    then = array(store, 1000, needs=on(before))
    settle(store)
    store.wished.stop(before[0], before[-1], grace_s=0.0, actor="alice", now=NOW)
    store.happened.cancel(before[0], last=before[-1], actor="alice", now=NOW)
    settle(store)
    rows = store.database.rows("select id, last_id, outcome from jobs order by id")
    assert [tuple(one.values()) for one in rows] == [
        (before[0], before[-1], "cancelled"),
        (then[0], then[-1], "skipped"),
    ]


@pytest.mark.parametrize("ending", [succeed, fail])
def test_needs_are_found_by_the_index_of_their_reach(store: Store, ending: Any) -> None:
    """Spans of all lengths around one job, those that it lies in and those next to it."""
    before = submit(store, 40)
    job = before[20]
    lies_in = {}
    for length in (1, 2, 3, 4, 7, 8, 9, 16, 17):
        for first in range(max(before[0], job - length - 1), min(job + 2, before[-1] - length)):
            span = range(first, first + length)
            lies_in[submit_one(store, needs=on(span, when=When.FAIL))] = job in span
    settle(store)
    ending(store, job)
    skipped = set()
    settle(store)
    for waiting, is_in in lies_in.items():
        if row(store, waiting)["outcome"] == "skipped":
            skipped.add(waiting)
        assert is_in or row(store, waiting)["open_needs"] == 1
    assert skipped == (
        {one for one, is_in in lies_in.items() if is_in} if ending is succeed else set()
    )


def test_news_for_very_many_takes_several_turns(store: Store) -> None:
    first = submit_one(store)
    waiting = submit(store, TOUCHED_PER_TURN + 10, needs=on(first))
    settle(store)
    succeed(store, first)
    assert settle(store) == 2
    assert len(eligible(store)) == len(waiting)


def test_a_skip_of_very_many_rows_takes_several_turns(store: Store) -> None:
    first = submit_one(store)
    waiting = array(store, ROWS_PER_STEP + 10, needs=on(first))
    settle(store)
    for job in waiting:  # each a row of its own
        store.changed.hold(job, job, actor="alice", as_admin=False, now=NOW)
    fail(store, first)
    assert settle(store) == 2
    assert store.database.value("select count(*) from jobs where outcome = 'skipped'") == len(
        waiting
    )


# ─── element by element ──────────────────────────────────────────────────────────────────────────


def test_each_element_waits_for_its_own(store: Store) -> None:
    before = array(store, 5)
    then = array(store, 5, needs=on(before, each=True))
    settle(store)
    succeed(store, before[2])
    fail(store, before[4])
    settle(store)
    assert eligible(store) == [before[0], before[1], before[3], then[2]]
    assert outcomes(store, then) == [None, None, None, None, "skipped"]
    assert breaches(store) == []


def test_what_is_met_element_by_element_is_one_row_in_the_end(store: Store) -> None:
    before = array(store, 8)
    array(store, 8, needs=on(before, each=True))
    settle(store)
    for job in (3, 1, 2, 8, 6, 7, 5, 4):
        succeed(store, job)
        settle(store)
        assert breaches(store) == []
    assert states(store) == [(9, 16, "met")]


def test_elements_that_had_ended_before_are_told_apart(store: Store) -> None:
    before = array(store, 6)
    succeed(store, before[1])
    fail(store, before[2])
    then = array(store, 6, needs=on(before, each=True))
    succeed(store, before[5])  # before anybody has looked at it
    settle(store)
    assert outcomes(store, then) == [None, None, "skipped", None, None, None]
    assert [job for job in then if row(store, job)["open_needs"] == 0] == [then[1], then[5]]
    assert breaches(store) == []


def test_of_very_many_elements_some_are_told_apart_in_one_turn_and_the_rest_in_the_next(
    store: Store,
) -> None:
    before = array(store, ROWS_PER_STEP + 10)
    for job in before:  # each a row of its own
        store.changed.hold(job, job, actor="alice", as_admin=False, now=NOW)
    store.wished.stop(before[-1], grace_s=0.0, actor="alice", now=NOW)
    store.happened.cancel(before[-1], actor="alice", now=NOW)
    then = array(store, ROWS_PER_STEP + 10, needs=on(before, each=True))
    settle(store)
    assert outcomes(store, then[-2:]) == [None, "skipped"]
    assert breaches(store) == []


def test_a_row_that_ends_as_one_is_passed_on_as_one(store: Store) -> None:
    before = array(store, 1000)
    middle = array(store, 1000, needs=on(before, each=True))
    last = array(store, 1000, needs=on(middle, each=True))
    settle(store)
    store.wished.stop(before[0], before[-1], grace_s=0.0, actor="alice", now=NOW)
    store.happened.cancel(before[0], last=before[-1], actor="alice", now=NOW)
    settle(store)
    assert row(store, last[500])["outcome"] == "skipped"
    assert store.database.value("select count(*) from jobs") == 3


# ─── once more ───────────────────────────────────────────────────────────────────────────────────


def test_a_requeue_of_the_need_revives_the_skipped_all_the_way_down(store: Store) -> None:
    first = submit_one(store)
    then = array(store, 3, needs=on(first))
    last = submit_one(store, needs=on(then))
    places = {job: row(store, job)["place"] for job in (*then, last)}
    fail(store, first)
    settle(store)
    requeue(store, first)
    settle(store)
    assert outcomes(store, then) == [None] * 3
    assert row(store, last)["state"] == "queued"
    assert {job: row(store, job)["place"] for job in (*then, last)} == places
    assert eligible(store) == [first]
    store.happened.start(attempt_of(first, attempt=2), now=NOW)
    run(store, first, attempt=2)
    end(store, first, attempt=2)
    settle(store)
    assert eligible(store) == list(then)
    assert breaches(store) == []


def test_who_fails_again_skips_again(store: Store) -> None:
    first = submit_one(store)
    then = submit_one(store, needs=on(first))
    for attempt in (1, 2):
        store.happened.start(attempt_of(first, attempt=attempt), now=NOW)
        run(store, first, attempt=attempt)
        bad = Exit(exit_code=1, ended_at=NOW)
        end(store, first, attempt=attempt, exit=bad, outcome=Outcome.FAILED)
        settle(store)
        assert row(store, then)["outcome"] == "skipped"
        requeue(store, first, now=NOW + attempt)
        settle(store)
        assert row(store, then)["state"] == "queued"


def test_what_was_met_by_a_job_that_runs_once_more_stays_met(store: Store) -> None:
    first = submit_one(store)
    then = submit_one(store, needs=on(first))
    succeed(store, first)
    settle(store)
    requeue(store, first)
    settle(store)
    assert eligible(store) == [first, then]


def test_who_was_skipped_for_two_reasons_waits_for_both_to_be_gone(store: Store) -> None:
    one, two = submit(store, 2)
    then = submit_one(store, needs=on(one, one + 1))
    fail(store, one)
    settle(store)
    fail(store, two)
    settle(store)
    requeue(store, one)
    settle(store)
    assert row(store, then)["outcome"] == "skipped"
    assert "requeued" not in kinds(store, then)  # not for a moment
    requeue(store, two)
    settle(store)
    assert row(store, then)["state"] == "queued"
    assert row(store, then)["open_needs"] == 2
    assert breaches(store) == []


def test_of_a_span_another_bad_end_keeps_it_skipped_and_is_named(store: Store) -> None:
    before = submit(store, 3)
    then = submit_one(store, needs=on(before))
    fail(store, before[0])
    settle(store)
    fail(store, before[2])
    requeue(store, before[0])
    settle(store)
    assert row(store, then)["reason"].startswith(f"skipped: {before[2]} failed")


def test_who_was_skipped_comes_back_under_the_limits_of_by_then(store: Store) -> None:
    first = submit_one(store)
    then = submit_one(store, needs=on(first), tags=("big",))
    fail(store, first)
    settle(store)
    store.limited.limit(LimitKind.TAG, "big", {"max_running": 2}, actor="root", now=NOW)
    requeue(store, first)
    settle(store)
    sql = "select c.tags from jobs j join classes c on c.id = j.class where j.id = ?"
    assert store.database.value(sql, (then,)) == '["big"]'


def test_a_requeue_of_the_skipped_itself_is_judged_by_what_it_needs(store: Store) -> None:
    first = submit_one(store)
    then = submit_one(store, needs=on(first))
    fail(store, first)
    settle(store)
    requeue(store, then)
    settle(store)
    assert row(store, then)["outcome"] == "skipped"
    assert breaches(store) == []


def test_who_waits_for_one_that_is_requeued_and_skipped_at_once_is_skipped_again(
    store: Store,
) -> None:
    """And where it has another reason to be, it is all the same once that is gone."""
    first, other = submit(store, 2)
    then = submit_one(store, needs=on(first))
    last = submit_one(store, needs=on(other, then))
    fail(store, other)
    settle(store)
    fail(store, first)
    settle(store)
    requeue(store, then)
    settle(store)
    requeue(store, other)
    settle(store)
    assert outcomes(store, range(then, last + 1)) == ["skipped", "skipped"]
    assert breaches(store) == []


def test_of_a_row_that_was_cancelled_as_one_an_element_is_revived_alone(store: Store) -> None:
    before = array(store, 5)
    then = array(store, 5, needs=on(before, each=True))
    settle(store)
    store.wished.stop(before[0], before[-1], grace_s=0.0, actor="alice", now=NOW)
    store.happened.cancel(before[0], last=before[-1], actor="alice", now=NOW)
    settle(store)
    requeue(store, before[1])
    settle(store)
    assert outcomes(store, then) == ["skipped", None, "skipped", "skipped", "skipped"]
    assert row(store, then[3])["reason"].startswith(f"skipped: {before[2]} was cancelled")
    assert breaches(store) == []


# ─── what is forgotten ───────────────────────────────────────────────────────────────────────────


def prune(store: Store, job: int) -> list[int]:
    """Somebody wants it forgotten; returns what may be by now."""
    store.wished.prune([range(job, job + 1)], outputs=False, actor="alice", now=NOW)
    may = store.pruned.wished(10)
    store.pruned.forget(may, {}, now=NOW)
    return [one.id for one in may]


def test_who_others_wait_for_is_not_forgotten_before_that_is_judged(store: Store) -> None:
    first = submit_one(store)
    then = submit_one(store, needs=on(first))
    settle(store)
    fail(store, first)
    assert prune(store, first) == []
    settle(store)
    assert prune(store, first) == [first]
    assert row(store, then)["outcome"] == "skipped"


def test_a_partly_forgotten_span_counts_as_it_was_judged(store: Store) -> None:
    before = submit(store, 3)
    then = submit_one(store, needs=on(before))
    settle(store)
    succeed(store, before[0])
    settle(store)
    assert prune(store, before[0]) == [before[0]]
    assert settle(store) == 0
    for job in before[1:]:
        assert then not in eligible(store)
        succeed(store, job)
        settle(store)
    assert eligible(store) == [then]


def test_what_a_forgotten_job_broke_stays_broken(store: Store) -> None:
    first = submit_one(store)
    then = submit_one(store, needs=on(first))
    fail(store, first)
    settle(store)
    prune(store, first)
    requeue(store, then)
    settle(store)
    assert row(store, then)["reason"].startswith(f"skipped: {first} did not end as it was to")


def test_what_somebody_needed_is_forgotten_with_him(store: Store) -> None:
    first = submit_one(store)
    then = submit_one(store, needs=on(first))
    fail(store, first)
    settle(store)
    assert prune(store, then) == [then]
    assert states(store) == []


# ─── what is told ────────────────────────────────────────────────────────────────────────────────


def test_needs_are_told_as_they_were_asked(store: Store) -> None:
    before, other = array(store, 4), submit_one(store)
    then = array(store, 4, needs=(*on(before, each=True), *on(other, when=When.ANY)))
    settle(store)
    succeed(store, before[1])
    settle(store)
    each, alone = store.waiting.needs_of(row(store, then[1]))
    assert (each.jobs, each.each, each.state) == (before[1:2], True, NeedState.MET)
    assert (alone.jobs, alone.when, alone.ended) == (range(other, other + 1), When.ANY, 0)
    assert store.waiting.needs_of(row(store, other)) == []


def test_who_waits_for_a_job(store: Store) -> None:
    before = array(store, 4)
    each = array(store, 4, needs=on(before, each=True))
    whole = submit_one(store, needs=on(before, when=When.ANY))
    settle(store)
    one = before[2:3]
    assert store.waiting.waiting_for(one) == [each[2:3], range(whole, whole + 1)]
    assert store.waiting.waiting_for(one, to_succeed=True) == [each[2:3]]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("update jobs set open_needs = 0 where id = 2", "job 2 is said to wait for 0 things"),
        ("update needs set touched = 0", "job 2 waits for 1, whose end has decided that"),
    ],
)
def test_check_finds_who_waits_for_what_has_happened(
    store: Store, damage: str, sentence: str
) -> None:
    first = submit_one(store)
    submit_one(store, needs=on(first))
    settle(store)
    assert breaches(store) == []
    succeed(store, first)
    with store.transaction():
        store.database.write(damage)
    assert any(one.startswith(sentence) for one in breaches(store)), breaches(store)
