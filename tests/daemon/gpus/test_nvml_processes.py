"""Who computes on a GPU: which of the driver's records are believed, and what is told of each."""

from typing import Any

import pynvml
import pytest

from gpuq.core.gpus.gpu import Gpu
from tests.daemon.gpus.driver import (
    GIB,
    NOT_SAID,
    UNSUPPORTED,
    Card,
    Library,
    Machine,
    MakeMachine,
    Proc,
)

V2 = "nvmlDeviceGetComputeRunningProcesses_v2"
V3 = "nvmlDeviceGetComputeRunningProcesses_v3"


def pids(gpu: Gpu) -> list[int] | None:
    return None if gpu.processes is None else [process.pid for process in gpu.processes]


def card(*processes: tuple[int, int], **more: Any) -> Card:
    return Card("GPU-a", bus=1, processes=list(processes), **more)


# ── records ──


def test_a_process_whose_memory_the_driver_does_not_know(machine: MakeMachine) -> None:
    gpu = machine(card((100, NOT_SAID))).one()
    assert [process.memory_bytes for process in gpu.processes or ()] == [None]


def test_processes_of_a_driver_that_lacks_the_newest_call(machine: MakeMachine) -> None:
    assert pids(machine(card((100, GIB)), without=(V3,)).one()) == [100]


def test_processes_that_the_driver_does_not_tell_are_not_none_at_all(machine: MakeMachine) -> None:
    assert pids(machine(card((100, GIB)), without=(V3, V2)).one()) is None
    assert pids(machine(card((100, GIB), errors={V3: UNSUPPORTED, V2: UNSUPPORTED})).one()) is None
    assert pids(machine(card()).one()) == []


@pytest.mark.parametrize(
    "nonsense",
    [
        [(100, 81 * GIB)],  # more than the GPU has
        [(0, GIB)],
        [(100, GIB), (2**22 + 1, GIB)],  # Linux gives no such pid
        [(7001, GIB)],  # nobody
        [(100, GIB), (7001, 5), (7002, 6)],
    ],
)
def test_records_of_another_layout_are_not_believed(
    machine: MakeMachine, nonsense: list[tuple[int, int]]
) -> None:
    gpu = machine(card(*nonsense)).one()
    assert (gpu.processes, gpu.fault) == (None, None)
    assert gpu.memory_used_bytes == 4 * 2**20


@pytest.mark.parametrize(
    "nonsense", [[(100, 81 * GIB)], [(100, GIB), (2**21, 4711)], [(7001, GIB), (7002, GIB)]]
)
def test_where_one_call_speaks_nonsense_another_is_asked(
    machine: MakeMachine, monkeypatch: pytest.MonkeyPatch, nonsense: list[tuple[int, int]]
) -> None:
    """As with drivers 510 to 535, whose third version had the layout of the second or its own."""
    box = machine(card(*nonsense))
    true = Library.do_nvmlDeviceGetComputeRunningProcesses_v2

    def well(self: Library, handle: Any, count: Any, records: Any) -> int:
        self.at(handle).processes = [(100, GIB), (101, 2 * GIB)]
        return true(self, handle, count, records)

    monkeypatch.setattr(Library, f"do_{V2}", well)
    assert pids(box.one()) == [100, 101]


def test_a_process_that_has_just_died_does_not_spoil_the_list(machine: MakeMachine) -> None:
    assert pids(machine(card((100, GIB), (7001, GIB))).one()) == [100]


def test_processes_that_come_faster_than_the_space_for_them(
    machine: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = machine(card((100, GIB)), without=(V2,))
    true = Library.do_nvmlDeviceGetComputeRunningProcesses_v3

    def growing(self: Library, handle: Any, count: Any, records: Any) -> int:
        if box.library.calls[V3] < 6:  # each try asks twice: how many, and which
            return int(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        return true(self, handle, count, records)

    monkeypatch.setattr(Library, f"do_{V3}", growing)
    assert pids(box.one()) == [100]


def test_space_that_never_suffices_is_given_up(machine: MakeMachine) -> None:
    short = dict.fromkeys((V3, V2), pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
    gpu = machine(card((100, GIB), errors=short)).one()
    assert (gpu.processes, gpu.fault) == (None, None)


def test_processes_that_only_draw_are_never_asked_for(machine: MakeMachine) -> None:
    box = machine(card((100, GIB)))
    box.sample()
    assert not [name for name in box.library.calls if "Graphics" in name]


# ── sharing by MPS ──


def test_those_who_share_by_mps_are_on_the_list_and_their_server_is_nobody(
    machine: MakeMachine,
) -> None:
    box = machine(card((100, GIB), (300, 30 * 2**20), mps=[(101, 2 * GIB), (100, GIB)]))
    box.proc.run(300, command="nvidia-cuda-mps-server")
    gpu = box.one()
    assert gpu.processes is not None
    assert {p.pid: (p.command, p.ignored) for p in gpu.processes} == {
        100: ("python", False),
        101: ("python", False),
        300: ("nvidia-cuda-mps-server", True),
    }
    assert [p.pid for p in gpu.foreign_processes] == [101, 100]


def test_a_gpu_without_mps_has_the_processes_it_has(machine: MakeMachine) -> None:
    absent = "nvmlDeviceGetMPSComputeRunningProcesses"
    box = machine(card((100, GIB)), without=(f"{absent}_v2", f"{absent}_v3"))
    assert pids(box.one()) == [100]


# ── between two lists ──


def listings(box: Machine) -> int:
    """How often the compute processes were asked for: twice where there are any."""
    return box.library.calls[V3] // 2


def test_the_last_list_stands_for_some_seconds_without_those_who_left(machine: MakeMachine) -> None:
    gpu = card((100, GIB), (101, GIB), (102, GIB))
    box = machine(gpu)
    assert pids(box.one()) == [100, 101, 102]
    box.proc.leave(101)
    box.proc.leave(102)
    box.proc.run(102, start=555)  # the number was given again
    gpu.processes.append((103, GIB))
    assert pids(box.one(after_s=1, processes=False)) == [100]
    assert listings(box) == 1
    assert pids(box.one(after_s=4, processes=False)) == [100, 102, 103]
    assert listings(box) == 2


def test_who_wants_the_processes_gets_them_as_of_now(machine: MakeMachine) -> None:
    gpu = card((100, GIB))
    box = machine(gpu)
    box.sample()
    gpu.processes.append((101, GIB))
    assert pids(box.one(processes=False)) == [100]
    assert pids(box.one(processes=True)) == [100, 101]


def test_the_energy_is_that_of_each_reading(machine: MakeMachine) -> None:
    gpu = card((100, GIB))
    box = machine(gpu)
    box.sample()
    gpu.energy_mj += 1000
    assert box.one(processes=False).energy_j == 5001


def test_after_a_fault_no_list_of_before_counts(machine: MakeMachine) -> None:
    gpu = card((100, GIB))
    box = machine(gpu)
    box.sample()
    gpu.errors["*"] = pynvml.NVML_ERROR_UNKNOWN
    assert box.one(after_s=0.1, processes=False).fault
    gpu.errors.clear()
    gpu.processes[:] = [(101, GIB)]
    assert pids(box.one(after_s=0.1, processes=False)) == [101]


def test_memory_that_has_moved_is_a_reason_to_look_who_did_it(machine: MakeMachine) -> None:
    gpu = card((100, GIB), used=GIB)
    box = machine(gpu)
    box.sample()
    for step, expected in [(64, 1), (1, 2), (-64, 2), (-1, 3)]:
        gpu.used += step * 2**20
        box.sample(after_s=0.1, processes=False)
        assert listings(box) == expected


def test_a_reading_every_five_seconds_lists_each_time(machine: MakeMachine) -> None:
    box = machine(card((100, GIB)))
    for after_s in (0, 5.0, 4.99, 5.02, 4.98):
        box.sample(after_s=after_s, processes=False)
    assert listings(box) == 5


# ── where processes cannot be told ──


def test_in_a_container_with_pids_of_its_own_nobody_is_named(
    machine: MakeMachine, tmp_path: Any
) -> None:
    box = machine(card((100, GIB), used=GIB, mps=[(100, GIB)]), Card("GPU-b", bus=2))
    box.proc = Proc(tmp_path / "inside", namespace="pid:[4026532574]")
    box.proc.run(100)
    for gpu in box.sample():
        assert gpu.processes is None
        (warning,) = gpu.warnings
        assert warning.startswith("gpuq runs in a container and cannot tell whose processes")
        assert (gpu.fault, gpu.defect) == (None, None)
    assert not [name for name in box.library.calls if "RunningProcesses" in name]


def test_a_process_is_told_with_the_unit_it_runs_in(machine: MakeMachine) -> None:
    box = machine(card((300, GIB)))
    box.proc.run(300, command="ollama", cgroup="0::/system.slice/ollama.service")
    (process,) = box.one().processes or ()
    assert (process.command, process.unit) == ("ollama", "ollama.service")
