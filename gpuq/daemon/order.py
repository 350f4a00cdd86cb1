"""From a stored job and the GPUs it gets to the order that its runner receives: pure composition."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from gpuq.config import Config
from gpuq.core.asked.arrays import variable
from gpuq.core.asked.containers import (
    CID_FILE,
    ContainerRun,
    find_container_run,
    removal,
    with_gpus,
)
from gpuq.core.asked.slurm import SlurmJob, slurm_environment
from gpuq.core.asked.wire_fields import split, to_text
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.gpus.soft_limits import soft_limits
from gpuq.core.gpus.visibility import job_gpu_environment
from gpuq.core.states import signal_name
from gpuq.daemon.attempt import runner
from gpuq.daemon.particulars import NODE, Particulars, particulars
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
    own = particulars(row, known.job)
    variables = _inherited(row, own)
    tmp_dir = _tmp_dir(variables, known.job, known.nonce)
    variables |= job_gpu_environment(gpus, whole=whole, visible=row["visible"])
    if share_bytes is not None and config.soft_limits:
        variables |= soft_limits(share_bytes, gpus, variables)
    variables |= {
        "PWD": to_text(row["cwd"]),
        "TMPDIR": tmp_dir,
        "GPUQ_JOB_ID": str(known.job),
        "GPUQ_ATTEMPT": str(known.attempt),
        "GPUQ_GROUP": f"g{row['group_id']}",
        "GPUQ_OUTPUT_DIR": f"{job_dir}/output",
        "GPUQ_SEED": str((row["seed"] + (own.element.index if own.element else 0)) % 2**32),
        "GPUQ_SOCKET": config.socket,
        "GPUQ_REPORT": f"{job_dir}/report",
        "GPUQ_MARK": known.mark.decode().removeprefix("GPUQ_MARK="),
    }
    if row["preemptible"]:
        number = row["preempt_signal"] or config.preempt_signal
        variables["GPUQ_PREEMPT_SIGNAL"] = signal_name(number).removeprefix("SIG")
    variables |= _of_array(own)
    if row["as_slurm"]:
        variables |= slurm_environment(_as_slurm(row, known, own, gpus, variables))
    program = _program(row, own, f"{job_dir}/script")
    container = find_container_run(program["argv"]) if row["script"] is None else None
    if container is not None:
        program = _of_container(program["argv"], container, gpus, variables, job_dir)
    return {
        "version": runner.VERSION,
        "job": known.job,
        "attempt": known.attempt,
        "nonce": known.nonce,
        **program,
        "environment": [f"{name}={value}" for name, value in variables.items()],
        "cwd": to_text(row["cwd"]),
        "umask": row["umask"],
        "limits": json.loads(row["limits"]),
        "log": own.output or f"{job_dir}/log",
        "log_index": f"{job_dir}/log.index",
        # A file that the submitter named is the submitter's: nothing is dropped from it.
        "log_cap_bytes": None if own.output else config.log_cap,
        "keep_free_bytes": config.keep_free,
        "report": f"{job_dir}/report",
        "heartbeat_s": row["heartbeat_s"],
        "stderr": own.stderr,
        "attempt_dir": attempt_dir,
        "output_dir": f"{job_dir}/output",
        "output_link": f"{config.state_dir}/jobs/{known.job}/output",
        "tmp_dir": tmp_dir,
        "grace_s": row["grace_s"],
        "on_kill": None if row["on_kill"] is None else to_text(row["on_kill"]),
        "scope": scope,
    } | (_identity(row, known, config) if config.mode == "system" else {})


def _program(row: Mapping[str, Any], own: Particulars, path: str) -> dict[str, Any]:
    """What is executed; a script that came with the job is written to that path first."""
    if row["script"] is None:
        return {"argv": own.command}
    interpreter = [to_text(word) for word in split(row["interpreter"])]
    return {
        "argv": [*interpreter, path, *own.command[1:]],
        "script": {"path": path, "text": to_text(row["script"])},
    }


def _of_container(
    argv: Sequence[str],
    run: ContainerRun,
    gpus: Sequence[Gpu],
    variables: Mapping[str, str],
    job_dir: str,
) -> dict[str, Any]:
    given = with_gpus(
        argv,
        run,
        uuids=[gpu.uuid for gpu in gpus],
        simulated=any(gpu.simulated for gpu in gpus),
        variables=variables,
        cid_file=f"{job_dir}/{CID_FILE}",
    )
    return {"argv": given, "container": {"id_file": CID_FILE, "removal": removal(run)}}


def removal_order(row: Mapping[str, Any], config: Config) -> dict[str, Any] | None:
    """For a job whose runner is gone: whose its container is, and what removes it, without its id.
    None where it has none."""
    own = particulars(row, row["job"])
    run = None if row["script"] is not None else find_container_run(own.command)
    if run is None:
        return None
    variables = _inherited(row, own)
    order: dict[str, Any] = {
        "argv": removal(run),
        "environment": [f"{name}={value}" for name, value in variables.items()],
        "cwd": to_text(row["cwd"]),
        "umask": row["umask"],
        "limits": {},
    }
    if config.mode == "system":
        order |= {"uid": row["uid"], "gid": row["gid"]}
    return order


def _of_array(own: Particulars) -> dict[str, str]:
    if own.elements is None or own.element is None:
        return {}
    parameters = own.element.parameters.items()
    return {
        "GPUQ_ARRAY_INDEX": str(own.element.index),
        "GPUQ_ARRAY_COUNT": str(len(own.elements)),
        **{variable(name): value for name, value in parameters},
    }


def _as_slurm(
    row: Mapping[str, Any],
    known: Known,
    own: Particulars,
    gpus: Sequence[Gpu],
    variables: Mapping[str, str],
) -> SlurmJob:
    return SlurmJob(
        job=known.job,
        array=own.array,
        elements=own.elements,
        index=None if own.element is None else own.element.index,
        name=own.name,
        user=row["user"],
        uid=row["uid"],
        gid=row["gid"],
        node=NODE,
        queue=row["queue"],
        # Whoever submitted it says so, since the job may have been told to run elsewhere.
        submit_dir=variables.get("SLURM_SUBMIT_DIR") or to_text(row["cwd"]),
        restarts=known.attempt - 1,
        gpus=[gpu.index for gpu in gpus],
        cpus=row["cpu_bound"],
        mem_bytes=row["mem_bytes"],
    )


def _identity(row: Mapping[str, Any], known: Known, config: Config) -> dict[str, Any]:
    """Whom a root daemon's job is to run as, and what the kernel said of the submitter."""
    return {
        "uid": row["uid"],
        "gid": row["gid"],
        "user": row["user"],
        "hard_limits": json.loads(row["hard_limits"]),
        "job_dir": f"{config.state_dir}/jobs/{known.job}",
    }


def _inherited(row: Mapping[str, Any], own: Particulars) -> dict[str, str]:
    """The environment at submit with the job's own changes over it."""
    changes = _variables(row["changes"])
    filled = zip(changes, own.fill_all(changes.values()), strict=True)
    return _variables(row["environment_content"]) | dict(filled)


@lru_cache(maxsize=64)
def _variables(content: bytes) -> dict[str, str]:
    """Those of one environment, which many jobs have: nobody changes them."""
    pairs = (to_text(pair) for pair in split(content) if pair.find(b"=") > 0)
    return dict(pair.split("=", 1) for pair in pairs)


def tmp_dirs(row: Mapping[str, Any], nonce: str) -> list[str]:
    """Where an attempt's private temporary directory may be: where the submitter has theirs, and
    where the runner makes it once that is gone."""
    variables = _inherited(row, particulars(row, row["job"]))
    name = _tmp_dir({}, row["job"], nonce)
    return list(dict.fromkeys((_tmp_dir(variables, row["job"], nonce), name)))


def _tmp_dir(variables: Mapping[str, str], job: int, nonce: str) -> str:
    """Short, since sockets that jobs make in it have room for 107 bytes of path."""
    base = variables.get("TMPDIR")
    if not base or not base.startswith("/") or len(base) > 40:
        base = TMP_DIR
    return f"{base.rstrip('/')}/gpuq-{job}-{nonce[:8]}"
