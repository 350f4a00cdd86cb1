"""A box: a real systemd in a container, with users, and commands run in it as one of them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import IO, Self

from tests.conftest import until
from tests.systemd import root as roots
from tests.systemd.keeper import children, mounts, status

KEEPER = Path(__file__).with_name("keeper.py")
SECONDS = 60.0  # for any one command, on a slow machine
PATH = f"/opt/gpuq/bin:{roots.PYTHON}/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Done = subprocess.CompletedProcess[str]


class Machine:
    """`root` is its file system as this machine sees it; `pid` its PID 1, likewise."""

    def __init__(self, root: Path, *binds: str) -> None:
        self.root = root
        self.binds = [*roots.binds(root), *binds]
        self.console = root.with_name(f"{root.name}.console")
        self.keeper: subprocess.Popen[str] | None = None
        self.pid = 0

    def boot(self) -> Self:
        """Returns once systemd says that all it starts is started."""
        with self.console.open("a") as console:
            self.keeper = subprocess.Popen(
                [sys.executable, KEEPER, self.root, *self.binds],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=console,
                text=True,
                start_new_session=True,  # an interrupt at the keyboard is not meant for it
            )
        first_line = self._output.readline()
        assert first_line, f"it did not boot: {self.console.read_text()}"
        self.pid = int(first_line)
        until(lambda: Path(f"/proc/{self.pid}/root/run/systemd/private").exists(), "systemd")
        self.run("systemctl", "is-system-running", "--wait", fails=None)
        return self

    @property
    def _output(self) -> IO[str]:
        assert self.keeper is not None
        assert self.keeper.stdout is not None
        return self.keeper.stdout

    def has_left(self) -> bool:
        return self.keeper is None or self.keeper.poll() is not None

    def power_off(self) -> float:
        """As a person would; the seconds until the last of it was gone."""
        began = time.monotonic()
        self.run("systemctl", "poweroff", fails=None)
        assert self.keeper is not None
        self.keeper.wait(SECONDS)
        seconds = time.monotonic() - began
        self._let_go()
        return seconds

    def pull_the_plug(self) -> None:
        """Ends it whatever it is doing."""
        if self.keeper is not None and self.keeper.stdin is not None:
            self.keeper.stdin.close()
            self.keeper.wait(SECONDS)
            self._let_go()

    def _let_go(self) -> None:
        assert self.keeper is not None
        for pipe in (self.keeper.stdin, self.keeper.stdout):
            if pipe is not None:
                pipe.close()
        self.keeper = None

    # ── commands ──

    def run(
        self,
        *words: str,
        user: str = "root",
        fails: bool | None = False,
        environment: Sequence[str] = (),
    ) -> Done:
        """In the home of a user and with their groups. `fails` is what is expected of it, None
        where either will do."""
        command = self.command(words, user, environment)
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if fails is not None:
            assert (done.returncode != 0) == fails, f"{words}\n{done.stdout}\n{done.stderr}"
        return done

    def says(self, *words: str, user: str = "root") -> str:
        return self.run(*words, user=user).stdout.strip()

    def start(self, *words: str, user: str = "root") -> "subprocess.Popen[str]":
        """A command that goes on while the test does."""
        return subprocess.Popen(
            self.command(words, user),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, started: "subprocess.Popen[str]") -> None:
        """Ends a command that was started, by TERM."""
        for pid in children(started.pid):  # nsenter does not pass a signal on
            os.kill(pid, signal.SIGTERM)
        started.communicate(timeout=SECONDS)

    def command(
        self, words: Sequence[str], user: str, environment: Sequence[str] = ()
    ) -> list[str]:
        home = "/root" if user == "root" else f"/home/{user}"
        names = [f"HOME={home}", f"USER={user}", f"LOGNAME={user}", "SHELL=/bin/sh"]
        variables = [*names, f"PATH={PATH}", "LANG=C.UTF-8", *environment]
        become = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"]
        enter = ["nsenter", "--target", str(self.pid), "--all"]
        return [*enter, "env", "-i", "-C", home, *variables, *become, *words]

    def inside(self, path: str) -> Path:
        """A path of the box as it is seen from here, its /run and /tmp too, while it is up."""
        assert path.startswith("/")
        return Path(f"/proc/{self.pid}/root{path}")

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def add_user(self, name: str, *groups: str) -> None:
        more = ["--groups", ",".join(groups)] if groups else []
        self.run("useradd", "--create-home", "--shell", "/bin/sh", *more, name)

    def alive(self, pid: int) -> bool:
        """A process of the box, by the number that the box knows it under."""
        fields = self.inside(f"/proc/{pid}/stat")
        try:
            return fields.read_text().rpartition(")")[2].split()[0] not in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def number_outside(self, pid: int) -> int:
        """What a process of the box, by its number in there, is called out here."""
        own = os.readlink(f"/proc/{self.pid}/ns/pid")
        for entry in filter(str.isdigit, os.listdir("/proc")):
            known_as = status(int(entry)).get("NSpid", "").split()
            if known_as[-1:] == [str(pid)] and os.readlink(f"/proc/{entry}/ns/pid") == own:
                return int(entry)
        raise AssertionError(f"there is no process {pid} in the box")

    def controllers(self) -> set[str]:
        """Those that the box's cgroup 2 has: "memory", "cpu", …"""
        return set(self.inside("/sys/fs/cgroup/cgroup.controllers").read_text().split())


@cache
def why_not() -> str | None:
    """Why no box can be booted here; None where one can."""
    if os.geteuid() != 0:
        return "it takes root"
    for program in ("systemd-nspawn", "dbus-daemon", "setpriv", "nsenter"):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: systemd-container, dbus, util-linux)"
    tops = mounts("cgroup2")
    if not tops or not os.access(tops[0], os.W_OK):
        return "there is no cgroup 2 here that could be written to"
    tried = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    if subprocess.run(tried, capture_output=True, check=False).returncode != 0:
        return "root may make no namespaces here, as in a container without privileges"
    return None
