"""How a job that runs is ended: TERM, the grace, KILL; and what makes gpuq do that.

Somebody asked, or wants it back in the queue, its time is up, it has not reported for too long, it
uses more of a shared GPU than it asked for, where the settings want that, it uses more memory than it
may, where gpuq and not the kernel sees to that, or the machine goes down. Who gives way to another job
(see `preemption`) is told so in place of the TERM. Times are measured on CLOCK_MONOTONIC, which no
setting of a clock moves and which stands still while the machine sleeps; time in which the job was
paused does not count either. What lives on after KILL is said to be unkillable, and goes on being
killed, less often.
"""

import signal as signals
from dataclasses import replace

from gpuq.core.decisions import Decision, Pause, Resume, SetAside, Signal
from gpuq.core.model import ActiveJob, Closing, EndCause, Snapshot
from gpuq.core.policy import OverMemory, Policy
from gpuq.core.states import GIVES_BACK

# What survives a KILL gets another one this often, since a fork may have slipped past the first.
KILL_AGAIN_S = 1.0
# A sign of life is noticed by the runner that looks for it so late, or after a quarter of the time in
# which one is to come: who gives one in time must not be ended meanwhile.
NOTICED_WITHIN_S = 1.0
# What is stuck in the kernel dies of the first one, once it comes back.
KILL_UNKILLABLE_AGAIN_S = 10.0


def plan_endings(snapshot: Snapshot) -> tuple[list[Decision], list[float]]:
    """What is due for the jobs that run, and when to look at them again without news."""
    decisions: list[Decision] = []
    deadlines: list[float] = []
    for job in snapshot.active:
        decisions += _messages(job)
        cause = cause_to_end(job, snapshot.now, snapshot.policy)
        if cause is None and snapshot.closing is not None:
            cause = snapshot.closing.cause
        if job.ending is not None and cause is not job.ending:
            job = replace(job, term_sent_at=None)  # it was told something else
        if cause is None:
            decisions += _standing(job)
            deadlines += _limits(job)
        else:
            decisions += _steps(job, cause, snapshot.now, snapshot.closing)
            deadlines += _next_steps(job, snapshot.now, snapshot.closing)
            deadlines += _limits(job, only_time=True) if cause in GIVES_BACK else []
        if (stuck_at := _stuck_at(job, snapshot.policy.unkillable_s)) is None:
            continue
        if stuck_at <= snapshot.now:
            decisions.append(SetAside(job=job.id, attempt=job.attempt))
        else:
            deadlines.append(stuck_at)
    return decisions, deadlines


def cause_to_end(job: ActiveJob, now: float, policy: Policy) -> EndCause | None:
    """Why the job is to end, if it is. What it was sent its first signal for stays the cause, but for
    one that lets it run again: whoever wants it gone for good wins over that."""
    if job.ending is not None and job.ending not in GIVES_BACK:
        return job.ending
    if job.stop is not None:
        return EndCause.ASKED
    if job.main_ended_at is not None:  # it has ended by itself; its runner ends the rest
        return job.ending
    if (limit_at := _limit_at(job)) is not None and limit_at <= now:
        return EndCause.TIME_LIMIT
    if job.ending is not None:
        return job.ending
    if job.requeue_wished:
        return EndCause.REQUEUED
    if (silent_at := _silent_at(job)) is not None and silent_at <= now:
        return EndCause.HEARTBEAT
    if job.over_memory is not None and policy.over_memory is OverMemory.END:
        return EndCause.GPU_MEMORY
    if job.mem_bytes is not None and (job.mem_used_bytes or 0) > job.mem_bytes:
        return EndCause.HOST_MEMORY
    return None


def _limits(job: ActiveJob, *, only_time: bool = False) -> list[float]:
    if job.main_ended_at is not None:
        return []
    limits = (_limit_at(job), None if only_time else _silent_at(job))
    return [at for at in limits if at is not None]


def _limit_at(job: ActiveJob) -> float | None:
    """When its time is up; never while it stands still."""
    if job.time_limit_s is None or job.running_since is None or job.paused_since is not None:
        return None
    return job.running_since + job.paused_s + job.time_limit_s


def _silent_at(job: ActiveJob) -> float | None:
    """When it will have been silent for too long; a pause is no silence."""
    if job.heartbeat_s is None or job.running_since is None or job.paused_since is not None:
        return None
    last_at = max(job.running_since, job.beat_at or 0.0, job.resumed_at or 0.0)
    return last_at + job.heartbeat_s + min(NOTICED_WITHIN_S, job.heartbeat_s / 4)


def _messages(job: ActiveJob) -> list[Decision]:
    """Kept until there is somebody to hear them."""
    if job.running_since is None:
        return []
    return [Signal(job=job.id, attempt=job.attempt, signal=number) for number in job.signal_wishes]


def _standing(job: ActiveJob) -> list[Decision]:
    """Pause and resume. A job that has not begun to run is paused once it has."""
    is_paused = job.paused_since is not None
    if job.running_since is None or is_paused == job.pause_wished:
        return []
    return [(Pause if job.pause_wished else Resume)(job=job.id, attempt=job.attempt)]


def _steps(job: ActiveJob, cause: EndCause, now: float, closing: Closing | None) -> list[Decision]:
    number = _due_step(job, now, closing)
    if number is None:
        return []
    return [Signal(job=job.id, attempt=job.attempt, signal=number, ends=cause)]


def _due_step(job: ActiveJob, now: float, closing: Closing | None) -> int | None:
    if job.kill_sent_at is not None:
        return signals.SIGKILL if _kill_again_at(job) <= now else None
    if not _has_been_told(job, now) and _grace_s(job) > 0:
        return signals.SIGTERM
    kill_at = now if job.term_sent_at is None else _kill_at(job, job.term_sent_at, closing)
    return signals.SIGKILL if kill_at <= now else None


def _has_been_told(job: ActiveJob, now: float) -> bool:
    """A TERM from before the job was there has found nobody: it is sent again."""
    if job.term_sent_at is None:
        return False
    return job.running_since is None or not job.term_sent_at < job.running_since <= now


def _next_steps(job: ActiveJob, now: float, closing: Closing | None) -> list[float]:
    """After the step that is due now, if one is."""
    if job.kill_sent_at is not None:
        step_at = _kill_again_at(job)
    elif job.term_sent_at is not None and _has_been_told(job, now):
        step_at = _kill_at(job, job.term_sent_at, closing)
    else:
        step_at = _kill_at(job, now, closing)
    return [step_at if step_at > now else now + KILL_AGAIN_S]


def _kill_at(job: ActiveJob, told_at: float, closing: Closing | None) -> float:
    """When its grace is over, if it was told to end at `told_at`."""
    over_at = told_at + _grace_s(job)
    return over_at if closing is None else min(over_at, closing.kill_at)


def left_s(job: ActiveJob, snapshot: Snapshot) -> float:
    """How long it has until KILL, if it is told to end now."""
    return max(_kill_at(job, snapshot.now, snapshot.closing) - snapshot.now, 0.0)


def _grace_s(job: ActiveJob) -> float:
    return job.grace_s if job.stop is None else job.stop.grace_s


def _kill_again_at(job: ActiveJob) -> float:
    """A daemon that has just come kills at once: it cannot know whether the last one did."""
    if job.last_kill_at is None:
        return 0.0
    return job.last_kill_at + (KILL_UNKILLABLE_AGAIN_S if job.is_unkillable else KILL_AGAIN_S)


def _stuck_at(job: ActiveJob, patience_s: float) -> float | None:
    """When it will have survived KILL for too long; None where nobody kills it, or all is said."""
    if job.is_unkillable:
        return None
    if job.kill_sent_at is not None:
        return job.kill_sent_at + patience_s
    if job.main_ended_at is not None:
        return job.main_ended_at + job.grace_s + patience_s
    return None
