"""From the command that starts the daemon to its first answer, with a long history and many live jobs
(eight run on, the rest waits), beside one that has an empty database. The files are in the page cache,
as after an upgrade; the history is that of arrays, made by copies (bench/history.py)."""

from functools import partial
from time import perf_counter

from bench.figures import GPUQ, LIMIT, Row, Samples, Target
from bench.history import lengthen
from bench.peers.cast import Cast
from bench.peers.gpuq import Gpuq, gpuq_with
from bench.room import Room

GPUS = 8
LONGEST_ARRAY = 200
SLEEP = ["/bin/sleep", "1000"]


def measure(room: Room, cast: Cast) -> list[Row]:
    finished, live = room.scale.finished_jobs, room.scale.live_jobs
    with gpuq_with(room, GPUS) as empty, gpuq_with(room, GPUS) as full:
        fill(full, finished, live)
        lived = room.interleaved(
            {LIMIT: partial(restart_s, empty), GPUQ: partial(restart_s, full)},
            min(room.scale.rounds, 3),
        )
        size_mb = (full.state / "gpuq.db").stat().st_size / 1e6
        check(full, finished, live)
    samples: dict[str, Samples] = {
        name: rounds.samples(lambda seconds: seconds) for name, rounds in lived.items()
    }
    return [
        Row(
            work=f"restart to serving with {finished:,} finished and {live:,} live jobs",
            unit="s",
            samples=samples,
            limit="empty database",
            targets=[Target(at_least=1.0, aim=0.3)],
            notes=[f"a database of {size_mb:,.0f} MB"],
        )
    ]


def fill(gpuq: Gpuq, finished: int, live: int) -> None:
    """The live ones come first, so that nothing is submitted after the array that is copied."""
    array = min(LONGEST_ARRAY, finished)
    gpuq.client.submit_many([{"argv": SLEEP, "gpus": 1}] * live)
    first = gpuq.submit_many(["/bin/true"], array, gpus=0, priority=10)
    gpuq.wait(first, array)
    gpuq.halt()
    lengthen(gpuq.state / "gpuq.db", first, array, finished // array - 1)
    gpuq.begin()


def restart_s(gpuq: Gpuq) -> float:
    gpuq.halt()
    began = perf_counter()
    gpuq.begin()
    return perf_counter() - began


def check(gpuq: Gpuq, finished: int, live: int) -> None:
    """That all of them are there: else what was measured is another thing."""
    counts = gpuq.status()["counts"]
    there = counts["queued"] + counts["running"]
    last = gpuq.client.job(live + finished)
    if there != live or last["outcome"] != "succeeded":
        raise RuntimeError(f"{there} of {live} live jobs; the last one: {last['outcome']}")
