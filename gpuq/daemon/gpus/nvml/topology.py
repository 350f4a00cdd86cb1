"""How far the cards are from each other."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import pynvml

from gpuq.core.gpus.gpu import Closeness
from gpuq.daemon.gpus.nvml.cards import Card, bus_id_of
from gpuq.daemon.gpus.nvml.errors import attempt

# nvmlIntNvLinkDeviceType_t: an NVSwitch, by which each card reaches all others on it.
_SWITCH = 1

_LEVELS = {
    pynvml.NVML_TOPOLOGY_INTERNAL: Closeness.BOARD,
    pynvml.NVML_TOPOLOGY_SINGLE: Closeness.SWITCH,
    pynvml.NVML_TOPOLOGY_MULTIPLE: Closeness.SWITCHES,
    pynvml.NVML_TOPOLOGY_HOSTBRIDGE: Closeness.HOST_BRIDGE,
    pynvml.NVML_TOPOLOGY_NODE: Closeness.NODE,
    pynvml.NVML_TOPOLOGY_SYSTEM: Closeness.SYSTEM,
}

Links = tuple[tuple[str, Closeness], ...]


def links_among(cards: Sequence[Card]) -> dict[str, Links]:
    """By uuid, the other cards and how close each is. A pair of which the driver says nothing is
    left out. Does not raise: distances are a preference, and no reading fails for them."""
    links: dict[str, list[tuple[str, Closeness]]] = {card.uuid: [] for card in cards}
    ends = {card.uuid: _far_ends(card.handle) for card in cards} if len(cards) > 1 else {}
    buses = {card.bus_id for card in cards}
    for one, other in combinations(cards, 2):
        mine, theirs = ends[one.uuid], ends[other.uuid]
        is_linked = one.bus_id in theirs or other.bus_id in mine or (mine & theirs) - buses
        closeness = Closeness.NVLINK if is_linked else _by_ancestor(one, other)
        if closeness is not None:
            links[one.uuid].append((other.uuid, closeness))
            links[other.uuid].append((one.uuid, closeness))
    return {uuid: tuple(others) for uuid, others in links.items()}


def _by_ancestor(one: Card, other: Card) -> Closeness | None:
    level = attempt(pynvml.nvmlDeviceGetTopologyCommonAncestor, one.handle, other.handle)
    return None if level is None else _LEVELS.get(level, Closeness.UNKNOWN)


def _far_ends(handle: Any) -> frozenset[str]:
    """What the NVLinks of a card lead to. All switches are one word: those of a machine make one
    fabric, and need not be on its bus."""
    ends: set[str] = set()
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        state = attempt(pynvml.nvmlDeviceGetNvLinkState, handle, link)
        if state is None:  # no such link, and none behind it
            break
        if state == pynvml.NVML_FEATURE_ENABLED:
            ends.update(_far_end(handle, link))
    return frozenset(ends)


def _far_end(handle: Any, link: int) -> Iterator[str]:
    pci = attempt(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link)
    if pci is not None:
        yield bus_id_of(pci)
    if attempt(pynvml.nvmlDeviceGetNvLinkRemoteDeviceType, handle, link) == _SWITCH:
        yield "switch"
