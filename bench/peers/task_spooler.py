"""task-spooler (`tsp`, from Debian): a server in C for each user, in memory. One process submits one
job; there is no other way in. It keeps the output of each in a file, as it comes and as gpuq does."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.peers import NOT_IN_ONE_GO
from bench.peers.installing import from_debian
from bench.room import Room


class TaskSpooler:
    name = "task-spooler"
    takes_many = False
    is_slow = False

    def __init__(self) -> None:
        self.tsp = ""
        self.environment: dict[str, str] = {}

    def version(self, room: Room) -> str:
        self._find(room)
        said = subprocess.run([self.tsp, "-V"], capture_output=True, text=True, check=True)
        return said.stdout.split("-")[0].replace("Task Spooler", "").strip()

    def start(self, room: Room, slots: int) -> None:
        self._find(room)
        home = room.new_folder("tsp")
        self.environment = room.environment(home, TS_SOCKET=str(home / "s"), TS_MAXFINISHED="2000")
        self.run("-S", str(slots))

    def submit(self, argv: Sequence[str]) -> None:
        pid = os.posix_spawn(
            self.tsp,
            [self.tsp, *argv],
            self.environment,
            file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)],
        )
        _, status = os.waitpid(pid, 0)
        if status:
            raise RuntimeError(f"tsp ended with {os.waitstatus_to_exitcode(status)}")

    def submit_many(self, argv: Sequence[str], number: int) -> None:
        raise NotImplementedError(f"{self.name} {NOT_IN_ONE_GO}")

    def stop(self) -> None:
        """A server that is ended leaves what runs: that is ended first."""
        if self.environment:
            self.run("-C")
            for line in self.run("-l").splitlines():
                number, _, state = line.partition(" ")
                if state.split()[:1] == ["running"]:
                    self.run("-k", number)
            self.run("-K")
            self.environment = {}

    def run(self, *words: str) -> str:
        ran = subprocess.run(
            [self.tsp, *words], env=self.environment, capture_output=True, text=True, check=False
        )
        return ran.stdout

    def _find(self, room: Room) -> None:
        if not self.tsp:
            proof = Path("usr") / "bin" / "tsp"
            self.tsp = str(from_debian(room.peers, "task-spooler", str(proof)) / proof)
