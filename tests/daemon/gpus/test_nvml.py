"""The true wrappers of pynvml over a library of our own making: what a driver may do to us."""

import ctypes
import os
from typing import Any

import pynvml
import pytest

from gpuq.daemon.gpus import GpusUnavailable
from gpuq.daemon.gpus.backend import is_identified
from gpuq.daemon.gpus.nvml import NvmlBackend
from gpuq.daemon.gpus.nvml.errors import _FAULTS, _UNAVAILABLE
from tests.daemon.gpus.driver import GIB, MIB, UNSUPPORTED, Card, Library, MakeMachine

MINUTE_S = 60.0

# ── a good reading ──


def test_a_reading_in_full(machine: MakeMachine) -> None:
    card = Card("GPU-a", bus=0x17, used=3 * GIB, processes=[(100, 2 * GIB)], energy_mj=7_250)
    gpu = machine(card).one()

    assert (gpu.index, gpu.uuid, gpu.model, gpu.simulated) == (0, "GPU-a", "NVIDIA H100", False)
    assert gpu.bus_id == "00000000:17:00.0"
    assert (gpu.utilization_percent, gpu.temperature_c) == (37, 41)
    assert (gpu.power_w, gpu.power_limit_w, gpu.energy_j) == (61.2, 700.0, 7.25)
    assert gpu.memory_total_bytes == 80 * GIB
    assert gpu.memory_used_bytes == 3 * GIB
    assert gpu.memory_reserved_bytes == 600 * MIB
    assert (gpu.fault, gpu.defect, gpu.is_lasting, gpu.warnings) == (None, None, False, ())
    assert (gpu.xids, gpu.parent, gpu.links, gpu.one_process_only) == ((), None, (), False)
    assert gpu.processes is not None
    (process,) = gpu.processes
    assert (process.pid, process.memory_bytes, process.job) == (100, 2 * GIB, None)
    assert (process.command, process.unit, process.ignored) == ("python", None, False)
    assert process.user is not None


def test_gpus_are_numbered_by_bus_as_cuda_does_and_not_by_the_driver(machine: MakeMachine) -> None:
    box = machine(Card("GPU-c", bus=0xC1), Card("GPU-a", bus=0x17), Card("GPU-b", bus=0x65))
    assert [(gpu.index, gpu.uuid) for gpu in box.sample()] == [
        (0, "GPU-a"),
        (1, "GPU-b"),
        (2, "GPU-c"),
    ]


def test_the_library_is_opened_once_and_handles_are_kept(machine: MakeMachine) -> None:
    box = machine(Card("GPU-a", bus=1), Card("GPU-b", bus=2))
    for _ in range(20):
        box.sample(after_s=1)
    assert box.library.calls["nvmlInitWithFlags"] == 1
    assert box.library.calls["nvmlDeviceGetHandleByIndex_v2"] == 2
    assert box.library.calls["nvmlDeviceGetHandleByUUID"] == 0
    box.backend.close()
    assert box.library.calls["nvmlShutdown"] == 1


def test_a_new_gpu_is_found_within_a_minute(machine: MakeMachine) -> None:
    box = machine(Card("GPU-b", bus=2))
    box.sample()
    box.library.cards.append(Card("GPU-a", bus=1))
    assert len(box.sample(after_s=MINUTE_S - 1)) == 1
    assert [gpu.uuid for gpu in box.sample(after_s=1)] == ["GPU-a", "GPU-b"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # that is what is tried
def test_a_fork_of_the_process_that_opened_nvml_is_refused(machine: MakeMachine) -> None:
    box = machine(Card("GPU-a", bus=1))
    box.sample()
    inbox, outbox = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            box.sample()
        except GpusUnavailable as refusal:
            box.backend.close()
            calls = box.library.calls["nvmlShutdown"]
            os.write(outbox, f"{refusal} (shut down {calls} times)".encode())
        os._exit(0)
    os.close(outbox)
    with os.fdopen(inbox) as told:
        words = told.read()
    os.waitpid(child, 0)
    assert words == (
        f"NVML was opened by process {os.getpid()} and cannot be used by its child {child}: "
        "open it there anew (shut down 0 times)"
    )
    assert box.one().fault is None


# ── memory ──


def test_what_the_driver_reserves_is_not_used_by_anybody(machine: MakeMachine) -> None:
    gpu = machine(Card("GPU-a", bus=1, used=0, reserved=600 * MIB)).one()
    assert gpu.memory_used_bytes == 0
    assert gpu.memory_free_bytes == 80 * GIB - 600 * MIB


def test_a_driver_that_counts_the_reserved_as_used_is_understood_too(
    machine: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counting_all(self: Library, handle: Any, memory: Any) -> None:
        memory._obj.total, memory._obj.reserved = 80 * GIB, 600 * MIB
        memory._obj.used = 600 * MIB + 2 * GIB
        memory._obj.free = 78 * GIB - 600 * MIB

    monkeypatch.setattr(Library, "do_nvmlDeviceGetMemoryInfo_v2", counting_all)
    assert machine(Card("GPU-a", bus=1)).one().memory_used_bytes == 2 * GIB


def test_an_old_driver_without_the_second_version_is_read_by_the_first(
    machine: MakeMachine,
) -> None:
    card = Card("GPU-a", bus=1, used=GIB, reserved=600 * MIB)
    gpu = machine(card, without=("nvmlDeviceGetMemoryInfo_v2",)).one()
    assert gpu.memory_used_bytes == GIB + 600 * MIB
    assert gpu.memory_reserved_bytes is None
    assert gpu.fault is None


@pytest.mark.parametrize(
    "changes",
    [
        {"errors": dict.fromkeys(("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"), 3)},
        {"total": 0, "used": 0, "reserved": 0},
    ],
)
def test_a_gpu_without_memory_of_its_own_says_nothing_of_it(
    machine: MakeMachine, changes: dict[str, Any]
) -> None:
    gpu = machine(Card("GPU-a", bus=1, processes=[(100, GIB)], **changes)).one()
    assert (gpu.memory_total_bytes, gpu.memory_used_bytes, gpu.fault) == (None, None, None)
    assert [process.pid for process in gpu.processes or ()] == [100]


# ── absent is absent ──


def test_what_a_gpu_does_not_support_is_absent_and_no_fault(machine: MakeMachine) -> None:
    needed = ("UUID", "PciInfo_v3", "HandleByIndex_v2", "Count_v2", "MemoryInfo_v2")
    optional = [
        name.removeprefix("do_")
        for name in vars(Library)
        if name.startswith("do_nvmlDevice") and not name.endswith(needed)
    ]
    assert len(optional) > 25
    card = Card("GPU-a", bus=1, errors=dict.fromkeys(optional, UNSUPPORTED))
    gpu = machine(card, Card("GPU-b", bus=2)).sample()[0]
    assert (gpu.fault, gpu.defect, gpu.warnings) == (None, None, ())
    assert (gpu.utilization_percent, gpu.temperature_c) == (None, None)
    assert (gpu.power_w, gpu.power_limit_w, gpu.energy_j) == (None, None, None)
    assert (gpu.processes, gpu.links) == (None, ())
    assert gpu.memory_used_bytes == 4 * MIB


def test_what_a_driver_does_not_have_yet_is_absent_and_no_fault(machine: MakeMachine) -> None:
    needed = ("UUID", "PciInfo_v3", "HandleByIndex_v2", "Count_v2", "MemoryInfo", "InitWithFlags")
    absent = tuple(
        name.removeprefix("do_")
        for name in vars(Library)
        if name.startswith("do_nvml") and not name.endswith(needed)
    )
    gpu = machine(Card("GPU-a", bus=1), without=absent).one()
    assert (gpu.fault, gpu.defect, gpu.warnings) == (None, None, ())
    assert (gpu.power_w, gpu.energy_j, gpu.processes) == (None, None, None)
    assert gpu.memory_used_bytes == 604 * MIB


def test_a_library_older_than_its_wrapper_is_no_fault(
    machine: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pynvml says so with an error that is not one of its tree."""

    def refuse(handle: Any) -> None:
        raise pynvml.NVMLLibraryMismatchError("unversioned")

    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", refuse)
    gpu = machine(Card("GPU-a", bus=1)).one()
    assert (gpu.power_w, gpu.fault, gpu.temperature_c) == (None, None, 41)


def test_a_name_that_is_no_text_does_not_matter(machine: MakeMachine) -> None:
    gpu = machine(Card("GPU-a", bus=1, name=b"\xff\xfe")).one()
    assert (gpu.model, gpu.fault) == ("NVIDIA GPU", None)


# ── trouble with one GPU ──


def test_a_gpu_that_is_lost_while_the_others_go_on(machine: MakeMachine) -> None:
    lost = Card("GPU-b", bus=2)
    box = machine(Card("GPU-a", bus=1), lost, Card("GPU-c", bus=3))
    assert [gpu.fault for gpu in box.sample()] == [None] * 3

    lost.errors["*"] = pynvml.NVML_ERROR_GPU_IS_LOST
    first, second, third = box.sample()
    assert (first.fault, third.fault) == (None, None)
    assert third.memory_used_bytes == 4 * MIB
    assert second.fault is not None
    assert "fallen off the bus" in second.fault
    assert [gpu.is_lasting for gpu in (first, second, third)] == [False, True, False]
    assert (second.index, second.uuid, second.model) == (1, "GPU-b", "NVIDIA H100")
    assert (second.memory_used_bytes, second.processes) == (None, None)

    before = box.library.calls["nvmlDeviceGetHandleByIndex_v2"]
    for _ in range(10):
        box.sample(after_s=1)
    # Looked for once, not always.
    assert box.library.calls["nvmlDeviceGetHandleByIndex_v2"] == before

    lost.errors.clear()
    assert [gpu.fault for gpu in box.sample()] == [None] * 3


def test_a_well_gpu_is_read_by_its_old_handle_when_a_lost_one_spoils_the_search(
    machine: MakeMachine,
) -> None:
    cards = Card("GPU-a", bus=1), Card("GPU-b", bus=2)
    box = machine(*cards)
    box.sample()
    for card in cards:
        card.errors["nvmlDeviceGetHandleByIndex_v2"] = pynvml.NVML_ERROR_GPU_IS_LOST
    cards[1].errors["*"] = pynvml.NVML_ERROR_GPU_IS_LOST
    well, lost = box.sample(after_s=MINUTE_S)
    assert (well.uuid, well.fault) == ("GPU-a", None)
    assert lost.uuid == "GPU-b"
    assert "fallen off" in (lost.fault or "")


def test_a_handle_that_became_invalid_is_fetched_anew(machine: MakeMachine) -> None:
    old, new = Card("GPU-a", bus=1), Card("GPU-a", bus=1)
    box = machine(old)
    box.sample()
    old.errors["*"] = pynvml.NVML_ERROR_INVALID_ARGUMENT

    def reopen(self: Library, handle: Any) -> Card:
        address = ctypes.cast(handle, ctypes.c_void_p).value
        return old if address == id(old) else new

    box.library.at = reopen.__get__(box.library)  # type: ignore[method-assign]
    box.library.cards = [new]
    before = box.library.calls["nvmlDeviceGetHandleByIndex_v2"]
    gpu = box.one()
    assert (gpu.uuid, gpu.fault) == ("GPU-a", None)
    assert box.library.calls["nvmlDeviceGetHandleByIndex_v2"] == before + 1
    assert box.library.calls["nvmlDeviceGetHandleByUUID"] == 0


def test_a_gpu_that_may_not_be_opened_is_shown_without_a_name(machine: MakeMachine) -> None:
    closed = {"nvmlDeviceGetHandleByIndex_v2": pynvml.NVML_ERROR_NO_PERMISSION}
    box = machine(Card("GPU-b", bus=1, errors=closed), Card("GPU-a", bus=2))
    well, bad = box.sample()
    assert (well.index, well.uuid, well.fault) == (0, "GPU-a", None)
    assert (bad.index, is_identified(bad), is_identified(well)) == (1, False, True)
    assert bad.fault == "may not be opened: see the rights of /dev/nvidia*"


def test_a_gpu_that_did_not_open_for_a_moment_is_tried_again_soon(machine: MakeMachine) -> None:
    closed = {"nvmlDeviceGetHandleByIndex_v2": pynvml.NVML_ERROR_UNKNOWN}
    bad = Card("GPU-a", bus=1, errors=closed)
    box = machine(bad)
    assert not is_identified(box.one())
    looks = box.library.calls["nvmlDeviceGetCount_v2"]
    assert not is_identified(box.one(after_s=4))
    assert box.library.calls["nvmlDeviceGetCount_v2"] == looks, "not at every reading"
    bad.errors.clear()
    gpu = box.one(after_s=1)
    assert (gpu.uuid, gpu.fault) == ("GPU-a", None)
    before = box.library.calls["nvmlDeviceGetCount_v2"]
    box.one(after_s=MINUTE_S - 1)
    assert box.library.calls["nvmlDeviceGetCount_v2"] == before, "and then as seldom as ever"


def test_a_gpu_that_the_driver_no_longer_lists_stays_on_the_list(machine: MakeMachine) -> None:
    box = machine(Card("GPU-a", bus=1), Card("GPU-b", bus=2))
    box.sample()
    del box.library.cards[0]
    gone, well = box.sample(after_s=MINUTE_S)
    assert (gone.uuid, gone.fault) == ("GPU-a", "is no longer listed by the driver: see dmesg")
    assert (well.index, well.uuid, well.fault) == (1, "GPU-b", None)


def test_a_gpu_is_lost_whichever_call_says_so(machine: MakeMachine) -> None:
    calls = [
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetTotalEnergyConsumption",
    ]
    for call in calls:
        card = Card("GPU-a", bus=1, errors={call: pynvml.NVML_ERROR_GPU_IS_LOST})
        gpu = machine(card).one()
        assert "fallen off the bus" in (gpu.fault or ""), call
        assert gpu.is_lasting


@pytest.mark.parametrize("error", [*_FAULTS, pynvml.NVML_ERROR_UNKNOWN, 4242])
def test_a_fault_says_what_to_do(machine: MakeMachine, error: int) -> None:
    card = Card("GPU-a", bus=1, errors={"nvmlDeviceGetMemoryInfo": error})
    assert machine(card).one().fault is None  # the second version works
    card.errors["nvmlDeviceGetMemoryInfo_v2"] = error
    gpu = machine(card).one()
    words = {
        pynvml.NVML_ERROR_UNKNOWN: "cannot be read: Unknown Error",
        4242: "cannot be read: NVML Error with code 4242",
    }
    assert gpu.fault == (_FAULTS | words)[error]
    lasting = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)
    assert gpu.is_lasting == (error in lasting)
    assert (gpu.memory_total_bytes, gpu.processes) == (None, None)


# ── modes ──


def test_in_compute_mode_prohibited_no_job_could_use_it(machine: MakeMachine) -> None:
    gpu = machine(Card("GPU-a", bus=1, mode=pynvml.NVML_COMPUTEMODE_PROHIBITED)).one()
    assert gpu.fault == "is in compute mode Prohibited: nvidia-smi --compute-mode=DEFAULT"
    assert not gpu.is_lasting


def test_in_compute_mode_exclusive_process_it_has_room_for_one(machine: MakeMachine) -> None:
    mode = pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS
    one, other = machine(Card("GPU-a", bus=1, mode=mode), Card("GPU-b", bus=2)).sample()
    assert (one.fault, one.one_process_only, other.one_process_only) == (None, True, False)


# ── trouble with all of them ──


@pytest.mark.parametrize("error", [*_UNAVAILABLE, pynvml.NVML_ERROR_UNKNOWN])
def test_a_driver_that_does_not_work_is_explained(machine: MakeMachine, error: int) -> None:
    box = machine(Card("GPU-a", bus=1))
    box.library.errors["nvmlInitWithFlags"] = error
    with pytest.raises(GpusUnavailable) as refusal:
        box.sample()
    unknown = "the NVIDIA driver does not work: Unknown Error"
    assert str(refusal.value) == _UNAVAILABLE.get(error, unknown)


def test_a_library_that_is_too_old_is_explained(machine: MakeMachine) -> None:
    with pytest.raises(GpusUnavailable, match="Function Not Found"):
        machine(Card("GPU-a", bus=1), without=("nvmlInitWithFlags",)).sample()


def test_a_driver_that_is_reloaded_under_us_is_unavailable(machine: MakeMachine) -> None:
    card = Card("GPU-a", bus=1)
    box = machine(card)
    box.sample()
    card.errors["*"] = pynvml.NVML_ERROR_UNINITIALIZED
    box.library.errors["nvmlDeviceGetCount_v2"] = pynvml.NVML_ERROR_UNINITIALIZED
    with pytest.raises(GpusUnavailable, match="Uninitialized"):
        box.sample()


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
        assert gpu.uuid.startswith(("GPU-", "MIG-"))
        assert (gpu.memory_used_bytes or 0) <= (gpu.memory_total_bytes or 0)
