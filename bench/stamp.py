"""The job that all contenders run: a small program, dynamically linked as programs are, that writes
down when it began and when it ended. So the gap between two jobs is told by the jobs themselves, and
is the same thing for everybody."""

import struct
import subprocess
from itertools import pairwise
from pathlib import Path

from bench import proc

SOURCE = Path(__file__).with_name("stamp.c")
PAIR = struct.Struct("=qq")


class Stamp:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program = folder / "stamp"
        self._files = 0

    def job(self) -> "StampedJobs":
        """For some jobs of one round; what they write is in a file of their own."""
        self._build()
        self._files += 1
        path = self._folder / f"stamps-{self._files}"
        path.touch()
        return StampedJobs(self._program, path)

    def _build(self) -> None:
        if not self._program.exists():
            command = ["cc", "-O1", "-o", str(self._program), str(SOURCE)]
            try:
                subprocess.run(command, check=True, capture_output=True)
            except FileNotFoundError:
                raise RuntimeError(
                    "no C compiler (cc) for the job that writes down its times: apt-get install gcc"
                ) from None


class StampedJobs:
    def __init__(self, program: Path, path: Path) -> None:
        self.argv = [str(program), str(path)]
        self._path = path

    def count(self) -> int:
        return self._path.stat().st_size // PAIR.size

    def wait_for(self, number: int, timeout_s: float = proc.PATIENCE_S) -> None:
        proc.wait_for(lambda: self.count() >= number, f"{number} jobs", 0.001, timeout_s)

    def times(self) -> list[tuple[float, float]]:
        """(began, ended) of each in s on CLOCK_MONOTONIC, in the order in which they began."""
        return sorted((a / 1e9, b / 1e9) for a, b in PAIR.iter_unpack(self._path.read_bytes()))

    def gaps_ms(self) -> list[float]:
        """From the end of each job to the beginning of the next one."""
        return [(after[0] - before[1]) * 1000 for before, after in pairwise(self.times())]
