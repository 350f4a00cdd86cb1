"""Readings of this machine's NVIDIA GPUs: what is asked each time, what seldom, what once.

The driver has one lock that every user of the GPUs needs, so what changes slowly is asked seldom and
repeated in between. Each time: memory, utilisation, power, energy, temperature, events. Every 5 s, or
where it is wanted, or where memory has moved: who computes. Every minute: health, and which GPUs there
are; those sooner where one did not open. How far they are from each other: whenever those have changed.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pynvml

from gpuq.core.gpus.gpu import Gpu, GpuProcess
from gpuq.daemon.gpus.backend import GpusUnavailable, Held, unidentified
from gpuq.daemon.gpus.nvml.cards import Card, Cards, Unit
from gpuq.daemon.gpus.nvml.errors import (
    ERRORS,
    Fault,
    attempt,
    fault_of,
    optional,
    unavailable,
    watts,
)
from gpuq.daemon.gpus.nvml.events import Event, Events
from gpuq.daemon.gpus.nvml.health import Health, read_health
from gpuq.daemon.gpus.nvml.memory import read_memory
from gpuq.daemon.gpus.nvml.occupants import Occupant, Occupants
from gpuq.daemon.gpus.nvml.topology import Links, links_among

LOOK_AGAIN_S = 60.0
HEALTH_S = 60.0
# Of readings that come every 5 s, none may come a moment too early.
LIST_S = 4.5
LOOK_SOON_S = 4.5  # while a card does not open, which may have been a matter of a moment
# More than this has come or gone since: whoever took it is not on the list, or is gone.
MOVED_BYTES = 64 * 2**20
# A GPU that was asleep checks its memory as it wakes, and seems busy with that (nvmlUtilization_t).
WAKING_S = 5.0

_BLIND = (
    "gpuq runs in a container and cannot tell whose processes are on the GPUs: only the memory in "
    "use speaks for strangers (start the container with the pids of the host: --pid=host)"
)


_MEMORY_ERROR = (
    "its memory has just had an error that could not be corrected, says its driver: "
    "see nvidia-smi -q -d ECC"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """What is asked of a unit every few seconds."""

    at: float
    memory_used_bytes: int | None
    occupants: tuple[Occupant, ...] | None


class NvmlBackend:
    """`clock` counts seconds, `proc` is where /proc lies."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, proc: str = "/proc") -> None:
        """Initialises NVML, once for this process. Raises GpusUnavailable."""
        self._clock = clock
        self._now = clock()
        self._owner = os.getpid()
        self._cards = Cards()
        self._events = Events()
        self._occupants = Occupants(proc)
        self._looked_at = float("-inf")
        self._woken_at: dict[str, float] = {}
        self._links: dict[str, Links] = {}
        self._linked: frozenset[tuple[str, bytes]] = frozenset()
        self._health: dict[str, tuple[float, Health]] = {}  # by card
        self._listed: dict[str, _Listed] = {}  # by unit
        self._untold: list[Event] = []
        self._memory_errors: list[tuple[float, Event]] = []  # of the last minute
        self._faulty: frozenset[str] = frozenset()
        try:
            pynvml.nvmlInit()
        except ERRORS as error:
            raise unavailable(error) from error

    def sample(self, held: Sequence[Held], *, processes: bool = True) -> list[Gpu]:
        """A reading of every unit. Each XID is in one reading, and in that one only; what happens
        while no backend is open, or in the moments after NVML has failed to tell, is in none.

        `processes`: who computes is wanted as of now. Raises GpusUnavailable.
        """
        self._refuse_in_a_fork()
        self._now = self._clock()
        apart_s = LOOK_SOON_S if self._cards.unidentified else LOOK_AGAIN_S
        if self._now - self._looked_at >= apart_s:
            self._look()
        self._hear()
        gpus = self._read_all(processes)
        # A handle can become invalid under us; a GPU that was well a moment ago gets another look.
        if {gpu.uuid for gpu in gpus if gpu.fault} - self._faulty:
            self._look()
            gpus = self._read_all(processes)
        self._faulty = frozenset(gpu.uuid for gpu in gpus if gpu.fault)
        self._untold.clear()
        return gpus

    def close(self) -> None:
        if os.getpid() != self._owner:
            return
        self._events.close()
        attempt(pynvml.nvmlShutdown)

    def _refuse_in_a_fork(self) -> None:
        """NVML's state is that of the process that made it: in a child its calls fail or hang."""
        if os.getpid() != self._owner:
            raise GpusUnavailable(
                f"NVML was opened by process {self._owner} and cannot be used by its child "
                f"{os.getpid()}: open it there anew"
            )

    # ── which GPUs there are ──

    def _look(self) -> None:
        self._cards.look()
        self._looked_at = self._now
        # The handle of a card that is gone is nothing to ask by.
        cards = [card for card in self._cards.in_bus_order() if card.fault is None]
        self._events.watch(cards)
        for card in cards:
            self._woken_at.setdefault(card.uuid, self._now)
        whole = [card for card in cards if not card.instances]
        linked = frozenset((card.uuid, bytes(card.handle)) for card in whole)
        if linked != self._linked:
            self._linked, self._links = linked, links_among(whole)

    # ── how they are ──

    def _hear(self) -> None:
        still = [(at, event) for at, event in self._memory_errors if self._now - at < HEALTH_S]
        for event in self._events.take():
            self._untold.append(event)
            self._health.pop(event.card, None)  # what has happened may show in there
            if event.xid is None:
                still.append((self._now, event))
        self._memory_errors = still

    def _read_all(self, processes: bool) -> list[Gpu]:
        gpus = [self._read(unit, processes) for unit in self._cards.units()]
        first = len(self._cards.by_uuid)
        for number, fault in enumerate(self._cards.unidentified):
            gpus.append(_without_name(first + number, number, fault))
        return gpus

    def _read(self, unit: Unit, processes: bool) -> Gpu:
        fault = unit.card.fault
        if fault is None:
            try:
                return self._read_well(unit, processes)
            except ERRORS as error:
                fault = fault_of(error)
        self._health.pop(unit.card.uuid, None)
        self._listed.pop(unit.uuid, None)
        return Gpu(
            **_identity(unit),
            processes=None,
            fault=fault.text,
            is_lasting=fault.is_lasting,
            xids=self._xids(unit),
        )

    def _read_well(self, unit: Unit, processes: bool) -> Gpu:
        total, used, reserved = read_memory(unit.handle)
        health = self._health_of(unit.card)
        listed = self._list(unit, total, used, processes)
        gpu = Gpu(
            **_identity(unit),
            memory_total_bytes=total,
            memory_used_bytes=used,
            memory_reserved_bytes=reserved,
            temperature_c=optional(
                pynvml.nvmlDeviceGetTemperature, unit.card.handle, pynvml.NVML_TEMPERATURE_GPU
            ),
            processes=self._remaining(listed),
            xids=self._xids(unit),
            defect=self._defect(unit, health),
            is_lasting=health.is_lasting,
            warnings=self._warnings(unit.card, health),
            one_process_only=unit.card.one_process_only,
            links=self._links.get(unit.uuid, ()),
        )
        return gpu if unit.instance else self._with_power(gpu, unit.card, health)

    def _with_power(self, gpu: Gpu, card: Card, health: Health) -> Gpu:
        """What the driver tells of whole cards only."""
        is_waking = (
            health.is_kept_awake is False and self._now - self._woken_at[card.uuid] < WAKING_S
        )
        rates = optional(pynvml.nvmlDeviceGetUtilizationRates, card.handle)
        return replace(
            gpu,
            utilization_percent=None if rates is None or is_waking else int(rates.gpu),
            power_w=watts(optional(pynvml.nvmlDeviceGetPowerUsage, card.handle)),
            energy_j=_energy_j(card.handle),
            power_limit_w=health.power_limit_w,
        )

    # ── what is asked seldom ──

    def _health_of(self, card: Card) -> Health:
        read_at, health = self._health.get(card.uuid, (float("-inf"), None))
        if health is None or self._now - read_at >= HEALTH_S:
            health = read_health(card.handle)
            self._health[card.uuid] = self._now, health
        return health

    def _list(self, unit: Unit, total: int | None, used: int | None, is_wanted: bool) -> _Listed:
        last = self._listed.get(unit.uuid)
        if last is None or is_wanted or self._is_stale(last, used):
            last = self._listed[unit.uuid] = _Listed(
                at=self._now,
                memory_used_bytes=used,
                occupants=self._occupants.on(unit.handle, total),
            )
        return last

    def _is_stale(self, listed: _Listed, used: int | None) -> bool:
        before = listed.memory_used_bytes
        if used is not None and before is not None and abs(used - before) > MOVED_BYTES:
            return True
        return self._now - listed.at >= LIST_S

    # ── what is told of each ──

    def _remaining(self, listed: _Listed) -> tuple[GpuProcess, ...] | None:
        return None if listed.occupants is None else self._occupants.remaining(listed.occupants)

    def _warnings(self, card: Card, health: Health) -> tuple[str, ...]:
        blind = None if self._occupants.are_visible else _BLIND
        return (*health.warnings, *(text for text in (card.warning, blind) if text))

    def _defect(self, unit: Unit, health: Health) -> str | None:
        """An error of its memory is told for a minute: nobody can miss it then, nor does it keep a GPU
        away for ever that turns out to be well."""
        has_erred = any(_concerns(event, unit) for _, event in self._memory_errors)
        texts = (health.defect, _MEMORY_ERROR if has_erred else None)
        return "; ".join(text for text in texts if text) or None

    def _xids(self, unit: Unit) -> tuple[int, ...]:
        return tuple(
            event.xid for event in self._untold if event.xid is not None and _concerns(event, unit)
        )


def _concerns(event: Event, unit: Unit) -> bool:
    """Is it one of this card, and of this instance where the driver knows which it was?"""
    own = None if unit.instance is None else unit.instance.gpu_instance
    is_own = own is None or event.gpu_instance in (None, own)
    return is_own and event.card == unit.card.uuid


def _identity(unit: Unit) -> dict[str, Any]:
    return {
        "index": unit.index,
        "uuid": unit.uuid,
        "model": unit.model,
        "simulated": False,
        "bus_id": unit.card.bus_id,
        "minor": unit.card.minor,
        "parent": unit.card.uuid if unit.instance else None,
    }


def _without_name(index: int, number: int, fault: Fault) -> Gpu:
    return Gpu(
        index=index,
        uuid=unidentified(number),
        model="NVIDIA GPU",
        simulated=False,
        processes=None,
        fault=fault.text,
        is_lasting=fault.is_lasting,
    )


def _energy_j(handle: Any) -> float | None:
    millijoules = optional(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle)
    return None if millijoules is None else millijoules / 1000
