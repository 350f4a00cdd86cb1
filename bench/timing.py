"""How long a deed takes, and how long a command line takes as a terminal has it: exec to exit."""

import os
import time
from collections.abc import Callable, Mapping, Sequence


def timed_ms(deed: Callable[[], object]) -> float:
    began = time.perf_counter()
    deed()
    return (time.perf_counter() - began) * 1000


def process_ms(argv: Sequence[str], environment: Mapping[str, str]) -> float:
    """RuntimeError where it fails: what does not do its work is quick."""
    began = time.perf_counter()
    pid = os.posix_spawn(
        argv[0],
        list(argv),
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        ],
    )
    _, status = os.waitpid(pid, 0)
    took_ms = (time.perf_counter() - began) * 1000
    if status:
        code = os.waitstatus_to_exitcode(status)
        raise RuntimeError(f"{' '.join(argv)[:100]}: exit code {code}")
    return took_ms
