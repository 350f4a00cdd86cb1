"""No-op jobs on two slots, from the first submit to the last outcome.

Submitted one by one: gpuq on one connection, task-spooler by a process for each, as it has no other
way, HyperQueue on one connection. In one go: gpuq an array, HyperQueue a job of many tasks, which is
how their users do it; so these two are held against each other.

The end is, for gpuq, when the outcome of the last job is committed to disk and told; for the peers,
which keep their state in memory, when the last job itself ended. That is in their favour.
"""

import time
from collections.abc import Callable
from functools import partial

from bench.figures import GPUQ, LIMIT, Row, Samples, Target
from bench.peers import Peer
from bench.peers.cast import Cast
from bench.peers.gpuq import Gpuq, gpuq_with
from bench.peers.spawn_loop import run_in_slots
from bench.room import Room

SLOTS = 2
Rate = Callable[[], float]


def measure(room: Room, cast: Cast) -> list[Row]:
    with gpuq_with(room, SLOTS) as gpuq, cast.started(SLOTS) as peers:
        one_by_one: dict[str, Rate] = {
            LIMIT: partial(of_limit, room),
            GPUQ: partial(of_gpuq, room, gpuq, False),
        }
        in_one_go: dict[str, Rate] = {GPUQ: partial(of_gpuq, room, gpuq, True)}
        for name, peer in peers.items():
            if not (peer.is_slow and peer.takes_many):
                one_by_one[name] = partial(of_peer, room, peer, False)
            if peer.takes_many:
                in_one_go[name] = partial(of_peer, room, peer, True)
        of_all = room.interleaved(
            {("one by one", name): rate for name, rate in one_by_one.items()}
            | {("in one go", name): rate for name, rate in in_one_go.items()},
            once=[
                (how, name)
                for how in ("one by one", "in one go")
                for name, peer in peers.items()
                if peer.is_slow
            ],
        )
    rates: dict[str, dict[str, Samples]] = {"one by one": cast.why_none(), "in one go": {}}
    for (how, name), rounds in of_all.items():
        rates[how][name] = rounds.samples(lambda rate: rate)
    number = room.scale.jobs
    return [
        Row(
            work=f"{number:,} no-op jobs on {SLOTS} slots, submitted one by one",
            unit="jobs/s",
            more_is_better=True,
            samples=rates["one by one"],
            limit="posix_spawn loop",
            targets=[Target(against="task-spooler", at_least=1.0, aim=1.3)],
            notes=slow_notes(room, peers),
        ),
        Row(
            work=f"{number:,} no-op jobs on {SLOTS} slots, submitted in one go",
            unit="jobs/s",
            more_is_better=True,
            samples=rates["in one go"] | cast.why_none("HyperQueue", "Slurm"),
            targets=[Target(against="HyperQueue", at_least=1.3, aim=2.0)],
            notes=slow_notes(room, peers),
        ),
    ]


def of_gpuq(room: Room, gpuq: Gpuq, many: bool) -> float:
    jobs, number = room.stamp.job(), room.scale.jobs
    began = time.monotonic()
    if many:
        first = gpuq.submit_many(jobs.argv, number)
    else:
        first = gpuq.submit(jobs.argv)
        for _ in range(number - 1):
            gpuq.submit(jobs.argv)
    gpuq.wait(first, number)
    took_s = time.monotonic() - began
    if jobs.count() != number:
        raise RuntimeError(f"{jobs.count()} of {number} jobs ran")
    return number / took_s


def of_peer(room: Room, peer: Peer, many: bool) -> float:
    jobs = room.stamp.job()
    number = room.scale.slow_jobs if peer.is_slow else room.scale.jobs
    began = time.monotonic()
    if many:
        peer.submit_many(jobs.argv, number)
    else:
        for _ in range(number):
            peer.submit(jobs.argv)
    jobs.wait_for(number)
    return number / (max(ended for _, ended in jobs.times()) - began)


def of_limit(room: Room) -> float:
    jobs, number = room.stamp.job(), room.scale.jobs
    run_in_slots(SLOTS, number, jobs.argv)
    times = jobs.times()
    return number / (max(ended for _, ended in times) - times[0][0])


def slow_notes(room: Room, peers: dict[str, Peer]) -> list[str]:
    names = " and ".join(name for name, peer in peers.items() if peer.is_slow)
    return [f"{names}: {room.scale.slow_jobs} jobs, a second for each, once"] if names else []
