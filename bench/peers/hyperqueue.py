"""HyperQueue (from PyPI): server and worker in Rust, in memory. PyPI has it as a Python module; server,
worker and client run in one process of their own, which is told over pipes what to do.

Its wait asks once a second, so the end of its jobs is taken from the jobs. It has no slots of its own:
the worker has as many cores as there are to be slots.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.peers.installing import from_pypi, version_of
from bench.room import Room

DRIVER = Path(__file__).with_name("hyperqueue_driver.py")


class HyperQueue:
    name = "HyperQueue"
    takes_many = True
    is_slow = False

    def __init__(self) -> None:
        self._driver: subprocess.Popen[str] | None = None

    def version(self, room: Room) -> str:
        return version_of(self._find(room), "hyperqueue")

    def start(self, room: Room, slots: int) -> None:
        home = room.new_folder("hq")
        environment = room.environment(home, PYTHONPATH=str(self._find(room)))
        with (home / "driver.log").open("wb") as log:
            # -P: beside the driver lies a module with the name of what it imports.
            self._driver = subprocess.Popen(
                [sys.executable, "-P", DRIVER, str(slots)],
                cwd=home,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._answer()

    def submit(self, argv: Sequence[str]) -> None:
        self.submit_many(argv, 1)

    def submit_many(self, argv: Sequence[str], number: int) -> None:
        assert self._driver is not None
        assert self._driver.stdin is not None
        self._driver.stdin.write(json.dumps([list(argv), number]) + "\n")
        self._driver.stdin.flush()
        self._answer()

    def stop(self) -> None:
        if self._driver is not None:
            self._driver.kill()  # it has no state worth a goodbye, and its own takes seconds
            self._driver.communicate()
            self._driver = None

    def _answer(self) -> None:
        assert self._driver is not None
        assert self._driver.stdout is not None
        while (line := self._driver.stdout.readline()) != "done\n":
            if not line:
                raise RuntimeError(f"HyperQueue's process ended with {self._driver.wait()}")

    def _find(self, room: Room) -> Path:
        return from_pypi(room.peers, "hyperqueue", "hyperqueue/__init__.py")
