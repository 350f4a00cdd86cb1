"""`gpuq demo`: the main job from end to end, on a daemon of its own that leaves nothing behind.

Eight trials of a small language model that differ in their learning rate, at most four at once.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer import Option

from gpuq import autostart, paths
from gpuq.cli import console
from gpuq.cli.demo_text import Progress, result_table
from gpuq.client import Client
from gpuq.errors import GpuqError
from gpuq.locate import locate

RATES = ("1e-4", "3e-4", "1e-3", "3e-3", "1e-2", "3e-2", "1e-1", "3e-1")
AT_ONCE = 4
SIMULATED = f"sim:{AT_ONCE}x24G"
REAL = f"nvml:0-{AT_ONCE - 1}"
MEMORY_PER_TRIAL = 4 * 2**30
REFRESH_S = 0.25
LEAVE_S = 30.0

Job = dict[str, Any]


def demo(
    context: typer.Context,
    steps: Annotated[
        int | None, Option(metavar="N", min=1, help="Training steps of each trial.")
    ] = None,
    gpus: Annotated[
        str | None,
        Option(metavar="GPUS", help="nvml, sim:4x24G or scenario:FILE, instead of looking."),
    ] = None,
) -> int:
    """See it work: eight real trainings on the free GPUs, or on simulated ones.

    Examples:
      gpuq demo

    It starts a daemon of its own in a temporary directory, queues eight training runs of a small
    character-level language model (torch; the text is Python's own help), shows how they
    run at most four at a time, prints what came of each, and leaves nothing behind.
    """
    _check_torch()
    look = console.look(context)
    with _Throwaway() as throwaway:
        try:
            throwaway.start(gpus)
            console.say(throwaway.told)
            trials = _submit(throwaway.client, steps)
            jobs = _watch(throwaway.client, trials, Progress(look))
        except KeyboardInterrupt:
            console.note("interrupted: ending the trials")
            raise
        results = {job["id"]: _result(job) for job in jobs}
        console.say("", *result_table(jobs, trials, results, look))
    console.say(throwaway.farewell())
    return 0 if all(job["outcome"] == "succeeded" for job in jobs) else 1


def _check_torch() -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise GpuqError(
            "the demo trains with torch, which is not here: pip install '.[demo]' in the folder of "
            "gpuq's source"
        )


def _submit(queue: Client, steps: int | None) -> dict[int, str]:
    """Job id → learning rate."""
    command = [sys.executable, "-m", "gpuq.demo.train"]
    tail = ["--steps", str(steps)] if steps is not None else []
    jobs = [
        {
            "argv": [*command, "--lr", rate, "--seed", "0", *tail],
            "name": f"lr={rate}",
            "gpus": 1,
            "gpu_mem_bytes": MEMORY_PER_TRIAL,
            "exclusive": True,
        }
        for rate in RATES
    ]
    return dict(zip(queue.submit_many(jobs), RATES, strict=True))


def _watch(queue: Client, trials: Mapping[int, str], progress: Progress) -> list[Job]:
    """Shows jobs and GPUs until all trials have ended; returns them."""
    while True:
        answer = queue.call("status", refs=[f"{min(trials)}-{max(trials)}"])
        jobs = sorted(answer["jobs"], key=lambda job: int(job["id"]))
        progress.show(jobs, answer["gpus"], {job["id"]: _last_line(job) for job in jobs})
        if all(job["state"] == "ended" for job in jobs):
            return jobs
        time.sleep(REFRESH_S)


def _last_line(job: Job) -> str:
    """What the trial last said of itself."""
    try:
        with open(job["log"] or os.devnull, "rb") as log:
            log.seek(max(os.fstat(log.fileno()).st_size - 300, 0))
            lines = log.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    return lines[-1] if lines else ""


def _result(job: Job) -> Job:
    """What the trial left in its output directory; empty where it came to nothing."""
    try:
        with open(os.path.join(job["output_dir"] or "", "result.json")) as file:
            result: Job = json.load(file)
            return result
    except (OSError, ValueError):
        return {}


class _Throwaway:
    """A daemon in a temporary directory that ends everything when a pipe from here is closed, which
    the kernel sees to however this process goes."""

    def __init__(self) -> None:
        self.state_dir = tempfile.mkdtemp(prefix="gpuq-demo-")
        self.client: Client
        self.told = ""
        self._pid: int | None = None
        self._leash = -1

    def start(self, gpus: str | None) -> None:
        """On `gpus`, else on the machine's own where they are free, else on simulated ones."""
        if gpus is not None:
            self._start_on(gpus)
            self.told = self._tell("as you said")
            return
        obstacle = _why_not_real()
        if obstacle is None:
            self._start_on(REAL)
            obstacle = self._wait_for_free_gpus()
            if obstacle is None:
                self.told = self._tell("free, and no other queue has them")
                return
            self._end()
            os.makedirs(self.state_dir, mode=0o700, exist_ok=True)
        self._start_on(SIMULATED)
        self.told = self._tell(obstacle)

    def __enter__(self) -> "_Throwaway":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def farewell(self) -> str:
        return "The demo's daemon has ended, and its directory is gone: nothing is left running."

    def _start_on(self, gpus: str) -> None:
        ours, self._leash = os.pipe()
        flags = ("--gpus", gpus, "--config", os.devnull)
        try:
            self._pid = autostart.spawn_daemon(
                self.state_dir, _clean_environment(), *flags, throwaway_fd=ours
            )
        finally:
            os.close(ours)
        self.client = Client(socket=os.path.join(self.state_dir, paths.SOCKET_NAME))

    def _tell(self, why: str) -> str:
        gpus = self._gpus()
        kind = "simulated GPUs" if any(gpu["simulated"] for gpu in gpus) else "real GPUs"
        models = ", ".join(sorted({gpu["model"] for gpu in gpus}))
        return f"{len(gpus)} {kind} ({models}): {why}."

    def _gpus(self) -> list[Job]:
        gpus: list[Any] = self.client.gpus()["gpus"]
        return gpus

    def _wait_for_free_gpus(self) -> str | None:
        """Why the real GPUs cannot be had, None where they can: they have to be seen idle for a
        few seconds first."""
        deadline = time.monotonic() + 8.0
        while True:
            answer = self.client.gpus()
            if answer["gpu_trouble"]:
                return str(answer["gpu_trouble"])
            if answer["gpus"] and all(gpu["state"] == "free" for gpu in answer["gpus"]):
                return None
            if time.monotonic() > deadline:
                busy = [gpu for gpu in answer["gpus"] if gpu["state"] != "free"]
                return f"GPU {busy[0]['index']} is not free: {busy[0]['reason']}" if busy else "?"
            time.sleep(0.3)

    def _end(self) -> None:
        """Lets go of the leash and waits until the daemon has ended all and itself."""
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1
        if self._pid is not None:
            self.client.close()
            _wait_for_child(self._pid)
            self._pid = None
            if os.path.exists(os.path.join(self.state_dir, paths.DATABASE_NAME)):
                self._end_after_crash()
        _remove(self.state_dir)

    def _end_after_crash(self) -> None:
        """It did not clean up, so it was killed, and its trials go on: another takes them over."""
        flags = ("--gpus", "none", "--config", os.devnull)
        pid = autostart.spawn_daemon(self.state_dir, _clean_environment(), *flags)
        with Client(socket=os.path.join(self.state_dir, paths.SOCKET_NAME)) as queue:
            if jobs := [job["id"] for job in queue.jobs()]:
                queue.kill(jobs, grace_s=0)
                queue.wait(jobs, timeout_s=LEAVE_S)
            queue.call("stop")
        if pid is not None:
            _wait_for_child(pid)


def _clean_environment() -> dict[str, str]:
    return {name: v for name, v in os.environ.items() if not name.startswith("GPUQ_")}


def _why_not_real() -> str | None:
    """What already speaks against the real GPUs before a daemon has looked at them."""
    if not os.path.exists("/proc/driver/nvidia/version"):
        return "this machine has no NVIDIA driver"
    for socket in _daemon_sockets():
        try:
            with Client(socket=socket) as other:
                answer = other.call("ping")
        except GpuqError:
            return f"another gpuq daemon, at {socket}, may have the real ones"
        if answer["gpus"] and answer["gpu_backend"].startswith("nvml"):
            return f"another gpuq daemon (pid {answer['pid']}) has the real ones"
    if paths.has_system_daemon() and not os.path.exists(paths.SYSTEM_SOCKET):
        return "the real ones belong to this machine's daemon, which is not running"
    return None


def _daemon_sockets() -> list[str]:
    """Where anybody's gpuq daemon listens on this machine."""
    own = locate().socket
    found = {own} if os.path.exists(own) else set()
    with open("/proc/net/unix", errors="surrogateescape") as table:
        for line in table:
            path = line.rstrip("\n").split(" ")[-1]
            if path.startswith("/") and path.endswith("/" + paths.SOCKET_NAME):
                found.add(path)
    return sorted(found)


def _wait_for_child(pid: int) -> None:
    deadline = time.monotonic() + LEAVE_S
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            raise GpuqError(f"the demo's daemon (pid {pid}) has not ended in {LEAVE_S:g} s")
        time.sleep(0.02)


def _remove(path: str) -> None:
    from shutil import rmtree

    rmtree(path, ignore_errors=True)
