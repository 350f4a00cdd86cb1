"""The hard limits of who submits, asked of the kernel: the soft ones come with the request, and nobody
is to gain by what a request says."""

from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.linux.processes import real_uid
from gpuq.errors import GpuqError

# As /proc/PID/limits calls them (proc(5)), each in the unit of its limit. prlimit(2) would tell the
# same, but to who has CAP_SYS_RESOURCE alone.
_NAMES = {
    "Max cpu time": "RLIMIT_CPU",
    "Max file size": "RLIMIT_FSIZE",
    "Max data size": "RLIMIT_DATA",
    "Max stack size": "RLIMIT_STACK",
    "Max core file size": "RLIMIT_CORE",
    "Max resident set": "RLIMIT_RSS",
    "Max processes": "RLIMIT_NPROC",
    "Max open files": "RLIMIT_NOFILE",
    "Max locked memory": "RLIMIT_MEMLOCK",
    "Max address space": "RLIMIT_AS",
    "Max pending signals": "RLIMIT_SIGPENDING",
    "Max msgqueue size": "RLIMIT_MSGQUEUE",
    "Max nice priority": "RLIMIT_NICE",
    "Max realtime priority": "RLIMIT_RTPRIO",
}
_NAME_WIDTH = 26  # of its first column; the others are soft, hard and unit


def hard_limits(peer: Peer) -> dict[str, int]:
    """By name, -1 for none. GpuqError where the process that made the connection is gone: another one
    may have its number by now.

    Another process of the same user in its place does no harm, since its limits are that user's too.
    """
    try:
        with open(f"/proc/{peer.pid}/limits") as file:
            lines = file.read().splitlines()
    except OSError:
        raise _gone(peer) from None
    if real_uid(peer.pid) != peer.uid:
        raise _gone(peer)
    return dict(limit for line in lines if (limit := _hard_limit(line)) is not None)


def _hard_limit(line: str) -> tuple[str, int] | None:
    name = _NAMES.get(line[:_NAME_WIDTH].strip())
    values = line[_NAME_WIDTH:].split()
    if name is None or len(values) < 2:
        return None
    return name, -1 if values[1] == "unlimited" else int(values[1])


def _gone(peer: Peer) -> GpuqError:
    return GpuqError(
        f"the process that opened this connection (pid {peer.pid}) is gone, and with it the limits "
        "that its job was to have. Submit again from one that lives on. Nothing was queued."
    )
