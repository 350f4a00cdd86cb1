"""gpuq: the queue for a machine with GPUs.

Only the version and lazily the public names live here: every client command pays for this import.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from gpuq.client import Client

        return Client
    raise AttributeError(f"module 'gpuq' has no attribute {name!r}")
