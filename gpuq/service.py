"""The daemon as a service of systemd: whether a unit serves a socket, and how that unit is started and
stopped. Whoever runs here with the rights of root runs only programs from where root alone writes.
"""

import os
import select
from collections.abc import Callable, Mapping, Sequence
from pwd import getpwuid

from gpuq import paths
from gpuq.errors import DaemonUnreachable, NotPermitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

SERVICE, SOCKET = "gpuqd.service", "gpuqd.socket"
TOOLS = paths.TRUSTED_PATH  # where programs of systemd are looked for, and nowhere else
BOOTED = "/run/systemd/system"  # it is there where systemd runs this machine: sd_booted(3)
LINGERING = "/var/lib/systemd/linger"
LEAVES_S = 30.0
START_S = 360.0  # longer than the unit's own TimeoutStartSec


class Service:
    """The unit of the machine's daemon, or of one's own."""

    __slots__ = ("is_system",)

    def __init__(self, *, is_system: bool) -> None:
        self.is_system = is_system

    @property
    def command(self) -> tuple[str, ...]:
        return ("systemctl",) if self.is_system else ("systemctl", "--user")

    @property
    def journal(self) -> str:
        """The command that shows what the daemon said last."""
        return f"journalctl {'' if self.is_system else '--user '}-u gpuqd -n 20"

    def is_active(self, unit: str = SERVICE) -> bool:
        return run_tool([*self.command, "is-active", "--quiet", unit]).returncode == 0

    def start(self) -> None:
        """Returns once the daemon answers."""
        self.demand_rights("start")
        # A unit that failed ten times within a minute would be refused for the rest of it.
        run_tool([*self.command, "reset-failed", SOCKET, SERVICE])
        self._run("start", SOCKET, SERVICE)

    def stop(self, leave: Callable[[], int | None]) -> None:
        """`leave` asks the daemon to leave for good and returns its pid, None where it does not
        answer: from systemd's signal it does not know whether another comes, and whoever follows a job
        would wait for that one. Then both units: the socket alone would start the daemon again."""
        self.demand_rights("stop")
        _let_leave(leave)
        self._run("stop", SOCKET, SERVICE)

    def restart(self, leave: Callable[[], int | None]) -> None:
        """`leave` asks the daemon to leave for another."""
        self.demand_rights("restart")
        if not _let_leave(leave):
            self._run("restart", SERVICE)
        self.start()

    def demand_rights(self, verb: str) -> None:
        if self.is_system and not is_root():
            units = SERVICE if verb == "restart" else f"{SOCKET} {SERVICE}"
            raise NotPermitted(
                f"it is the machine's daemon, and only root may {verb} it: "
                f"sudo systemctl {verb} {units}"
            )

    def _run(self, verb: str, *units: str) -> None:
        ran = run_tool([*self.command, verb, *units], timeout_s=START_S)
        if ran.returncode != 0:
            raise DaemonUnreachable(
                f"systemd did not {verb} gpuqd: {last_words(ran)}. See: {self.journal}"
            )


def serving(socket: str) -> Service | None:
    """The service whose socket that is; None where no unit serves it, or no systemd runs."""
    if not os.path.isdir(BOOTED):
        return None
    if socket == paths.SYSTEM_SOCKET:
        is_installed = any(map(os.path.exists, paths.SYSTEM_UNITS))
        return Service(is_system=True) if is_installed else None
    unit = os.path.join(user_units(os.environ), SOCKET)
    return Service(is_system=False) if _listens_on(unit, socket) else None


def user_units(environ: Mapping[str, str]) -> str:
    return os.path.join(paths.config_home(environ), "systemd", "user")


def outlives_logout() -> bool:
    """Does systemd keep this user's services when nobody is logged in? It calls that lingering."""
    return os.path.exists(os.path.join(LINGERING, own_name()))


def logout_ends_all() -> bool:
    """Does logind end whatever a user has started with the last session (KillUserProcesses=)? Root and
    who lingers are left alone."""
    manager = (
        "org.freedesktop.login1",
        "/org/freedesktop/login1",
        "org.freedesktop.login1.Manager",
    )
    asked = run_tool(["busctl", "get-property", *manager, "KillUserProcesses"], timeout_s=5.0)
    return asked.stdout.strip() == "b true"


def is_root() -> bool:
    return os.geteuid() == 0


def own_name() -> str:
    try:
        return getpwuid(os.geteuid()).pw_name
    except KeyError:  # a uid without a name, as in many containers
        return str(os.geteuid())


def keeps(pid: int) -> bool | None:
    """Is that process the service, and not a daemon started otherwise? None: it cannot be told."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            return any(f"/{SERVICE}" in line for line in file)
    except OSError:
        return None


def _let_leave(leave: Callable[[], int | None]) -> bool:
    pid = leave()
    return pid is not None and wait_until_gone(pid, LEAVES_S)


def wait_until_gone(pid: int, timeout_s: float) -> bool:
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], timeout_s)[0])
    finally:
        os.close(watched)


def run_tool(
    words: Sequence[str], *, timeout_s: float = 60.0
) -> "subprocess.CompletedProcess[str]":
    """Runs a program of systemd's; one that is absent or hangs is one that failed. Root's are given
    an environment of their own."""
    import subprocess

    program = find_tool(words[0])
    if program is None:
        missing = f"there is no {words[0]} in {TOOLS}"
        return subprocess.CompletedProcess(words, 127, "", missing)
    try:
        return subprocess.run(
            [program, *words[1:]],
            env=_environment("--user" in words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 124, "", f"no answer within {timeout_s:g} s")


def find_tool(name: str) -> str | None:
    import shutil

    return shutil.which(name, path=TOOLS)


def last_words(ran: "subprocess.CompletedProcess[str]") -> str:
    lines = (ran.stderr.strip() or ran.stdout.strip()).splitlines()
    return lines[0].rstrip(".") if lines else f"it left with code {ran.returncode}"


def _environment(for_user: bool) -> dict[str, str]:
    if not for_user:
        return {"PATH": TOOLS, "LANG": "C.UTF-8"}
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"  # su sets none
    return os.environ | {"PATH": TOOLS, "XDG_RUNTIME_DIR": runtime}


def _listens_on(unit: str, socket: str) -> bool:
    wanted = f"ListenStream={socket.replace('%', '%%')}"
    try:
        with open(unit, encoding="utf-8", errors="surrogateescape") as file:
            return any(line.rstrip("\n") == wanted for line in file)
    except OSError:
        return False
