"""What is told of an event: the JSON that a command and a webhook get, with the same as sentences for
people and as variables for a shell. What a job runs, and where, is in none of them.
"""

import json
from collections.abc import Mapping
from typing import Any

from gpuq.core.asked.hooks import Moment
from gpuq.core.model import Outcome
from gpuq.core.results.said import is_from_output
from gpuq.core.units import format_seconds, name_gpus
from gpuq.daemon.particulars import NODE

SCHEMA = 1
_BAD = {Outcome.FAILED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY, Outcome.LOST}

Payload = dict[str, Any]


def compose(notice: Mapping[str, Any], name: str, gpu_index: int | None) -> Payload:
    """Of a notice as it is stored. `name` is its job's; the index is that of the GPU it is about."""
    told = json.loads(notice["told"])
    error = told.get("error")
    payload: Payload = {
        "schema": SCHEMA,
        "moment": "trial" if notice["origin"] == "trial" else notice["moment"],
        "host": NODE,
        "at": notice["made_at"],
        "event": notice["event"],
        "key": notice["key"],
    }
    if notice["job"] is not None:
        payload["job"] = {
            "id": notice["job"],
            "last_id": told["last"] or notice["job"],
            "name": name,
            "user": notice["user"],
            "attempt": notice["attempt"],
            **{field: told[field] for field in _OF_A_JOB},
            "error": error if is_from_output(error) else None,
        }
    if notice["gpu"] is not None:
        payload["gpu"] = {"uuid": notice["gpu"], "index": gpu_index, "reason": told["reason"]}
    title = _title(payload)
    return payload | {"title": title, "text": _text(payload, title)}


_OF_A_JOB = (
    *("outcome", "exit_code", "signal", "reason", "gpus"),
    *("submitted_at", "started_at", "ended_at"),
)


def mood(payload: Payload) -> str:
    """Good or bad news, or neither."""
    if "gpu" in payload:
        return "bad"
    outcome = payload.get("job", {}).get("outcome")
    if outcome == Outcome.SUCCEEDED:
        return "good"
    return "bad" if outcome in _BAD else "plain"


def variables(payload: Payload) -> dict[str, str]:
    """For a command, by names that begin as those of a job's own environment."""
    job, gpu = payload.get("job", {}), payload.get("gpu", {})
    values = {
        "GPUQ_MOMENT": payload["moment"],
        "GPUQ_TITLE": payload["title"],
        "GPUQ_JOB_ID": job.get("id"),
        "GPUQ_JOB_NAME": job.get("name"),
        "GPUQ_ATTEMPT": job.get("attempt"),
        "GPUQ_OUTCOME": job.get("outcome"),
        "GPUQ_EXIT_CODE": job.get("exit_code"),
        "GPUQ_GPU_UUID": gpu.get("uuid"),
        "GPUQ_GPU_INDEX": gpu.get("index"),
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def _title(payload: Payload) -> str:
    if "gpu" in payload:
        gpu = payload["gpu"]
        which = gpu["uuid"] if gpu["index"] is None else str(gpu["index"])
        return f"GPU {which} of {payload['host']} is set aside"
    if "job" not in payload:
        return "a trial of gpuq's notices"
    job = payload["job"]
    if job["last_id"] != job["id"]:
        return f"jobs {job['id']} to {job['last_id']}: {_outcome(job)}"
    named = f"job {job['id']} {job['name']}".rstrip()
    return f"{named} started" if payload["moment"] == Moment.START.value else _ended(named, job)


def _ended(named: str, job: Payload) -> str:
    return f"{named}: {_outcome(job)}"


def _outcome(job: Payload) -> str:
    return str(job["outcome"]).replace("_", " ")


def _text(payload: Payload, title: str) -> str:
    if "gpu" in payload:
        return f"{title}: {payload['gpu']['reason']}"
    if "job" not in payload:
        return f"{title}, from {payload['host']}: whoever reads this is told"
    job = payload["job"]
    words = f"{title}, of {job['user']} on {payload['host']}"
    if payload["moment"] == Moment.START.value:
        return f"{words}, {name_gpus(job['gpus'])}" if job["gpus"] else words
    if job["started_at"] is not None and job["ended_at"] is not None:
        words += f", after {format_seconds(max(job['ended_at'] - job['started_at'], 0.0))}"
    words += f": {job['reason']}"
    if job["error"] is not None:
        words += f" ({job['error']}). What it wrote: gpuq logs {job['id']}"
    return words
