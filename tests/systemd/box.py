"""A box on which gpuq is installed, and what its people do there."""

import json
import shlex
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import until
from tests.systemd.machine import Machine

GPUQ_CLI = "/opt/gpuq/bin/gpuq"
SETTINGS = 'gpus = "sim:4x24G"\n'
SERVICE, SOCKET = "gpuqd.service", "gpuqd.socket"
PEOPLE = {"alice": (), "bob": (), "carol": ("gpuq-admin",)}
UNTIL_TOLD = 'until [ -s "$0" ]; do sleep 0.05; done; exit $(cat "$0")'


class Box(Machine):
    def __init__(self, root: Path, *binds: str) -> None:
        super().__init__(root, *binds)
        self.write("/etc/gpuq/gpuq.toml", SETTINGS)

    def put_in_place(self) -> None:
        """As the README has it."""
        self.run("python3", "-m", "venv", "/opt/gpuq")
        pip = ["/opt/gpuq/bin/pip", "install", "--no-index", "--find-links", "/wheels"]
        self.run(*pip, "gpuqd")

    def install(self) -> str:
        return self.says(GPUQ_CLI, "daemon", "install", "--system")

    def site_packages(self) -> str:
        (found,) = (self.root / "opt/gpuq/lib").glob("python*/site-packages")
        return f"/{found.relative_to(self.root)}"

    def gpuq(self, *words: str, user: str) -> str:
        return self.says("gpuq", *words, user=user)

    def submit(self, user: str, *words: str) -> int:
        return int(self.gpuq("submit", *words, user=user))

    def job(self, id: int, user: str = "root") -> dict[str, Any]:
        (found,) = json.loads(self.gpuq("show", str(id), "--json", user=user))["jobs"]
        return dict(found)

    def daemon(self) -> dict[str, Any]:
        return dict(json.loads(self.gpuq("daemon", "status", "--json", user="root"))["daemon"])

    def until_state(self, id: int, state: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = self.job(id)
            return found if found["state"] == state else None

        return dict(until(look, f"job {id} to be {state}: {self.job(id)}"))

    def held(self, user: str, *options: str) -> "Held":
        """A job that runs until it is told to end."""
        path = f"/home/{user}/{uuid.uuid4().hex}"
        words = [*options, "--", "sh", "-c", UNTIL_TOLD, path]
        id = self.submit(user, *words)
        pid = self.until_state(id, "running")["pid"]
        return Held(box=self, id=id, pid=pid, started=self.started(pid), told_by=path)

    def started(self, pid: int) -> str:
        """With the number it makes a process unmistakable: field 22 of proc_pid_stat(5)."""
        return self.inside(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]

    def unit(self, name: str, *properties: str) -> dict[str, str]:
        asked = [word for one in properties for word in ("--property", one)]
        lines = self.says("systemctl", "show", name, *asked).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def main_pid(self) -> int:
        return int(self.unit(SERVICE, "MainPID")["MainPID"])

    def until_active(self, other_than: int = 0) -> int:
        """The daemon's process once it is up; one that is not the one before."""

        def look() -> int | None:
            said = self.unit(SERVICE, "ActiveState", "MainPID")
            pid = int(said["MainPID"])
            return pid if said["ActiveState"] == "active" and pid != other_than else None

        return int(until(look, f"an active {SERVICE}"))

    def journal(self, *match: str) -> list[dict[str, Any]]:
        self.run("journalctl", "--sync")
        said = self.says("journalctl", "--output=json", "--all", *match)
        return [json.loads(line) for line in said.splitlines()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    box: Box
    id: int
    pid: int
    started: str
    told_by: str

    def end_with(self, code: int) -> None:
        self.box.run("sh", "-c", f"echo {code} >{shlex.quote(self.told_by)}")

    def assert_untouched(self) -> None:
        """It is the very process that it was, and the daemon knows it as such."""
        assert self.box.alive(self.pid), f"job {self.id} has gone"
        assert self.box.started(self.pid) == self.started
        seen = self.box.job(self.id)
        assert (seen["state"], seen["pid"], seen["attempt"]) == ("running", self.pid, 1)

    def assert_ends_with(self, code: int) -> None:
        self.end_with(code)
        assert self.box.until_state(self.id, "ended")["exit_code"] == code
