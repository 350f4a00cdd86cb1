"""What a daemon says, for the faces to show: jobs, GPUs, and a daemon that says it over a socket."""

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpuq import protocol
from gpuq.errors import GpuqError, UsageError

GIB = 2**30
CONFIG = "/etc/gpuq/gpuq.toml"
Said = dict[str, Any]
Answer = Said | GpuqError | Callable[[Said], Said | GpuqError]


def job(number: int = 184, **changes: Any) -> Said:
    """A job that waits for one GPU."""
    waiting: Said = {
        "id": number,
        "name": f"job-{number}",
        "user": "alice",
        "group": f"g{number}",
        "array_index": None,
        "parameters": {},
        "queue": "",
        "tags": [],
        "state": "queued",
        "substate": None,
        "outcome": None,
        "exit_code": None,
        "signal": None,
        "attempt": 0,
        "retries": 0,
        "backoff": None,
        "retry_on": None,
        "on_failure": "continue",
        "delayed_until": None,
        "pid": None,
        "gpu_count": 1,
        "gpus": [],
        "gpu_uuids": [],
        "gpu_mem_bytes": None,
        "gpu_mem_from": None,
        "exclusive": True,
        "gpu_model": None,
        "device": "cuda",
        "cpu_after_s": None,
        "cpu_fallback": None,
        "cpus": 1,
        "mem_bytes": None,
        "cpu_bound": None,
        "mem_bound_by": None,
        "cpu_bound_by": None,
        "memory_peak_bytes": None,
        "peak_rss_bytes": None,
        "time_limit_s": None,
        "heartbeat_s": None,
        "on_kill": None,
        "paused_s": 0.0,
        "grace_s": 10.0,
        "stop_to": "all",
        "preemptible": False,
        "preempt_signal": None,
        "preemptions": 0,
        "key": None,
        "priority": 0,
        "after": [],
        "submitted_at": 1000.0,
        "started_at": None,
        "ended_at": None,
        "reason": "wants 1 GPU, 0 free",
        "expected_start": None,
        "expected_start_is_guess": False,
        "expected_start_from": None,
        "command": ["python", "train.py"],
        "script": False,
        "as_slurm": False,
        "container": None,
        "cwd": "/home/alice/vit",
        "log": None,
        "stderr": None,
        "output_dir": None,
        "files_removed_at": None,
        "commit": None,
        "snapshot": None,
        "gpu_peak_bytes": None,
        "gpu_util_mean": None,
        "gpu_util_peak": None,
        "gpu_energy_j": None,
        "idle": False,
        "idle_since_at": None,
        "contended": False,
        "contended_now": False,
        "contended_at": None,
        "contended_by": None,
        "over_memory": None,
        "gpu_errors": [],
        "progress": None,
        "progress_from": None,
        "metrics": {},
        "reported_at": None,
        "report_lines": 0,
        "report_trouble": None,
        "hidden": False,
    }
    assert changes.keys() <= waiting.keys() | {"place", "attempts", "environment"}
    return waiting | changes


def running(number: int = 181, **changes: Any) -> Said:
    """A job that has run for a minute on GPU 0 when it is 2000 s after the epoch."""
    started = {
        "state": "running",
        "attempt": 1,
        "pid": 4711,
        "gpus": [0],
        "gpu_uuids": ["GPU-0"],
        "started_at": 1940.0,
        "reason": None,
    }
    return job(number, **(started | changes))


def ended(number: int = 179, **changes: Any) -> Said:
    """A job that ran for a minute and failed with exit code 1."""
    over = {
        "state": "ended",
        "outcome": "failed",
        "exit_code": 1,
        "ended_at": 2000.0,
        "pid": None,
        "reason": "exit code 1",
    }
    return running(number, **(over | changes))


def in_full(view: Said, **changes: Any) -> Said:
    """A job as `show` has it."""
    return view | {"place": None, "attempts": []} | changes


def attempt(**changes: Any) -> Said:
    failed: Said = {
        "attempt": 1,
        "committed_at": 1939.0,
        "started_at": 1940.0,
        "ended_at": 2000.0,
        "outcome": "failed",
        "reason": "exit code 1",
        "unkillable": None,
        "exit_code": 1,
        "signal": None,
        "stage": None,
        "error": None,
        "lost": None,
        "leftovers": 0,
        "user_s": 50.0,
        "system_s": 2.0,
        "peak_rss_bytes": 3 * GIB,
        "memory_peak_bytes": None,
        "mem_bound_by": None,
        "cpu_bound_by": None,
        "gpu_peak_bytes": None,
        "pid": 4711,
        "gpus": [0],
        "log": "/state/jobs/179/1/log",
        "output_dir": "/state/jobs/179/1/output",
    }
    assert changes.keys() <= failed.keys()
    return failed | changes


def gpu(index: int = 0, **changes: Any) -> Said:
    """A free GPU of 80 GiB."""
    free: Said = {
        "index": index,
        "uuid": f"GPU-{index}",
        "model": "NVIDIA H100 80GB HBM3",
        "simulated": False,
        "state": "free",
        "reason": None,
        "memory_total_bytes": 80 * GIB,
        "memory_used_bytes": 0,
        "memory_free_bytes": 80 * GIB,
        "memory_reserved_bytes": 0,
        "memory_usage_percent": 0.0,
        "utilization_percent": 0,
        "temperature_c": 34,
        "power_w": 61.0,
        "power_limit_w": 400.0,
        "energy_j": None,
        "parent": None,
        "is_available": True,
        "jobs": [],
        "exclusive": False,
        "processes": [],
        "warnings": [],
        "locked_by": None,
        "reservations": [],
        "under_test": None,
        "drained": None,
        "quarantine": None,
        "quarantined_at": None,
        "tested_at": None,
        "test": None,
    }
    assert changes.keys() <= free.keys()
    return free | changes


def simulated(index: int = 0, **changes: Any) -> Said:
    return gpu(index, model="Simulated 24G", simulated=True, memory_total_bytes=24 * GIB, **changes)


def process(pid: int = 40121, **changes: Any) -> Said:
    foreign: Said = {
        "pid": pid,
        "user": "carol",
        "command": "python",
        "memory_bytes": 40 * GIB,
        "unit": None,
        "ours": False,
        "job": None,
        "ignored": False,
    }
    assert changes.keys() <= foreign.keys()
    return foreign | changes


def page(*jobs: Said, gpus: list[Said] | None = None, **changes: Any) -> Said:
    """An answer to `status`."""
    queued = sum(one["state"] == "queued" for one in jobs)
    active = sum(one["state"] in ("starting", "running") for one in jobs)
    answer: Said = {
        "jobs": list(jobs),
        "before": None,
        "counts": {"running": active, "queued": queued, "queued_yours": queued},
        "gpus": gpus or [],
        "gpu_backend": "sim:4x24G",
        "gpu_trouble": None,
        "drained": None,
    }
    assert changes.keys() <= answer.keys()
    return answer | changes


def event(seq: int = 7, kind: str = "ended", **changes: Any) -> Said:
    told: Said = {
        "seq": seq,
        "at": 1990.0,
        "kind": kind,
        "job": 181,
        "attempt": 1,
        "gpu": None,
        "actor": None,
        "cause": "exit code 1",
        "detail": None,
    }
    assert changes.keys() <= told.keys()
    return told | changes


class FakeDaemon:
    """Answers on a real socket, from a table; `asked` is what it was asked, in order."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "gpuq.sock")
        self.answers: dict[str, Answer] = {
            "bounds": {"mem_trouble": None, "cpu_trouble": None},
            "config": {"settings": [{"name": "config", "value": CONFIG, "origin": "default"}]},
            "status": page(),
            "gpus": page(),
            # It is an older one: what is submitted to it is told job by job.
            "submit_alike": UsageError(f"this daemon {protocol.UNKNOWN} 'submit_alike'"),
        }
        self.asked: list[Said] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def requests(self, do: str) -> list[Said]:
        return [request for request in self.asked if request["do"] == do]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=[connection])
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as lines:
                for line in lines:
                    connection.sendall(protocol.encode(self._answer(json.loads(line))))
        except OSError:
            pass  # the client left in the middle, as people do

    def _answer(self, message: Said) -> Said:
        if "hello" in message:
            return protocol.hello("0.1.0")
        self.asked.append(message)
        answer = self.answers[message["do"]]
        said = answer(message) if callable(answer) else answer
        if isinstance(said, GpuqError):
            return protocol.failure(message["id"], said)
        return {"id": message["id"], "ok": said}
