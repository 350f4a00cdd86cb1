"""The gap between two jobs while one process watches the daemon through many connections, each of
which follows all events, beside a daemon that nobody watches."""

from functools import partial

from bench.figures import GPUQ, LIMIT, Row, Target, percentile_of
from bench.measures.gap import of_gpuq
from bench.peers.cast import Cast
from bench.peers.gpuq import gpuq_with
from bench.room import Room
from bench.watchers import watching


def measure(room: Room, cast: Cast) -> list[Row]:
    number = room.scale.watchers
    jobs = max(room.scale.gap_jobs // 4, 3)
    with (
        gpuq_with(room, 1) as alone,
        gpuq_with(room, 1) as watched,
        watching(watched, number) as watchers,
    ):
        lived = room.interleaved(
            {
                LIMIT: partial(of_gpuq, room, alone, jobs),
                GPUQ: partial(of_gpuq, room, watched, jobs),
            }
        )
    return [
        Row(
            work=f"gap while one process watches by {number:,} connections, p50",
            unit="ms",
            samples={name: rounds.samples(percentile_of(50)) for name, rounds in lived.items()},
            limit="unwatched",
            targets=[Target(against=LIMIT, at_least=1.2, aim=1.05)],
            notes=[f"the watchers were told {watchers.answers:,} times meanwhile"],
        )
    ]
