"""The one door to NVML, NVIDIA's library. Only the probe process may import this: a call can hang.

Trouble with a single GPU becomes the `fault` of its reading, in words a person understands, and the
others go on. Where there is nothing to be read at all it is GpusUnavailable. No handle, error or
constant of NVML leaves this file.

Handles are kept: looking one up makes the driver touch every GPU, and fails for a healthy one when
another has fallen off the bus. For the same reason none is looked up by uuid.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pynvml

from gpuq.core.model import Gpu, GpuProcess
from gpuq.daemon.gpus.backend import GpusUnavailable, Held, unidentified
from gpuq.daemon.gpus.holders import UserNames, command_of

LOOK_AGAIN_S = 60.0

# pynvml raises a stranger to its own error tree where the library is older than itself, and decodes
# names strictly.
_ERRORS = (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError, UnicodeDecodeError)

# After these, whatever the call was for, the handle is worth nothing.
_FATAL = (
    pynvml.NVMLError_Uninitialized,
    pynvml.NVMLError_GpuIsLost,
    pynvml.NVMLError_ResetRequired,
)

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

_MIG = "is divided by MIG, and gpuq does not give out MIG instances yet: nvidia-smi -mig 0"
_PROHIBITED = "is in compute mode Prohibited: nvidia-smi --compute-mode=DEFAULT"
_UNLISTED = "is no longer listed by the driver: see dmesg"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Device:
    """What stays the same between two readings."""

    uuid: str
    model: str
    bus_id: str
    position: tuple[int, int, int]  # domain, bus, device
    power_limit_w: float | None
    handle: Any
    fault: str | None


class NvmlBackend:
    def __init__(self) -> None:
        """Initialises NVML, once for this process. Raises GpusUnavailable."""
        self._devices: dict[str, _Device] = {}
        self._unidentified: list[str] = []  # a fault each, of GPUs that gave no uuid
        self._faulty: frozenset[str] = frozenset()
        self._looked_at = float("-inf")
        self._users = UserNames()
        try:
            pynvml.nvmlInit()
        except _ERRORS as error:
            raise _unavailable(error) from error

    def sample(self, held: Sequence[Held]) -> list[Gpu]:
        if time.monotonic() - self._looked_at >= LOOK_AGAIN_S:
            self._look()
        gpus = self._read_all()
        # A handle can become invalid under us; a GPU that was well a moment ago gets another look.
        if {gpu.uuid for gpu in gpus if gpu.fault} - self._faulty:
            self._look()
            gpus = self._read_all()
        self._faulty = frozenset(gpu.uuid for gpu in gpus if gpu.fault)
        return gpus

    def close(self) -> None:
        try:
            pynvml.nvmlShutdown()
        except _ERRORS:
            pass  # the process is about to end

    # ── which GPUs there are ──

    def _look(self) -> None:
        """Ask the driver for its GPUs. One that it has shown before stays in the list.

        A GPU that does not open has no uuid. It is one that is known and missing, if there is such:
        then its old handle tells best how it is. The rest have to go without a name.
        """
        try:
            numbers = range(pynvml.nvmlDeviceGetCount())
        except _ERRORS as error:
            raise _unavailable(error) from error
        found: dict[str, _Device] = {}
        faults: list[str] = []
        for number in numbers:
            try:
                device = _describe(pynvml.nvmlDeviceGetHandleByIndex(number))
                found[device.uuid] = device
            except _ERRORS as error:
                faults.append(_fault(error))
        for uuid, device in self._devices.items():
            if uuid not in found:
                found[uuid] = device if faults else replace(device, fault=_UNLISTED)
                faults = faults[1:]
        self._devices, self._unidentified = found, faults
        self._looked_at = time.monotonic()

    # ── how they are ──

    def _read_all(self) -> list[Gpu]:
        in_bus_order = sorted(self._devices.values(), key=lambda device: device.position)
        gpus = [self._read(index, device) for index, device in enumerate(in_bus_order)]
        for number, fault in enumerate(self._unidentified):
            gpus.append(_without_name(len(gpus), number, fault))
        return gpus

    def _read(self, index: int, device: _Device) -> Gpu:
        if device.fault is not None:
            return _faulty(index, device, device.fault)
        try:
            return self._read_well(index, device)
        except _ERRORS as error:
            return _faulty(index, device, _fault(error))

    def _read_well(self, index: int, device: _Device) -> Gpu:
        handle = device.handle
        total, used, reserved = _memory(handle)
        rates = _optional(pynvml.nvmlDeviceGetUtilizationRates, handle)
        power_mw = _optional(pynvml.nvmlDeviceGetPowerUsage, handle)
        return Gpu(
            index=index,
            uuid=device.uuid,
            model=device.model,
            simulated=False,
            bus_id=device.bus_id,
            memory_total_bytes=total,
            memory_used_bytes=used,
            memory_reserved_bytes=reserved,
            utilization_percent=None if rates is None else int(rates.gpu),
            temperature_c=_optional(
                pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU
            ),
            power_w=_watts(power_mw),
            power_limit_w=device.power_limit_w,
            processes=self._processes(handle, total),
        )

    def _processes(self, handle: Any, total: int | None) -> tuple[GpuProcess, ...] | None:
        records = _records(handle, total)
        if records is None:
            return None
        return tuple(
            GpuProcess(
                pid=pid,
                user=self._users.owner_of(pid),
                command=command_of(pid),
                memory_bytes=memory_bytes,
            )
            for pid, memory_bytes in records
        )


def _describe(handle: Any) -> _Device:
    pci = pynvml.nvmlDeviceGetPciInfo(handle)
    return _Device(
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        model=_optional(pynvml.nvmlDeviceGetName, handle) or "NVIDIA GPU",
        bus_id=f"{pci.domain:08X}:{pci.bus:02X}:{pci.device:02X}.0",
        position=(pci.domain, pci.bus, pci.device),
        power_limit_w=_watts(_optional(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
        handle=handle,
        fault=_unusable_mode(handle),
    )


def _unusable_mode(handle: Any) -> str | None:
    mig = _optional(pynvml.nvmlDeviceGetMigMode, handle)
    if mig is not None and mig[0] == pynvml.NVML_DEVICE_MIG_ENABLE:
        return _MIG
    mode = _optional(pynvml.nvmlDeviceGetComputeMode, handle)
    return _PROHIBITED if mode == pynvml.NVML_COMPUTEMODE_PROHIBITED else None


def _faulty(index: int, device: _Device, fault: str) -> Gpu:
    return Gpu(
        index=index,
        uuid=device.uuid,
        model=device.model,
        simulated=False,
        bus_id=device.bus_id,
        processes=None,
        fault=fault,
    )


def _without_name(index: int, number: int, fault: str) -> Gpu:
    return Gpu(
        index=index,
        uuid=unidentified(number),
        model="NVIDIA GPU",
        simulated=False,
        processes=None,
        fault=fault,
    )


def _memory(handle: Any) -> tuple[int | None, int | None, int | None]:
    """Total, used and reserved bytes; None for all where the GPU has no memory of its own.

    Used is reckoned from what is free, because NVIDIA's own pages do not agree on whether it holds
    what the driver reserves. Version 1 knows no reserved memory and counts it as used.
    """
    memory = _optional(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
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


def _records(handle: Any, total: int | None) -> list[tuple[int, int | None]] | None:
    """The compute processes as (pid, bytes); None where the driver does not say or speaks nonsense.

    The layout of this record changed several times between drivers: read with the wrong one, pids
    and sizes change places, and no process fits into the GPU any more.
    """
    for ask in (
        pynvml.nvmlDeviceGetComputeRunningProcesses,
        pynvml.nvmlDeviceGetComputeRunningProcesses_v2,
    ):
        answer = _ask_for_processes(ask, handle)
        if answer is None:
            continue
        records = [(int(record.pid), record.usedGpuMemory) for record in answer]
        if all(_is_sane(pid, memory, total) for pid, memory in records):
            return records
    return None


def _is_sane(pid: int, memory_bytes: int | None, total: int | None) -> bool:
    return pid > 0 and (memory_bytes is None or total is None or memory_bytes <= total)


def _ask_for_processes(ask: Callable[[Any], Any], handle: Any) -> Any:
    """Processes may come faster than the space for them, so being too small is tried again."""
    for _ in range(3):
        try:
            return ask(handle)
        except pynvml.NVMLError_InsufficientSize:
            continue
        except _FATAL:
            raise
        except _ERRORS:
            return None
    return None


def _optional(call: Callable[..., Any], *arguments: Any) -> Any:
    """What the call gives; None where this GPU or this driver has no such thing."""
    try:
        return call(*arguments)
    except _FATAL:
        raise
    except _ERRORS:
        return None


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else round(milliwatts / 1000, 1)


def _unavailable(error: Exception) -> GpusUnavailable:
    known = _UNAVAILABLE.get(getattr(error, "value", 0))
    return GpusUnavailable(known or f"the NVIDIA driver does not work: {_words(error)}")


def _fault(error: Exception) -> str:
    known = _FAULTS.get(getattr(error, "value", 0))
    return known or f"cannot be read: {_words(error)}"


def _words(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
