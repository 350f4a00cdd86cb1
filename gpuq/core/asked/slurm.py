"""What a job finds that was written for Slurm: the variables that sbatch's jobs have, as far as they
mean something on one machine.

https://slurm.schedmd.com/sbatch.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gpuq.core.asked.elements import Elements


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmJob:
    """One machine, one task. `array` is the id of the array's first element; `elements` and `index` are
    None of a job that is in no array. `gpus` are indices; `cpus` and `mem_bytes` are None where the job
    did not say."""

    job: int
    array: int
    elements: Elements | None
    index: int | None
    name: str
    user: str
    uid: int
    gid: int
    node: str
    queue: str
    submit_dir: str
    restarts: int
    gpus: Sequence[int]
    cpus: int | None
    mem_bytes: int | None


def slurm_environment(job: SlurmJob) -> dict[str, str]:
    found = {
        "SLURM_JOB_ID": str(job.job),
        "SLURM_JOBID": str(job.job),
        "SLURM_JOB_NAME": job.name,
        "SLURM_JOB_USER": job.user,
        "SLURM_JOB_UID": str(job.uid),
        "SLURM_JOB_GID": str(job.gid),
        "SLURM_JOB_PARTITION": job.queue or "gpuq",
        "SLURM_SUBMIT_DIR": job.submit_dir,
        "SLURM_SUBMIT_HOST": job.node,
        **_one_task_on(job.node),
        "SLURM_CPUS_ON_NODE": str(job.cpus or 1),
        "SLURM_JOB_CPUS_PER_NODE": str(job.cpus or 1),
    }
    if job.cpus is not None:
        found["SLURM_CPUS_PER_TASK"] = str(job.cpus)
    if job.mem_bytes is not None:
        found["SLURM_MEM_PER_NODE"] = str(job.mem_bytes // 2**20)
    if job.gpus:
        found["SLURM_GPUS"] = found["SLURM_GPUS_ON_NODE"] = str(len(job.gpus))
        found["SLURM_JOB_GPUS"] = ",".join(map(str, job.gpus))
    if job.restarts:
        found["SLURM_RESTART_COUNT"] = str(job.restarts)
    return found | _of_array(job)


def _one_task_on(node: str) -> dict[str, str]:
    return {
        "SLURMD_NODENAME": node,
        "SLURM_NODELIST": node,
        "SLURM_JOB_NODELIST": node,
        "SLURM_NNODES": "1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NTASKS": "1",
        "SLURM_NPROCS": "1",
        "SLURM_TASKS_PER_NODE": "1",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_GTIDS": "0",
    }


def _of_array(job: SlurmJob) -> dict[str, str]:
    if job.elements is None:
        return {}
    indices = job.elements.indices
    return {
        "SLURM_ARRAY_JOB_ID": str(job.array),
        "SLURM_ARRAY_TASK_ID": str(job.index),
        "SLURM_ARRAY_TASK_COUNT": str(len(job.elements)),
        "SLURM_ARRAY_TASK_MIN": str(min(span[0] for span in indices)),
        "SLURM_ARRAY_TASK_MAX": str(max(span[-1] for span in indices)),
        "SLURM_ARRAY_TASK_STEP": str(indices[0].step),
    }
