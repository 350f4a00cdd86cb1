"""Starts the user's own daemon as a detached process, for `run`, `submit` and `daemon start`."""

import fcntl
import os
import select
import socket
import sys
import time
from collections.abc import Mapping, Sequence

from gpuq import paths, service
from gpuq.errors import DaemonUnreachable

READY_S = 20.0
FIRST_FD = 3


def start_own_daemon(state_dir: str | None, *flags: str) -> str:
    """Starts it and waits until it answers; returns the line that tells the user so."""
    state_dir = state_dir or paths.default_state_dir(os.environ, os.geteuid())
    kept = service.serving(os.path.join(state_dir, paths.SOCKET_NAME))
    if kept is not None and not flags and service.outlives_logout():
        kept.start()
        return (
            f"started your own daemon, kept by systemd as {service.SERVICE} (state in {state_dir}). "
            "It and its jobs go on when you log out. Stop it: gpuq daemon stop"
        )
    pid = spawn_daemon(state_dir, os.environ, *flags)
    if pid is None:
        return f"your own daemon was being started by somebody else (state in {state_dir})"
    return (
        f"started your own daemon (pid {pid}, state in {state_dir}). It outlives this terminal; "
        "the queue outlives a reboot too. Stop it: gpuq daemon stop"
    )


def spawn_daemon(
    state_dir: str, environ: Mapping[str, str], *flags: str, throwaway_fd: int | None = None
) -> int | None:
    """Starts a daemon, waits until it answers, returns its pid; None where one answers already.

    Through `throwaway_fd` it learns that it is to end everything it started, and itself: when the
    other end of that pipe is closed.
    """
    os.makedirs(state_dir, mode=0o700, exist_ok=True)
    ready, tell = os.pipe()
    descriptors = [tell]
    flags = ("--ready-fd", str(FIRST_FD), *flags)
    if throwaway_fd is not None:
        descriptors.append(throwaway_fd)
        flags = (*flags, "--throwaway", str(FIRST_FD + 1))
    pid = _spawn(state_dir, environ, flags, descriptors)
    os.close(tell)
    if _is_told(ready):
        return pid
    if _somebody_answers(os.path.join(state_dir, paths.SOCKET_NAME)):
        return None
    raise DaemonUnreachable(_why_not(pid, state_dir))


def _spawn(
    state_dir: str, environ: Mapping[str, str], flags: Sequence[str], descriptors: Sequence[int]
) -> int:
    """In a session of its own: a closed terminal and a Ctrl-C do not reach it."""
    command = [sys.executable, "-P", "-m", "gpuq.daemon.main", "--state-dir", state_dir]
    log = os.path.join(state_dir, paths.LOG_NAME)
    passed = [_lifted(fd) for fd in descriptors]
    try:
        return os.posix_spawn(
            sys.executable,
            [*command, *flags],
            environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                *((os.POSIX_SPAWN_DUP2, fd, FIRST_FD + n) for n, fd in enumerate(passed)),
            ],
            setsid=True,
        )
    finally:
        for fd in passed:
            os.close(fd)


def _lifted(fd: int) -> int:
    """A copy above those that the daemon gets, so that no dup2 overwrites one still needed."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FD + 10)


def _is_told(ready: int) -> bool:
    """A byte says that it serves; the end of the pipe that it does not."""
    try:
        readable, _, _ = select.select([ready], [], [], READY_S)
        return bool(readable and os.read(ready, 1))
    finally:
        os.close(ready)


def _somebody_answers(path: str) -> bool:
    """Another client may have started one in the same moment; then that one serves."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            paths.connect(probe, path)
        except OSError:
            return False
    return True


def _has_ended(pid: int) -> bool:
    """It closed the pipe as one of its last deeds: its end is a moment away, if it comes."""
    for _ in range(200):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.01)
    return False


def _why_not(pid: int, state_dir: str) -> str:
    log = os.path.join(state_dir, paths.LOG_NAME)
    if not _has_ended(pid):
        return f"your own daemon (pid {pid}) did not get ready in {READY_S:g} s. See {log}"
    with open(log, "rb") as file:
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    last = lines[-1].removeprefix("gpuqd: ") if lines else f"see {log}"
    return f"your own daemon did not start: {last}"
