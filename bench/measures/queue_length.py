"""What a long queue costs who has nothing to do with it: many separate jobs, or one array of a million,
beside the empty queue.

One of two GPUs is taken, and what waits wants both, so it waits to the end of the measure. A turn is
measured from a wish that changes nothing to the answer of `show`, which waits for the turn; the gap is
that of jobs that go before the queue.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from operator import itemgetter
from statistics import median

from bench import proc
from bench.figures import GPUQ, LIMIT, Row, Target, percentile
from bench.measures.gap import of_gpuq
from bench.peers.cast import Cast
from bench.peers.gpuq import GPUQ as COMMAND
from bench.peers.gpuq import Gpuq, gpuq_with
from bench.room import Room
from bench.timing import process_ms, timed_ms

EMPTY = "empty"
AT_ONCE = 5000  # jobs in one submission
REPEATS = 20
FIRST_LINES = 26  # of a screen, as the command line asks for them
SLEEP = ["/bin/sleep", "1000"]
SAME = [Target(against=LIMIT, at_least=1.3, aim=1.05)]
Look = dict[str, float]


def measure(room: Room, cast: Cast) -> list[Row]:
    queues = {
        EMPTY: 0,
        f"{room.scale.queued_jobs:,} separate jobs": room.scale.queued_jobs,
        f"an array of {room.scale.array_elements:,}": -room.scale.array_elements,
    }
    with ExitStack() as stack:
        daemons = {name: stack.enter_context(gpuq_with(room, 2)) for name in queues}
        looks: dict[str, Callable[[], Look]] = {}
        for name, gpuq in daemons.items():
            sleeper = gpuq.submit(SLEEP)
            fill(gpuq, queues[name])
            looks[name] = partial(look, room, gpuq, sleeper)
        lived = room.interleaved(looks)
    rows = []
    for name in list(queues)[1:]:
        for what in FIGURES:
            rows.append(
                Row(
                    work=f"{name} queued: {what}",
                    unit="ms",
                    samples={
                        GPUQ: lived[name].samples(itemgetter(what)),
                        LIMIT: lived[EMPTY].samples(itemgetter(what)),
                    },
                    limit="empty queue",
                    targets=SAME,
                )
            )
        rows.append(
            Row(
                work=f"{name} queued: memory of the daemon (PSS)",
                unit="MB",
                samples={
                    GPUQ: lived[name].samples(itemgetter(MEMORY)),
                    LIMIT: lived[EMPTY].samples(itemgetter(MEMORY)),
                },
                limit="empty queue",
                targets=[Target(at_least=80, aim=50)],
            )
        )
    return rows


FIGURES = ("a turn", "gap, p50", "submit", "status, as a request", "status, whole process")
MEMORY = "memory"


def fill(gpuq: Gpuq, number: int) -> None:
    """Less than 0: one array."""
    if number < 0:
        gpuq.submit_many(SLEEP, -number, gpus=2)
    for first in range(0, number, AT_ONCE):
        gpuq.client.submit_many([{"argv": SLEEP, "gpus": 2}] * min(AT_ONCE, number - first))


def look(room: Room, gpuq: Gpuq, sleeper: int) -> Look:
    client = gpuq.client

    def turn() -> None:
        client.drain(None)
        client.job(sleeper)

    repeats = min(REPEATS, room.scale.gap_jobs)
    submitted: list[int] = []
    told = {
        "a turn": of_several(turn, repeats),
        "gap, p50": percentile(of_gpuq(room, gpuq, repeats, priority=10), 50),
        "submit": of_several(lambda: submitted.append(gpuq.submit(SLEEP, gpus=2)), repeats),
        "status, as a request": of_several(
            lambda: client.call("status", limit=FIRST_LINES, fold=True), repeats
        ),
        "status, whole process": process_ms(
            [COMMAND, "--color", "always", "status"], gpuq.environment
        ),
        MEMORY: proc.pss_mb(gpuq.pid),
    }
    client.kill(submitted, grace_s=0)
    return told


def of_several(deed: Callable[[], object], repeats: int) -> float:
    return median(timed_ms(deed) for _ in range(repeats))
