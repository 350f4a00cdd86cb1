"""What of a job other users are told. Every view of a job, an attempt and an event leaves through here.

There are three measures. The owner and admins see all. Others see the queue in any case: whose job it
is, what it asks for, when and how far it came. With `visibility = all` they also see what it runs and
where; with `own` those fields are there and empty. What the program wrote is never told to them, and
no field that is not named below.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from gpuq.core.gpus.gpu import Gpu, GpuProcess
from gpuq.daemon.callers.peer import Peer

View = dict[str, Any]


class Sight(IntEnum):
    """How much of a job somebody may see."""

    QUEUE = 0  # that it is there, what it asks for, and how it goes
    COMMANDS = 1  # what it runs, too, where, and what it is called
    ALL = 2


ALL = "all"  # the setting

_QUEUE_OF_JOB = """
id user group array_index queue state substate outcome exit_code signal attempt retries backoff
retry_on on_failure delayed_until gpu_count gpus gpu_uuids gpus_simulated gpu_mem_bytes exclusive
gpu_model gpu_ids exclude_gpus max_util cpus cpu_bound cpu_bound_by mem_bytes mem_bound_by
memory_peak_bytes peak_rss_bytes
time_limit_s heartbeat_s paused_s grace_s stop_to visible priority after submitted_at started_at
preemptible preempt_signal preemptions expected_start expected_start_is_guess expected_start_from
ended_at reason files_removed_at gpu_peak_bytes gpu_util_mean gpu_util_peak gpu_energy_j
idle_since_at contended_at contended_by over_memory gpu_errors idle contended contended_now place
place_of queue_place device cpu_after_s cpu_fallback
hidden
"""
NO_REPORT: Mapping[str, Any] = {
    "progress": None,
    "progress_from": None,
    "metrics": {},
    "reported_at": None,
    "report_lines": 0,
    "report_trouble": None,
}
# Each with what stands there for those who may not see it.
_COMMAND_OF_JOB: Mapping[str, Any] = {
    "name": "",
    "tags": [],
    "key": None,
    "pid": None,
    "gpu_mem_from": None,
    "seed": None,
    "command": [],
    "parameters": {},
    "differs_in": [],
    "script": False,
    "as_slurm": False,
    "container": None,
    "on_kill": None,
    "cwd": "",
    "log": None,
    "output": None,
    "stderr": None,
    "on_start": None,
    "on_end": None,
    "hooks_whole": False,
    "output_dir": None,
    "commit": None,
    "snapshot": None,
    **NO_REPORT,
}
# What the program wrote, in other words.
_OWN = ("error_signature",)
JOB: Mapping[str, Sight] = (
    dict.fromkeys(_QUEUE_OF_JOB.split(), Sight.QUEUE)
    | dict.fromkeys(_COMMAND_OF_JOB, Sight.COMMANDS)
    | dict.fromkeys(_OWN, Sight.ALL)
)

_QUEUE_OF_ATTEMPT = """
attempt committed_at started_at ended_at outcome reason exit_code signal lost leftovers user_s
system_s peak_rss_bytes log_dropped_bytes paused_s gpus gpu_peak_bytes gpu_util_mean gpu_util_peak
gpu_energy_j idle_since_at contended_at contended_by over_memory gpu_errors mem_bound_by
cpu_bound_by memory_peak_bytes
"""
_COMMAND_OF_ATTEMPT = "stage error leftover_names unkillable cgroup pid log output_dir"
ATTEMPT: Mapping[str, Sight] = (
    dict.fromkeys(_QUEUE_OF_ATTEMPT.split(), Sight.QUEUE)
    | dict.fromkeys((*_COMMAND_OF_ATTEMPT.split(), *NO_REPORT), Sight.COMMANDS)
    | dict.fromkeys(_OWN, Sight.ALL)
)

Open = Mapping[Sight, frozenset[str]]  # the names of what each sight sees


def _open_to(fields: Mapping[str, Sight]) -> Open:
    return {
        sight: frozenset(name for name, least in fields.items() if sight >= least)
        for sight in Sight
    }


_OPEN_OF_JOB, _OPEN_OF_ATTEMPT = _open_to(JOB), _open_to(ATTEMPT)

EVENT = ("seq", "at", "kind", "job", "attempt", "gpu", "gpu_index", "actor", "cause", "detail")
# Events of jobs whose cause and detail name no process and no path.
_OPEN_EVENTS = """
submitted starting returned backoff backoff_over due term_sent kill_sent signal_sent paused resumed
main_ended stop_asked signal_asked pause_asked resume_asked hold_asked release_asked priority_asked
move_asked requeue_asked undo_asked edited requeued not_requeued given_back gpu_idle gpu_used
contended over_memory preempted cpu_fallback on_kill
"""
_EVENTS_WITH_COMMANDS = ("running", "unkillable", "astray", "prune_failed")
_ENDS = ("ended", "attempt_ended")  # their causes quote, and have an open form


@dataclass(frozen=True, slots=True, kw_only=True)
class Discretion:
    """What one caller may see. `visibility` is the setting; `owner_of` gives the uid that a job belongs
    to, None where that is not known any more."""

    peer: Peer
    visibility: str
    owner_of: Callable[[int], int | None]

    def sight(self, uid: int | None) -> Sight:
        """Of what belongs to this user."""
        if self.peer.is_admin or (uid is not None and self.peer.may_change(uid)):
            return Sight.ALL
        return Sight.COMMANDS if self.visibility == ALL else Sight.QUEUE

    @property
    def sees_commands(self) -> bool:
        """Of everybody's jobs."""
        return self.sight(None) >= Sight.COMMANDS

    def hides(self, job: int) -> bool:
        return not self.sees_commands and self.sight(self.owner_of(job)) < Sight.COMMANDS

    def gpu(self, gpu: Gpu) -> Gpu:
        """The same without the names of programs that are hidden jobs'."""
        if self.sees_commands or not gpu.processes:
            return gpu
        return replace(gpu, processes=tuple(map(self._process, gpu.processes)))

    def _process(self, process: GpuProcess) -> GpuProcess:
        is_hidden = process.job is not None and self.hides(process.job)
        return replace(process, command=None) if is_hidden else process


def of_job(view: View, sight: Sight) -> View:
    """A job as somebody with that sight sees it. Its reason is to be the open one where that is less
    than ALL."""
    told = _told(view, _OPEN_OF_JOB, _COMMAND_OF_JOB, sight)
    return told | {"hidden": sight < Sight.COMMANDS}


def of_attempt(view: View, sight: Sight) -> View:
    return _told(view, _OPEN_OF_ATTEMPT, NO_REPORT, sight)


def _told(view: View, open_to: Open, empty: Mapping[str, Any], sight: Sight) -> View:
    if sight is Sight.ALL:
        return view
    return view | {name: empty.get(name) for name in view.keys() - open_to[sight]}


def of_event(view: View, sight: Sight) -> View:
    """An event as somebody sees it who has that sight of the job that it is about."""
    told = {name: view[name] for name in EVENT}
    kind = view["kind"]
    if sight is Sight.ALL or view["job"] is None or kind in _OPEN_EVENTS.split():
        return told
    if kind in _ENDS:
        return told | {"cause": view["open_cause"]}
    if kind in _EVENTS_WITH_COMMANDS and sight is Sight.COMMANDS:
        return told
    return told | {"cause": None, "detail": None}
