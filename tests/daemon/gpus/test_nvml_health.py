"""What ails a GPU, what has befallen it, and how far it is from the others."""

from typing import Any

import pynvml
import pytest

from gpuq.core.gpus.gpu import Closeness
from tests.daemon.gpus.driver import UNSUPPORTED, WHOLE_CARD, Card, MakeMachine

MINUTE_S = 60.0
HEAT = pynvml.nvmlClocksEventReasonHwThermalSlowdown
BRAKE = pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown
SLOWDOWN = pynvml.nvmlClocksEventReasonHwSlowdown
DOUBLE_BIT = pynvml.nvmlEventTypeDoubleBitEccError

# ── health ──


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ecc": 1}, "1 uncorrectable memory error since the driver was loaded"),
        ({"ecc": 3}, "3 uncorrectable memory errors since the driver was loaded"),
        ({"remapped": (0, 1, 1, 0)}, "bad memory rows wait to be remapped: nvidia-smi --gpu-reset"),
        ({"pages_pending": 1}, "bad memory pages wait to be retired: nvidia-smi --gpu-reset"),
        ({"persistence": 0}, "persistence mode is off"),
        ({"slowdown": HEAT | SLOWDOWN}, "slowed down by heat: see its fans"),
        ({"slowdown": pynvml.nvmlClocksEventReasonSwThermalSlowdown}, "slowed down by heat"),
        ({"slowdown": BRAKE | SLOWDOWN}, "slowed down by a power brake"),
        ({"slowdown": SLOWDOWN}, "slowed down by its hardware"),
        ({"recovery": 9}, "its driver asks for recovery action 9"),
    ],
)
def test_what_somebody_should_see_to_is_a_warning(
    machine: MakeMachine, changes: dict[str, Any], words: str
) -> None:
    gpu = machine(Card("GPU-a", bus=1, **changes)).one()
    (warning,) = gpu.warnings
    assert warning.startswith(words)
    assert (gpu.fault, gpu.defect, gpu.is_lasting) == (None, None, False)


@pytest.mark.parametrize(
    "slowdown",
    [
        pynvml.nvmlClocksEventReasonGpuIdle,
        pynvml.nvmlClocksEventReasonSwPowerCap,
        pynvml.nvmlClocksEventReasonApplicationsClocksSetting,
    ],
)
def test_clocks_that_are_low_for_a_good_reason_are_no_warning(
    machine: MakeMachine, slowdown: int
) -> None:
    assert machine(Card("GPU-a", bus=1, slowdown=slowdown)).one().warnings == ()


@pytest.mark.parametrize(
    ("changes", "words", "is_lasting"),
    [
        ({"remapped": (4, 4, 0, 1)}, "has bad memory rows and no spare ones left", False),
        ({"recovery": 1}, "needs a reset, says its driver", True),
        ({"recovery": 2}, "needs a reboot of this machine", True),
        ({"recovery": 3}, "needs all traffic between GPUs to end", False),
        ({"recovery": 4}, "works at reduced capacity", True),
    ],
)
def test_what_keeps_jobs_away_is_a_defect(
    machine: MakeMachine, changes: dict[str, Any], words: str, is_lasting: bool
) -> None:
    gpu = machine(Card("GPU-a", bus=1, **changes)).one()
    assert (gpu.defect or "").startswith(words)
    assert (gpu.fault, gpu.warnings, gpu.is_lasting) == (None, (), is_lasting)
    assert gpu.memory_total_bytes is not None


def test_several_ailments_are_all_told(machine: MakeMachine) -> None:
    gpu = machine(Card("GPU-a", bus=1, ecc=2, remapped=(0, 0, 1, 1), recovery=1)).one()
    assert (gpu.defect or "").count("; ") == 1
    assert len(gpu.warnings) == 2


def test_a_field_that_the_driver_does_not_know_is_no_ailment(
    machine: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = machine(Card("GPU-a", bus=1))

    def unknown(handle: Any, count: Any, values: Any) -> int:
        values._obj[0].nvmlReturn, values._obj[0].value.uiVal = UNSUPPORTED, 2
        return 0

    monkeypatch.setattr(type(box.library), "do_nvmlDeviceGetFieldValues", lambda _, *a: unknown(*a))
    assert box.one().defect is None


def test_a_driver_that_calls_slowdowns_by_their_old_name_is_understood(
    machine: MakeMachine,
) -> None:
    absent = ("nvmlDeviceGetCurrentClocksEventReasons",)
    gpu = machine(Card("GPU-a", bus=1, slowdown=HEAT), without=absent).one()
    assert gpu.warnings[0].startswith("slowed down by heat")


def test_health_and_the_power_limit_are_read_once_a_minute(machine: MakeMachine) -> None:
    card = Card("GPU-a", bus=1)
    box = machine(card)
    box.sample()
    card.ecc, card.power_limit_mw = 2, 450_000
    before = box.one(after_s=MINUTE_S - 1)
    assert (before.warnings, before.power_limit_w) == ((), 700.0)
    after = box.one(after_s=1)
    assert (len(after.warnings), after.power_limit_w) == (1, 450.0)
    assert box.library.calls["nvmlDeviceGetTotalEccErrors"] == 2


def test_a_gpu_that_has_come_back_is_examined_at_once(machine: MakeMachine) -> None:
    card = Card("GPU-a", bus=1, recovery=1)
    box = machine(card)
    assert box.one().defect
    card.errors["*"] = pynvml.NVML_ERROR_RESET_REQUIRED
    assert "needs a reset" in (box.one(after_s=1).fault or "")
    card.errors.clear()
    card.recovery = 0
    gpu = box.one(after_s=1)
    assert (gpu.fault, gpu.defect, gpu.is_lasting) == (None, None, False)


def test_a_gpu_that_wakes_up_only_seems_busy(machine: MakeMachine) -> None:
    """Without persistence mode it slept, and checks its memory first."""
    awake, asleep = Card("GPU-a", bus=1), Card("GPU-b", bus=2, persistence=0)
    box = machine(awake, asleep)
    seen = [[gpu.utilization_percent for gpu in box.sample(after_s=2)] for _ in range(4)]
    assert seen == [[37, None], [37, None], [37, None], [37, 37]]


# ── events ──


def test_an_xid_is_in_one_reading_and_in_that_one_only(machine: MakeMachine) -> None:
    one, other = Card("GPU-a", bus=1), Card("GPU-b", bus=2)
    box = machine(one, other)
    box.sample()
    for number in (31, 43, 31):
        box.library.xid(other, number)
    assert [gpu.xids for gpu in box.sample()] == [(), (31, 43, 31)]
    assert [gpu.xids for gpu in box.sample()] == [(), ()]
    both = pynvml.nvmlEventTypeXidCriticalError | DOUBLE_BIT
    assert box.library.registered == [("GPU-a", both), ("GPU-b", both)]


def test_an_event_is_a_reason_to_examine_the_gpu_at_once(machine: MakeMachine) -> None:
    card = Card("GPU-a", bus=1)
    box = machine(card)
    box.sample()
    card.ecc = 1
    box.library.events.append((card, DOUBLE_BIT, 0, 0xFFFFFFFF))
    gpu = box.one(after_s=1)
    assert len(gpu.warnings) == 1
    assert gpu.xids == ()  # the driver gave no number


def test_a_memory_error_that_happens_now_is_a_defect_for_a_minute(machine: MakeMachine) -> None:
    """Long enough that nobody misses it, and then a test says whether the GPU is well."""
    card, other = Card("GPU-a", bus=1), Card("GPU-b", bus=2)
    box = machine(card, other)
    box.sample()
    card.ecc = 5
    box.library.events.append((card, DOUBLE_BIT, 0, WHOLE_CARD))
    gpu, beside = box.sample(after_s=1)
    assert (gpu.defect or "").startswith("its memory has just had an error that could not be")
    assert (gpu.fault, gpu.is_lasting, beside.defect) == (None, False, None)
    assert box.sample(after_s=MINUTE_S - 1)[0].defect == gpu.defect
    later = box.sample(after_s=1)[0]
    assert later.defect is None
    assert later.warnings[0].startswith("5 uncorrectable memory errors since the driver")


def test_a_memory_error_comes_beside_what_else_ails_the_gpu(machine: MakeMachine) -> None:
    card = Card("GPU-a", bus=1, recovery=1)
    box = machine(card)
    box.sample()
    box.library.events.append((card, DOUBLE_BIT, 0, WHOLE_CARD))
    gpu = box.one(after_s=1)
    assert (gpu.defect or "").count("; ") == 1
    assert gpu.is_lasting


def test_the_xid_of_a_gpu_that_is_lost_is_told_with_its_fault(machine: MakeMachine) -> None:
    card = Card("GPU-a", bus=1)
    box = machine(card)
    box.sample()
    box.library.xid(card, 79)
    card.errors["*"] = pynvml.NVML_ERROR_GPU_IS_LOST
    gpu = box.one(after_s=1)
    assert "fallen off the bus" in (gpu.fault or "")
    assert gpu.xids == (79,)


def test_a_gpu_without_events_leaves_the_others_theirs(machine: MakeMachine) -> None:
    deaf = Card("GPU-a", bus=1, errors={"nvmlDeviceRegisterEvents": UNSUPPORTED})
    mute = Card("GPU-b", bus=2, event_types=pynvml.nvmlEventTypeDoubleBitEccError)
    well = Card("GPU-c", bus=3)
    also_deaf = Card("GPU-d", bus=4, errors=deaf.errors)
    box = machine(deaf, mute, well, also_deaf)
    box.sample()
    assert box.library.registered[0] == ("GPU-b", DOUBLE_BIT)
    box.library.xid(well, 48)
    gpus = box.sample()
    assert [gpu.xids for gpu in gpus] == [(), (), (48,), ()]
    assert [gpu.fault for gpu in gpus] == [None] * 4


def test_a_machine_without_events_is_not_waited_for(machine: MakeMachine) -> None:
    box = machine(Card("GPU-a", bus=1, event_types=0))
    box.sample()
    assert box.library.calls["nvmlEventSetWait_v2"] == 0


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_UNKNOWN, pynvml.NVML_ERROR_GPU_IS_LOST])
def test_where_the_driver_fails_to_tell_a_new_set_is_made_later(
    machine: MakeMachine, error: int
) -> None:
    card = Card("GPU-a", bus=1)
    box = machine(card)
    box.sample()
    box.library.errors["nvmlEventSetWait_v2"] = error
    gpu = box.one(after_s=1)
    assert (gpu.fault, gpu.defect, gpu.warnings) == (None, None, ())
    assert box.library.sets == 0
    box.one(after_s=1)
    assert box.library.calls["nvmlEventSetWait_v2"] == 2  # not asked again in vain

    box.library.errors.clear()
    box.one(after_s=MINUTE_S)
    assert box.library.sets == 1
    box.library.xid(card, 45)
    assert box.one(after_s=1).xids == (45,)
    box.backend.close()
    assert box.library.sets == 0


def test_a_storm_of_events_does_not_hold_up_a_reading(machine: MakeMachine) -> None:
    card = Card("GPU-a", bus=1)
    box = machine(card)
    box.sample()
    for number in range(150):
        box.library.xid(card, number)
    told = [box.one().xids for _ in range(3)]
    assert [len(xids) for xids in told] == [100, 50, 0]
    assert told[0] + told[1] == tuple(range(150))


# ── distances ──


def test_gpus_know_how_far_they_are_from_each_other(machine: MakeMachine) -> None:
    cards = [Card(f"GPU-{name}", bus=bus) for bus, name in enumerate("abcd", start=1)]
    cards[0].links = [None, 2, 2]
    box = machine(*cards)
    box.library.ancestors = {
        frozenset(("GPU-a", "GPU-b")): pynvml.NVML_TOPOLOGY_SYSTEM,  # NVLink is nearer
        frozenset(("GPU-a", "GPU-c")): pynvml.NVML_TOPOLOGY_INTERNAL,
        frozenset(("GPU-a", "GPU-d")): pynvml.NVML_TOPOLOGY_SINGLE,
        frozenset(("GPU-b", "GPU-c")): pynvml.NVML_TOPOLOGY_MULTIPLE,
        frozenset(("GPU-b", "GPU-d")): pynvml.NVML_TOPOLOGY_HOSTBRIDGE,
        frozenset(("GPU-c", "GPU-d")): pynvml.NVML_TOPOLOGY_NODE,
    }
    links = {gpu.uuid: dict(gpu.links) for gpu in box.sample()}
    assert links["GPU-a"] == {
        "GPU-b": Closeness.NVLINK,
        "GPU-c": Closeness.BOARD,
        "GPU-d": Closeness.SWITCH,
    }
    assert links["GPU-b"] == {
        "GPU-a": Closeness.NVLINK,
        "GPU-c": Closeness.SWITCHES,
        "GPU-d": Closeness.HOST_BRIDGE,
    }
    assert links["GPU-d"]["GPU-c"] == Closeness.NODE
    box.library.ancestors = {frozenset(("GPU-a", "GPU-c")): 33}
    assert all(dict(gpu.links) == links[gpu.uuid] for gpu in box.sample(after_s=2 * MINUTE_S))


def test_cards_on_a_switch_are_linked_each_to_all(machine: MakeMachine) -> None:
    cards = [Card(f"GPU-{bus}", bus=bus, links=["switch"] * 4) for bus in (1, 2, 3)]
    apart = Card("GPU-4", bus=4)
    for gpu in machine(*cards, apart).sample():
        near = {uuid for uuid, closeness in gpu.links if closeness == Closeness.NVLINK}
        assert near == ({"GPU-1", "GPU-2", "GPU-3"} - {gpu.uuid} if gpu.uuid != "GPU-4" else set())


def test_a_switch_that_an_old_driver_does_not_tell_is_known_by_its_place(
    machine: MakeMachine,
) -> None:
    cards = [Card(f"GPU-{bus}", bus=bus, links=[0x40, 0x41]) for bus in (1, 2)]
    absent = ("nvmlDeviceGetNvLinkRemoteDeviceType",)
    one, other = machine(*cards, without=absent).sample()
    assert one.links == (("GPU-2", Closeness.NVLINK),)
    assert other.links == (("GPU-1", Closeness.NVLINK),)


def test_a_card_that_is_gone_is_far_from_nothing(machine: MakeMachine) -> None:
    box = machine(Card("GPU-a", bus=1), Card("GPU-b", bus=2), Card("GPU-c", bus=3))
    box.sample()
    del box.library.cards[0]
    gone, one, other = box.sample(after_s=MINUTE_S)
    assert gone.fault
    assert [dict(gpu.links) for gpu in (gone, one, other)] == [
        {},
        {"GPU-c": Closeness.SYSTEM},
        {"GPU-b": Closeness.SYSTEM},
    ]


def test_two_cards_that_are_linked_to_a_third_are_not_linked_to_each_other(
    machine: MakeMachine,
) -> None:
    one, middle, other = Card("GPU-a", bus=1, links=[2]), Card("GPU-b", bus=2), Card("GPU-c", bus=3)
    other.links = [2]
    links = {gpu.uuid: dict(gpu.links) for gpu in machine(one, middle, other).sample()}
    assert links["GPU-a"] == {"GPU-b": Closeness.NVLINK, "GPU-c": Closeness.SYSTEM}


def test_where_the_driver_does_not_know_distances_there_are_none(machine: MakeMachine) -> None:
    errors = {"nvmlDeviceGetTopologyCommonAncestor": pynvml.NVML_ERROR_UNKNOWN}
    gpus = machine(Card("GPU-a", bus=1, errors=errors), Card("GPU-b", bus=2)).sample()
    assert [(gpu.links, gpu.fault) for gpu in gpus] == [((), None)] * 2


def test_distances_are_asked_for_anew_when_the_cards_have_changed(machine: MakeMachine) -> None:
    box = machine(Card("GPU-a", bus=1), Card("GPU-b", bus=2))
    box.sample()
    box.sample(after_s=MINUTE_S)
    assert box.library.calls["nvmlDeviceGetTopologyCommonAncestor"] == 1
    box.library.cards.append(Card("GPU-c", bus=3))
    gpus = box.sample(after_s=MINUTE_S)
    assert [len(gpu.links) for gpu in gpus] == [2, 2, 2]
