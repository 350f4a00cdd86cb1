"""What has befallen the cards: the errors that the driver calls XID, told as they happen."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pynvml

from gpuq.daemon.gpus.nvml.cards import Card
from gpuq.daemon.gpus.nvml.errors import ERRORS, attempt

_WANTED = pynvml.nvmlEventTypeXidCriticalError | pynvml.nvmlEventTypeDoubleBitEccError
# So many at one reading, and the rest at the next: a card that breaks can say more than is read.
MOST_AT_ONCE = 100
_NO_INSTANCE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    card: str  # its uuid
    xid: int | None  # None: an error of its memory that could not be corrected
    gpu_instance: int | None  # of MIG; None: of the whole card


class Events:
    """Events of the cards that can tell of them, each given once.

    They come from the moment `watch` first names a card. Where the driver fails to tell, the set is
    dropped and the next `watch` makes a new one: what happens in between is not told, and says
    nothing about how the cards are.
    """

    def __init__(self) -> None:
        self._set: Any = None
        self._cards: dict[bytes, str] = {}  # by handle, as the driver names them

    def watch(self, cards: Iterable[Card]) -> None:
        """These cards too. Costs nothing for those that are watched already."""
        for card in cards:
            key = bytes(card.handle)
            if key not in self._cards and self._register(card.handle):
                self._cards[key] = card.uuid

    def take(self) -> list[Event]:
        """What has happened since it was last asked. Does not wait."""
        events: list[Event] = []
        try:
            while self._cards and len(events) < MOST_AT_ONCE:
                data = pynvml.nvmlEventSetWait(self._set, 0)
                if card := self._cards.get(bytes(data.device)):
                    events.append(_event(data, card))
        except pynvml.NVMLError_Timeout:
            pass  # nothing more
        except ERRORS:
            self.close()
        return events

    def close(self) -> None:
        if self._set is not None:
            attempt(pynvml.nvmlEventSetFree, self._set)
        self._set = None
        self._cards = {}

    def _register(self, handle: Any) -> bool:
        """A card that knows no events leaves the set as it was."""
        try:
            if self._set is None:
                self._set = pynvml.nvmlEventSetCreate()
            kinds = pynvml.nvmlDeviceGetSupportedEventTypes(handle) & _WANTED
            if kinds:
                pynvml.nvmlDeviceRegisterEvents(handle, kinds, self._set)
        except ERRORS:
            return False
        return bool(kinds)


def _event(data: Any, card: str) -> Event:
    is_xid = data.eventType == pynvml.nvmlEventTypeXidCriticalError
    instance = int(data.gpuInstanceId)
    return Event(
        card=card,
        xid=int(data.eventData) if is_xid else None,
        gpu_instance=None if instance == _NO_INSTANCE else instance,
    )
