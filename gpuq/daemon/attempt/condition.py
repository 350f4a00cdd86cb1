"""What a job takes over from its runner and could have changed there, being of the same user: a
runner that is not as it was takes no other job. Standard library only.
"""

import os
import resource
import time

from gpuq.daemon.linux import syscalls as linux

# A job's limit of CPU time is set in its runner for a moment before it is born, and must not end that.
# The least limit is a second.
MOST_CPU_S = 0.5
_LIMITS = sorted({number for name, number in vars(resource).items() if name.startswith("RLIMIT_")})

Condition = tuple[object, ...]


def condition() -> Condition:
    """Of the calling process, to be compared with a later one."""
    return (
        [resource.getrlimit(number) for number in _LIMITS],
        os.getpriority(os.PRIO_PROCESS, 0),
        os.sched_getscheduler(0),
        os.sched_getaffinity(0),
        _read("oom_score_adj"),
        _read("autogroup"),  # how nice the whole session is, where the kernel goes by sessions
        linux.io_priority(),
        _read("timerslack_ns"),
        _read("coredump_filter"),
    )


def is_spent() -> bool:
    """Has the calling process used so much CPU time that a limit of its next job might hit it?"""
    return time.process_time() > MOST_CPU_S


def _read(name: str) -> bytes:
    try:
        fd = os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 100)
    except OSError:
        return b""
    finally:
        os.close(fd)
