"""The gap between two jobs on one slot, told by the jobs: from the end of one to the beginning of the
next, with the exec of an ordinary program in it."""

from functools import partial

from bench.figures import GPUQ, LIMIT, Row, Target, percentile_of
from bench.measures.throughput import slow_notes
from bench.peers import Peer
from bench.peers.cast import Cast
from bench.peers.gpuq import Gpuq, gpuq_with
from bench.peers.spawn_loop import run_in_slots
from bench.room import Room

Gaps = list[float]  # ms


def measure(room: Room, cast: Cast) -> list[Row]:
    with gpuq_with(room, 1) as gpuq, cast.started(1) as peers:
        lived = room.interleaved(
            {LIMIT: partial(of_limit, room), GPUQ: partial(of_gpuq, room, gpuq)}
            | {name: partial(of_peer, room, peer) for name, peer in peers.items()},
            once=[name for name, peer in peers.items() if peer.is_slow],
        )
    targets = {
        50: [Target(against="task-spooler", at_least=1.8, aim=1.1)],
        95: [Target(against=LIMIT, at_least=2.3, aim=1.6)],
    }
    return [
        Row(
            work=f"gap between two jobs on one slot, p{percent}",
            unit="ms",
            samples={name: rounds.samples(percentile_of(percent)) for name, rounds in lived.items()}
            | cast.why_none(),
            limit="posix_spawn loop",
            targets=bounds,
            notes=slow_notes(room, peers),
        )
        for percent, bounds in targets.items()
    ]


def of_gpuq(room: Room, gpuq: Gpuq, number: int | None = None, **options: object) -> Gaps:
    """The jobs are separate ones, queued before the first can end."""
    jobs, number = room.stamp.job(), number or room.scale.gap_jobs
    ids = gpuq.client.submit_many([{"argv": jobs.argv, "gpus": 1, **options}] * number)
    gpuq.wait(ids.start, number)
    return jobs.gaps_ms()


def of_peer(room: Room, peer: Peer) -> Gaps:
    """A job that sleeps holds the slot until all are queued."""
    jobs = room.stamp.job()
    number = room.scale.slow_jobs if peer.is_slow else room.scale.gap_jobs
    peer.submit(["/bin/sleep", f"{number / 500:.2f}"])
    for _ in range(number):
        peer.submit(jobs.argv)
    jobs.wait_for(number)
    return jobs.gaps_ms()


def of_limit(room: Room) -> Gaps:
    jobs = room.stamp.job()
    run_in_slots(1, room.scale.gap_jobs, jobs.argv)
    return jobs.gaps_ms()
