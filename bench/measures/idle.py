"""A daemon with eight GPUs and nothing to do, its probe and its launcher included: share of a core,
memory, and what it writes to disk; and what one runner takes that waits for a job.

Of its memory all counts that it has started: daemon, probe, launcher and the runner that waits. PSS
counts what several have in parts, so a library that nobody else on the machine has loaded costs it up
to 5 MB more.
"""

import time

from bench import proc
from bench.figures import GPUQ, Row, Samples, Target
from bench.peers.cast import Cast
from bench.peers.gpuq import Gpuq, gpuq_with
from bench.room import Room

GPUS = 8
SETTLED_S = 3.0  # after its start it still looks around


def measure(room: Room, cast: Cast) -> list[Row]:
    with gpuq_with(room, GPUS) as gpuq:
        gpuq.wait(gpuq.submit(["/bin/true"]), 1)
        time.sleep(min(SETTLED_S, room.scale.idle_s))
        pids = [gpuq.pid, *proc.descendants(gpuq.pid)]
        cpu_s, written = cost(pids)
        time.sleep(room.scale.idle_s)
        cpu_after_s, written_after = cost(pids)
        memory_mb = sum(map(proc.pss_mb, pids))
        runners_mb = [proc.pss_mb(pid) for pid in waiting_runners(gpuq)]
    percent = 100 * (cpu_after_s - cpu_s) / room.scale.idle_s
    return [
        one("of a core", "%", percent, Target(at_least=0.5, aim=0.1)),
        one("memory (PSS)", "MB", memory_mb, Target(at_least=60, aim=50)),
        one(
            f"written to disk in {room.scale.idle_s:g} s",
            "bytes",
            written_after - written,
            Target(at_least=0),
        ),
        Row(
            work="runner that waits, memory (PSS)",
            unit="MB",
            samples={
                GPUQ: Samples(values=tuple(runners_mb))
                if runners_mb
                else Samples(why_none="none waits here")
            },
            targets=[Target(at_least=3, aim=1.5)],
        ),
    ]


def one(what: str, unit: str, value: float, target: Target) -> Row:
    samples = {GPUQ: Samples(values=(value,))}
    return Row(
        work=f"idle daemon, {GPUS} GPUs: {what}", unit=unit, samples=samples, targets=[target]
    )


def cost(pids: list[int]) -> tuple[float, int]:
    """Seconds of CPU time, and bytes written, of all of them so far."""
    return sum(map(proc.cpu_s, pids)), sum(map(proc.written_bytes, pids))


def waiting_runners(gpuq: Gpuq) -> list[int]:
    """With no job there, what lives below the launcher waits for one."""
    launchers = [
        pid for pid in proc.descendants(gpuq.pid) if proc.parent(pid) == gpuq.pid and _launches(pid)
    ]
    return [pid for launcher in launchers for pid in proc.descendants(launcher)]


def _launches(pid: int) -> bool:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"launcher" in file.read()
