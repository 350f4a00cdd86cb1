"""The life of a job as a table.

A job is queued until the daemon has committed an attempt for it, with the GPUs it gets (starting).
It is running once its process exists, and ended for good after that. Two moves go another way: an
attempt that is known never to have run goes back to the queue with its number, and a queued job
that nobody wants any more ends without ever starting. The schema repeats the invariants, so that a
wrong state cannot be stored.
"""

import signal as signals

from gpuq.core.model import Exit, JobState, Outcome, StopWish, Substate

MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.STARTING, JobState.ENDED}),
    JobState.STARTING: frozenset({JobState.RUNNING, JobState.QUEUED, JobState.ENDED}),
    JobState.RUNNING: frozenset({JobState.ENDED}),
    JobState.ENDED: frozenset(),
}

NOT_FOUND, NOT_EXECUTABLE, NO_CODE = 127, 126, 125


def may_move(before: JobState, after: JobState) -> bool:
    return after in MOVES[before]


def conclude(exit: Exit, *, stopped: bool) -> Outcome:
    """What an exit means. `stopped`: gpuq had begun to end the job on somebody's wish."""
    if exit.lost is not None:
        return Outcome.CANCELLED if stopped else Outcome.LOST
    if stopped:
        return Outcome.CANCELLED
    return Outcome.SUCCEEDED if exit.exit_code == 0 and exit.stage is None else Outcome.FAILED


def explain(exit: Exit, outcome: Outcome, stop: StopWish | None = None) -> str:
    """The sentence that stands in `show` after the end."""
    sentence = _explain_exit(exit)
    if outcome is Outcome.CANCELLED and stop is not None:
        sentence = f"cancelled by {stop.actor}: {sentence}"
    if exit.leftovers and outcome is not Outcome.CANCELLED:  # there, all of it was to go
        one = exit.leftovers == 1
        left = "a process" if one else f"{exit.leftovers} processes"
        sentence += f"; it left {left} behind, which {'was' if one else 'were'} ended"
    return sentence


def _explain_exit(exit: Exit) -> str:
    if exit.lost is not None:
        return f"lost: {exit.lost}"
    if exit.stage is not None:
        return f"could not start: {exit.stage}: {exit.error}"
    if exit.signal is not None:
        return f"ended by {signal_name(exit.signal)}"
    return f"exit code {exit.exit_code}"


def signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def substate(state: JobState, *, held: bool, stopping: bool) -> Substate | None:
    """What a job does meanwhile, derived from the wishes and never stored."""
    if state in (JobState.STARTING, JobState.RUNNING) and stopping:
        return Substate.STOPPING
    if state is JobState.QUEUED and held:
        return Substate.HELD
    return None


def shell_code(outcome: Outcome | None, exit_code: int | None, signal: int | None) -> int:
    """What `run` and `wait` give to the shell: the job's own code wherever it has one."""
    if exit_code is not None:
        return exit_code
    if signal is not None:
        return 128 + signal
    return 0 if outcome is Outcome.SUCCEEDED else NO_CODE
