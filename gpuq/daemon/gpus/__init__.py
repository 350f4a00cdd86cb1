"""The room that looks at the GPUs: it reads them, and never gives, takes or changes one.

The driver is asked in a process of its own (`probe.py`), because a call into it may hang for ever;
the daemon's end of that process is `Probe` (`keeper.py`), and what the daemon knows of its GPUs is
`GpuWatch`. NVML has one door, `nvml`, and only the probe process goes through it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpuq.daemon.gpus.backend import Backend, GpusUnavailable, Held
    from gpuq.daemon.gpus.choice import BackendSpec, check_gpus, parse_gpus
    from gpuq.daemon.gpus.keeper import Probe
    from gpuq.daemon.gpus.watch import GpuWatch

__all__ = [
    "Backend",
    "BackendSpec",
    "GpuWatch",
    "GpusUnavailable",
    "Held",
    "Probe",
    "check_gpus",
    "parse_gpus",
]


def __getattr__(name: str) -> Any:
    """Imports on first use: the probe process passes through here too, and asyncio alone would
    double its memory."""
    from importlib import import_module

    homes = {"GpuWatch": "watch", "Probe": "keeper"}
    homes |= dict.fromkeys(("BackendSpec", "check_gpus", "parse_gpus"), "choice")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{homes.get(name, 'backend')}"), name)
