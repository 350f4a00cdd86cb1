"""From a stored job and the GPUs it gets to the order that its runner receives: pure composition."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gpuq.config import Config
from gpuq.core.elements import Element, read_elements
from gpuq.core.gpu import Gpu
from gpuq.core.soft_limits import soft_limits
from gpuq.core.spec import split, to_text
from gpuq.core.visibility import job_gpu_environment
from gpuq.daemon.attempt import runner
from gpuq.daemon.supervisor import Known

TMP_DIR = "/tmp"


def compose(
    row: Mapping[str, Any],
    known: Known,
    gpus: Sequence[Gpu],
    *,
    whole: bool,
    scope: str | None = None,
    share_bytes: int | None,
    config: Config,
    attempt_dir: str,
) -> dict[str, Any]:
    """The order for one attempt. `whole`: all GPUs of the machine are there, so CUDA's ordinals
    mean what our indices mean. `share_bytes`: what it asked for of each of its GPUs, where it is to
    share them. `scope` is the control group that bounds it, where there is one."""
    job_dir = f"{config.state_dir}/jobs/{known.job}/{known.attempt}"
    variables = _inherited(row)
    tmp_dir = _tmp_dir(variables, known.job, known.nonce)
    element = _element(row)
    variables |= job_gpu_environment(gpus, whole=whole, visible=row["visible"])
    if share_bytes is not None and config.soft_limits:
        variables |= soft_limits(share_bytes, gpus, variables)
    variables |= {
        "PWD": to_text(row["cwd"]),
        "TMPDIR": tmp_dir,
        "GPUQ_JOB_ID": str(known.job),
        "GPUQ_ATTEMPT": str(known.attempt),
        "GPUQ_OUTPUT_DIR": f"{job_dir}/output",
        "GPUQ_SEED": str((row["seed"] + (0 if element is None else element.index)) % 2**32),
        "GPUQ_SOCKET": config.socket,
        "GPUQ_REPORT": f"{job_dir}/report",
        "GPUQ_MARK": known.mark.decode().removeprefix("GPUQ_MARK="),
    }
    if element is not None:
        variables["GPUQ_ARRAY_INDEX"] = str(element.index)
    return {
        "version": runner.VERSION,
        "job": known.job,
        "attempt": known.attempt,
        "nonce": known.nonce,
        "argv": [to_text(word) for word in split(row["argv"])],
        "environment": [f"{name}={value}" for name, value in variables.items()],
        "cwd": to_text(row["cwd"]),
        "umask": row["umask"],
        "limits": json.loads(row["limits"]),
        "log": to_text(row["output"]) if row["output"] else f"{job_dir}/log",
        "log_index": f"{job_dir}/log.index",
        # A file that the submitter named is the submitter's: nothing is dropped from it.
        "log_cap_bytes": None if row["output"] else config.log_cap,
        "keep_free_bytes": config.keep_free,
        "report": f"{job_dir}/report",
        "heartbeat_s": row["heartbeat_s"],
        "stderr": to_text(row["stderr"]) if row["stderr"] else None,
        "attempt_dir": attempt_dir,
        "output_dir": f"{job_dir}/output",
        "tmp_dir": tmp_dir,
        "grace_s": row["grace_s"],
        "scope": scope,
    } | (_identity(row, known, config) if config.mode == "system" else {})


def _element(row: Mapping[str, Any]) -> Element | None:
    if row["element"] is None:
        return None
    return read_elements(row["elements"]).at(row["element"])


def _identity(row: Mapping[str, Any], known: Known, config: Config) -> dict[str, Any]:
    """Whom a root daemon's job is to run as, and what the kernel said of the submitter."""
    return {
        "uid": row["uid"],
        "gid": row["gid"],
        "user": row["user"],
        "hard_limits": json.loads(row["hard_limits"]),
        "job_dir": f"{config.state_dir}/jobs/{known.job}",
    }


def _inherited(row: Mapping[str, Any]) -> dict[str, str]:
    """The environment at submit with the job's own changes over it."""
    pairs = split(row["environment_content"]) + split(row["changes"])
    return dict(to_text(pair).split("=", 1) for pair in pairs if pair.find(b"=") > 0)


def tmp_dirs(row: Mapping[str, Any], nonce: str) -> list[str]:
    """Where an attempt's private temporary directory may be: where the submitter has theirs, and
    where the runner makes it once that is gone."""
    name = _tmp_dir({}, row["job"], nonce)
    return list(dict.fromkeys((_tmp_dir(_inherited(row), row["job"], nonce), name)))


def _tmp_dir(variables: Mapping[str, str], job: int, nonce: str) -> str:
    """Short, since sockets that jobs make in it have room for 107 bytes of path."""
    base = variables.get("TMPDIR")
    if not base or not base.startswith("/") or len(base) > 40:
        base = TMP_DIR
    return f"{base.rstrip('/')}/gpuq-{job}-{nonce[:8]}"
