"""What was last said to the reader: of what was done, and of what went wrong."""

from collections import deque
from dataclasses import dataclass, replace

KEPT = 200
FRESH_S, FRESH_ERROR_S = 8.0, 15.0
TOAST_S = 10.0  # for which an undo is offered at the most; the daemon takes it for longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """`text` is what came of `command`, or is said by itself. `at` and `undo_until` are seconds since
    the epoch; `undo_until`: until then it is offered to take back what it tells of.
    `is_passing`: it only holds the place of the one that comes.
    `is_of_loss`: it stands as long as no daemon answers; `is_over`: it was so."""

    text: str
    at: float
    command: str = ""
    is_error: bool = False
    undo_until: float | None = None
    is_passing: bool = False
    is_of_loss: bool = False
    is_over: bool = False

    @property
    def whole(self) -> str:
        return f"{self.command}: {self.text}" if self.command else self.text

    def is_fresh(self, now: float) -> bool:
        fresh_until = self.at + (FRESH_ERROR_S if self.is_error else FRESH_S)
        return not self.is_over and now < max(fresh_until, self.undo_until or 0.0)

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

    def hush(self) -> None:
        """The last one has been read, or is of something else than is looked at by now."""
        if self._kept:
            self._kept[-1] = replace(self._kept[-1], is_over=True)

    def forget_loss(self) -> None:
        """What was said of a connection that was lost is shown no more; it stays among the others."""
        for number, message in enumerate(self._kept):
            if message.is_of_loss:
                self._kept[number] = replace(message, is_over=True)

    def shown(self, now: float) -> Message | None:
        """The last one, unless it was some time ago."""
        last = self._kept[-1] if self._kept else None
        return last if last is not None and last.is_fresh(now) else None

    def newest_first(self) -> list[Message]:
        return list(reversed(self._kept))
