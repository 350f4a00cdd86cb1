"""What NVML says when it fails, in words that tell a person what to do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pynvml

from gpuq.daemon.gpus.backend import GpusUnavailable

# pynvml raises a stranger to its own error tree where the library is older than itself, and decodes
# names strictly.
ERRORS = (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError, UnicodeDecodeError)

# After these, whatever the call was for, the handle is worth nothing.
FATAL = (
    pynvml.NVMLError_Uninitialized,
    pynvml.NVMLError_GpuIsLost,
    pynvml.NVMLError_ResetRequired,
)

# What only a reset or a reboot ends, even if a later call should succeed.
_LASTING = (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_ResetRequired)

_UNAVAILABLE: dict[int, str] = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        "no NVIDIA driver on this machine (libnvidia-ml.so.1 is not installed); "
        "to try gpuq out on simulated GPUs: gpuq daemon restart --gpus sim:4x24G"
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
        "the NVIDIA driver is not loaded: run nvidia-smi, or modprobe nvidia, and see dmesg"
    ),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "the NVIDIA driver was upgraded while it was loaded: reboot, or reload the kernel module"
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: (
        "no permission to talk to the NVIDIA driver: see the rights of /dev/nvidiactl"
    ),
    pynvml.NVML_ERROR_OPERATING_SYSTEM: (
        "the operating system blocks the NVIDIA driver: see the device cgroup of this service"
    ),
}

_FAULTS: dict[int, str] = {
    pynvml.NVML_ERROR_GPU_IS_LOST: "has fallen off the bus: see dmesg for XID 79, then reboot",
    pynvml.NVML_ERROR_RESET_REQUIRED: "needs a reset: nvidia-smi --gpu-reset, or reboot",
    pynvml.NVML_ERROR_NO_PERMISSION: "may not be opened: see the rights of /dev/nvidia*",
    pynvml.NVML_ERROR_OPERATING_SYSTEM: (
        "is blocked by the operating system: see the device cgroup of this service"
    ),
    pynvml.NVML_ERROR_INSUFFICIENT_POWER: "lacks external power: see its power cables",
    pynvml.NVML_ERROR_IRQ_ISSUE: "has an interrupt problem: see dmesg",
    pynvml.NVML_ERROR_CORRUPTED_INFOROM: "has a corrupted infoROM: it may have to be replaced",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    text: str
    is_lasting: bool = False


def unavailable(error: Exception) -> GpusUnavailable:
    value = getattr(error, "value", 0)
    known = _UNAVAILABLE.get(value)
    return GpusUnavailable(
        known or f"the NVIDIA driver does not work: {words(error)}",
        is_absent=value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
    )


def fault_of(error: Exception) -> Fault:
    known = _FAULTS.get(getattr(error, "value", 0))
    return Fault(
        text=known or f"cannot be read: {words(error)}", is_lasting=isinstance(error, _LASTING)
    )


def words(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__


def optional(call: Callable[..., Any], *arguments: Any) -> Any:
    """What the call gives; None where this GPU or this driver has no such thing."""
    try:
        return call(*arguments)
    except FATAL:
        raise
    except ERRORS:
        return None


def attempt(call: Callable[..., Any], *arguments: Any) -> Any:
    """What the call gives; None where it fails in whatever way."""
    try:
        return call(*arguments)
    except ERRORS:
        return None


def watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else round(milliwatts / 1000, 1)
