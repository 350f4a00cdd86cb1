"""How often the driver is asked: its calls hold a lock that every user of the GPUs needs."""

import re
from collections import Counter

import pytest

from gpuq.daemon.gpus import GpusUnavailable
from gpuq.daemon.gpus.nvml.measure import measure
from tests.daemon.gpus.driver import GIB, UNSUPPORTED, Card, Library, MakeMachine

GPUS, LINKS = 8, 12
MINUTE_S = 60

# Calls in a minute on a machine of 8 GPUs with a process on each, on which nothing changes and of
# which nobody asks anything: read every second, and every 5 s. What is not here is not called.
BUDGET: dict[str, tuple[int, int]] = {
    # at each reading, of each GPU
    "nvmlDeviceGetMemoryInfo": (480, 96),
    "nvmlDeviceGetUtilizationRates": (480, 96),
    "nvmlDeviceGetTemperature": (480, 96),
    "nvmlDeviceGetPowerUsage": (480, 96),
    "nvmlDeviceGetTotalEnergyConsumption": (480, 96),
    # at each reading, once
    "nvmlEventSetWait": (60, 12),
    # every 5 s, of each GPU; a list that is not empty takes two calls
    "nvmlDeviceGetComputeRunningProcesses": (192, 192),
    "nvmlDeviceGetMPSComputeRunningProcesses": (96, 96),
    # every minute, of each GPU: its health
    "nvmlDeviceGetEnforcedPowerLimit": (8, 8),
    "nvmlDeviceGetPersistenceMode": (8, 8),
    "nvmlDeviceGetTotalEccErrors": (8, 8),
    "nvmlDeviceGetRemappedRows": (8, 8),
    "nvmlDeviceGetRetiredPagesPendingStatus": (8, 8),
    "nvmlDeviceGetFieldValues": (8, 8),
    "nvmlDeviceGetCurrentClocksEventReasons": (8, 8),
    # every minute: which GPUs there are
    "nvmlDeviceGetCount": (1, 1),
    "nvmlDeviceGetHandleByIndex": (8, 8),
    "nvmlDeviceGetPciInfo": (8, 8),
    "nvmlDeviceGetUUID": (8, 8),
    "nvmlDeviceGetName": (8, 8),
    "nvmlDeviceGetMinorNumber": (8, 8),
    "nvmlDeviceGetComputeMode": (8, 8),
    "nvmlDeviceGetMigMode": (8, 8),
}
# Once, and again when the cards have changed: the NVLinks of each, and each pair.
ONCE = {
    "nvmlInitWithFlags": 1,
    "nvmlEventSetCreate": 1,
    "nvmlDeviceGetSupportedEventTypes": 8,
    "nvmlDeviceRegisterEvents": 8,
    "nvmlDeviceGetNvLinkState": 8 * (LINKS + 1),  # the last tells that there are no more
    "nvmlDeviceGetNvLinkRemotePciInfo": 8 * LINKS,
    "nvmlDeviceGetNvLinkRemoteDeviceType": 8 * LINKS,
}


def cards() -> list[Card]:
    return [
        Card(f"GPU-{bus}", bus=bus, processes=[(100 + bus, GIB)], links=["switch"] * LINKS)
        for bus in range(1, GPUS + 1)
    ]


def calls(library: Library) -> Counter[str]:
    """By the name that pynvml gives to all versions of a call."""
    total: Counter[str] = Counter()
    for name, number in library.calls.items():
        total[re.sub(r"_v\d$", "", name)] += number
    return total


@pytest.mark.parametrize(("every_s", "column"), [(1, 0), (5, 1)])
def test_a_minute_costs_what_the_budget_says(
    machine: MakeMachine, every_s: int, column: int
) -> None:
    box = machine(*cards())
    box.sample(processes=False)
    first = calls(box.library)
    assert {name: number for name, number in first.items() if name not in BUDGET} == ONCE
    for minute in range(1, 4):
        for _ in range(MINUTE_S // every_s):
            box.sample(after_s=every_s, processes=False)
        spent = calls(box.library) - first
        assert spent == {name: minute * numbers[column] for name, numbers in BUDGET.items()}


def test_asking_for_processes_costs_their_lists_and_no_more(machine: MakeMachine) -> None:
    box = machine(*cards())
    box.sample()
    before = calls(box.library)
    box.sample(processes=False)
    plain = calls(box.library) - before
    before = calls(box.library)
    box.sample(processes=True)
    assert calls(box.library) - before - plain == {
        "nvmlDeviceGetComputeRunningProcesses": 2 * GPUS,
        "nvmlDeviceGetMPSComputeRunningProcesses": GPUS,
    }


# ── what each call takes ──


def test_each_call_of_a_reading_can_be_measured(machine: MakeMachine) -> None:
    library = machine(*cards()).library
    took = measure(rounds=5)
    of_gpus = [name for name in ONCE if "NvLink" in name]
    assert set(took) >= {*BUDGET, *of_gpus, "nvmlDeviceGetTopologyCommonAncestor"}
    assert all(microseconds is not None and microseconds > 0 for microseconds in took.values())
    assert library.calls["nvmlDeviceGetMemoryInfo_v2"] == 5
    assert library.calls["nvmlInitWithFlags"] == library.calls["nvmlShutdown"] == 1
    assert library.sets == 0


def test_a_call_that_a_gpu_does_not_know_has_no_figure(machine: MakeMachine) -> None:
    card = Card("GPU-a", bus=1, errors={"nvmlDeviceGetRemappedRows": UNSUPPORTED})
    machine(card, without=("nvmlDeviceGetTotalEnergyConsumption",))
    took = measure(rounds=2)
    assert took["nvmlDeviceGetRemappedRows"] is None
    assert took["nvmlDeviceGetTotalEnergyConsumption"] is None
    assert took["nvmlDeviceGetTemperature"] is not None
    assert "nvmlDeviceGetTopologyCommonAncestor" not in took  # it takes two GPUs


def test_where_there_is_nothing_to_measure_it_says_so(machine: MakeMachine) -> None:
    box = machine()
    with pytest.raises(GpusUnavailable, match="no GPU to measure"):
        measure()
    assert box.library.calls["nvmlShutdown"] == 1
    box.library.errors["nvmlInitWithFlags"] = 9
    with pytest.raises(GpusUnavailable, match="not loaded"):
        measure()
