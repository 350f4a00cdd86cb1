"""The kinds of events there are, and who and what is behind one where nobody says more.

An event always tells an actor and a cause. The actor is the user who asked for it, or gpuq itself. The
cause is what is special about this one; where nothing is, it is what always is behind its kind.
"""

from collections.abc import Mapping
from typing import Any

GPUQ = "gpuq"  # the actor of what nobody asked for

USUAL_CAUSES: Mapping[str, str] = {
    # a job in the queue
    "submitted": "a submission",
    "edited": "an edit was asked for",
    "hold_asked": "a hold was asked for",
    "release_asked": "its release was asked for",
    "priority_asked": "another priority was asked for",
    "move_asked": "another place in the queue was asked for",
    "due": "the time that it was to wait for has come",
    "backoff": "it is tried again",
    "backoff_over": "the wait between two attempts is over",
    "cpu_fallback": "it has waited long enough for GPUs",
    "requeue_asked": "one more run was asked for",
    "undo_asked": "its cancel was to be undone",
    "requeued": "one more run was asked for",
    "not_requeued": "it cannot be run once more now",
    # an attempt
    "starting": "its turn came, and there was room",
    "running": "its command was started",
    "returned": "it had not begun",
    "stop_asked": "its end was asked for",
    "signal_asked": "a signal was asked for",
    "pause_asked": "a pause was asked for",
    "resume_asked": "its going on was asked for",
    "prune_asked": "it was to be forgotten",
    "term_sent": "it is to end",
    "kill_sent": "it is to end, and has not",
    "signal_sent": "a signal was asked for",
    "paused": "a pause was asked for",
    "resumed": "its going on was asked for",
    "preempted": "it gives way",
    "given_back": "it is to run once more",
    "main_ended": "its own process ended, and others of it did not",
    "unkillable": "something of it survives KILL",
    "on_kill": "gpuq ended it",
    "attempt_ended": "its command ended",
    "ended": "its command ended",
    # a job on its GPUs
    "gpu_idle": "it computes nothing",
    "gpu_used": "it computes again",
    "contended": "somebody outside gpuq is on its GPU",
    "astray": "it computes on a GPU that it was not given",
    "over_memory": "it uses more GPU memory than it asked for",
    "xid": "the driver told of an error",
    # what is left of jobs
    "files_removed": "what jobs left was old, or too much",
    "pruned": "they were to be forgotten",
    "prune_failed": "what it left could not be removed",
    "ids_skipped": "nothing is known of such jobs",
    # notices
    "notice_failed": "nobody could be told",
    "notice_dropped": "too many notices wait",
    # GPUs
    "gpu_dirty": "memory of an ended job has not come back",
    "gpu_clean": "the memory of an ended job has come back",
    "gpu_quarantined": "it does not seem well",
    "gpu_readmitted": "nothing is held against it any more",
    "gpu_tested": "the test found nothing wrong",
    "gpu_drained": "nothing was to be started on it",
    "gpu_undrained": "it was to be given out again",
    "gpu_resume_asked": "it was to be given out again",
    "reserved": "a reservation was asked for",
    "reservation_cancelled": "its end was asked for",
    # the queue and the daemon
    "drained": "nothing was to be started any more",
    "undrained": "jobs were to be started again",
    "limited": "a limit was asked for",
    "limit_lifted": "a limit was to be lifted",
    "config_changed": "the settings changed",
    "config_rejected": "the settings have a mistake",
    "restart_needed": "a setting is looked at only at the start",
    "closing": "what the daemon runs on goes away",
    "closing_over": "what the daemon runs on stays after all",
    "machine_slept": "the machine was suspended",
}


def jobs_of(job: int, detail: Mapping[str, Any]) -> range:
    """The jobs that an event is about which names this one. Of a run of them it has the last in its
    detail, and of a submission how many they are."""
    return range(job, (detail.get("last") or job + detail.get("count", 1) - 1) + 1)


def cause_of(kind: str, cause: str | None) -> str:
    """What is told as the cause of an event of that kind."""
    return cause or USUAL_CAUSES.get(kind) or kind.replace("_", " ")


def special_cause(kind: str, cause: str | None) -> str | None:
    """The cause where it says more than that an event of its kind happened; None: it does not."""
    return cause if cause and cause != cause_of(kind, None) else None
