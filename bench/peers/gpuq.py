"""gpuq itself, as users have it: installed, its daemon started by the command line, durable as it
always is, on simulated GPUs."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bench import proc
from bench.room import Room
from gpuq import Client

BIN = Path(sys.executable).parent
GPUQ = str(BIN / "gpuq")
GONE_S = 30.0
WAIT_SLICE_S = 30.0


class Gpuq:
    """`client` is one connection that stays open. Entered, it has `slots` GPUs, one for each job."""

    name = "gpuq"
    takes_many = True
    is_slow = False

    def __init__(self) -> None:
        self._pid = 0

    def version(self, room: Room) -> str:
        said = subprocess.run([GPUQ, "--version"], capture_output=True, text=True, check=True)
        return said.stdout.split()[-1]

    def start(self, room: Room, slots: int, gpus: str | None = None) -> None:
        home = room.new_folder("gpuq")
        self.state = home / "state"
        self.environment = room.environment(home, GPUQ_STATE_DIR=str(self.state))
        self.client = Client(state_dir=str(self.state))
        self.begin("--gpus", gpus or f"sim:{slots}x24G")

    def begin(self, *flags: str) -> None:
        """Starts the daemon, on the same GPUs as before unless said, and has it answer."""
        self.run("daemon", "start", *flags)
        self.client.call("status", limit=1)
        self._pid = 0

    @property
    def pid(self) -> int:
        """Of the daemon that is there."""
        if not self._pid:
            self._pid = int(self.status()["pid"])
        return self._pid

    def submit(self, argv: Sequence[str], **options: object) -> int:
        options.setdefault("gpus", 1)
        return self.client.submit(argv, **options)  # type: ignore[arg-type]

    def submit_many(self, argv: Sequence[str], number: int, **options: object) -> int:
        return self.submit(argv, array=f"0-{number - 1}", **options)

    def wait(self, first: int, number: int) -> None:
        """The answer comes once the outcome of the last of them is committed; how each of them was is
        not asked for, as with the peers."""
        jobs = f"{first}-{first + number - 1}"
        while self.client.call("wait", refs=[jobs], any=False, timeout_s=WAIT_SLICE_S)["timed_out"]:
            pass

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.run("daemon", "status", "--json"))["daemon"]
        return told

    def run(self, *words: str) -> str:
        ran = subprocess.run(
            [GPUQ, *words], env=self.environment, capture_output=True, text=True, check=False
        )
        if ran.returncode:
            raise RuntimeError(f"gpuq {' '.join(words)}: {ran.stderr.strip()}")
        return ran.stdout

    def stop(self) -> None:
        """Its jobs, and then itself."""
        if not hasattr(self, "client"):
            return
        if self.client.call("status", limit=1)["jobs"]:
            self.run("kill", "--mine", "--now", "--yes")
            proc.wait_for(lambda: not self.client.call("status", limit=1)["jobs"], "the jobs' end")
        self.halt()

    def halt(self) -> None:
        """The daemon alone: its jobs go on."""
        pid = self.pid
        self.client.close()
        self.run("daemon", "stop")
        proc.wait_for(lambda: not proc.lives(pid), "the daemon's end", timeout_s=GONE_S)

    def __enter__(self) -> "Gpuq":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def gpuq_with(room: Room, slots: int, gpus: str | None = None) -> Gpuq:
    """A daemon that is there, to be used in a `with`."""
    gpuq = Gpuq()
    gpuq.start(room, slots, gpus)
    return gpuq
