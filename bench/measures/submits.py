"""Submits through one connection, each answered when it is on disk, beside the rate at which SQLite
commits a small row durably (WAL, synchronous=FULL, as gpuq has it) on the same file system; and many
in one batch: equal ones, which are one row until something befalls one of them, and such of which each
has another word. The one GPU is taken, so nothing is started meanwhile."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import apsw

from bench.figures import GPUQ, LIMIT, Row, Target
from bench.peers.cast import Cast
from bench.peers.gpuq import Gpuq, gpuq_with
from bench.room import Room
from gpuq.typed import NewJob

ROW = b"x" * 200
ARGV = ["/bin/true"]


def measure(room: Room, cast: Cast) -> list[Row]:
    with gpuq_with(room, 1) as gpuq:
        gpuq.submit(["/bin/sleep", "1000"])
        lived = room.interleaved(
            {
                LIMIT: partial(commits, room.new_folder("sqlite"), room.scale.submits),
                GPUQ: partial(submits, gpuq, room.scale.submits),
                "equal": partial(batch, gpuq, [ARGV] * room.scale.batch_jobs),
                "different": partial(
                    batch, gpuq, [[*ARGV, str(number)] for number in range(room.scale.batch_jobs)]
                ),
            }
        )
    rates = {name: rounds.samples(lambda rate: rate) for name, rounds in lived.items()}
    return [
        Row(
            work="submits on one connection, one by one",
            unit="a second",
            more_is_better=True,
            samples={GPUQ: rates[GPUQ], LIMIT: rates[LIMIT]},
            limit="bare durable commits",
            targets=[Target(against=LIMIT, at_least=0.5, aim=0.8)],
        ),
        *(
            Row(
                work=f"{room.scale.batch_jobs:,} {kind} jobs submitted in one batch",
                unit="a second",
                more_is_better=True,
                samples={GPUQ: rates[kind]},
                targets=[Target(at_least=100_000, aim=200_000)],
            )
            for kind in ("equal", "different")
        ),
    ]


def submits(gpuq: Gpuq, number: int) -> float:
    began = time.perf_counter()
    for _ in range(number):
        gpuq.client.submit(ARGV, gpus=1)
    return number / (time.perf_counter() - began)


def batch(gpuq: Gpuq, commands: Sequence[Sequence[str]]) -> float:
    jobs: list[NewJob] = [{"argv": command, "gpus": 1} for command in commands]
    began = time.perf_counter()
    gpuq.client.submit_many(jobs)
    return len(jobs) / (time.perf_counter() - began)


def commits(folder: Path, number: int) -> float:
    """A row of a table with a primary key for each commit; nothing else."""
    database = apsw.Connection(str(folder / "bare.db"))
    try:
        database.execute("pragma journal_mode = wal; pragma synchronous = full").fetchall()
        database.execute("create table if not exists jobs (id integer primary key, what blob)")
        began = time.perf_counter()
        for _ in range(number):
            database.execute("insert into jobs (what) values (?)", (ROW,))
        return number / (time.perf_counter() - began)
    finally:
        database.close()
