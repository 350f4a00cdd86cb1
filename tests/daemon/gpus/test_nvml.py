"""The true wrappers of pynvml over a library of our own making: what a driver may do to us."""

import ctypes
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pynvml
import pytest

from gpuq.core.model import Gpu
from gpuq.daemon.gpus import GpusUnavailable, nvml
from gpuq.daemon.gpus.backend import is_identified
from gpuq.daemon.gpus.nvml import NvmlBackend

MIB, GIB = 2**20, 2**30
NOT_SAID = 2**64 - 1  # the driver's sentinel for a process whose memory it does not know


@dataclass
class Card:
    """A GPU as the stub library has it. `errors` are by function; "*" stands for all of them."""

    uuid: str
    bus: int
    name: bytes = b"NVIDIA H100"
    total: int = 80 * GIB
    used: int = 4 * MIB
    reserved: int = 600 * MIB
    processes: list[tuple[int, int]] = field(default_factory=list)
    mig: int = 0
    mode: int = pynvml.NVML_COMPUTEMODE_DEFAULT
    errors: dict[str, int] = field(default_factory=dict)


class Library:
    """libnvidia-ml.so.1, as much of it as is asked. `without` are the symbols that it lacks."""

    def __init__(self, *cards: Card, without: tuple[str, ...] = ()) -> None:
        self.cards = list(cards)
        self.without = set(without)
        self.errors: dict[str, int] = {}
        self.calls: Counter[str] = Counter()

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
        if name.startswith("nvmlDeviceGet") and isinstance(arguments[0], pynvml.c_nvmlDevice_t):
            errors = self.card(arguments[0]).errors
            return errors.get(name, errors.get("*", 0))
        return 0

    def card(self, handle: Any) -> Card:
        address = ctypes.cast(handle, ctypes.c_void_p).value
        return next(card for card in self.cards if id(card) == address)

    def do_nvmlInitWithFlags(self, flags: int) -> None: ...

    def do_nvmlShutdown(self) -> None: ...

    def do_nvmlDeviceGetCount_v2(self, count: Any) -> None:
        count._obj.value = len(self.cards)

    def do_nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> None:
        address = ctypes.c_void_p(id(self.cards[index.value]))
        ctypes.memmove(handle, ctypes.byref(address), ctypes.sizeof(address))

    def do_nvmlDeviceGetUUID(self, handle: Any, text: Any, size: Any) -> None:
        text.value = self.card(handle).uuid.encode()

    def do_nvmlDeviceGetName(self, handle: Any, text: Any, size: Any) -> None:
        text.value = self.card(handle).name

    def do_nvmlDeviceGetPciInfo_v3(self, handle: Any, pci: Any) -> None:
        pci._obj.bus = self.card(handle).bus

    def do_nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> None:
        card, memory = self.card(handle), memory._obj
        memory.total, memory.used = card.total, card.used + card.reserved
        memory.free = memory.total - memory.used

    def do_nvmlDeviceGetMemoryInfo_v2(self, handle: Any, memory: Any) -> None:
        card, memory = self.card(handle), memory._obj
        assert memory.version == 0x02000028
        memory.total, memory.used, memory.reserved = card.total, card.used, card.reserved
        memory.free = memory.total - memory.used - memory.reserved

    def do_nvmlDeviceGetUtilizationRates(self, handle: Any, rates: Any) -> None:
        rates._obj.gpu = 37

    def do_nvmlDeviceGetTemperature(self, handle: Any, sensor: Any, celsius: Any) -> None:
        celsius._obj.value = 41

    def do_nvmlDeviceGetPowerUsage(self, handle: Any, milliwatts: Any) -> None:
        milliwatts._obj.value = 61_250

    def do_nvmlDeviceGetEnforcedPowerLimit(self, handle: Any, milliwatts: Any) -> None:
        milliwatts._obj.value = 700_000

    def do_nvmlDeviceGetMigMode(self, handle: Any, current: Any, pending: Any) -> None:
        current._obj.value = self.card(handle).mig

    def do_nvmlDeviceGetComputeMode(self, handle: Any, mode: Any) -> None:
        mode._obj.value = self.card(handle).mode

    def do_nvmlDeviceGetComputeRunningProcesses_v3(
        self, handle: Any, count: Any, records: Any
    ) -> int:
        running = self.card(handle).processes
        if len(running) > count._obj.value:
            count._obj.value = len(running)
            return int(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        count._obj.value = len(running)
        for record, (pid, memory) in zip(records or (), running, strict=False):
            record.pid, record.usedGpuMemory = pid, memory
        return 0

    do_nvmlDeviceGetComputeRunningProcesses_v2 = do_nvmlDeviceGetComputeRunningProcesses_v3


Install = Callable[..., Library]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a library in the place of the driver's."""

    def put(*cards: Card, without: tuple[str, ...] = ()) -> Library:
        library = Library(*cards, without=without)
        monkeypatch.setattr(pynvml, "nvmlLib", library)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        monkeypatch.setattr(pynvml, "_nvmlLib_refcount", 0)
        return library

    return put


def sample_one(install: Install, card: Card, **more: Any) -> Gpu:
    install(card, **more)
    (gpu,) = NvmlBackend().sample([])
    return gpu


# ── a good reading ──


def test_a_reading_in_full(install: Install) -> None:
    card = Card("GPU-a", bus=0x17, used=3 * GIB, processes=[(os.getpid(), 2 * GIB)])
    gpu = sample_one(install, card)

    assert (gpu.index, gpu.uuid, gpu.model, gpu.simulated) == (0, "GPU-a", "NVIDIA H100", False)
    assert gpu.bus_id == "00000000:17:00.0"
    assert (gpu.utilization_percent, gpu.temperature_c) == (37, 41)
    assert (gpu.power_w, gpu.power_limit_w) == (61.2, 700.0)
    assert gpu.memory_total_bytes == 80 * GIB
    assert gpu.memory_used_bytes == 3 * GIB
    assert gpu.memory_reserved_bytes == 600 * MIB
    assert gpu.fault is None
    assert gpu.processes is not None
    (process,) = gpu.processes
    assert (process.pid, process.memory_bytes, process.job) == (os.getpid(), 2 * GIB, None)
    assert process.command == os.path.basename(sys.orig_argv[0])
    assert process.user is not None


def test_gpus_are_numbered_by_bus_as_cuda_does_and_not_by_the_driver(install: Install) -> None:
    install(Card("GPU-c", bus=0xC1), Card("GPU-a", bus=0x17), Card("GPU-b", bus=0x65))
    gpus = NvmlBackend().sample([])
    assert [(gpu.index, gpu.uuid) for gpu in gpus] == [(0, "GPU-a"), (1, "GPU-b"), (2, "GPU-c")]


def test_the_library_is_opened_once_and_handles_are_kept(install: Install) -> None:
    library = install(Card("GPU-a", bus=1), Card("GPU-b", bus=2))
    backend = NvmlBackend()
    for _ in range(20):
        backend.sample([])
    assert library.calls["nvmlInitWithFlags"] == 1
    assert library.calls["nvmlDeviceGetHandleByIndex_v2"] == 2
    assert library.calls["nvmlDeviceGetHandleByUUID"] == 0
    backend.close()
    assert library.calls["nvmlShutdown"] == 1


def test_a_new_gpu_is_found_when_the_driver_is_looked_at_again(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = install(Card("GPU-b", bus=2))
    backend = NvmlBackend()
    backend.sample([])
    library.cards.append(Card("GPU-a", bus=1))
    assert len(backend.sample([])) == 1
    monkeypatch.setattr(nvml, "LOOK_AGAIN_S", 0.0)
    assert [gpu.uuid for gpu in backend.sample([])] == ["GPU-a", "GPU-b"]


# ── memory ──


def test_what_the_driver_reserves_is_not_used_by_anybody(install: Install) -> None:
    gpu = sample_one(install, Card("GPU-a", bus=1, used=0, reserved=600 * MIB))
    assert gpu.memory_used_bytes == 0
    assert gpu.memory_free_bytes == 80 * GIB - 600 * MIB


def test_a_driver_that_counts_the_reserved_as_used_is_understood_too(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counting_all(self: Library, handle: Any, memory: Any) -> None:
        memory._obj.total, memory._obj.reserved = 80 * GIB, 600 * MIB
        memory._obj.used = 600 * MIB + 2 * GIB
        memory._obj.free = 78 * GIB - 600 * MIB

    monkeypatch.setattr(Library, "do_nvmlDeviceGetMemoryInfo_v2", counting_all)
    assert sample_one(install, Card("GPU-a", bus=1)).memory_used_bytes == 2 * GIB


def test_an_old_driver_without_the_second_version_is_read_by_the_first(install: Install) -> None:
    card = Card("GPU-a", bus=1, used=GIB, reserved=600 * MIB)
    gpu = sample_one(install, card, without=("nvmlDeviceGetMemoryInfo_v2",))
    assert gpu.memory_used_bytes == GIB + 600 * MIB
    assert gpu.memory_reserved_bytes is None
    assert gpu.fault is None


def test_a_gpu_without_memory_of_its_own_says_nothing_of_it(install: Install) -> None:
    unsupported = pynvml.NVML_ERROR_NOT_SUPPORTED
    errors = {"nvmlDeviceGetMemoryInfo": unsupported, "nvmlDeviceGetMemoryInfo_v2": unsupported}
    gpu = sample_one(install, Card("GPU-a", bus=1, errors=errors))
    assert (gpu.memory_total_bytes, gpu.memory_used_bytes, gpu.fault) == (None, None, None)


# ── absent is absent ──


def test_what_a_gpu_does_not_support_is_absent_and_no_fault(install: Install) -> None:
    calls = (
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetComputeMode",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetComputeRunningProcesses_v2",
    )
    unsupported = dict.fromkeys(calls, pynvml.NVML_ERROR_NOT_SUPPORTED)
    gpu = sample_one(install, Card("GPU-a", bus=1, errors=unsupported))
    assert gpu.fault is None
    assert (gpu.utilization_percent, gpu.temperature_c) == (None, None)
    assert (gpu.power_w, gpu.power_limit_w) == (None, None)
    assert gpu.processes is None
    assert gpu.memory_used_bytes == 4 * MIB


def test_a_name_that_is_no_text_does_not_matter(install: Install) -> None:
    gpu = sample_one(install, Card("GPU-a", bus=1, name=b"\xff\xfe"))
    assert (gpu.model, gpu.fault) == ("NVIDIA GPU", None)


# ── processes ──


def test_a_process_whose_memory_the_driver_does_not_know(install: Install) -> None:
    gpu = sample_one(install, Card("GPU-a", bus=1, processes=[(os.getpid(), NOT_SAID)]))
    assert gpu.processes is not None
    assert [process.memory_bytes for process in gpu.processes] == [None]


def test_a_process_that_is_gone_already_has_no_name(install: Install) -> None:
    gpu = sample_one(install, Card("GPU-a", bus=1, processes=[(2**22 + 1, GIB)]))
    assert gpu.processes is not None
    assert [(process.user, process.command) for process in gpu.processes] == [(None, None)]


def test_processes_of_a_driver_that_lacks_the_newest_call(install: Install) -> None:
    card = Card("GPU-a", bus=1, processes=[(os.getpid(), GIB)])
    gpu = sample_one(install, card, without=("nvmlDeviceGetComputeRunningProcesses_v3",))
    assert gpu.processes is not None
    assert [process.pid for process in gpu.processes] == [os.getpid()]


def test_records_of_another_layout_are_not_believed(install: Install) -> None:
    card = Card("GPU-a", bus=1, processes=[(4096, 81 * GIB)])
    gpu = sample_one(install, card)
    assert gpu.processes is None
    assert gpu.fault is None


def test_processes_that_come_faster_than_the_space_for_them(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = install(
        Card("GPU-a", bus=1, processes=[(os.getpid(), GIB)]),
        without=("nvmlDeviceGetComputeRunningProcesses_v2",),
    )
    true = Library.do_nvmlDeviceGetComputeRunningProcesses_v3

    def growing(self: Library, handle: Any, count: Any, records: Any) -> int:
        if library.calls["nvmlDeviceGetComputeRunningProcesses_v3"] < 6:
            return int(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        return true(self, handle, count, records)

    monkeypatch.setattr(Library, "do_nvmlDeviceGetComputeRunningProcesses_v3", growing)
    (gpu,) = NvmlBackend().sample([])
    assert gpu.processes is not None
    assert len(gpu.processes) == 1


# ── trouble with one GPU ──


def test_a_gpu_that_is_lost_while_the_others_go_on(install: Install) -> None:
    lost = Card("GPU-b", bus=2)
    library = install(Card("GPU-a", bus=1), lost, Card("GPU-c", bus=3))
    backend = NvmlBackend()
    assert [gpu.fault for gpu in backend.sample([])] == [None] * 3

    lost.errors["*"] = pynvml.NVML_ERROR_GPU_IS_LOST
    first, second, third = backend.sample([])
    assert (first.fault, third.fault) == (None, None)
    assert third.memory_used_bytes == 4 * MIB
    assert second.fault is not None
    assert "fallen off the bus" in second.fault
    assert (second.index, second.uuid, second.model) == (1, "GPU-b", "NVIDIA H100")
    assert (second.memory_used_bytes, second.processes) == (None, None)

    before = library.calls["nvmlDeviceGetHandleByIndex_v2"]
    for _ in range(10):
        backend.sample([])
    assert library.calls["nvmlDeviceGetHandleByIndex_v2"] == before  # looked for once, not always

    lost.errors.clear()
    assert [gpu.fault for gpu in backend.sample([])] == [None] * 3


def test_a_well_gpu_is_read_by_its_old_handle_when_a_lost_one_spoils_the_search(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = Card("GPU-a", bus=1), Card("GPU-b", bus=2)
    install(*cards)
    backend = NvmlBackend()
    backend.sample([])
    for card in cards:
        card.errors["nvmlDeviceGetHandleByIndex_v2"] = pynvml.NVML_ERROR_GPU_IS_LOST
    cards[1].errors["*"] = pynvml.NVML_ERROR_GPU_IS_LOST
    monkeypatch.setattr(nvml, "LOOK_AGAIN_S", 0.0)
    well, lost = backend.sample([])
    assert (well.uuid, well.fault) == ("GPU-a", None)
    assert lost.uuid == "GPU-b"
    assert "fallen off" in (lost.fault or "")


def test_a_handle_that_became_invalid_is_fetched_anew(install: Install) -> None:
    old, new = Card("GPU-a", bus=1), Card("GPU-a", bus=1)
    library = install(old)
    backend = NvmlBackend()
    backend.sample([])
    old.errors["*"] = pynvml.NVML_ERROR_INVALID_ARGUMENT

    def reopen(self: Library, handle: Any) -> Card:
        address = ctypes.cast(handle, ctypes.c_void_p).value
        return old if address == id(old) else new

    library.card = reopen.__get__(library)  # type: ignore[method-assign]
    library.cards = [new]
    (gpu,) = backend.sample([])
    assert (gpu.uuid, gpu.fault) == ("GPU-a", None)


def test_a_gpu_that_was_bad_from_the_start_is_listed_without_a_name(install: Install) -> None:
    closed = Card("GPU-b", bus=2)
    closed.errors["nvmlDeviceGetHandleByIndex_v2"] = pynvml.NVML_ERROR_NO_PERMISSION
    install(closed, Card("GPU-a", bus=1))
    well, bad = NvmlBackend().sample([])
    assert (well.index, well.uuid, well.fault) == (0, "GPU-a", None)
    assert (bad.index, is_identified(bad), is_identified(well)) == (1, False, True)
    assert bad.fault == "may not be opened: see the rights of /dev/nvidia*"


def test_a_gpu_that_the_driver_no_longer_lists_stays_on_the_list(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = install(Card("GPU-a", bus=1), Card("GPU-b", bus=2))
    backend = NvmlBackend()
    backend.sample([])
    del library.cards[0]
    monkeypatch.setattr(nvml, "LOOK_AGAIN_S", 0.0)
    gone, well = backend.sample([])
    assert (gone.uuid, gone.fault) == ("GPU-a", "is no longer listed by the driver: see dmesg")
    assert (well.index, well.uuid, well.fault) == (1, "GPU-b", None)


def test_a_gpu_is_lost_whichever_call_says_so(install: Install) -> None:
    errors = {"nvmlDeviceGetUtilizationRates": pynvml.NVML_ERROR_GPU_IS_LOST}
    gpu = sample_one(install, Card("GPU-a", bus=1, errors=errors))
    assert "fallen off the bus" in (gpu.fault or "")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (pynvml.NVML_ERROR_RESET_REQUIRED, "needs a reset"),
        (pynvml.NVML_ERROR_OPERATING_SYSTEM, "device cgroup"),
        (pynvml.NVML_ERROR_UNKNOWN, "cannot be read: Unknown Error"),
        (4242, "cannot be read: NVML Error with code 4242"),
    ],
)
def test_a_fault_says_what_to_do(install: Install, error: int, words: str) -> None:
    gpu = sample_one(install, Card("GPU-a", bus=1, errors={"nvmlDeviceGetMemoryInfo": error}))
    assert gpu.fault is None  # the second version works
    broken = {"nvmlDeviceGetMemoryInfo": error, "nvmlDeviceGetMemoryInfo_v2": error}
    gpu = sample_one(install, Card("GPU-a", bus=1, errors=broken))
    assert words in (gpu.fault or "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mig": pynvml.NVML_DEVICE_MIG_ENABLE}, "MIG instances"),
        ({"mode": pynvml.NVML_COMPUTEMODE_PROHIBITED}, "compute mode Prohibited"),
    ],
)
def test_a_mode_in_which_no_job_could_use_it_is_a_fault(
    install: Install, changes: dict[str, Any], words: str
) -> None:
    gpu = sample_one(install, Card("GPU-a", bus=1, **changes))
    assert words in (gpu.fault or "")


def test_exclusive_process_mode_is_no_fault(install: Install) -> None:
    mode = pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS
    assert sample_one(install, Card("GPU-a", bus=1, mode=mode)).fault is None


# ── trouble with all of them ──


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "not loaded"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "upgraded while it was loaded: reboot"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "/dev/nvidiactl"),
        (pynvml.NVML_ERROR_OPERATING_SYSTEM, "device cgroup"),
        (pynvml.NVML_ERROR_UNKNOWN, "does not work: Unknown Error"),
    ],
)
def test_a_driver_that_does_not_work_is_explained(install: Install, error: int, words: str) -> None:
    library = install(Card("GPU-a", bus=1))
    library.errors["nvmlInitWithFlags"] = error
    with pytest.raises(GpusUnavailable, match=words):
        NvmlBackend()


def test_a_library_that_is_too_old_is_explained(install: Install) -> None:
    install(Card("GPU-a", bus=1), without=("nvmlInitWithFlags",))
    with pytest.raises(GpusUnavailable, match="Function Not Found"):
        NvmlBackend()


def test_a_driver_that_is_reloaded_under_us_is_unavailable(install: Install) -> None:
    card = Card("GPU-a", bus=1)
    library = install(card)
    backend = NvmlBackend()
    backend.sample([])
    card.errors["*"] = pynvml.NVML_ERROR_UNINITIALIZED
    library.errors["nvmlDeviceGetCount_v2"] = pynvml.NVML_ERROR_UNINITIALIZED
    with pytest.raises(GpusUnavailable, match="Uninitialized"):
        backend.sample([])


# ── the true library, where there is one ──


def has_driver() -> bool:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(has_driver(), reason="this machine has an NVIDIA driver")
def test_without_the_library_it_says_so_as_often_as_it_is_asked() -> None:
    for _ in range(2):
        with pytest.raises(GpusUnavailable, match="no NVIDIA driver on this machine"):
            NvmlBackend()


@pytest.mark.skipif(not has_driver(), reason="this machine has no NVIDIA driver")
def test_a_true_gpu_is_read() -> None:
    backend = NvmlBackend()
    gpus = backend.sample([])
    backend.close()
    assert gpus
    for gpu in gpus:
        assert gpu.uuid.startswith("GPU-")
        assert (gpu.memory_used_bytes or 0) <= (gpu.memory_total_bytes or 0)
