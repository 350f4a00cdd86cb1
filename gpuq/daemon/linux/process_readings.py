"""What processes are doing: their parents, their command lines, what they use. It only looks.

A process that has left between two lines is left out. Field numbers are those of proc_pid_stat(5).
"""

import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from gpuq.daemon.linux import processes

LONGEST_COMMAND = 4096  # bytes of a command line that are read
MOST_PROCESSES = 1000  # of one job that are told of
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReading:
    """`command` is its command line as it stands by now, or its short name in brackets where it has
    none. `cpu_s` is what it has had of CPUs itself, user and system, since it began."""

    pid: int
    ppid: int
    state: str  # one letter, as ps(1) has it
    command: tuple[bytes, ...]
    cpu_s: float
    rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundProcesses:
    """Of so many (`number`) those that were read, in the order of their pids."""

    number: int
    read: list[ProcessReading]


# Does blocking work elsewhere than on the loop's thread.
Aside = Callable[[Callable[[], Any]], Awaitable[Any]]


def read_all(pids: Collection[int]) -> FoundProcesses:
    """The first of them in full."""
    some = sorted(pids)[:MOST_PROCESSES]
    found = [reading for pid in some if (reading := read(pid)) is not None]
    return FoundProcesses(number=len(pids), read=found)


def read(pid: int) -> ProcessReading | None:
    fields = processes.stat_fields(pid)
    if fields is None or processes.is_dead(fields):
        return None
    command = _command(pid)
    again = processes.stat_fields(pid)
    if again is None or again[19] != fields[19]:  # the pid was given to another meanwhile
        return None
    return ProcessReading(
        pid=pid,
        ppid=int(fields[1]),
        state=fields[0].decode("ascii", "replace"),
        command=command or (f"[{processes.command(pid) or '?'}]".encode(),),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS,
        rss_bytes=int(fields[21]) * _PAGE_BYTES,
    )


def _command(pid: int) -> tuple[bytes, ...]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(LONGEST_COMMAND).rstrip(b"\0").split(b"\0")
    except OSError:
        return ()
    return tuple(words) if any(words) else ()
