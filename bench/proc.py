"""What Linux tells of a process: memory, time, bytes written, and who came from whom."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
PATIENCE_S = 60.0


def become_subreaper() -> None:
    """Daemons that detach from us are still found as our children, and are ended with us."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def pss_mb(pid: int) -> float:
    """Its share of memory in MB (10^6 bytes): pages that several have count in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"no PSS of process {pid}")


def cpu_s(pid: int) -> float:
    """Of all its threads, in nanoseconds as the scheduler counts them."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def written_bytes(pid: int) -> int:
    """What it has caused to be sent to storage (proc_pid_io(5), write_bytes)."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise ValueError(f"no write_bytes of process {pid}")


def command_line(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "it has ended"
    return words.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")[:80]


def open_fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def lives(pid: int) -> bool:
    """A zombie does not."""
    state = _stat(pid)
    return state is not None and state[0] not in ("Z", "X")


def parent(pid: int) -> int | None:
    state = _stat(pid)
    return None if state is None else int(state[1])


def descendants(pid: int) -> list[int]:
    """Living ones, in no order."""
    children: dict[int, list[int]] = {}
    for other in _pids():
        if (state := _stat(other)) is not None and state[0] not in ("Z", "X"):
            children.setdefault(int(state[1]), []).append(other)
    found, look_at = [], [pid]
    while look_at:
        below = children.get(look_at.pop(), [])
        found += below
        look_at += below
    return found


def end_all(pids: Iterable[int], patience_s: float = 5.0) -> None:
    """By their ids; whoever they were the children of reaps them."""
    left = [pid for pid in pids if _signalled(pid, signal.SIGKILL)]
    deadline = time.monotonic() + patience_s
    while any(map(lives, left)) and time.monotonic() < deadline:
        time.sleep(0.002)


def reap() -> None:
    """Those that were handed to us because their parents are gone."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def wait_for(
    condition: Callable[[], object],
    what: str,
    pause_s: float = 0.005,
    timeout_s: float = PATIENCE_S,
) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(pause_s)


def _signalled(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _stat(pid: int) -> list[str] | None:
    """From the state on: state, parent, …"""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return line[line.rfind(")") + 2 :].split()
