"""Which GPUs there are: the cards on the bus, and what MIG has divided them into.

Handles are kept: looking one up makes the driver touch the GPU. They are looked up by number alone:
by uuid the driver searches through all GPUs, and fails for a healthy one when another is lost.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pynvml

from gpuq.daemon.gpus.nvml.errors import (
    ERRORS,
    FATAL,
    Fault,
    fault_of,
    optional,
    unavailable,
    words,
)

# No GPU can be divided into more (MIG User Guide).
MOST_INSTANCES = 7

_PROHIBITED = "is in compute mode Prohibited: nvidia-smi --compute-mode=DEFAULT"
_UNLISTED = "is no longer listed by the driver: see dmesg"
_UNDIVIDED = (
    "is in MIG mode and has no instance: make some with nvidia-smi mig -cgi PROFILE -C, "
    "or leave the mode with nvidia-smi -mig 0"
)
_UNOPENED = (
    "is divided by MIG and its instances cannot be opened ({why}): see the rights of "
    "/dev/nvidia-caps, or undo it with nvidia-smi -mig 0"
)
_PARTLY_OPENED = "not every MIG instance of this card can be opened ({why}): see /dev/nvidia-caps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A part of a card that is a GPU to whoever gets it."""

    uuid: str
    model: str
    number: int  # among those of its card
    gpu_instance: int | None  # by which an XID names it
    handle: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What stays the same between two readings."""

    uuid: str
    model: str
    bus_id: str
    position: tuple[int, int, int]  # domain, bus, device
    handle: Any
    minor: int | None = None
    one_process_only: bool = False
    instances: tuple[Instance, ...] = ()
    is_shut: bool = False  # divided, and none of its instances opens
    fault: Fault | None = None
    warning: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What a job can be given: a card, or an instance of one that is divided."""

    index: int
    card: Card
    instance: Instance | None = None

    @property
    def uuid(self) -> str:
        return (self.instance or self.card).uuid

    @property
    def model(self) -> str:
        return (self.instance or self.card).model

    @property
    def handle(self) -> Any:
        return (self.instance or self.card).handle


class Cards:
    """The cards of this machine, as of the last look. One that was ever seen stays."""

    def __init__(self) -> None:
        self.by_uuid: dict[str, Card] = {}
        self.unidentified: list[Fault] = []  # of cards that gave no uuid

    def look(self) -> None:
        """Ask the driver for its cards. Raises GpusUnavailable.

        A card that does not open has no uuid. It is one that is known and missing, if there is such:
        then its old handle tells best how it is. The rest have to go without a name.
        """
        try:
            numbers = range(pynvml.nvmlDeviceGetCount())
        except ERRORS as error:
            raise unavailable(error) from error
        found: dict[str, Card] = {}
        faults: list[Fault] = []
        for number in numbers:
            try:
                card = _describe(pynvml.nvmlDeviceGetHandleByIndex(number))
                found[card.uuid] = _with_last_instances(card, self.by_uuid.get(card.uuid))
            except ERRORS as error:
                faults.append(fault_of(error))
        for uuid, card in self.by_uuid.items():
            if uuid not in found:
                found[uuid] = card if faults else replace(card, fault=Fault(text=_UNLISTED))
                faults = faults[1:]
        self.by_uuid, self.unidentified = found, faults

    def in_bus_order(self) -> list[Card]:
        return sorted(self.by_uuid.values(), key=lambda card: card.position)

    def units(self) -> Iterator[Unit]:
        """What jobs can be given. A card's index is its place on the bus, divided or not, as CUDA
        counts. CUDA has no ordinal for an instance: those are numbered behind all cards, each card's
        in a span of its own, so that no instance gets another number because one came or went."""
        cards = self.in_bus_order()
        behind = len(cards) + len(self.unidentified)
        for index, card in enumerate(cards):
            if not card.instances:
                yield Unit(index=index, card=card)
        for place, card in enumerate(cards):
            for instance in card.instances:
                index = behind + place * MOST_INSTANCES + instance.number
                yield Unit(index=index, card=card, instance=instance)


def _describe(handle: Any) -> Card:
    pci = pynvml.nvmlDeviceGetPciInfo(handle)
    mode = optional(pynvml.nvmlDeviceGetComputeMode, handle)
    card = Card(
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        model=optional(pynvml.nvmlDeviceGetName, handle) or "NVIDIA GPU",
        bus_id=bus_id_of(pci),
        position=(pci.domain, pci.bus, pci.device),
        handle=handle,
        minor=optional(pynvml.nvmlDeviceGetMinorNumber, handle),
        one_process_only=mode == pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS,
    )
    mig = optional(pynvml.nvmlDeviceGetMigMode, handle)
    if mig is not None and mig[0] == pynvml.NVML_DEVICE_MIG_ENABLE:
        card = _divided(card)
    if mode == pynvml.NVML_COMPUTEMODE_PROHIBITED:
        card = replace(card, fault=Fault(text=_PROHIBITED))
    return card


def bus_id_of(pci: Any) -> str:
    return f"{pci.domain:08X}:{pci.bus:02X}:{pci.device:02X}.0"


def _divided(card: Card) -> Card:
    instances, why = _open_instances(card)
    if instances:
        warning = None if why is None else _PARTLY_OPENED.format(why=why)
        return replace(card, instances=instances, warning=warning)
    text = _UNDIVIDED if why is None else _UNOPENED.format(why=why)
    return replace(card, fault=Fault(text=text), is_shut=why is not None)


def _open_instances(card: Card) -> tuple[tuple[Instance, ...], str | None]:
    """The instances that open, and why another did not. Their numbers may have gaps."""
    instances: list[Instance] = []
    why: str | None = None
    try:
        numbers = range(pynvml.nvmlDeviceGetMaxMigDeviceCount(card.handle))
    except FATAL:
        raise
    except ERRORS as error:
        return (), words(error)
    for number in numbers:
        try:
            handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card.handle, number)
            instances.append(_describe_instance(number, handle, card))
        except pynvml.NVMLError_NotFound:
            continue
        except FATAL:
            raise
        except ERRORS as error:
            why = words(error)
    return tuple(instances), why


def _describe_instance(number: int, handle: Any, card: Card) -> Instance:
    return Instance(
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        model=optional(pynvml.nvmlDeviceGetName, handle) or f"{card.model} MIG",
        number=number,
        gpu_instance=optional(pynvml.nvmlDeviceGetGpuInstanceId, handle),
        handle=handle,
    )


def _with_last_instances(card: Card, before: Card | None) -> Card:
    """Instances that somebody destroyed are gone. Such as only do not open may have jobs on them."""
    if before is None or not card.is_shut:
        return card
    return replace(card, instances=before.instances)
