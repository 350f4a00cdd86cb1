"""Keys one after the other: what is typed behind a key that opens something is for what it opens.

Textual hands each key to whatever has the focus when it is read. Of two that come in one go the second
would act on the list below the dialog, the form or the field that the first one opens.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from textual import events
from textual.app import App, ScreenStackError
from textual.message import Message
from textual.screen import Screen

LOST_S = 0.5  # a key that goes round no longer than this is with a widget that has gone
HELD_S = 2.0  # for an answer that opens something; what was typed by then is forgotten
ESCAPE = "escape"


class TypingAhead(App[None]):
    """A key is handed on when the one before it has done what it does, and what is up was drawn once.
    A screen whose `takes_typed_ahead` is False gets none from before that."""

    class Passed(Message):
        """Goes the way of a key, behind it: when it is back, the key is done."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, *, ansi_color: bool | None = None) -> None:
        super().__init__(ansi_color=ansi_color)
        self._typed: deque[events.Key | events.Paste] = deque()
        self._drawn: WeakSet[Screen[Any]] = WeakSet()
        self._under_way = 0  # the number of the key that is; 0: none is
        self._number = 0
        self._held_by: dict[str, asyncio.TimerHandle] = {}

    def on_load(self) -> None:
        self.screen_change_signal.subscribe(self, self._is_coming, immediate=True)

    def _is_coming(self, screen: Screen[Any]) -> None:
        if screen not in self._drawn:
            screen.call_after_refresh(self._is_drawn, screen, 0)

    async def on_event(self, event: events.Event) -> None:
        is_typed = isinstance(event, events.Key | events.Paste) and not event.is_forwarded
        if not is_typed or self._exit:
            await super().on_event(event)
            return
        assert isinstance(event, events.Key | events.Paste)
        if self._held_by and isinstance(event, events.Key) and event.key == ESCAPE:
            self._forget()
        self._typed.append(event)
        await self._hand_on()

    @property
    def takes_keys(self) -> bool:
        """What is typed now is for the screen that is up, as it is to be seen."""
        return not self._under_way and self.screen in self._drawn

    # ── for what opens something once an answer has come ──

    def hold_keys(self, group: str) -> None:
        """Until `let_keys_go` for that group."""
        self.let_keys_go(group)
        loop = asyncio.get_running_loop()
        self._held_by[group] = loop.call_later(HELD_S, self._forget)

    def let_keys_go(self, group: str) -> None:
        held = self._held_by.pop(group, None)
        if held is not None:
            held.cancel()
            self.call_later(self._hand_on)

    def _forget(self) -> None:
        """What was typed for what did not open."""
        self._typed.clear()
        for group in list(self._held_by):
            self.let_keys_go(group)

    # ── one after the other ──

    async def _hand_on(self) -> None:
        if self._under_way or self._held_by or not self._typed:
            return
        try:
            screen = self.screen
        except ScreenStackError:  # between two of them
            self._wait_for(lambda number: None)
            return
        if screen not in self._drawn:
            self._wait_for(lambda number: screen.call_after_refresh(self._is_drawn, screen, number))
            return
        event, target = self._typed.popleft(), self.focused or screen
        await super().on_event(event)
        self._wait_for(lambda number: target.post_message(self.Passed(number)))

    def _wait_for(self, sign: Callable[[int], object]) -> None:
        self._number += 1
        self._under_way = number = self._number
        sign(number)
        asyncio.get_running_loop().call_later(LOST_S, self._go_on, number)

    def _is_drawn(self, screen: Screen[Any], number: int) -> None:
        is_first = screen not in self._drawn
        self._drawn.add(screen)
        if is_first and not getattr(screen, "takes_typed_ahead", True):
            self._typed.clear()
        self._go_on(number)

    def on_typing_ahead_passed(self, passed: Passed) -> None:
        # What the key asked for to be done next, such as to move the focus, stands before this.
        self.call_later(self._go_on, passed.number)

    def _go_on(self, number: int) -> None:
        if number == self._under_way:
            self._under_way = 0
            self.call_later(self._hand_on)
