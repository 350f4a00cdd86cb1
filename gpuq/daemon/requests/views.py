"""Rows of the store and values of the core as the JSON that people see. Fields are only added."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from gpuq.core.asked.containers import container_words, find_container_run
from gpuq.core.asked.hooks import shown_hook
from gpuq.core.asked.moments import words_for
from gpuq.core.asked.wire_fields import to_text
from gpuq.core.decisions import Plan
from gpuq.core.gpus.breaker import explain_xid
from gpuq.core.gpus.condition import assess
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.gpus.usage import intruders
from gpuq.core.gpus.visibility import CPU, CUDA
from gpuq.core.model import EndCause, JobState, Lease, Substate
from gpuq.core.policy import Policy
from gpuq.core.results.giving_up import format_on_failure
from gpuq.core.scheduling.judging import Awaited, after_words, alike
from gpuq.core.scheduling.limits import openly
from gpuq.core.states import signal_name, substate, why_active
from gpuq.daemon.callers import discretion
from gpuq.daemon.callers.discretion import Sight
from gpuq.daemon.particulars import Particulars, particulars, words_of
from gpuq.daemon.requests.report_view import report_view
from gpuq.daemon.store.classes import read_request
from gpuq.daemon.store.falling import gave_up
from gpuq.daemon.store.health import HealthRow
from gpuq.daemon.upkeep.snapshots import folder_of

View = dict[str, Any]


def job_view(
    row: Mapping[str, Any],
    plan: Plan,
    state_dir: str,
    machine: Sequence[Gpu] = (),
    *,
    sight: Sight,
) -> View:
    """As somebody with that sight sees it. `machine` is the last reading of its GPUs."""
    return discretion.of_job(_job(row, plan, state_dir, machine, sight), sight)


def _job(
    row: Mapping[str, Any], plan: Plan, state_dir: str, machine: Sequence[Gpu], sight: Sight
) -> View:
    request = read_request(row["request"])
    own = particulars(row, row["id"])
    state = JobState(row["state"])
    gpus = json.loads(row["gpus"]) if row["gpus"] and row["attempt"] else {}
    has_gpus = state is not JobState.QUEUED
    # A job that was cancelled between two attempts did not end as the last of them did.
    has_ended_so = (
        state is JobState.ENDED
        and not row["cancelled_queued"]
        and row["attempt_outcome"] == row["outcome"]
    )
    return {
        "id": row["id"],
        "name": own.name,
        "user": row["user"],
        "group": f"g{row['group_id']}",
        "array_index": None if own.element is None else own.element.index,
        "parameters": {} if own.element is None else dict(own.element.parameters),
        "differs_in": _differs_in(row, own),
        "queue": row["queue"],
        "tags": [] if row["tags"] == "[]" else json.loads(row["tags"]),
        "state": state.value,
        "substate": _substate(row, state),
        "outcome": row["outcome"],
        "exit_code": row["exit_code"] if has_ended_so else None,
        "signal": row["signal"] if has_ended_so else None,
        "error_signature": row["error_signature"] if has_ended_so else None,
        "attempt": row["attempt"],
        "retries": row["retries"],
        "backoff": row["backoff"],
        "retry_on": row["retry_on"],
        "on_failure": format_on_failure(row["stop_after"]),
        "delayed_until": row["delayed_until_at"] if state is JobState.QUEUED else None,
        "pid": row["pid"] if has_gpus else None,
        "gpu_count": request.gpus,
        "gpus": gpus.get("indices", []) if has_gpus else [],
        "gpu_uuids": gpus.get("uuids", []) if has_gpus else [],
        "gpus_simulated": gpus.get("simulated", False) if has_gpus else False,
        "gpu_mem_bytes": request.gpu_mem_bytes,
        "gpu_mem_from": row["gpu_mem_from"],
        "exclusive": request.exclusive,
        "gpu_model": request.gpu_model,
        "gpu_ids": list(request.gpu_ids),
        "exclude_gpus": list(request.exclude_gpus),
        "max_util": request.max_util,
        "device": CUDA if request.gpus else CPU,
        "cpu_after_s": row["cpu_after_s"],
        "cpu_fallback": gave_up(row),
        "cpus": request.cpus,
        "mem_bytes": row["mem_bytes"],
        "cpu_bound": row["cpu_bound"],
        "mem_bound_by": row["mem_bound_by"],
        "cpu_bound_by": row["cpu_bound_by"],
        "memory_peak_bytes": _memory_peak_bytes(row),
        "peak_rss_bytes": row["peak_rss_bytes"],
        "time_limit_s": row["time_limit_s"],
        "heartbeat_s": row["heartbeat_s"],
        "on_kill": None if row["on_kill"] is None else to_text(row["on_kill"]),
        "paused_s": row["paused_s"] or 0.0,
        "grace_s": row["grace_s"],
        "stop_to": row["stop_to"],
        "preemptible": bool(row["preemptible"]),
        "preempt_signal": _signal_word(row["preempt_signal"]),
        "preemptions": row["preemptions"],
        "key": row["key"].partition(":")[2] if row["key"] else None,
        "visible": row["visible"],
        "seed": _seed(row),
        "priority": row["priority"],
        "after": after_view(row.get("needs", ())),
        "submitted_at": row["submitted_at"],
        "started_at": row["started_at"],
        "ended_at": row["ended_at"],
        "reason": _reason(row, state, plan, sight),
        "expected_start": row.get("expected_start"),
        "expected_start_is_guess": bool(row.get("expected_start_is_guess")),
        "expected_start_from": row.get("expected_start_from"),
        "command": own.command,
        "script": bool(row["has_script"]),
        "as_slurm": bool(row["as_slurm"]),
        "container": _container(row, own, request.gpus, gpus),
        "cwd": to_text(row["cwd"]),
        "log": own.output
        if row["output"]
        else _job_dir(row["id"], row["attempt"], state_dir, "log"),
        "output": own.output,
        "stderr": own.stderr,
        **_hooks(row),
        "output_dir": _job_dir(row["id"], row["attempt"], state_dir, "output"),
        "files_removed_at": row["files_removed_at"],
        "commit": row["commit_id"],
        "snapshot": _snapshot_folder(row, state_dir),
        **_gpu_use(row),
        "idle": state is JobState.RUNNING and row["idle_since_at"] is not None,
        "contended": row["contended_at"] is not None,
        "contended_now": state is JobState.RUNNING and _is_contended(gpus, machine),
        **report_view(row),
    }


def _seed(row: Mapping[str, Any]) -> int:
    """Of separate jobs that were submitted alike each has its own; an array has one, to which the index
    of each element is added."""
    seed: int = row["seed"]
    first = row["alike_first"]
    return seed if first is None else (seed + row["id"] - first) % 2**32


def _hooks(row: Mapping[str, Any]) -> View:
    """Whole for whoever may see secrets of its owner."""
    whole = bool(row.get("hooks_whole"))
    said = row["on_start"], row["on_end"]
    on_start, on_end = (one if one is None or whole else shown_hook(one) for one in said)
    return {"on_start": on_start, "on_end": on_end, "hooks_whole": whole}


def _differs_in(row: Mapping[str, Any], own: Particulars) -> list[str]:
    """Which of its texts are its own among the elements of its array."""
    if own.element is None:
        return []
    as_written = {
        "name": (own.name, row["name"]),
        "command": (own.command, list(words_of(row["argv"]))),
    }
    return [field for field, (filled, written) in as_written.items() if filled != written]


def _container(
    row: Mapping[str, Any], own: Particulars, count: int, held: Mapping[str, Any]
) -> str | None:
    run = None if row["has_script"] else find_container_run(own.command)
    if run is None:
        return None
    return container_words(run, gpus=count, simulated=held.get("simulated", False))


def _signal_word(number: int | None) -> str | None:
    return None if number is None else signal_name(number).removeprefix("SIG")


_GPU_USE = (
    "gpu_peak_bytes",
    "gpu_util_mean",
    "gpu_util_peak",
    "gpu_energy_j",
    "idle_since_at",
    "contended_at",
    "contended_by",
    "over_memory",
)


def _gpu_use(row: Mapping[str, Any]) -> View:
    return {name: row[name] for name in _GPU_USE} | {"gpu_errors": _gpu_errors(row)}


def _gpu_errors(row: Mapping[str, Any]) -> list[str]:
    """What the driver told of its GPUs while it ran."""
    if row["xids"] in (None, "[]"):
        return []
    told = json.loads(row["xids"])
    return [f"XID {one['xid']} on GPU {one['gpu']}: {explain_xid(one['xid'])}" for one in told]


def _is_contended(held: Mapping[str, Any], machine: Sequence[Gpu]) -> bool:
    own = [gpu for gpu in machine if gpu.uuid in held.get("uuids", ())]
    return bool(intruders(own, held.get("beside", ())))


def _snapshot_folder(row: Mapping[str, Any], state_dir: str) -> str | None:
    name = row["snapshot"]
    return None if name is None else f"{folder_of(state_dir, row['uid'])}/{name}"


def log_path(row: Mapping[str, Any], attempt: int, state_dir: str) -> str | None:
    if row["output"]:
        return particulars(row, row["id"]).output
    return _job_dir(row["id"], attempt, state_dir, "log")


def _job_dir(job: int, attempt: int, state_dir: str, what: str) -> str | None:
    return f"{state_dir}/jobs/{job}/{attempt}/{what}" if attempt else None


def _substate(row: Mapping[str, Any], state: JobState) -> Substate | None:
    ending = row["stop_asked_at"], row["ending"], row["main_ended_mono"]
    return substate(
        state,
        held=row["held_by"] is not None,
        delayed_for=row["delayed_for"],
        paused=row["paused_mono"] is not None,
        stopping=ending != (None, None, None),
        unkillable=row["unkillable"] is not None,
    )


def _reason(row: Mapping[str, Any], state: JobState, plan: Plan, sight: Sight) -> str | None:
    """Why it waits, as the plan gave it, what keeps it, or how it ended, as it is stored."""
    if state is JobState.QUEUED:
        return _why_queued(row, plan, sight)
    if state is JobState.ENDED:
        return _stored_reason(row, sight)
    if row["unkillable"] is not None and sight < Sight.COMMANDS:
        return "survives KILL"
    return why_active(
        unkillable=row["unkillable"],
        ending=None if row["ending"] is None else EndCause(row["ending"]),
        killed=row["kill_mono"] is not None,
        main_ended=row["main_ended_mono"] is not None,
        paused_by=row["paused_by"] if row["paused_mono"] is not None else None,
        stop_actor=row["stop_actor"],
        gives_way_to=row["gives_way_for"],
    )


def _stored_reason(row: Mapping[str, Any], sight: Sight) -> str | None:
    stored: str | None = row["reason" if sight is Sight.ALL else "open_reason"]
    return stored


def _why_queued(row: Mapping[str, Any], plan: Plan, sight: Sight) -> str:
    own = _own_reason(row, sight)
    if own is not None:
        return own
    if plan.standstill is not None:
        return plan.standstill
    if row["id"] in plan.reasons:
        reason = plan.reasons[row["id"]]
        return reason if sight >= Sight.COMMANDS else openly(reason)
    head = plan.heads.get(row["class"])
    return f"behind {head}" if head is not None else "about to be considered"


def waits_in(row: Mapping[str, Any]) -> int | None:
    """The class of a job that waits for what the plan says; None: it waits for something else, or not
    at all."""
    if row["state"] != JobState.QUEUED or _own_reason(row, Sight.ALL) is not None:
        return None
    waits: int = row["class"]
    return waits


def _own_reason(row: Mapping[str, Any], sight: Sight) -> str | None:
    """What keeps it, whatever the plan is."""
    if row["stop_asked_at"] is not None:
        return "about to be cancelled"
    if row["held_by"] is not None:
        return f"held by {row['held_by']}"
    if row["open_needs"] and row.get("needs"):
        return after_words(row["needs"])
    if row["delayed_for"] == "begin":
        return f"not before {_moment_words(row['delayed_until_at'])}"
    if row["delayed_until_at"] is not None:
        return _stored_reason(row, sight) or "it waits for its next attempt"
    return None


def after_view(needs: Sequence[Awaited]) -> list[View]:
    """What it waits for, and what became of that."""
    if not needs:
        return []
    return [
        {"jobs": jobs, "when": when.value, "each": each, "state": state.value}
        for (when, each, state), jobs in alike(needs).items()
    ]


def _moment_words(at: float) -> str:
    """By the clock on the wall of this machine, "18:00 (tomorrow)"."""
    return words_for(datetime.fromtimestamp(at), datetime.now())


def env_set(variables: Sequence[bytes]) -> dict[str, str]:
    """The variables that its submitter set; gpuq's own are set anew each time."""
    pairs = dict(to_text(variable).partition("=")[::2] for variable in variables)
    return {name: value for name, value in pairs.items() if not name.startswith("GPUQ_")}


def _memory_peak_bytes(row: Mapping[str, Any]) -> int | None:
    """Of all its processes together; where nobody measured that, of the largest of them."""
    together: int | None = row["memory_peak_bytes"]
    return row["peak_rss_bytes"] if together is None else together


def attempt_view(
    row: Mapping[str, Any], job: Mapping[str, Any], state_dir: str, *, sight: Sight
) -> View:
    kept = (
        "attempt committed_at started_at ended_at outcome reason exit_code signal stage error lost "
        "leftovers leftover_names user_s system_s peak_rss_bytes log_dropped_bytes paused_s "
        "unkillable cgroup pid mem_bound_by cpu_bound_by memory_peak_bytes error_signature"
    )
    view: View = {name: row[name] for name in kept.split()}
    view["reason"] = _stored_reason(row, sight)
    view |= _gpu_use(row) | report_view(row)
    view["gpus"] = json.loads(row["gpus"]).get("indices", [])
    view["log"] = log_path(job, row["attempt"], state_dir)
    view["output_dir"] = _job_dir(job["id"], row["attempt"], state_dir, "output")
    return discretion.of_attempt(view, sight)


def event_view(row: Mapping[str, Any], machine: Sequence[Gpu], *, sight: Sight) -> View:
    detail = row["detail"]
    view = {
        **row,
        "gpu_index": next((gpu.index for gpu in machine if gpu.uuid == row["gpu"]), None),
        "detail": None if detail is None else json.loads(detail),
    }
    return discretion.of_event(view, sight)


def gpu_view(
    gpu: Gpu,
    leases: Sequence[Lease],
    policy: Policy,
    health: HealthRow | None = None,
    *,
    under_test: str | None = None,
) -> View:
    held = [lease for lease in leases if lease.gpu == gpu.uuid]
    state, reason = assess(gpu, held, policy)
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "model": gpu.model,
        "simulated": gpu.simulated,
        "state": state.value,
        "reason": reason,
        "memory_total_bytes": gpu.memory_total_bytes,
        "memory_used_bytes": gpu.memory_used_bytes,
        "memory_free_bytes": gpu.memory_free_bytes,
        "memory_reserved_bytes": gpu.memory_reserved_bytes,
        "memory_usage_percent": gpu.memory_usage_percent,
        "utilization_percent": gpu.utilization_percent,
        "temperature_c": gpu.temperature_c,
        "power_w": gpu.power_w,
        "power_limit_w": gpu.power_limit_w,
        "energy_j": gpu.energy_j,
        "parent": gpu.parent,
        "is_available": gpu.is_available,
        "jobs": sorted({lease.job for lease in held}),
        "exclusive": any(lease.exclusive for lease in held),
        "processes": [
            {
                "pid": process.pid,
                "user": process.user,
                "command": process.command,
                "memory_bytes": process.memory_bytes,
                "unit": process.unit,
                "ours": process.job is not None,
                "job": process.job,
                "ignored": process.ignored,
            }
            for process in gpu.processes or ()
        ],
        "warnings": list(gpu.warnings),
        "locked_by": gpu.locked_by,
        "under_test": under_test,
        **_health_view(health or HealthRow(gpu=gpu.uuid)),
    }


def _health_view(row: HealthRow) -> View:
    drained = {"actor": row.drained_by, "reason": row.drain_reason, "at": row.drained_at}
    return {
        "drained": None if row.drained_by is None else drained,
        "quarantine": row.quarantine,
        "quarantined_at": row.quarantined_at,
        "tested_at": row.tested_at,
        "test": row.test_result,
    }
