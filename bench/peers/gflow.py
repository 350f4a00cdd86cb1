"""gflow (`runqd` from PyPI): a server in Rust that runs each job in a tmux session of its own. It has
no slots for jobs without a GPU, and it cannot be told of simulated ones: it starts what memory allows,
about one in a second. It finds its own programs by the PATH of a login shell."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench import proc
from bench.peers import NOT_IN_ONE_GO, Absent
from bench.peers.installing import from_pypi, version_of
from bench.peers.slurm import free_ports
from bench.room import Room

READY_S = 20.0


class Gflow:
    name = "gflow"
    takes_many = False
    is_slow = True

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None

    def version(self, room: Room) -> str:
        if shutil.which("tmux") is None:
            raise Absent("it runs its jobs in tmux, which is not installed: apt-get install tmux")
        return version_of(self._find(room).parent, "runqd")

    def start(self, room: Room, slots: int) -> None:
        self._home, self._programs = room.new_folder("gflow"), self._find(room)
        path = f"{self._programs}:{os.defpath}"
        (self._home / ".profile").write_text(f"PATH={path}\nexport PATH\n")
        runtime = {name: str(self._home) for name in ("XDG_RUNTIME_DIR", "TMUX_TMPDIR")}
        self._environment = room.environment(self._home, PATH=path, SHELL="/bin/sh", **runtime)
        self._client("gflowd", "init", "--yes", "--port", str(free_ports(1)[0]))
        self._server = subprocess.Popen(
            [self._programs / "gflowd"],
            env=self._environment,
            cwd=self._home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        proc.wait_for(
            lambda: self._client("gqueue").returncode == 0, "gflow's server", 0.1, READY_S
        )

    def submit(self, argv: Sequence[str]) -> None:
        """Through a shell: it takes a path to a file for a script."""
        ran = self._client("gbatch", "--auto-close", "sh", "-c", f"exec {' '.join(argv)}")
        if ran.returncode:
            raise RuntimeError(f"gbatch: {ran.stderr.strip()[:200]}")

    def submit_many(self, argv: Sequence[str], number: int) -> None:
        raise NotImplementedError(f"{self.name} {NOT_IN_ONE_GO}")

    def stop(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None
            subprocess.run(
                ["tmux", "kill-server"], env=self._environment, capture_output=True, check=False
            )

    def _client(self, program: str, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self._programs / program, *words],
            env=self._environment,
            cwd=self._home,
            capture_output=True,
            text=True,
            check=False,
        )

    def _find(self, room: Room) -> Path:
        return from_pypi(room.peers, "runqd", "bin/gflowd") / "bin"
