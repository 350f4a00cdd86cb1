"""The life of a job as a table.

A job is queued until the daemon has committed an attempt for it, with the GPUs it gets (starting).
It is running once its process exists, and then that attempt ends: the job ends with it for good, or
goes back to the queue for its next attempt. Two moves go another way: an attempt that is known never
to have run goes back to the queue with its number, and a queued job that nobody wants any more ends
without starting. What has ended stays so, unless somebody wants it back in the queue: to run once
more, or because its cancel was a mistake. The schema repeats the invariants, so that a wrong state
cannot be stored.
"""

import signal as signals

from gpuq.core.ends.bounds import excess_words
from gpuq.core.ends.exhaustion import find_gpu_exhaustion, find_host_exhaustion
from gpuq.core.model import EndCause, Exit, JobState, Outcome, StopWish, Substate
from gpuq.core.units import format_bytes, format_seconds

MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.STARTING, JobState.ENDED}),
    JobState.STARTING: frozenset({JobState.RUNNING, JobState.QUEUED, JobState.ENDED}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.ENDED}),
    JobState.ENDED: frozenset({JobState.QUEUED}),
}


def may_move(before: JobState, after: JobState) -> bool:
    return after in MOVES[before]


def conclude(exit: Exit, *, ending: EndCause | None = None) -> Outcome:
    """What an exit means. `ending`: why gpuq had begun to end the attempt by then."""
    if ending is EndCause.ASKED or ending in GIVES_BACK:
        return Outcome.CANCELLED
    if ending in (EndCause.GPU_MEMORY, EndCause.HOST_MEMORY):
        return Outcome.OUT_OF_MEMORY
    if ending in GONE:
        return Outcome.LOST
    if ending is not None:
        return Outcome.TIMED_OUT
    if exit.lost is not None:
        return Outcome.LOST
    if exit.exit_code == 0 and exit.stage is None:
        return Outcome.SUCCEEDED
    if gpu_memory_ran_out(exit) or host_memory_ran_out(exit):
        return Outcome.OUT_OF_MEMORY
    return Outcome.FAILED


def gpu_memory_ran_out(exit: Exit) -> str | None:
    """The words of a job that failed for want of GPU memory: what it told, or its last output."""
    if exit.stage is not None or exit.exit_code == 0:
        return None
    return exit.told_out_of_memory or find_gpu_exhaustion(exit.last_output or "")


def host_memory_ran_out(exit: Exit, mem_bytes: int | None = None) -> str | None:
    """The same for the machine's memory: the kernel's word, or the job's last output. `mem_bytes` is
    what the job was allowed."""
    if exit.stage is not None or exit.exit_code == 0:
        return None
    if exit.oom_kills and exit.bound_hits:  # whoever of it was killed, that is why it failed
        asked = f"the {format_bytes(mem_bytes)} of" if mem_bytes is not None else "the"
        return f"it used more than {asked} memory it asked for (--mem)"
    if exit.oom_kills and exit.signal == signals.SIGKILL:
        return "the kernel ended it for want of memory"
    return find_host_exhaustion(exit.last_output or "")


def explain(
    exit: Exit,
    outcome: Outcome,
    *,
    ending: EndCause | None = None,
    stop: StopWish | None = None,
    time_limit_s: float | None = None,
    heartbeat_s: float | None = None,
    over_memory: str | None = None,
    mem_bytes: int | None = None,
    mem_used_bytes: int | None = None,
    gave_way_to: str | None = None,
    openly: bool = False,
) -> str:
    """The sentence that stands in `show` after the end. `mem_used_bytes` is what the job was seen to
    use of the `mem_bytes` that it was allowed; `gave_way_to` is the job for which it was preempted, in
    words. `openly`: as others may read it who may not read the
    log, without what the job wrote, and without names of its programs and files."""
    sentence = _explain_exit(
        exit, outcome, is_ours=ending is not None, mem_bytes=mem_bytes, openly=openly
    )
    if (ending is EndCause.ASKED or ending in GIVES_BACK) and stop is not None:
        sentence = f"cancelled by {stop.actor}: {sentence}"
    elif ending in GIVES_BACK:
        sentence = f"{GIVES_BACK[ending].format(gave_way_to or 'another job')}: {sentence}"
    if ending is EndCause.TIME_LIMIT:
        limit = format_seconds(time_limit_s)
        sentence = f"timed out: it reached its time limit of {limit}; {sentence}"
    if ending is EndCause.HEARTBEAT:
        silence = format_seconds(heartbeat_s)
        sentence = f"timed out: it gave no sign of life for {silence}; {sentence}"
    if ending is EndCause.GPU_MEMORY:
        excess = over_memory or "it used more than it asked for"
        sentence = f"out of GPU memory: {excess} (enforce_gpu_memory); {sentence}"
    if ending is EndCause.HOST_MEMORY:
        sentence = f"out of memory: {excess_words(mem_bytes, mem_used_bytes)}; {sentence}"
    if ending in GONE:
        how = "" if exit.lost is not None else f"; {sentence}"
        sentence = f"lost: {GONE[ending]}{how}"
    if exit.leftovers and ending is None:  # otherwise all of it was to go
        sentence += f"; {_explain_leftovers(exit, openly=openly)}"
    return sentence


def _explain_exit(
    exit: Exit, outcome: Outcome, *, is_ours: bool, mem_bytes: int | None, openly: bool
) -> str:
    if exit.lost is not None:
        return f"lost: {exit.lost}"
    if exit.stage is not None:
        return "could not start" + ("" if openly else f": {exit.stage}: {exit.error}")
    how = f"ended by {signal_name(exit.signal)}" if exit.signal else f"exit code {exit.exit_code}"
    if outcome is Outcome.OUT_OF_MEMORY and not is_ours:
        on_gpu = gpu_memory_ran_out(exit)
        words = "" if openly else f": {on_gpu or host_memory_ran_out(exit, mem_bytes)}"
        return f"out of {'GPU ' if on_gpu else ''}memory{words} ({how})"
    if exit.signal == signals.SIGKILL and not is_ours:
        return f"{how}, which gpuq did not send: perhaps the machine ran out of memory"
    return how


def _explain_leftovers(exit: Exit, *, openly: bool) -> str:
    one = exit.leftovers == 1
    left = "a process" if one else f"{exit.leftovers} processes"
    names = f" ({exit.leftover_names})" if exit.leftover_names and not openly else ""
    return f"it left {left} behind{names}, which {'was' if one else 'were'} ended"


def may_have_gone_with_host(exit: Exit) -> bool:
    """By a signal that systemd sends to everything when the machine goes down, or a login ends."""
    return exit.signal in (signals.SIGTERM, signals.SIGKILL, signals.SIGHUP)


def signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def substate(
    state: JobState,
    *,
    held: bool = False,
    delayed_for: str | None = None,
    paused: bool = False,
    stopping: bool = False,
    unkillable: bool = False,
) -> Substate | None:
    """What a job does meanwhile, derived from wishes and facts and never stored."""
    if state is JobState.QUEUED:
        if held:
            return Substate.HELD
        return None if delayed_for is None else _DELAYS[delayed_for]
    if state is JobState.ENDED:
        return None
    if unkillable:
        return Substate.UNKILLABLE
    if stopping:
        return Substate.STOPPING
    return Substate.PAUSED if paused else None


_DELAYS = {"begin": Substate.DELAYED, "backoff": Substate.BACKOFF}


def why_active(
    *,
    unkillable: str | None,
    ending: EndCause | None,
    killed: bool,
    main_ended: bool,
    paused_by: str | None,
    stop_actor: str | None,
    gives_way_to: str | None = None,
) -> str | None:
    """What goes on with a job that runs, where it does not just run."""
    if unkillable is not None:
        return f"survives KILL: {unkillable}"
    if ending is EndCause.PREEMPTED:
        words = f"it gives way to {gives_way_to or 'another job'}, and goes back to the queue"
        return f"KILL sent: {words}" if killed else words
    if ending is not None:
        step = "KILL sent" if killed else "TERM sent"
        by = f" by {stop_actor}" if ending is EndCause.ASKED and stop_actor else ""
        return f"{step}: {CAUSES[ending]}{by}"
    if main_ended:
        return "its main process has ended; what it left behind is being ended"
    if paused_by is not None:
        return f"paused by {paused_by}; its memory, and that of its GPUs, stays in use"
    return None


# The attempt is ended for that, and the job goes back to the queue: it runs again, and that is none of
# its retries. However it ended: with code 0 it says that it could save what it had, not that it was
# done. Had it been done by then, its next attempt finds that out.
GIVES_BACK: dict[EndCause | None, str] = {
    EndCause.PREEMPTED: "gave way to {}",
    EndCause.REQUEUED: "requeued",
}

# What went away under a job that was ended for that.
GONE: dict[EndCause | None, str] = {
    EndCause.SHUTDOWN: "the machine was shut down",
    EndCause.LOGOUT: "the services of its user were stopped, as after a logout without linger",
}

CAUSES = {
    EndCause.ASKED: "it is to end, asked",
    EndCause.TIME_LIMIT: "it reached its time limit",
    EndCause.HEARTBEAT: "it gave no sign of life for too long",
    EndCause.GPU_MEMORY: "it used more of a shared GPU than it asked for",
    EndCause.HOST_MEMORY: "it used more memory than it asked for (--mem)",
    EndCause.SHUTDOWN: "the machine is shutting down",
    EndCause.LOGOUT: "the services of this user are being stopped",
    EndCause.PREEMPTED: "it gives way to another job, and goes back to the queue",
    EndCause.REQUEUED: "it goes back to the queue, asked",
}
