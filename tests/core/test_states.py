"""A job lives once, ends once, and the sentence about its end is true."""

import signal
from typing import Any

import pytest

from gpuq.core.ends.codes import shell_code
from gpuq.core.model import EndCause, Exit, JobState, Outcome, Substate
from gpuq.core.states import (
    MOVES,
    conclude,
    explain,
    gpu_memory_ran_out,
    host_memory_ran_out,
    may_move,
    signal_name,
    substate,
    why_active,
)
from tests.builders import stop

QUEUED, STARTING, RUNNING, ENDED = JobState
ASKED, TIME_LIMIT, HEARTBEAT, GPU_MEMORY = list(EndCause)[:4]
SHUTDOWN, LOGOUT = EndCause.SHUTDOWN, EndCause.LOGOUT

GPU_LINE = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB"
GPU_OUTPUT = f"step 1\nTraceback (most recent call last):\n{GPU_LINE}\n"
HOST_LINE = "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 9.31 TiB for an array"
HOST_OUTPUT = f"step 1\nTraceback (most recent call last):\n{HOST_LINE}\n"
NOT_OURS = "which gpuq did not send: perhaps the machine ran out of memory"
TOO_MUCH = "out of GPU memory: it used 7.1G of GPU 0 and asked for 6G (enforce_gpu_memory)"


# ── moves ──


def test_what_has_ended_goes_back_to_the_queue_or_nowhere() -> None:
    assert [state for state in JobState if may_move(ENDED, state)] == [QUEUED]


def test_a_job_goes_back_to_the_queue_and_nowhere_else() -> None:
    """From starting where its attempt never ran, from running for its next attempt."""
    assert may_move(STARTING, QUEUED)
    assert may_move(RUNNING, QUEUED)
    assert not may_move(RUNNING, STARTING)


def test_every_state_is_reached_and_left() -> None:
    assert set(MOVES) == set(JobState)
    assert {after for moves in MOVES.values() for after in moves} == set(JobState)
    assert all(MOVES.values())


def test_an_attempt_that_gave_its_job_back_was_cancelled_however_it_ended() -> None:
    for cause in (EndCause.REQUEUED, EndCause.PREEMPTED):
        assert conclude(Exit(exit_code=0), ending=cause) is Outcome.CANCELLED
    exit, cancelled = Exit(signal=signal.SIGTERM), Outcome.CANCELLED
    told = explain(exit, cancelled, ending=EndCause.REQUEUED)
    assert told == "requeued: ended by SIGTERM"
    told = explain(exit, cancelled, ending=EndCause.REQUEUED, stop=stop())
    assert told == "cancelled by ann: ended by SIGTERM"


def test_nothing_runs_without_having_been_committed() -> None:
    assert not may_move(QUEUED, RUNNING)


# ── each way to end: what it is called, and in which words ──

WAYS = {
    "a code of 0": (Exit(exit_code=0), Outcome.SUCCEEDED, "exit code 0"),
    "a code": (Exit(exit_code=3), Outcome.FAILED, "exit code 3"),
    "a signal": (Exit(signal=11), Outcome.FAILED, "ended by SIGSEGV"),
    "a signal without a name": (Exit(signal=99), Outcome.FAILED, "ended by signal 99"),
    "a stage": (
        Exit(exit_code=127, stage="executing x", error="no such file"),
        Outcome.FAILED,
        "could not start: executing x: no such file",
    ),
    "a stage and a code of 0": (
        Exit(exit_code=0, stage="opening the log /x", error="is a directory"),
        Outcome.FAILED,
        "could not start: opening the log /x: is a directory",
    ),
    "lost": (
        Exit(lost="the machine was restarted"),
        Outcome.LOST,
        "lost: the machine was restarted",
    ),
    "out of GPU memory by its output": (
        Exit(exit_code=1, last_output=GPU_OUTPUT),
        Outcome.OUT_OF_MEMORY,
        f"out of GPU memory: {GPU_LINE} (exit code 1)",
    ),
    "out of GPU memory by its output, and aborted": (
        Exit(signal=signal.SIGABRT, last_output=GPU_OUTPUT),
        Outcome.OUT_OF_MEMORY,
        f"out of GPU memory: {GPU_LINE} (ended by SIGABRT)",
    ),
    "out of GPU memory by its own report": (
        Exit(exit_code=1, told_out_of_memory="no room for the batch", last_output=HOST_OUTPUT),
        Outcome.OUT_OF_MEMORY,
        "out of GPU memory: no room for the batch (exit code 1)",
    ),
    "out of memory by the kernel": (
        Exit(signal=signal.SIGKILL, oom_kills=1),
        Outcome.OUT_OF_MEMORY,
        "out of memory: the kernel ended it for want of memory (ended by SIGKILL)",
    ),
    "out of memory by its output": (
        Exit(exit_code=1, last_output=HOST_OUTPUT, oom_kills=0),
        Outcome.OUT_OF_MEMORY,
        f"out of memory: {HOST_LINE} (exit code 1)",
    ),
    "a KILL that nobody of ours sent": (
        Exit(signal=signal.SIGKILL),
        Outcome.FAILED,
        f"ended by SIGKILL, {NOT_OURS}",
    ),
    "a KILL in a group that the kernel left alone": (
        Exit(signal=signal.SIGKILL, oom_kills=0),
        Outcome.FAILED,
        f"ended by SIGKILL, {NOT_OURS}",
    ),
    "another signal than the kernel's own": (
        Exit(signal=signal.SIGTERM, oom_kills=1),
        Outcome.FAILED,
        "ended by SIGTERM",
    ),
    "a success that caught its want of memory": (
        Exit(exit_code=0, told_out_of_memory="no room", last_output=GPU_OUTPUT, oom_kills=2),
        Outcome.SUCCEEDED,
        "exit code 0",
    ),
    "no start, whatever was said": (
        Exit(exit_code=126, stage="executing x", error="no", last_output=GPU_OUTPUT),
        Outcome.FAILED,
        "could not start: executing x: no",
    ),
    "one left behind": (
        Exit(exit_code=0, leftovers=1, leftover_names="python"),
        Outcome.SUCCEEDED,
        "exit code 0; it left a process behind (python), which was ended",
    ),
    "some left behind": (
        Exit(exit_code=2, leftovers=3, leftover_names="sh, sleep, sleep"),
        Outcome.FAILED,
        "exit code 2; it left 3 processes behind (sh, sleep, sleep), which were ended",
    ),
    "some left behind that nobody named": (
        Exit(exit_code=0, leftovers=2),
        Outcome.SUCCEEDED,
        "exit code 0; it left 2 processes behind, which were ended",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_end_is_called_what_it_is_and_told_in_a_sentence(way: str) -> None:
    exit, outcome, sentence = WAYS[way]
    assert conclude(exit) is outcome
    assert explain(exit, outcome) == sentence


@pytest.mark.parametrize(
    ("cause", "outcome"),
    [
        (ASKED, Outcome.CANCELLED),
        (TIME_LIMIT, Outcome.TIMED_OUT),
        (HEARTBEAT, Outcome.TIMED_OUT),
        (GPU_MEMORY, Outcome.OUT_OF_MEMORY),
        (SHUTDOWN, Outcome.LOST),
        (LOGOUT, Outcome.LOST),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_what_gpuq_had_begun_to_end_ended_for_that(
    way: str, cause: EndCause, outcome: Outcome
) -> None:
    """However it went then: it may have died of TERM, of KILL, or have saved all and left well."""
    exit = WAYS[way][0]
    assert conclude(exit, ending=cause) is outcome
    told = explain(exit, outcome, ending=cause, stop=stop(), time_limit_s=60, heartbeat_s=9)
    assert NOT_OURS not in told


@pytest.mark.parametrize(
    ("ending", "exit", "sentence"),
    [
        (ASKED, Exit(signal=15), "cancelled by ann: ended by SIGTERM"),
        (ASKED, Exit(signal=9, leftovers=4), "cancelled by ann: ended by SIGKILL"),
        (ASKED, Exit(lost="nobody knows"), "cancelled by ann: lost: nobody knows"),
        (
            TIME_LIMIT,
            Exit(signal=15),
            "timed out: it reached its time limit of 2:00:00; ended by SIGTERM",
        ),
        (
            TIME_LIMIT,
            Exit(exit_code=0, leftovers=1),
            "timed out: it reached its time limit of 2:00:00; exit code 0",
        ),
        (
            HEARTBEAT,
            Exit(signal=9),
            "timed out: it gave no sign of life for 5:00; ended by SIGKILL",
        ),
        (GPU_MEMORY, Exit(signal=15), f"{TOO_MUCH}; ended by SIGTERM"),
        (GPU_MEMORY, Exit(exit_code=1, last_output=GPU_OUTPUT), f"{TOO_MUCH}; exit code 1"),
        (GPU_MEMORY, Exit(exit_code=0, leftovers=2), f"{TOO_MUCH}; exit code 0"),
        (SHUTDOWN, Exit(signal=15), "lost: the machine was shut down; ended by SIGTERM"),
        (SHUTDOWN, Exit(exit_code=0), "lost: the machine was shut down; exit code 0"),
        (SHUTDOWN, Exit(lost="nobody knows"), "lost: the machine was shut down"),
        (
            LOGOUT,
            Exit(signal=9),
            "lost: the services of its user were stopped, as after a logout without linger; "
            "ended by SIGKILL",
        ),
    ],
)
def test_who_or_what_ended_it_is_said(ending: EndCause, exit: Exit, sentence: str) -> None:
    outcome = conclude(exit, ending=ending)
    told = explain(
        exit,
        outcome,
        ending=ending,
        stop=stop(),
        time_limit_s=7200.0,
        heartbeat_s=300.0,
        over_memory="it used 7.1G of GPU 0 and asked for 6G",
    )
    assert told == sentence


def test_a_limit_that_came_first_is_told_though_somebody_asked_as_well() -> None:
    told = explain(
        Exit(signal=9), Outcome.TIMED_OUT, ending=TIME_LIMIT, stop=stop(), time_limit_s=5.0
    )
    assert told == "timed out: it reached its time limit of 5.0s; ended by SIGKILL"


def test_a_job_that_ended_by_itself_before_the_wish_was_heard_is_not_called_cancelled() -> None:
    assert conclude(Exit(exit_code=0)) is Outcome.SUCCEEDED
    assert explain(Exit(exit_code=0), Outcome.SUCCEEDED, stop=stop()) == "exit code 0"


def test_a_limit_that_was_not_reached_is_not_spoken_of() -> None:
    told = explain(Exit(exit_code=3), Outcome.FAILED, time_limit_s=60.0, heartbeat_s=5.0)
    assert told == "exit code 3"


def test_want_of_memory_is_of_the_gpu_or_of_the_machine() -> None:
    by_gpu, by_host = Exit(exit_code=1, last_output=GPU_OUTPUT), Exit(signal=9, oom_kills=1)
    assert (gpu_memory_ran_out(by_gpu), host_memory_ran_out(by_gpu)) == (GPU_LINE, None)
    assert gpu_memory_ran_out(by_host) is None
    assert host_memory_ran_out(by_host) is not None


# ── what the shell gets ──


@pytest.mark.parametrize(
    ("way", "code"),
    [
        ("a code of 0", 0),
        ("a code", 3),
        ("a signal", 139),
        ("a stage", 127),
        ("a stage and a code of 0", 125),
        ("lost", 125),
        ("out of GPU memory by its output", 1),
        ("out of memory by the kernel", 137),
        ("some left behind", 2),
    ],
)
def test_the_shell_gets_the_jobs_own_code_wherever_it_has_one(way: str, code: int) -> None:
    exit, outcome, _ = WAYS[way]
    assert shell_code(outcome, exit.exit_code, exit.signal) == code


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.TIMED_OUT])
def test_who_was_ended_is_no_success_to_the_shell_however_well_it_left(outcome: Outcome) -> None:
    assert shell_code(outcome, 0, None) == 125
    assert shell_code(outcome, 3, None) == 3
    assert shell_code(outcome, None, signal.SIGTERM) == 143
    assert shell_code(outcome, None, None) == 125


def test_what_never_ran_has_no_code() -> None:
    assert shell_code(Outcome.SKIPPED, None, None) == 125
    assert shell_code(None, None, None) == 125


# ── meanwhile ──


def test_a_substate_belongs_to_its_state() -> None:
    everything: dict[str, Any] = {"held": True, "paused": True, "stopping": True}
    everything |= {"delayed_for": "backoff", "unkillable": True}
    told = {state: substate(state, **everything) for state in JobState}
    assert told == {
        QUEUED: Substate.HELD,
        STARTING: Substate.UNKILLABLE,
        RUNNING: Substate.UNKILLABLE,
        ENDED: None,
    }
    assert all(substate(state) is None for state in JobState)


def test_what_matters_more_is_shown() -> None:
    assert substate(RUNNING, paused=True, stopping=True, unkillable=True) is Substate.UNKILLABLE
    assert substate(RUNNING, paused=True, stopping=True) is Substate.STOPPING
    assert substate(RUNNING, paused=True) is Substate.PAUSED
    assert substate(QUEUED, held=True, delayed_for="begin") is Substate.HELD
    assert substate(QUEUED, delayed_for="begin") is Substate.DELAYED
    assert substate(QUEUED, delayed_for="backoff") is Substate.BACKOFF
    assert substate(QUEUED, stopping=True, paused=True) is None
    assert substate(RUNNING, held=True, delayed_for="begin") is None


def meanwhile(
    *,
    unkillable: str | None = None,
    ending: EndCause | None = None,
    killed: bool = False,
    main_ended: bool = False,
    paused_by: str | None = None,
    stop_actor: str | None = None,
) -> str | None:
    return why_active(
        unkillable=unkillable,
        ending=ending,
        killed=killed,
        main_ended=main_ended,
        paused_by=paused_by,
        stop_actor=stop_actor,
    )


def test_what_goes_on_with_a_job_is_said_and_nothing_where_it_just_runs() -> None:
    assert meanwhile() is None
    assert meanwhile(stop_actor="ann") is None, "asked and not yet begun"
    paused = "paused by ann; its memory, and that of its GPUs, stays in use"
    assert meanwhile(paused_by="ann") == paused
    left = "its main process has ended; what it left behind is being ended"
    assert meanwhile(main_ended=True, paused_by="ann") == left
    assert meanwhile(ending=ASKED, stop_actor="ann") == "TERM sent: it is to end, asked by ann"
    assert (
        meanwhile(ending=TIME_LIMIT, killed=True, stop_actor="ann", main_ended=True)
        == "KILL sent: it reached its time limit"
    )
    assert meanwhile(ending=HEARTBEAT) == "TERM sent: it gave no sign of life for too long"
    too_much = "it used more of a shared GPU than it asked for"
    assert meanwhile(ending=GPU_MEMORY, killed=True) == f"KILL sent: {too_much}"
    assert (
        meanwhile(unkillable="4711 hangs in the driver", ending=ASKED, killed=True)
        == "survives KILL: 4711 hangs in the driver"
    )


def test_signals_have_names() -> None:
    assert signal_name(15) == "SIGTERM"
    assert signal_name(0) == "signal 0"
