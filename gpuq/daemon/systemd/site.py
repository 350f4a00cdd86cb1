"""What install and uninstall work on: the service, where its things lie, and the daemon behind it."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gpuq
from gpuq import paths, protocol, service
from gpuq.config import Config
from gpuq.connection import Connection, Gone
from gpuq.daemon.check.evidence import read_lock
from gpuq.daemon.systemd.places import Places, system_places, user_places
from gpuq.errors import DaemonUnreachable, GpuqError, UsageError

ANSWER_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    service: service.Service
    places: Places
    socket: str
    state_dir: str
    config: str
    flags: tuple[str, ...] = ()  # what a user's unit starts the daemon with
    say: Callable[[str], None] = print

    @property
    def is_system(self) -> bool:
        return self.service.is_system

    @property
    def whose(self) -> str:
        return "--system" if self.is_system else "--user"

    def again(self, verb: str) -> str:
        sudo = "sudo " if self.is_system else ""
        return f"{sudo}gpuq daemon {verb} {self.whose}"


def site_of(settings: Config) -> Site:
    """From the settings of the daemon that is meant; UsageError where no unit could serve it."""
    is_system = settings.mode == "system"
    given = [name for name in ("state_dir", "socket", "config") if _is_given(settings, name)]
    if is_system and given:
        raise UsageError(
            f"{' and '.join(map(settings.origin, given))}: the machine's daemon goes by "
            f"{paths.SYSTEM_CONFIG} alone. Write it there"
        )
    if not is_system and len(os.fsencode(settings.socket)) > paths.LONGEST_SOCKET_PATH:
        raise UsageError(
            f"systemd cannot listen on {settings.socket}: a path of a socket has at most "
            f"{paths.LONGEST_SOCKET_PATH} bytes. Give a shorter one: --state-dir DIR"
        )
    return Site(
        service=service.Service(is_system=is_system),
        places=system_places() if is_system else user_places(os.environ),
        socket=paths.SYSTEM_SOCKET if is_system else settings.socket,
        state_dir=settings.state_dir,
        config=settings.config,
        flags=() if is_system else _flags(settings),
    )


def _flags(settings: Config) -> tuple[str, ...]:
    """Where the daemon is to be must not hang on what the user's systemd has in its environment."""
    flags = ["--state-dir", settings.state_dir]
    if settings.socket != os.path.join(settings.state_dir, paths.SOCKET_NAME):
        flags += ["--socket", settings.socket]
    if _is_given(settings, "config"):
        flags += ["--config", settings.config]
    return tuple(flags)


def _is_given(settings: Config, name: str) -> bool:
    return settings.origin(name).startswith(("--", "GPUQ_"))


# ── the daemon behind it ──


def ask(socket: str, do: str, **arguments: Any) -> dict[str, Any]:
    """One question to the daemon that listens there; DaemonUnreachable where none answers."""
    try:
        line = Connection(socket)
    except OSError as error:
        raise DaemonUnreachable(f"no daemon answers at {socket}: {error.strerror}") from None
    try:
        line.send(protocol.encode(protocol.hello(gpuq.__version__)))
        line.receive(ANSWER_S, None)
        line.send(protocol.encode({"id": 1, "do": do, **arguments}))
        answer = line.receive(ANSWER_S, 1)
    except Gone as gone:
        raise DaemonUnreachable(str(gone)) from None
    finally:
        line.close()
    if "error" in answer:
        protocol.raise_failure(answer["error"])
    found: dict[str, Any] = answer["ok"]
    return found


def wait_for_answer(socket: str, journal: str) -> dict[str, Any]:
    """The daemon's answer to `ping`, as soon as there is one."""
    deadline = time.monotonic() + ANSWER_S
    while True:
        try:
            return ask(socket, "ping")
        except DaemonUnreachable as error:
            if time.monotonic() > deadline:
                raise DaemonUnreachable(f"{error}. See: {journal}") from None
        time.sleep(0.1)


def ask_to_leave(socket: str, *, for_another: bool) -> int | None:
    """Asks it to leave, and whoever follows a job to wait for another or not; its pid."""
    try:
        return int(ask(socket, "stop", restart=for_another)["pid"])
    except DaemonUnreachable:
        return None


def end_outsider(site: Site) -> str | None:
    """A daemon of the same state directory that systemd did not start stands in the way. It is asked
    to leave, and the jobs go on. Returns what was done."""
    lock = read_lock(site.state_dir)
    if lock.pid is None or service.keeps(lock.pid):
        return None
    pid = ask_to_leave(lock.socket or site.socket, for_another=True)
    if pid is None or not service.wait_until_gone(pid, service.LEAVES_S):
        who = f"pid {lock.pid}" if lock.pid else "a daemon that does not give its pid"
        raise GpuqError(
            f"{site.state_dir} is served by {who}, outside systemd, and it does not leave. "
            f"End it, and go on with: {site.again('install')}"
        )
    return f"stopped the daemon that was started otherwise (pid {pid}); its jobs go on"
