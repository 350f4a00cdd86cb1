"""A job lives once, ends once, and the sentence about its end is true."""

import signal

import pytest

from gpuq.core.model import Exit, JobState, Outcome, Substate
from gpuq.core.states import MOVES, conclude, explain, may_move, shell_code, signal_name, substate
from tests.builders import stop

QUEUED, STARTING, RUNNING, ENDED = JobState


def test_an_ended_job_stays_ended() -> None:
    assert not any(may_move(ENDED, state) for state in JobState)


def test_a_running_job_never_goes_back_to_the_queue() -> None:
    assert may_move(STARTING, QUEUED)
    assert not may_move(RUNNING, QUEUED)


def test_every_state_is_reached_and_left_but_the_last() -> None:
    assert set(MOVES) == set(JobState)
    assert {after for moves in MOVES.values() for after in moves} == set(JobState)
    assert [state for state in JobState if not MOVES[state]] == [ENDED]


def test_nothing_runs_without_having_been_committed() -> None:
    assert not may_move(QUEUED, RUNNING)


@pytest.mark.parametrize(
    ("exit", "outcome"),
    [
        (Exit(exit_code=0), Outcome.SUCCEEDED),
        (Exit(exit_code=3), Outcome.FAILED),
        (Exit(signal=9), Outcome.FAILED),
        (Exit(exit_code=127, stage="executing x", error="no such file"), Outcome.FAILED),
        (Exit(exit_code=0, stage="executing x", error="no such file"), Outcome.FAILED),
        (Exit(lost="its runner was killed"), Outcome.LOST),
    ],
)
def test_an_exit_is_what_it_is_unless_gpuq_ended_the_job(exit: Exit, outcome: Outcome) -> None:
    assert conclude(exit, stopped=False) is outcome
    assert conclude(exit, stopped=True) is Outcome.CANCELLED


@pytest.mark.parametrize(
    ("exit", "sentence"),
    [
        (Exit(exit_code=3), "exit code 3"),
        (Exit(signal=11), "ended by SIGSEGV"),
        (Exit(signal=99), "ended by signal 99"),
        (Exit(lost="the machine was restarted"), "lost: the machine was restarted"),
        (
            Exit(exit_code=126, stage="changing directory to /x", error="no such directory"),
            "could not start: changing directory to /x: no such directory",
        ),
        (Exit(exit_code=0, leftovers=1), "exit code 0; it left a process behind, which was ended"),
        (
            Exit(exit_code=0, leftovers=2),
            "exit code 0; it left 2 processes behind, which were ended",
        ),
    ],
)
def test_the_end_is_told_in_a_sentence(exit: Exit, sentence: str) -> None:
    assert explain(exit, conclude(exit, stopped=False)) == sentence


def test_a_cancelled_job_says_by_whom_and_how_it_went() -> None:
    sentence = explain(Exit(signal=signal.SIGTERM), Outcome.CANCELLED, stop())
    assert sentence == "cancelled by ann: ended by SIGTERM"


def test_a_job_that_ended_by_itself_before_the_wish_was_heard_is_not_called_cancelled() -> None:
    assert explain(Exit(exit_code=0), Outcome.SUCCEEDED, stop()) == "exit code 0"


def test_the_shell_gets_the_jobs_own_code_wherever_it_has_one() -> None:
    assert shell_code(Outcome.FAILED, 3, None) == 3
    assert shell_code(Outcome.CANCELLED, None, 15) == 143
    assert shell_code(Outcome.LOST, None, None) == 125
    assert shell_code(None, None, None) == 125
    assert shell_code(Outcome.SUCCEEDED, None, None) == 0


def test_a_substate_belongs_to_its_state() -> None:
    assert substate(QUEUED, held=True, stopping=False) is Substate.HELD
    assert substate(RUNNING, held=False, stopping=True) is Substate.STOPPING
    assert substate(RUNNING, held=True, stopping=False) is None
    assert substate(QUEUED, held=False, stopping=True) is None
    assert substate(ENDED, held=True, stopping=True) is None


def test_signals_have_names() -> None:
    assert signal_name(15) == "SIGTERM"
    assert signal_name(0) == "signal 0"
