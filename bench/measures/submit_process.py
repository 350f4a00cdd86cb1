"""`gpuq submit` as a whole process, with an environment that the daemon knows already, beside the bare
interpreter and beside the submission of each peer that has a command line.

The bare interpreter is the one that runs gpuq, as it starts by itself (`python -c pass`); what it takes
without the site module (`-S`) stands in a row of its own.
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial

from bench.figures import GPUQ, LIMIT, Row, Samples, Target
from bench.peers.cast import Cast
from bench.peers.gpuq import GPUQ as COMMAND
from bench.peers.gpuq import gpuq_with
from bench.room import Room
from bench.timing import process_ms, timed_ms

BARE = {"as it is": ["-c", "pass"], "without site": ["-S", "-c", "pass"]}
SLEEP = ("/bin/sleep", "1000")
TRUE = ["/bin/true"]
QUEUING = ("task-spooler", "Slurm")
STARTS_AT_ONCE = "gflow"  # measured by itself: it would start its jobs beside the others' turns


def measure(room: Room, cast: Cast) -> list[Row]:
    with gpuq_with(room, 1) as gpuq, cast.started(1, *QUEUING) as peers:
        environment = gpuq.environment
        gpuq.run("submit", *SLEEP)
        deeds: dict[str, Callable[[], float]] = {
            how: partial(process_ms, [sys.executable, *words], environment)
            for how, words in BARE.items()
        }
        deeds[GPUQ] = partial(process_ms, [COMMAND, "submit", "--", *TRUE], environment)
        for name, peer in peers.items():
            peer.submit(SLEEP)
            deeds[name] = partial(timed_ms, partial(peer.submit, TRUE))
        figures = by_turns(room, deeds)
    with cast.started(1, STARTS_AT_ONCE) as peers:
        figures |= by_turns(
            room,
            {name: partial(timed_ms, partial(peer.submit, TRUE)) for name, peer in peers.items()},
        )
    bare, without_site = figures.pop("as it is"), figures.pop("without site")
    return [
        Row(
            work="gpuq submit, whole process, environment known",
            unit="ms",
            samples=figures | {LIMIT: bare} | cast.why_none(*QUEUING, STARTS_AT_ONCE),
            limit="python -c pass",
            targets=[Target(against=LIMIT, at_least=2.6, aim=2.2)],
        ),
        Row(
            work="the same, beside python without its site module",
            unit="ms",
            samples={GPUQ: figures[GPUQ], LIMIT: without_site},
            limit="python -S -c pass",
        ),
    ]


def by_turns(room: Room, deeds: Mapping[str, Callable[[], float]]) -> dict[str, Samples]:
    lived = room.interleaved(deeds, room.scale.processes)
    return {name: rounds.samples(lambda ms: ms) for name, rounds in lived.items()}
