"""Who a process on a GPU is, as /proc tells it. A process may leave between two lines.

What a process or its user may choose (names, folders of cgroups) leaves here in printable characters
only: no escape sequence of theirs reaches a terminal.
"""

import os
import pwd
import re
import threading

from gpuq.daemon.linux.memberships import paths, place

COMMAND_LENGTH = 80
NAME_PATIENCE_S = 0.2
# The number of the first pid namespace, fixed by Linux (PROC_PID_INIT_INO in linux/proc_ns.h).
FIRST_PID_NAMESPACE = "pid:[4026531836]"

_SLURM_JOB = re.compile(r"slurm[^/]*/(?:[^/]+/)*job_([0-9]{1,19})(?:/|$)")
_SERVICE = re.compile(r"[A-Za-z0-9:_.@\\-]+\.service")


def command_of(pid: int, proc: str = "/proc") -> str | None:
    """The name of the program, in printable characters; None where there is no such process."""
    argv = _read(f"{proc}/{pid}/cmdline")
    program = os.path.basename(argv.split("\0", 1)[0]) if argv else None
    name = program or _read(f"{proc}/{pid}/comm")
    if name is None:
        return None
    return "".join(sign for sign in name if sign.isprintable())[:COMMAND_LENGTH] or None


def unit_of(pid: int, proc: str = "/proc") -> str | None:
    """The container, the job of Slurm or the service of systemd that a process runs in."""
    return unit_in(_read(f"{proc}/{pid}/cgroup") or "")


def unit_in(cgroups: str) -> str | None:
    """The same, from the text of /proc/PID/cgroup: "docker 3f2a9c1b7d44", "slurm job 123",
    "ollama.service". None for what runs in nobody's unit, as in the session of a user."""
    if job := next(filter(None, map(_SLURM_JOB.search, paths(cgroups))), None):
        return f"slurm job {job[1]}"
    _, unit, container = place(cgroups)
    if container is not None:
        engine = "container" if container.runtime == "unknown" else container.runtime
        return f"{engine} {container.id}"[:COMMAND_LENGTH]
    is_work = unit is not None and _SERVICE.fullmatch(unit) and not unit.startswith("user@")
    return unit[:COMMAND_LENGTH] if unit is not None and is_work else None


def sees_pids_of_the_driver(proc: str = "/proc") -> bool:
    """The driver counts processes as the host does. In a container with pids of its own they are
    other processes, or none."""
    try:
        return os.readlink(f"{proc}/self/ns/pid") == FIRST_PID_NAMESPACE
    except OSError:
        return True  # a kernel without such namespaces


def _read(path: str) -> str | None:
    try:
        with open(path, errors="replace") as file:
            return file.read(4096)
    except OSError:
        return None


class UserNames:
    """Names of uids, each asked for once.

    A name service may hang for longer than the driver is given, so a thread asks it, and until that
    has an answer the user is called by number.
    """

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def owner_of(self, pid: int, proc: str = "/proc") -> str | None:
        try:
            uid = os.stat(f"{proc}/{pid}").st_uid
        except OSError:
            return None
        return self.name_of(uid)

    def name_of(self, uid: int) -> str:
        if uid not in self._names:
            self._names[uid] = str(uid)
            asking = threading.Thread(target=self._ask, args=(uid,), daemon=True)
            asking.start()
            asking.join(NAME_PATIENCE_S)
        return self._names[uid]

    def _ask(self, uid: int) -> None:
        try:
            self._names[uid] = pwd.getpwuid(uid).pw_name
        except KeyError:
            pass  # a uid without a name, as containers have them
