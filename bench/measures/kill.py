"""To the end of a tree of twelve processes, one of which has left its session by a double fork and
ignores TERM: from the wish to the moment at which they are gone. For gpuq that is all twelve;
task-spooler leaves the one, so its time is that of the other eleven. Both at their fastest: gpuq sends
KILL, `tsp -k` TERM, which the eleven obey.

Two rows: asked by a client that runs already, as a program or the screen asks, and by `gpuq kill --now`
as a whole process, beside what Python takes to start and do nothing. No interpreter starts in the time
that all of `tsp -k`, a small program of C, takes; so the target is for the first of them.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from bench.figures import GPUQ, LIMIT, Row, Target
from bench.kill import TREE
from bench.peers.cast import Cast
from bench.peers.gpuq import GPUQ as COMMAND
from bench.peers.gpuq import Gpuq, gpuq_with
from bench.peers.task_spooler import TaskSpooler
from bench.proc import lives, wait_for
from bench.room import Room, Rounds
from bench.timing import process_ms

TSP = TaskSpooler.name
WHOLE = "gpuq as a whole process"
ESCAPES_S = 0.2  # by then it would have died with the others
Ended = tuple[float, bool]  # ms until those that count are gone; whether the twelfth lives on


def measure(room: Room, cast: Cast) -> list[Row]:
    with gpuq_with(room, 1) as gpuq:
        deeds: dict[str, Callable[[], Ended]] = {
            GPUQ: partial(by_client, room, gpuq),
            WHOLE: partial(by_command, room, gpuq),
            LIMIT: partial(no_deed, gpuq),
        }
        if TSP in cast.versions:
            deeds[TSP] = partial(by_task_spooler, room)
        lived = room.interleaved(deeds, room.scale.kills)
    times = {name: rounds.samples(lambda ended: ended[0]) for name, rounds in lived.items()}
    theirs = {TSP: times[TSP]} if TSP in times else cast.why_none(TSP)
    what = "kill --now of a tree of twelve processes, to all gone"
    return [
        Row(
            work=f"{what}: client that runs",
            unit="ms",
            samples={GPUQ: times[GPUQ]} | theirs,
            targets=[Target(against=TSP, at_least=1.0, aim=0.5)],
            notes=[outlived(name, lived[name]) for name in (GPUQ, TSP) if name in lived],
        ),
        Row(
            work=f"{what}: whole process",
            unit="ms",
            samples={GPUQ: times[WHOLE], LIMIT: times[LIMIT]} | theirs,
            limit="python -c pass",
            notes=[outlived(WHOLE, lived[WHOLE])],
        ),
    ]


def outlived(name: str, rounds: Rounds[Ended]) -> str:
    left = sum(lives_on for _, lives_on in rounds.each)
    return f"{name}: the one that left its session outlived {left} of {len(rounds.each)} kills"


def by_client(room: Room, gpuq: Gpuq) -> Ended:
    job, pids, twelfth = started(room, gpuq)
    return ended(lambda: gpuq.client.kill(job, grace_s=0), [*pids, twelfth], twelfth)


def by_command(room: Room, gpuq: Gpuq) -> Ended:
    job, pids, twelfth = started(room, gpuq)
    kill = partial(process_ms, [COMMAND, "kill", "--now", str(job)], gpuq.environment)
    return ended(kill, [*pids, twelfth], twelfth)


def no_deed(gpuq: Gpuq) -> Ended:
    return process_ms([sys.executable, "-c", "pass"], gpuq.environment), False


def started(room: Room, gpuq: Gpuq) -> tuple[int, list[int], int]:
    folder = room.new_folder("tree")
    job = gpuq.submit([sys.executable, "-c", TREE, str(folder)])
    return job, *grown(folder)


def by_task_spooler(room: Room) -> Ended:
    """A server for each: after such a job it ends no other."""
    folder, peer = room.new_folder("tree"), TaskSpooler()
    peer.start(room, 1)
    try:
        peer.submit([sys.executable, "-c", TREE, str(folder)])
        pids, twelfth = grown(folder)
        kill = partial(process_ms, [peer.tsp, "-k"], peer.environment)
        return ended(kill, pids, twelfth)
    finally:
        peer.stop()


def grown(folder: Path) -> tuple[list[int], int]:
    """The eleven, and the twelfth, once all of them are there."""
    wait_for(lambda: (folder / "pids").exists() and (folder / "escaped").exists(), "the tree")
    pids = [int(pid) for pid in (folder / "pids").read_text().split()]
    return pids, int((folder / "escaped").read_text())


def ended(kill: Callable[[], object], pids: Iterable[int], twelfth: int) -> Ended:
    began = time.perf_counter()
    kill()
    wait_for(lambda: not any(map(lives, pids)), "the end of the tree", pause_s=0.0005)
    took_ms = (time.perf_counter() - began) * 1000
    time.sleep(ESCAPES_S)
    if not lives(twelfth):
        return took_ms, False
    os.kill(twelfth, signal.SIGKILL)
    return took_ms, True
