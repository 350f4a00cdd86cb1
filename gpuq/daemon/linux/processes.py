"""Processes as Linux knows them: identity, family, signals. Standard library only.

A process is (boot, pid, start time), never a name and never a pid alone: pids are used again. What
reads /proc takes every error for "it is gone", since a process may leave between two lines.
"""

from __future__ import annotations

import os

from gpuq.daemon.linux import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STAT_BYTES = 4096  # more than its 52 numbers and a name take; the kernel gives it in one piece
# What is to end a process that is stopped has to wake it too.
ENDING = (signals.SIGTERM, signals.SIGINT, signals.SIGHUP, signals.SIGQUIT)

_boot_id: list[str] = []


def boot_id() -> str:
    """Read once: runners have it from the launcher that they were forked from."""
    if not _boot_id:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            _boot_id.append(file.read().decode().strip())
    return _boot_id[0]


def identity(pid: int, proc: str = "/proc") -> tuple[int, int] | None:
    """(pid, start time in ticks after boot); None where there is none, or only a zombie."""
    fields = stat_fields(pid, proc)
    return None if fields is None or is_dead(fields) else (pid, int(fields[19]))


def is_dead(fields: Sequence[bytes]) -> bool:
    """A process whose main thread has left looks like a zombie while others of it live on, as where
    one hangs in a driver: that one can still be signalled, and still holds all that it held."""
    return fields[0] == b"X" or (fields[0] == b"Z" and int(fields[17]) < 2)


def command(pid: int) -> str | None:
    """The short name of a process, as `ps -o comm` shows it; None where it is gone."""
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            name = file.read().rstrip("\n")
    except OSError:
        return None
    return "".join(c if c.isprintable() else "?" for c in name)


def is_alive(pid: int, start: int) -> bool:
    return identity(pid) == (pid, start)


def stat_fields(pid: int, proc: str = "/proc") -> list[bytes] | None:
    """The fields of /proc/PID/stat from the third, the state, on.

    The second is the command in brackets, which may itself hold brackets and spaces.
    """
    try:
        fd = os.open(f"{proc}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        line = os.read(fd, STAT_BYTES)
    except OSError:
        return None
    finally:
        os.close(fd)
    fields = line[line.rfind(b")") + 2 :].split()
    return fields if len(fields) > 19 else None


def all_pids(proc: str = "/proc") -> list[int]:
    return [int(name) for name in os.listdir(proc) if name.isdigit()]


class Table:
    """All processes at one moment, read once: to look for many families costs no more than for one."""

    def __init__(self) -> None:
        self._children: dict[int, list[int]] = {}
        self._sessions: dict[int, list[int]] = {}
        self._starts: dict[int, int] = {}  # of the living: zombies are left out
        for pid in all_pids():
            fields = stat_fields(pid)
            if fields is None:
                continue
            self._children.setdefault(int(fields[1]), []).append(pid)
            if not is_dead(fields):
                self._sessions.setdefault(int(fields[3]), []).append(pid)
                self._starts[pid] = int(fields[19])

    @property
    def alive(self) -> dict[int, int]:
        """The start time of each that lives."""
        return self._starts

    def parents(self) -> frozenset[int]:
        """Those who have living children."""
        families = self._children.items()
        return frozenset(pid for pid, own in families if any(one in self._starts for one in own))

    def descendants(self, ancestor: int) -> dict[int, int]:
        """All living descendants with their start times; none where the ancestor is gone.

        Under a child subreaper nobody gets away from this tree: orphans come back to its root.
        """
        found: dict[int, int] = {}
        unseen = [ancestor]
        while unseen:
            for pid in self._children.get(unseen.pop(), ()):
                unseen.append(pid)
                if pid in self._starts:
                    found[pid] = self._starts[pid]
        return found

    def left_in_session(self, leader: int, not_before: int) -> dict[int, int]:
        """Who lives on in the session of a leader that is dead; none where a process of that pid
        lives, since it may be a later one with a session of its own. The kernel gives a pid away
        again only when nobody is left in its session (setsid(2))."""
        if leader in self._starts:
            return {}
        members = {pid: self._starts[pid] for pid in self._sessions.get(leader, ())}
        return {pid: start for pid, start in members.items() if start >= not_before}


def holding_open(path: str, proc: str = "/proc") -> list[int]:
    """The processes that have this file open. Looks at every descriptor there is: some 50 ms."""
    return [pid for pid in all_pids(proc) if _holds_open(pid, path, proc)]


def _holds_open(pid: int, path: str, proc: str) -> bool:
    folder = f"{proc}/{pid}/fd"
    try:
        return any(os.readlink(f"{folder}/{fd}") == path for fd in os.listdir(folder))
    except OSError:
        return False


def descendants(ancestor: int) -> dict[int, int]:
    """As Table.descendants, for a single look."""
    return Table().descendants(ancestor)


def ancestors(pid: int) -> list[int]:
    """The chain of parents from the next one up to pid 1."""
    chain: list[int] = []
    while pid > 1 and len(chain) < 1000:
        fields = stat_fields(pid)
        if fields is None:
            break
        pid = int(fields[1])
        chain.append(pid)
    return chain


def marked(marker: bytes, *, uid: int, not_before: int, among: Iterable[int]) -> dict[int, int]:
    """The processes that carry `marker` (NAME=value) in the environment they were started with, and
    their start times.

    A hint, never authority: anybody can write the marker into an environment of his own. So only
    processes of the real uid `uid` count that started no earlier than `not_before` (ticks).
    """
    found: dict[int, int] = {}
    for pid in among:
        own = identity(pid)
        if own is not None and own[1] >= not_before and _carries(pid, marker, uid):
            found[pid] = own[1]
    return found


def real_uid(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Uid:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return None


def _carries(pid: int, marker: bytes, uid: int) -> bool:
    if real_uid(pid) != uid:
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return marker in file.read().split(b"\0")
    except OSError:
        return False


def send(pid: int, number: int, *, start: int) -> bool:
    """Sends a signal through a pidfd, so that it can never reach a later process of that pid.

    `start` is checked after the pidfd is taken: from then on it cannot change hands. A stopped
    process keeps TERM pending until it continues, so CONT follows.
    """
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_alive(pid, start):
            return False
        signals.pidfd_send_signal(fd, number)
        if number in ENDING:
            _continue(fd)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def _continue(fd: int) -> None:
    try:
        signals.pidfd_send_signal(fd, signals.SIGCONT)
    except OSError:
        pass  # it has gone by the first signal already
