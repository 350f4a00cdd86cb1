"""Rows of the store and values of the core as the JSON that people see. Fields are only added."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gpuq.core.model import Gpu, JobState, Lease, Plan, Policy
from gpuq.core.placement import assess
from gpuq.core.spec import split, to_text
from gpuq.core.states import substate
from gpuq.daemon.store.seen import read_request

View = dict[str, Any]


def job_view(row: Mapping[str, Any], plan: Plan, state_dir: str) -> View:
    request = read_request(row["request"])
    state = JobState(row["state"])
    gpus = json.loads(row["gpus"]) if row["gpus"] and row["attempt"] else {}
    has_gpus = state is not JobState.QUEUED
    is_array = row["array_base"] is not None
    return {
        "id": row["id"],
        "name": row["name"],
        "user": row["user"],
        "group": f"g{row['group_id']}",
        "array_index": row["array_index"] if is_array else None,
        "queue": row["queue"],
        "tags": json.loads(row["tags"]),
        "state": state.value,
        "substate": substate(
            state, held=row["held_by"] is not None, stopping=row["stop_asked_at"] is not None
        ),
        "outcome": row["outcome"],
        "exit_code": row["exit_code"],
        "signal": row["signal"],
        "attempt": row["attempt"],
        "retries": 0,
        "pid": row["pid"],
        "gpu_count": request.gpus,
        "gpus": gpus.get("indices", []) if has_gpus else [],
        "gpu_uuids": gpus.get("uuids", []) if has_gpus else [],
        "gpus_simulated": gpus.get("simulated", False) if has_gpus else False,
        "gpu_mem_bytes": request.gpu_mem_bytes,
        "exclusive": request.exclusive,
        "gpu_model": request.gpu_model,
        "cpus": request.cpus,
        "mem_bytes": None,
        "time_limit_s": None,
        "grace_s": row["grace_s"],
        "visible": row["visible"],
        "seed": row["seed"],
        "priority": row["priority"],
        "after": [],
        "submitted_at": row["submitted_at"],
        "started_at": row["started_at"],
        "ended_at": row["ended_at"],
        "reason": _reason(row, state, plan),
        "command": [to_text(word) for word in split(row["argv"])],
        "cwd": to_text(row["cwd"]),
        "log": log_path(row, row["attempt"], state_dir),
        "output": to_text(row["output"]) if row["output"] else None,
        "stderr": to_text(row["stderr"]) if row["stderr"] else None,
        "output_dir": _job_dir(row["id"], row["attempt"], state_dir, "output"),
        "progress": None,
        "metrics": {},
    }


def log_path(row: Mapping[str, Any], attempt: int, state_dir: str) -> str | None:
    if row["output"]:
        return to_text(row["output"])
    return _job_dir(row["id"], attempt, state_dir, "log")


def _job_dir(job: int, attempt: int, state_dir: str, what: str) -> str | None:
    return f"{state_dir}/jobs/{job}/{attempt}/{what}" if attempt else None


def _reason(row: Mapping[str, Any], state: JobState, plan: Plan) -> str | None:
    """Why it waits, as the plan gave it, or how it ended, as it is stored."""
    if state is not JobState.QUEUED:
        stored: str | None = row["reason"]
        return stored
    if row["stop_asked_at"] is not None:
        return "about to be cancelled"
    if row["id"] in plan.reasons:
        return plan.reasons[row["id"]]
    head = plan.heads.get(row["class"])
    return f"behind {head}" if head is not None else "about to be considered"


def attempt_view(row: Mapping[str, Any], job: Mapping[str, Any], state_dir: str) -> View:
    kept = (
        "attempt committed_at started_at ended_at exit_code signal stage error lost leftovers "
        "user_s system_s peak_rss_bytes pid"
    )
    view: View = {name: row[name] for name in kept.split()}
    view["gpus"] = json.loads(row["gpus"]).get("indices", [])
    view["log"] = log_path(job, row["attempt"], state_dir)
    view["output_dir"] = _job_dir(job["id"], row["attempt"], state_dir, "output")
    return view


def gpu_view(gpu: Gpu, leases: Sequence[Lease], policy: Policy) -> View:
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
        "is_available": gpu.is_available,
        "jobs": sorted({lease.job for lease in held}),
        "exclusive": any(lease.exclusive for lease in held),
        "processes": [
            {
                "pid": process.pid,
                "user": process.user,
                "command": process.command,
                "memory_bytes": process.memory_bytes,
                "ours": process.job is not None,
                "job": process.job,
            }
            for process in gpu.processes or ()
        ],
    }
