"""What was last said to the reader: of what was done, and of what went wrong."""

from collections import deque
from dataclasses import dataclass

KEPT = 200
FRESH_S, FRESH_ERROR_S = 12.0, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """`at` and `undo_until` are seconds since the epoch; `undo_until`: what it tells of can be taken
    back until then. `is_passing`: it only holds the place of the one that comes."""

    text: str
    at: float
    is_error: bool = False
    undo_until: float | None = None
    is_passing: bool = False

    def is_fresh(self, now: float) -> bool:
        return now < self.at + (FRESH_ERROR_S if self.is_error else FRESH_S)

    def undo_left_s(self, now: float) -> int:
        """In whole seconds, begun ones with them; 0: too late, or nothing to take back."""
        return 0 if self.undo_until is None else max(int(self.undo_until - now + 0.999), 0)


class Messages:
    def __init__(self) -> None:
        self._kept: deque[Message] = deque(maxlen=KEPT)

    def add(self, message: Message) -> None:
        if self._kept and self._kept[-1].is_passing:
            self._kept.pop()
        self._kept.append(message)

    def shown(self, now: float) -> Message | None:
        """The last one, unless it was some time ago."""
        last = self._kept[-1] if self._kept else None
        return last if last is not None and last.is_fresh(now) else None

    def newest_first(self) -> list[Message]:
        return list(reversed(self._kept))
