"""The other commands of every day as whole processes, beside the interpreter that imports typer and
does nothing: what a command line in Python pays before it says a word."""

import sys
from collections.abc import Callable
from functools import partial

from bench.figures import GPUQ, LIMIT, Row, Target
from bench.peers.cast import Cast
from bench.peers.gpuq import GPUQ as COMMAND
from bench.peers.gpuq import Gpuq, gpuq_with
from bench.room import Room
from bench.timing import process_ms

TARGETS = [Target(against=LIMIT, at_least=1.4, aim=1.15)]
LIST = "status"
IN_TASK_SPOOLER = {LIST: [], "wait": ["-w", "0"], "logs": ["-c", "0"], "show": ["-i", "0"]}


def measure(room: Room, cast: Cast) -> list[Row]:
    with gpuq_with(room, 1) as gpuq, cast.started(1, "task-spooler") as peers:
        deeds: dict[tuple[str, str], Callable[[], float]] = {
            ("", LIMIT): partial(
                process_ms, [sys.executable, "-c", "import typer"], gpuq.environment
            )
        }
        for command, words in lines(room, gpuq).items():
            deeds[command, GPUQ] = words
        for name, peer in peers.items():
            peer.submit(["/bin/echo", "done"])
            for command, flags in IN_TASK_SPOOLER.items():
                argv = [peer.tsp, *flags]  # type: ignore[attr-defined]
                deeds[command, name] = partial(process_ms, argv, peer.environment)  # type: ignore[attr-defined]
        lived = room.interleaved(deeds, room.scale.processes)
    figures = {key: rounds.samples(lambda ms: ms) for key, rounds in lived.items()}
    limit = figures.pop(("", LIMIT))
    return [
        Row(
            work=f"gpuq {command}, whole process",
            unit="ms",
            samples={who: told for (what, who), told in figures.items() if what == command}
            | {LIMIT: limit}
            | (cast.why_none("task-spooler") if command in IN_TASK_SPOOLER else {}),
            limit="import typer",
            targets=TARGETS,
        )
        for command in dict.fromkeys(command for command, _ in figures)
    ]


def lines(room: Room, gpuq: Gpuq) -> dict[str, Callable[[], float]]:
    """A job that has ended is shown, waited for and read; each kill ends another one that waits."""
    ended = str(gpuq.submit(["/bin/echo", "done"]))
    gpuq.client.wait([ended])
    gpuq.submit(["/bin/sleep", "1000"])
    to_kill = iter([gpuq.submit(["/bin/true"]) for _ in range(room.scale.processes)])

    def kill() -> float:
        return process_ms([COMMAND, "kill", str(next(to_kill))], gpuq.environment)

    def look(*words: str) -> Callable[[], float]:
        return partial(process_ms, [COMMAND, *words], gpuq.environment)

    return {
        LIST: look("status"),
        "show": look("show", ended),
        "kill": kill,
        "wait": look("wait", ended),
        "logs": look("logs", ended),
    }
