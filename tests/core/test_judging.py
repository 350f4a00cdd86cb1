"""What the end of one job means for those that wait for it, and the words for that."""

from dataclasses import replace

import pytest

from gpuq.core.asked.needs import NeedState, When
from gpuq.core.decisions import Await, Divide, Meet, Skip
from gpuq.core.model import EndedJob, Outcome, TouchedNeed
from gpuq.core.scheduling.judging import (
    Awaited,
    after_words,
    breaking,
    judge,
    judge_needs,
    skip_reason,
    stranded_words,
)
from gpuq.core.scheduling.scheduler import plan
from tests.builders import job, started, world

MET, BROKEN = NeedState.MET, NeedState.BROKEN
BAD = [outcome for outcome in Outcome if outcome is not Outcome.SUCCEEDED]


@pytest.mark.parametrize("outcome", Outcome)
def test_any_end_is_an_end(outcome: Outcome) -> None:
    assert judge(When.ANY, outcome) is MET


def test_only_success_is_ok() -> None:
    assert judge(When.OK, Outcome.SUCCEEDED) is MET
    assert {judge(When.OK, outcome) for outcome in BAD} == {BROKEN}
    assert set(breaking(When.OK)) == set(BAD)


def test_who_was_skipped_did_not_fail() -> None:
    """A job for the case of a failure is not to run because something further up failed."""
    assert set(breaking(When.FAIL)) == {Outcome.SUCCEEDED, Outcome.SKIPPED}


def touched(**facts: object) -> TouchedNeed:
    plain: dict[str, object] = {"id": 3, "when": When.OK, "is_unended": False}
    return TouchedNeed(**(plain | facts))  # type: ignore[arg-type]


FAILED = EndedJob(id=12, outcome=Outcome.FAILED, reason="exit code 1")


def test_a_need_is_met_once_all_have_ended_well() -> None:
    assert judge_needs([touched()]) == [Meet(need=3)]
    assert judge_needs([touched(is_unended=True)]) == [Await(need=3)]


def test_one_bad_end_is_enough_though_others_are_still_to_end() -> None:
    (skip,) = judge_needs([touched(is_unended=True, breaker=FAILED)])
    said = "skipped: 12 failed (exit code 1), and it was to succeed first"
    assert skip == Skip(need=3, broken_by=12, reason=said)


def test_elements_that_fared_differently_are_told_apart_before_they_are_judged() -> None:
    assert judge_needs([touched(is_mixed=True, breaker=FAILED)]) == [Divide(need=3)]


def test_the_reason_of_a_skip_does_not_grow_along_a_chain() -> None:
    reason = skip_reason(When.OK, FAILED)
    for number in range(13, 16):
        skipped = EndedJob(id=number, outcome=Outcome.SKIPPED, reason=reason)
        reason = skip_reason(When.OK, skipped)
    assert reason == "skipped: 15 was skipped, and it was to succeed first"


def test_who_waits_for_a_failure_hears_of_the_success() -> None:
    fine = EndedJob(id=7, outcome=Outcome.SUCCEEDED, reason="exit code 0")
    assert skip_reason(When.FAIL, fine) == "skipped: 7 succeeded, and it was to fail first"


def test_words_of_waiting() -> None:
    one = Awaited(jobs=range(185, 186), when=When.OK)
    five = Awaited(jobs=range(186, 191), when=When.ANY, ended=3)
    gone = Awaited(jobs=range(1, 3), when=When.OK, state=MET, ended=2)
    assert after_words([one]) == "after 185 (ok)"
    assert after_words([one, gone]) == "after 185 (ok)"
    assert after_words([one, five]) == "after 185 (ok), 186-190 (any): 3 of 6 have ended"
    alike = [one, Awaited(jobs=range(180, 182), when=When.OK, ended=1)]
    assert after_words(alike) == "after 180-181,185 (ok): 1 of 3 has ended"


def test_words_about_those_who_are_stranded() -> None:
    assert stranded_words(range(184, 185), [range(186, 187)]) == (
        "186 waits for 184 and will never start"
    )
    assert stranded_words(range(1, 3), [range(5, 8), range(9, 10)]) == (
        "5-7,9 wait for 1-2 and will never start"
    )


def test_nobody_starts_before_it_is_judged_who_may() -> None:
    """Whoever waited for what has come may come before all who are seen."""
    seen = world(gpus=1, jobs=[job()])
    assert started(plan(seen)) == {1: (0,)}
    news = plan(replace(seen, touched_needs=(touched(),)))
    assert started(news) == {}
    assert Meet(need=3) in news.decisions
