"""From submit to start on an idle daemon, through a client that runs already: from the moment before
the call to the first line of the job. Each job has ended before the next one is submitted, and a
breath lies between them, so that what is measured is not hot from the one before."""

import time
from collections.abc import Callable
from functools import partial

from bench.figures import GPUQ, LIMIT, Row, Target, percentile_of
from bench.peers.cast import Cast
from bench.peers.gpuq import gpuq_with
from bench.peers.spawn_loop import spawn
from bench.room import Room
from bench.stamp import StampedJobs

BREATH_S = 0.02
IN_A_ROUND = 20
Submit = Callable[[list[str]], object]
TARGETS = {50: Target(at_least=5.0, aim=2.0), 95: Target(at_least=10.0, aim=4.0)}
# Those that start a job as soon as they are given one.
AT_ONCE = ("task-spooler", "HyperQueue")


def measure(room: Room, cast: Cast) -> list[Row]:
    with gpuq_with(room, 1) as gpuq, cast.started(1, *AT_ONCE) as peers:
        submits: dict[str, Submit] = {LIMIT: spawn, GPUQ: gpuq.submit}
        for name, peer in peers.items():
            submits[name] = peer.submit
        lived = room.interleaved(
            {name: partial(delays_ms, room, submit) for name, submit in submits.items()}
        )
    return [
        Row(
            work=f"submit to start on an idle daemon, p{percent}",
            unit="ms",
            samples={name: rounds.samples(percentile_of(percent)) for name, rounds in lived.items()}
            | cast.why_none(*AT_ONCE),
            limit="posix_spawn",
            targets=[target],
        )
        for percent, target in TARGETS.items()
    ]


def delays_ms(room: Room, submit: Submit) -> list[float]:
    """What the first takes is not counted: it wakes what has slept for a while."""
    jobs, asked = room.stamp.job(), []
    for number in range(min(IN_A_ROUND, room.scale.gap_jobs) + 1):
        asked.append(time.monotonic())
        submit(jobs.argv)
        jobs.wait_for(number + 1)
        time.sleep(BREATH_S)
    return delays_of(jobs, asked)[1:]


def delays_of(jobs: StampedJobs, asked: list[float]) -> list[float]:
    started = [began for began, _ in jobs.times()]
    return [(began - at) * 1000 for at, began in zip(asked, started, strict=True)]
