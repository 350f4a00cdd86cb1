"""What is to be seen of a daemon and its jobs from outside: its lock, its socket, their processes,
control groups and folders. It looks and touches nothing."""

import fcntl
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import gpuq
from gpuq import paths, protocol
from gpuq.daemon.check.scene import Marked, Scene
from gpuq.daemon.linux import processes
from gpuq.daemon.linux.cgroup import Leaf
from gpuq.errors import UsageError

ANSWER_S = 5.0
_HOLDER = re.compile(r".*pid (?P<pid>\d+)\n(?:(?P<socket>/.*)\n)?")
_MARK = re.compile(rb"(\d{1,18})\.(\d{1,18}):([0-9a-f]{1,64})")


def look(state_dir: str, socket_path: str, group_roots: Sequence[str], boottime: float) -> Scene:
    """The machine as it is now. Locks and answers first: a daemon that comes or goes meanwhile is
    found out by the next look."""
    lock = read_lock(state_dir)
    socket_path = lock.socket or socket_path
    answering_pid = _who_answers(state_dir, socket_path)
    table = processes.Table()
    alive = table.alive
    groups = {path: Leaf(path).members() for root in group_roots for path in _folders(root)}
    inside = {pid for pids in groups.values() for pid in pids}
    return Scene(
        state_dir=state_dir,
        boot_id=processes.boot_id(),
        boottime=boottime,
        lock_pid=lock.pid,
        answers=answering_pid is not None,
        answering_pid=answering_pid,
        alive=alive,
        parents=table.parents(),
        names={pid: name for pid in inside if (name := processes.command(pid))},
        marked=tuple(_marked(alive, os.fsencode(socket_path))),
        groups=groups,
        job_folders=tuple(_numbers(f"{state_dir}/jobs")),
        record_folders=tuple(_records(f"{state_dir}/attempts")),
    )


class Lock(NamedTuple):
    """`pid` of the daemon that holds it, 0 where it does not say; None where nobody does. `socket` is
    that daemon's, or the last one's."""

    pid: int | None
    socket: str | None


def read_lock(state_dir: str) -> Lock:
    """A shared lock is had for a moment where nobody holds it; a daemon that starts just then tries
    again."""
    try:
        fd = os.open(os.path.join(state_dir, paths.LOCK_NAME), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return Lock(None, None)
    try:
        said = os.read(fd, 8192).decode("utf-8", "surrogateescape")
        named = _HOLDER.match(said)
        socket_path = None if named is None else named["socket"]
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Lock(0 if named is None else int(named["pid"]), socket_path)
        return Lock(None, socket_path)
    finally:
        os.close(fd)


def _who_answers(state_dir: str, socket_path: str) -> int | None:
    """The pid of the daemon that answers there for this state directory."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(ANSWER_S)
        try:
            paths.connect(line, socket_path)
            line.sendall(protocol.encode(protocol.hello(gpuq.__version__)))
            with line.makefile("rb") as lines:
                said = protocol.decode(lines.readline(protocol.HELLO_LIMIT)).get("hello")
            if isinstance(said, dict) and os.path.samefile(said["state_dir"], state_dir):
                return int(said["pid"])
        except (OSError, UsageError, KeyError, TypeError, ValueError):
            pass
    return None


def _marked(alive: dict[int, int], socket_path: bytes) -> Iterator[Marked]:
    for pid, start in alive.items():
        variables = _environment(pid)
        mark = _MARK.fullmatch(variables.get(b"GPUQ_MARK", b""))
        uid = processes.real_uid(pid)
        if mark is None or uid is None or processes.identity(pid) != (pid, start):
            continue
        yield Marked(
            pid=pid,
            start=start,
            uid=uid,
            name=processes.command(pid) or "",
            job=int(mark[1]),
            attempt=int(mark[2]),
            nonce=mark[3].decode(),
            is_of_this_daemon=variables.get(b"GPUQ_SOCKET") == socket_path,
        )


def _environment(pid: int) -> dict[bytes, bytes]:
    """Those variables of a process that gpuq sets, as it was started with."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = file.read().split(b"\0")
    except OSError:
        return {}
    return dict(pair.split(b"=", 1) for pair in pairs if pair.startswith(b"GPUQ_") and b"=" in pair)


def _folders(path: str) -> list[str]:
    with suppress(OSError), os.scandir(path) as entries:
        return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return []


def _numbers(path: str) -> list[int]:
    names = (os.path.basename(folder) for folder in _folders(path))
    return sorted(int(name) for name in names if re.fullmatch("[0-9]{1,18}", name))


def _records(path: str) -> list[tuple[int, int]]:
    names = (os.path.basename(folder) for folder in _folders(path))
    found = (re.fullmatch(r"(\d{1,18})\.(\d{1,18})", name, re.ASCII) for name in names)
    return sorted((int(one[1]), int(one[2])) for one in found if one)
