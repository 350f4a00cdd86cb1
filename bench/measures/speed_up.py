"""Equal jobs that sleep, on several GPUs beside one: how much of the GPUs' time is lost between jobs.

On one GPU fewer of them run, and the time of as many as elsewhere is computed from those: the first
submit to the last end is (number) x (time of one with its gap), which grows evenly.
"""

import time

from bench.figures import GPUQ, Row, Samples, Target
from bench.peers.cast import Cast
from bench.peers.gpuq import gpuq_with
from bench.room import Room

ON_ONE_GPU = 3
# (jobs, GPUs, the speed-up that is asked for)
RUNS = ((8, 2, 1.98), (8, 4, 3.9), (12, 6, 5.9), (20, 4, 3.95))


def measure(room: Room, cast: Cast) -> list[Row]:
    each_s = seconds(room, ON_ONE_GPU, 1) / ON_ONE_GPU
    rows = []
    for jobs, gpus, at_least in RUNS:
        speed_up = each_s * jobs / seconds(room, jobs, gpus)
        rows.append(
            Row(
                work=f"{jobs} jobs of sleep {room.scale.sleep_s:g} on {gpus} GPUs, against one GPU",
                unit="times as fast",
                more_is_better=True,
                samples={GPUQ: Samples(values=(speed_up,))},
                targets=[Target(at_least=at_least)],
                notes=[f"the time on one GPU is computed from {ON_ONE_GPU} jobs"],
            )
        )
    return rows


def seconds(room: Room, jobs: int, gpus: int) -> float:
    with gpuq_with(room, gpus) as gpuq:
        began = time.monotonic()
        first = gpuq.submit_many(["/bin/sleep", f"{room.scale.sleep_s:g}"], jobs)
        gpuq.wait(first, jobs)
        return time.monotonic() - began
