"""What a job is to run, as columns of its spec."""

import json
from functools import lru_cache
from typing import Any

from gpuq.core.asked.elements import write_elements
from gpuq.core.asked.spec import Spec
from gpuq.core.asked.wire_fields import join


def spec_columns(spec: Spec) -> dict[str, Any]:
    """All but those that say who submitted it."""
    return {
        "name": spec.name,
        "argv": join(spec.argv),
        "cwd": spec.cwd,
        "umask": spec.umask,
        "limits": _write_limits(tuple(spec.limits.items())),
        "environment": spec.environment,
        "changes": join(tuple(k + b"=" + v for k, v in spec.changes.items())),
        "visible": spec.visible,
        "grace_s": spec.grace_s,
        "stop_to": spec.stop_to,
        "time_limit_s": spec.time_limit_s,
        "heartbeat_s": spec.heartbeat_s,
        "on_kill": spec.on_kill,
        "retries": spec.retries,
        "backoff": spec.backoff,
        "retry_on": spec.retry_on,
        "seed": spec.seed,
        "output": spec.output,
        "stderr": spec.stderr,
        "on_start": spec.on_start,
        "on_end": spec.on_end,
        "tags": json.dumps(spec.tags) if spec.tags else "[]",
        "gpu_mem_from": spec.gpu_mem_from,
        "mem_bytes": spec.bounds.mem_bytes,
        "cpu_bound": spec.bounds.cpus,
        "elements": None if spec.elements is None else write_elements(spec.elements),
        "script": spec.script,
        "interpreter": join(spec.interpreter) or None,
        "as_slurm": int(spec.as_slurm),
        "preemptible": int(spec.preemptible),
        "preempt_signal": spec.preempt_signal,
        "commit_id": spec.commit_id,
        "snapshot": spec.snapshot,
    }


@lru_cache(maxsize=64)  # those of a shell are those of all that is submitted from it
def _write_limits(limits: tuple[tuple[str, int], ...]) -> str:
    return json.dumps(dict(limits))
