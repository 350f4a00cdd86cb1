"""gpuq: the queue for a machine with GPUs.

Only the version and lazily the public names live here: every client command pays for this import.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuq.client import Client
    from gpuq.errors import (
        DaemonUnreachable,
        GpuqError,
        NeverFits,
        NothingMatched,
        NotPermitted,
        UsageError,
        WaitTimedOut,
    )
    from gpuq.group_table import GroupInFull
    from gpuq.past import Errors, PastJob, Stats, Usage
    from gpuq.typed import Event, Gpu, Job, JobInFull, JobOptions, NewJob

__version__ = "0.1.0"
__all__ = [
    "Client",
    "DaemonUnreachable",
    "Errors",
    "Event",
    "Gpu",
    "GpuqError",
    "GroupInFull",
    "Job",
    "JobInFull",
    "JobOptions",
    "NeverFits",
    "NewJob",
    "NotPermitted",
    "NothingMatched",
    "PastJob",
    "Stats",
    "Usage",
    "UsageError",
    "WaitTimedOut",
    "__version__",
]
_PLACES = {
    "Client": "client",
    "GroupInFull": "group_table",
    **dict.fromkeys(("Errors", "PastJob", "Stats", "Usage"), "past"),
    **dict.fromkeys(("Event", "Gpu", "Job", "JobInFull", "JobOptions", "NewJob"), "typed"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'gpuq' has no attribute {name!r}")
    place = f"gpuq.{_PLACES.get(name, 'errors')}"
    return getattr(__import__(place, fromlist=[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
