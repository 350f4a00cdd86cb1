"""A process that watches a daemon through many connections, started and ended."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peers.gpuq import Gpuq

PROGRAM = Path(__file__).with_name("watching_connections.py")


class Watchers:
    """`answers`: how many were told, once they have left."""

    answers: int | None = None


@contextmanager
def watching(gpuq: Gpuq, number: int) -> Iterator[Watchers]:
    """RuntimeError where they were not all let in, or did not stay."""
    process = subprocess.Popen(
        [sys.executable, "-P", PROGRAM, str(gpuq.state / "gpuq.sock"), str(number)],
        env=gpuq.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchers = Watchers()
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "there\n":
            raise RuntimeError(f"{number} watchers: {_last_word(process)}")
        yield watchers
        out, error = process.communicate()
        if process.returncode:
            raise RuntimeError(f"the watchers left: {error.strip().splitlines()[-1:]}")
        watchers.answers = int(out)
    finally:
        process.kill()
        process.communicate()


def _last_word(process: "subprocess.Popen[str]") -> str:
    _, error = process.communicate()
    return (error.strip().splitlines() or ["no word"])[-1]
