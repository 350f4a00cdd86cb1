"""How much memory a GPU has, and how much of it is in use."""

from typing import Any

import pynvml

from gpuq.daemon.gpus.nvml.errors import optional


def read_memory(handle: Any) -> tuple[int | None, int | None, int | None]:
    """Total, used and reserved bytes; None for all where the GPU has no memory of its own.

    Used is reckoned from what is free, because NVIDIA's own pages do not agree on whether it holds
    what the driver reserves. Version 1 knows no reserved memory and counts it as used.
    """
    memory = optional(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
    reserved = None if memory is None else int(memory.reserved)
    if memory is None:
        try:
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        except pynvml.NVMLError_NotSupported:
            return None, None, None
    total = int(memory.total)
    if not total:
        return None, None, None
    return total, max(total - int(memory.free) - (reserved or 0), 0), reserved
