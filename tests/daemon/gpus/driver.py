"""A driver of our own making: the library that the true wrappers of pynvml call, and a /proc."""

import ctypes
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pynvml

from gpuq.core.gpus.gpu import Gpu
from gpuq.daemon.gpus.holders import FIRST_PID_NAMESPACE
from gpuq.daemon.gpus.nvml import NvmlBackend

MIB, GIB = 2**20, 2**30
NOT_SAID = 2**64 - 1  # the driver's sentinel for a process whose memory it does not know
WHOLE_CARD = 0xFFFFFFFF  # of an event: no instance in particular
RECOVERY_ACTION = 230

UNSUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED


@dataclass
class Part:
    """An instance of MIG as the library has it."""

    uuid: str
    gpu_instance: int = 1
    name: bytes = b"NVIDIA H100 MIG 1g.10gb"
    total: int = 10 * GIB
    used: int = 4 * MIB
    reserved: int = 0
    processes: list[tuple[int, int]] = field(default_factory=list)
    mps: list[tuple[int, int]] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)


@dataclass
class Card:
    """A GPU as the library has it. `errors` are by function; "*" stands for all of them. `links` are
    NVLinks: where each leads, as a bus number, "switch", or None for one that is down."""

    uuid: str
    bus: int
    name: bytes = b"NVIDIA H100"
    total: int = 80 * GIB
    used: int = 4 * MIB
    reserved: int = 600 * MIB
    processes: list[tuple[int, int]] = field(default_factory=list)
    mps: list[tuple[int, int]] = field(default_factory=list)
    mig: int = 0
    parts: list[Part | None] = field(default_factory=list)
    mode: int = pynvml.NVML_COMPUTEMODE_DEFAULT
    persistence: int = 1
    ecc: int = 0
    remapped: tuple[int, int, int, int] = (0, 0, 0, 0)
    pages_pending: int = 0
    recovery: int = 0
    slowdown: int = 0
    energy_mj: int = 5_000_000
    power_limit_mw: int = 700_000
    links: list[int | str | None] = field(default_factory=list)
    event_types: int = pynvml.nvmlEventTypeXidCriticalError | pynvml.nvmlEventTypeDoubleBitEccError
    errors: dict[str, int] = field(default_factory=dict)


class Library:
    """libnvidia-ml.so.1, as much of it as is asked. `without` are the symbols that it lacks."""

    def __init__(self, *cards: Card, without: tuple[str, ...] = ()) -> None:
        self.cards = list(cards)
        self.without = set(without)
        self.errors: dict[str, int] = {}
        self.calls: Counter[str] = Counter()
        self.ancestors: dict[frozenset[str], int] = {}
        self.events: list[tuple[Card, int, int, int]] = []  # card, type, data, GPU instance
        self.registered: list[tuple[str, int]] = []  # uuid, kinds
        self.sets = 0  # that are open

    def __getattr__(self, name: str) -> Callable[..., int]:
        body = getattr(type(self), f"do_{name}", None)
        if body is None or name in self.without:
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.calls[name] += 1
            error = self._error(name, arguments)
            return error or int(body(self, *arguments) or pynvml.NVML_SUCCESS)

        return call

    def _error(self, name: str, arguments: tuple[Any, ...]) -> int:
        if name in self.errors:
            return self.errors[name]
        if name == "nvmlDeviceGetHandleByIndex_v2":
            unopened: Card = self.cards[arguments[0].value]
            return unopened.errors.get(name, 0)
        if name.startswith("nvmlDevice") and isinstance(arguments[0], pynvml.c_nvmlDevice_t):
            errors = self.at(arguments[0]).errors
            return errors.get(name, errors.get("*", 0))
        return 0

    def at(self, handle: Any) -> Any:
        """The card or the part that a handle stands for."""
        address = ctypes.cast(handle, ctypes.c_void_p).value
        parts = [part for card in self.cards for part in card.parts if part is not None]
        return next(one for one in (*self.cards, *parts) if id(one) == address)

    def xid(self, card: Card, number: int, gpu_instance: int = WHOLE_CARD) -> None:
        self.events.append((card, pynvml.nvmlEventTypeXidCriticalError, number, gpu_instance))

    # ── the library, and which GPUs there are ──

    def do_nvmlInitWithFlags(self, flags: int) -> None: ...

    def do_nvmlShutdown(self) -> None: ...

    def do_nvmlDeviceGetCount_v2(self, count: Any) -> None:
        count._obj.value = len(self.cards)

    def do_nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> None:
        _point(handle, self.cards[index.value])

    def do_nvmlDeviceGetUUID(self, handle: Any, text: Any, size: Any) -> None:
        text.value = self.at(handle).uuid.encode()

    def do_nvmlDeviceGetMinorNumber(self, handle: Any, minor: Any) -> None:
        minor._obj.value = self.at(handle).bus

    def do_nvmlDeviceGetName(self, handle: Any, text: Any, size: Any) -> None:
        text.value = self.at(handle).name

    def do_nvmlDeviceGetPciInfo_v3(self, handle: Any, pci: Any) -> None:
        pci._obj.bus = self.at(handle).bus

    def do_nvmlDeviceGetComputeMode(self, handle: Any, mode: Any) -> None:
        mode._obj.value = self.at(handle).mode

    def do_nvmlDeviceGetMigMode(self, handle: Any, current: Any, pending: Any) -> None:
        current._obj.value = self.at(handle).mig

    def do_nvmlDeviceGetMaxMigDeviceCount(self, handle: Any, count: Any) -> None:
        count._obj.value = 7

    def do_nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: Any, part: Any) -> int:
        parts = self.at(handle).parts
        if index.value >= len(parts) or parts[index.value] is None:
            return int(pynvml.NVML_ERROR_NOT_FOUND)
        _point(part, parts[index.value])
        return 0

    def do_nvmlDeviceGetGpuInstanceId(self, handle: Any, number: Any) -> None:
        number._obj.value = self.at(handle).gpu_instance

    # ── how far they are from each other ──

    def do_nvmlDeviceGetTopologyCommonAncestor(self, one: Any, other: Any, level: Any) -> None:
        pair = frozenset((self.at(one).uuid, self.at(other).uuid))
        level._obj.value = self.ancestors.get(pair, pynvml.NVML_TOPOLOGY_SYSTEM)

    def do_nvmlDeviceGetNvLinkState(self, handle: Any, link: int, state: Any) -> int:
        links = self.at(handle).links
        if not links:
            return int(pynvml.NVML_ERROR_NOT_SUPPORTED)
        if link >= len(links):
            return int(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        state._obj.value = links[link] is not None
        return 0

    def do_nvmlDeviceGetNvLinkRemotePciInfo_v2(self, handle: Any, link: int, pci: Any) -> int:
        if link >= len(self.at(handle).links):
            return int(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        card = self.at(handle)
        far = card.links[link]
        # A switch need not be on the bus, and then its address says nothing.
        pci._obj.domain, pci._obj.bus = (0xFFFF, card.bus) if far == "switch" else (0, far)
        return 0

    def do_nvmlDeviceGetNvLinkRemoteDeviceType(self, handle: Any, link: int, kind: Any) -> int:
        if link >= len(self.at(handle).links):
            return int(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        kind._obj.value = self.at(handle).links[link] == "switch"
        return 0

    # ── how they are ──

    def do_nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> None:
        card, memory = self.at(handle), memory._obj
        memory.total, memory.used = card.total, card.used + card.reserved
        memory.free = memory.total - memory.used

    def do_nvmlDeviceGetMemoryInfo_v2(self, handle: Any, memory: Any) -> None:
        card, memory = self.at(handle), memory._obj
        assert memory.version == 0x02000028
        memory.total, memory.used, memory.reserved = card.total, card.used, card.reserved
        memory.free = memory.total - memory.used - memory.reserved

    def do_nvmlDeviceGetUtilizationRates(self, handle: Any, rates: Any) -> int:
        if isinstance(self.at(handle), Part) or self.at(handle).mig:
            return int(pynvml.NVML_ERROR_NOT_SUPPORTED)
        rates._obj.gpu = 37
        return 0

    def do_nvmlDeviceGetTemperature(self, handle: Any, sensor: Any, celsius: Any) -> None:
        celsius._obj.value = 41

    def do_nvmlDeviceGetPowerUsage(self, handle: Any, milliwatts: Any) -> None:
        milliwatts._obj.value = 61_250

    def do_nvmlDeviceGetEnforcedPowerLimit(self, handle: Any, milliwatts: Any) -> None:
        milliwatts._obj.value = self.at(handle).power_limit_mw

    def do_nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, millijoules: Any) -> None:
        millijoules._obj.value = self.at(handle).energy_mj

    def do_nvmlDeviceGetPersistenceMode(self, handle: Any, mode: Any) -> None:
        mode._obj.value = self.at(handle).persistence

    def do_nvmlDeviceGetTotalEccErrors(
        self, handle: Any, kind: Any, counter: Any, count: Any
    ) -> None:
        assert (kind.value, counter.value) == (1, 0)  # uncorrected, since the driver was loaded
        count._obj.value = self.at(handle).ecc

    def do_nvmlDeviceGetRemappedRows(self, handle: Any, *counts: Any) -> None:
        for count, value in zip(counts, self.at(handle).remapped, strict=True):
            count._obj.value = value

    def do_nvmlDeviceGetRetiredPagesPendingStatus(self, handle: Any, pending: Any) -> None:
        pending._obj.value = self.at(handle).pages_pending

    def do_nvmlDeviceGetFieldValues(self, handle: Any, count: Any, values: Any) -> None:
        (value,) = values._obj
        assert value.fieldId == RECOVERY_ACTION
        value.value.uiVal = self.at(handle).recovery

    def do_nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any, reasons: Any) -> None:
        reasons._obj.value = self.at(handle).slowdown

    do_nvmlDeviceGetCurrentClocksThrottleReasons = do_nvmlDeviceGetCurrentClocksEventReasons

    # ── who computes on them ──

    def do_nvmlDeviceGetComputeRunningProcesses_v3(
        self, handle: Any, count: Any, records: Any
    ) -> int:
        return _list(self.at(handle).processes, count, records)

    do_nvmlDeviceGetComputeRunningProcesses_v2 = do_nvmlDeviceGetComputeRunningProcesses_v3

    def do_nvmlDeviceGetMPSComputeRunningProcesses_v3(
        self, handle: Any, count: Any, records: Any
    ) -> int:
        return _list(self.at(handle).mps, count, records)

    do_nvmlDeviceGetMPSComputeRunningProcesses_v2 = do_nvmlDeviceGetMPSComputeRunningProcesses_v3

    # ── what befalls them ──

    def do_nvmlEventSetCreate(self, events: Any) -> None:
        self.sets += 1

    def do_nvmlEventSetFree(self, events: Any) -> None:
        self.sets -= 1

    def do_nvmlDeviceGetSupportedEventTypes(self, handle: Any, types: Any) -> None:
        types._obj.value = self.at(handle).event_types

    def do_nvmlDeviceRegisterEvents(self, handle: Any, types: Any, events: Any) -> None:
        self.registered.append((self.at(handle).uuid, types.value))

    def do_nvmlEventSetWait_v2(self, events: Any, data: Any, timeout_ms: Any) -> int:
        assert timeout_ms.value == 0
        if not self.events:
            return int(pynvml.NVML_ERROR_TIMEOUT)
        card, kind, number, gpu_instance = self.events.pop(0)
        data._obj.device = ctypes.cast(id(card), type(data._obj.device))
        data._obj.eventType, data._obj.eventData = kind, number
        data._obj.gpuInstanceId = gpu_instance
        return 0


def _point(handle: Any, target: object) -> None:
    address = ctypes.c_void_p(id(target))
    ctypes.memmove(handle, ctypes.byref(address), ctypes.sizeof(address))


def _list(running: list[tuple[int, int]], count: Any, records: Any) -> int:
    space, count._obj.value = count._obj.value, len(running)
    if len(running) > space:
        return int(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
    for record, (pid, memory) in zip(records or (), running, strict=False):
        record.pid, record.usedGpuMemory = pid, memory
    return 0


class Proc:
    """A /proc of which this process is not a part. All that runs there is what a test says."""

    def __init__(self, folder: Path, namespace: str = FIRST_PID_NAMESPACE) -> None:
        self.folder = folder
        (folder / "self" / "ns").mkdir(parents=True)
        (folder / "self" / "ns" / "pid").symlink_to(namespace)

    def run(
        self, *pids: int, command: str = "python", start: int = 100, cgroup: str = "0::/"
    ) -> None:
        for pid in pids:
            (self.folder / str(pid)).mkdir()
            fields = ["0"] * 40
            fields[0], fields[17], fields[19] = "S", "1", str(start)
            texts = {
                "stat": f"{pid} ({command}) {' '.join(fields)}\n",
                "cmdline": f"/usr/bin/{command}\0train.py\0",
                "cgroup": f"{cgroup}\n",
            }
            for name, text in texts.items():
                (self.folder / str(pid) / name).write_text(text)

    def leave(self, pid: int) -> None:
        for file in (self.folder / str(pid)).iterdir():
            file.unlink()
        (self.folder / str(pid)).rmdir()


class Machine:
    """The cards of a library as NvmlBackend reads them, at moments that the test says."""

    def __init__(self, library: Library, proc: Proc) -> None:
        self.library = library
        self.proc = proc
        self.now = 1000.0
        self._backend: NvmlBackend | None = None

    @property
    def backend(self) -> NvmlBackend:
        if self._backend is None:
            self._backend = NvmlBackend(clock=lambda: self.now, proc=str(self.proc.folder))
        return self._backend

    def sample(self, after_s: float = 0.0, *, processes: bool = True) -> list[Gpu]:
        self.now += after_s
        return self.backend.sample([], processes=processes)

    def one(self, after_s: float = 0.0, *, processes: bool = True) -> Gpu:
        (gpu,) = self.sample(after_s, processes=processes)
        return gpu


MakeMachine = Callable[..., Machine]
