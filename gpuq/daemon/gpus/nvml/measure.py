"""How long the driver takes for each call that readings are made of, on the hardware at hand.

The figures differ much between GPUs and between drivers. To be run in a process of its own, as every
call into NVML: one may hang.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pynvml

from gpuq.daemon.gpus.backend import GpusUnavailable
from gpuq.daemon.gpus.nvml.cards import Card, Cards
from gpuq.daemon.gpus.nvml.errors import ERRORS, attempt, unavailable
from gpuq.daemon.gpus.nvml.events import Events
from gpuq.daemon.gpus.nvml.health import RECOVERY_ACTION

# What each is asked for beside the handle of a card.
_OF_A_CARD: dict[str, tuple[Any, ...]] = {
    "nvmlDeviceGetMemoryInfo": (pynvml.nvmlMemory_v2,),
    "nvmlDeviceGetUtilizationRates": (),
    "nvmlDeviceGetTemperature": (pynvml.NVML_TEMPERATURE_GPU,),
    "nvmlDeviceGetPowerUsage": (),
    "nvmlDeviceGetComputeRunningProcesses": (),
    "nvmlDeviceGetMPSComputeRunningProcesses": (),
    "nvmlDeviceGetTotalEnergyConsumption": (),
    "nvmlDeviceGetEnforcedPowerLimit": (),
    "nvmlDeviceGetPersistenceMode": (),
    "nvmlDeviceGetTotalEccErrors": (
        pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
        pynvml.NVML_VOLATILE_ECC,
    ),
    "nvmlDeviceGetRemappedRows": (),
    "nvmlDeviceGetRetiredPagesPendingStatus": (),
    "nvmlDeviceGetFieldValues": ([RECOVERY_ACTION],),
    "nvmlDeviceGetCurrentClocksEventReasons": (),
    "nvmlDeviceGetPciInfo": (),
    "nvmlDeviceGetUUID": (),
    "nvmlDeviceGetMinorNumber": (),
    "nvmlDeviceGetName": (),
    "nvmlDeviceGetComputeMode": (),
    "nvmlDeviceGetMigMode": (),
    "nvmlDeviceGetMaxMigDeviceCount": (),
    "nvmlDeviceGetNvLinkState": (0,),
    "nvmlDeviceGetNvLinkRemotePciInfo": (0,),
    "nvmlDeviceGetNvLinkRemoteDeviceType": (0,),
}


def measure(rounds: int = 100) -> dict[str, float | None]:
    """By name of the call, the microseconds that it takes on the first GPU: the median of so many
    rounds. None where the GPU or the driver has no such call. Raises GpusUnavailable."""
    try:
        pynvml.nvmlInit()
    except ERRORS as error:
        raise unavailable(error) from error
    events = Events()
    try:
        cards = Cards()
        cards.look()
        in_order = cards.in_bus_order()
        events.watch(in_order[:1])
        calls = _calls(in_order, events)
        return {name: _median_us(call, rounds) for name, call in calls.items()}
    finally:
        events.close()
        attempt(pynvml.nvmlShutdown)


def _calls(cards: list[Card], events: Events) -> dict[str, Callable[[], Any]]:
    if not cards:
        raise GpusUnavailable("there is no GPU to measure: see nvidia-smi")
    handle = cards[0].handle
    calls: dict[str, Callable[[], Any]] = {
        "nvmlDeviceGetCount": pynvml.nvmlDeviceGetCount,
        "nvmlDeviceGetHandleByIndex": partial(pynvml.nvmlDeviceGetHandleByIndex, 0),
        "nvmlEventSetWait": events.take,
    }
    for name, more in _OF_A_CARD.items():
        calls[name] = partial(getattr(pynvml, name), handle, *more)
    if len(cards) > 1:
        other = cards[1].handle
        ancestor = partial(pynvml.nvmlDeviceGetTopologyCommonAncestor, handle, other)
        calls["nvmlDeviceGetTopologyCommonAncestor"] = ancestor
    return calls


def _median_us(call: Callable[[], Any], rounds: int) -> float | None:
    taken_ns = []
    for _ in range(rounds):
        before_ns = time.perf_counter_ns()
        try:
            call()
        except ERRORS:
            return None
        taken_ns.append(time.perf_counter_ns() - before_ns)
    return round(sorted(taken_ns)[rounds // 2] / 1000, 1)
