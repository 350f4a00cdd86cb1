"""Who computes on a GPU: the driver's records, and how far they can be believed.

The layout of a record changed several times between drivers, with the same name for the call. Read
with the wrong one, pids and sizes change places: so no record is believed unseen. Processes that
only draw are not asked for: that call alone takes longer than all others together.
"""

from collections.abc import Callable
from typing import Any

import pynvml

from gpuq.daemon.gpus.nvml.errors import ERRORS, FATAL

# The highest pid that Linux gives (PID_MAX_LIMIT in linux/threads.h).
MOST_PID = 2**22
TRIES = 3

Records = dict[int, int | None]  # pid: bytes, None where the driver does not know them

_COMPUTE = (
    pynvml.nvmlDeviceGetComputeRunningProcesses,
    pynvml.nvmlDeviceGetComputeRunningProcesses_v2,
)
_MPS = (
    pynvml.nvmlDeviceGetMPSComputeRunningProcesses,
    pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v2,
)


def compute_processes(
    handle: Any, total_bytes: int | None, is_alive: Callable[[int], bool]
) -> Records | None:
    """The living compute processes on a GPU of so much memory, those that share it by MPS among
    them. None where the driver does not say, or speaks nonsense."""
    records = _believed(_COMPUTE, handle, total_bytes, is_alive)
    if records is None:
        return None
    return (_believed(_MPS, handle, total_bytes, is_alive) or {}) | records


def _believed(
    calls: tuple[Callable[[Any], Any], ...],
    handle: Any,
    total_bytes: int | None,
    is_alive: Callable[[int], bool],
) -> Records | None:
    """The first answer in which every process lives, else the one in which most do, if that is at
    least half of them: one may have died since, and of a wrong layout hardly any is ever there."""
    best: tuple[Records, int] | None = None  # the living, how many are not
    for call in calls:
        records = _ask(call, handle)
        if records is None or not all(_is_possible(*one, total_bytes) for one in records):
            continue
        living = {pid: memory_bytes for pid, memory_bytes in records if is_alive(pid)}
        dead = len(records) - len(living)
        if best is None or dead < best[1]:
            best = living, dead
        if not dead:
            break
    if best is None or best[1] > len(best[0]):
        return None
    return best[0]


def _is_possible(pid: int, memory_bytes: int | None, total_bytes: int | None) -> bool:
    fits = memory_bytes is None or total_bytes is None or memory_bytes <= total_bytes
    return fits and 0 < pid <= MOST_PID


def _ask(call: Callable[[Any], Any], handle: Any) -> list[tuple[int, int | None]] | None:
    """Processes may come faster than the space for them, so being too small is tried again."""
    for _ in range(TRIES):
        try:
            return [(int(record.pid), record.usedGpuMemory) for record in call(handle)]
        except pynvml.NVMLError_InsufficientSize:
            continue
        except FATAL:
            raise
        except ERRORS:
            return None
    return None
