"""Cards that MIG has divided: their instances are what jobs get."""

from typing import Any

import pynvml
import pytest

from tests.daemon.gpus.driver import GIB, MIB, WHOLE_CARD, Card, MakeMachine, Part

ON = pynvml.NVML_DEVICE_MIG_ENABLE
MINUTE_S = 60.0


def divided(uuid: str, bus: int, *parts: Part | None, **more: Any) -> Card:
    return Card(uuid, bus=bus, mig=ON, parts=list(parts), **more)


def test_an_instance_is_a_gpu_of_its_own_and_its_card_is_none(machine: MakeMachine) -> None:
    part = Part("MIG-1", used=2 * GIB, processes=[(100, GIB)], mps=[(101, MIB)])
    card = divided("GPU-a", 0x17, part, power_limit_mw=400_000)
    one, other = machine(card, Card("GPU-b", bus=0x18)).sample()[::-1]

    assert (other.uuid, other.index, other.parent) == ("GPU-b", 1, None)
    assert (one.uuid, one.parent, one.bus_id) == ("MIG-1", "GPU-a", "00000000:17:00.0")
    assert one.model == "NVIDIA H100 MIG 1g.10gb"
    assert (one.memory_total_bytes, one.memory_used_bytes) == (10 * GIB, 2 * GIB)
    assert [process.pid for process in one.processes or ()] == [101, 100]
    assert (one.utilization_percent, one.fault, one.defect) == (None, None, None)
    # Of the whole card, and would be counted once for each instance.
    assert (one.power_w, one.power_limit_w, one.energy_j) == (None, None, None)
    assert one.temperature_c == 41
    assert (one.links, other.links) == ((), ())


def test_cards_keep_their_ordinals_and_instances_are_numbered_behind_them(
    machine: MakeMachine,
) -> None:
    box = machine(
        divided("GPU-b", 2, Part("MIG-b0"), None, Part("MIG-b2")),
        Card("GPU-c", bus=3),
        divided("GPU-a", 1, None, Part("MIG-a1")),
    )
    assert {gpu.uuid: gpu.index for gpu in box.sample()} == {
        "GPU-c": 2,
        "MIG-a1": 3 + 1,
        "MIG-b0": 3 + 7,
        "MIG-b2": 3 + 7 + 2,
    }


def test_an_instance_keeps_its_number_when_others_come_and_go(machine: MakeMachine) -> None:
    card = divided("GPU-a", 1, Part("MIG-0"), Part("MIG-1"), Part("MIG-2"))
    box = machine(card, Card("GPU-b", bus=2))
    before = {gpu.uuid: gpu.index for gpu in box.sample()}
    card.parts[0] = None
    card.parts.append(Part("MIG-3"))
    after = {gpu.uuid: gpu.index for gpu in box.sample(after_s=MINUTE_S)}
    assert set(before) - set(after) == {"MIG-0"}
    assert set(after) - set(before) == {"MIG-3"}
    assert {uuid: after[uuid] for uuid in set(after) & set(before)}.items() <= before.items()
    assert len(set(after.values())) == len(after)


def test_an_instance_that_is_destroyed_is_missed_at_once(machine: MakeMachine) -> None:
    card = divided("GPU-a", 1, Part("MIG-0"), Part("MIG-1"))
    box = machine(card)
    box.sample()
    shut = card.parts[1]
    assert shut is not None
    shut.errors["*"] = pynvml.NVML_ERROR_INVALID_ARGUMENT
    box.library.errors.clear()
    card.parts[1] = None
    handles = box.library.at

    def at(handle: Any) -> Any:
        try:
            return handles(handle)
        except StopIteration:
            return shut  # an old handle

    box.library.at = at  # type: ignore[method-assign]
    assert [gpu.uuid for gpu in box.sample(after_s=1)] == ["MIG-0"]


def test_a_card_that_is_whole_again_is_a_gpu_again(machine: MakeMachine) -> None:
    card = divided("GPU-a", 1, Part("MIG-0"))
    box = machine(card)
    assert [gpu.uuid for gpu in box.sample()] == ["MIG-0"]
    card.mig, card.parts = 0, []
    assert [gpu.uuid for gpu in box.sample(after_s=MINUTE_S)] == ["GPU-a"]
    card.mig, card.parts = ON, [Part("MIG-9")]
    assert [gpu.uuid for gpu in box.sample(after_s=MINUTE_S)] == ["MIG-9"]


# ── where nothing can be given out ──


def test_a_divided_card_without_instances_says_what_to_do(machine: MakeMachine) -> None:
    gpu = machine(divided("GPU-a", 1, None, None)).one()
    assert (gpu.uuid, gpu.index, gpu.parent) == ("GPU-a", 0, None)
    assert gpu.fault == (
        "is in MIG mode and has no instance: make some with nvidia-smi mig -cgi PROFILE -C, "
        "or leave the mode with nvidia-smi -mig 0"
    )


@pytest.mark.parametrize(
    "call", ["nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex"]
)
def test_instances_that_may_not_be_opened_are_a_fault_of_their_card(
    machine: MakeMachine, call: str
) -> None:
    errors = {call: pynvml.NVML_ERROR_NO_PERMISSION}
    gpu = machine(divided("GPU-a", 1, Part("MIG-0"), errors=errors)).one()
    assert gpu.fault == (
        "is divided by MIG and its instances cannot be opened (Insufficient Permissions): see the "
        "rights of /dev/nvidia-caps, or undo it with nvidia-smi -mig 0"
    )


def test_instances_that_cannot_be_opened_any_more_keep_their_jobs_and_say_why(
    machine: MakeMachine,
) -> None:
    card = divided("GPU-a", 1, Part("MIG-0"), Part("MIG-1"))
    box = machine(card)
    box.sample()
    card.errors["nvmlDeviceGetMigDeviceHandleByIndex"] = pynvml.NVML_ERROR_UNKNOWN
    gpus = box.sample(after_s=MINUTE_S)
    assert [gpu.uuid for gpu in gpus] == ["MIG-0", "MIG-1"]
    assert all("cannot be opened (Unknown Error)" in (gpu.fault or "") for gpu in gpus)
    card.errors.clear()
    assert [gpu.fault for gpu in box.sample(after_s=MINUTE_S)] == [None, None]


def test_one_instance_that_does_not_open_is_a_warning_on_the_others(machine: MakeMachine) -> None:
    shut = Part("MIG-1", errors={"nvmlDeviceGetUUID": pynvml.NVML_ERROR_NO_PERMISSION})
    gpu = machine(divided("GPU-a", 1, Part("MIG-0"), shut)).one()
    assert (gpu.uuid, gpu.fault) == ("MIG-0", None)
    assert gpu.warnings == (
        "not every MIG instance of this card can be opened (Insufficient Permissions): "
        "see /dev/nvidia-caps",
    )


# ── what befalls the card falls on its instances ──


def test_the_state_of_a_card_is_that_of_each_of_its_instances(machine: MakeMachine) -> None:
    card = divided("GPU-a", 1, Part("MIG-0"), Part("MIG-1"), persistence=0, recovery=1)
    for gpu in machine(card).sample():
        assert "persistence mode is off" in gpu.warnings[0]
        assert "needs a reset" in (gpu.defect or "")
        assert gpu.is_lasting


def test_a_lost_card_takes_its_instances_with_it(machine: MakeMachine) -> None:
    card = divided("GPU-a", 1, Part("MIG-0"), Part("MIG-1"))
    box = machine(card)
    box.sample()
    card.errors["*"] = pynvml.NVML_ERROR_GPU_IS_LOST
    for part in card.parts:
        assert part is not None
        part.errors["*"] = pynvml.NVML_ERROR_GPU_IS_LOST
    gpus = box.sample(after_s=1)
    assert [(gpu.uuid, gpu.parent, gpu.is_lasting) for gpu in gpus] == [
        ("MIG-0", "GPU-a", True),
        ("MIG-1", "GPU-a", True),
    ]
    assert all("fallen off the bus" in (gpu.fault or "") for gpu in gpus)


def test_an_xid_is_told_of_the_instance_it_befell_or_of_all(machine: MakeMachine) -> None:
    card = divided("GPU-a", 1, Part("MIG-0", gpu_instance=3), Part("MIG-1", gpu_instance=5))
    box = machine(card)
    box.sample()
    box.library.xid(card, 31, gpu_instance=5)
    box.library.xid(card, 94, gpu_instance=WHOLE_CARD)
    assert [gpu.xids for gpu in box.sample()] == [(94,), (31, 94)]


def test_a_memory_error_is_a_defect_of_the_instance_it_befell(machine: MakeMachine) -> None:
    card = divided("GPU-a", 1, Part("MIG-1", gpu_instance=3), Part("MIG-2", gpu_instance=5))
    box = machine(card)
    box.sample()
    box.library.events.append((card, pynvml.nvmlEventTypeDoubleBitEccError, 0, 5))
    one, other = box.sample(after_s=1)
    assert (one.defect, other.defect is None) == (None, False)


def test_a_divided_card_is_read_once_for_its_instances(machine: MakeMachine) -> None:
    card = divided("GPU-a", 1, *(Part(f"MIG-{number}") for number in range(7)))
    box = machine(card)
    box.sample()
    assert box.library.calls["nvmlDeviceGetRemappedRows"] == 1
    assert box.library.calls["nvmlDeviceGetUtilizationRates"] == 0
