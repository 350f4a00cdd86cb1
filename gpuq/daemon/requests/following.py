"""When those who follow the events are told of them: all of them up to the same event, a few at a time,
and never before what the daemon is there for.

A commit wakes nobody at once: the order that starts a job goes out after it. Then a round begins, in
which each who waits is told what there was at its beginning, so that one answer does for all who have
come equally far. While others write, all of it together takes a small part of the time; who is served
late is told more at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from gpuq.daemon.watchers import Watchers

SETTLE_S = 0.002  # what happens in one breath is told in one
ROUND_S = 0.03  # from the beginning of a round to that of the next
AT_ONCE = 8  # who are told in one go

Turn = asyncio.Future[None]


class Followers:
    """`last` gives the number of the last event, `horizon` is up to which this round tells."""

    def __init__(self, watchers: Watchers, last: Callable[[], int]) -> None:
        self.horizon = 0
        self.rounds = 0
        self._last = last
        self._waiting: dict[Turn, int] = {}  # with the number up to which they were told
        self._round: deque[Turn] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._is_telling = False
        self._began_at = 0.0
        self._rest_s = watchers.rest_s
        watchers.heed_commit = self._begin_soon

    async def turn(self, since: int, timeout_s: float) -> None:
        """Until it is time to be told what came after that event, or the time is up."""
        loop = asyncio.get_running_loop()
        turn: Turn = loop.create_future()
        ends = loop.call_later(timeout_s, _come, turn)
        self._waiting[turn] = since
        if since < self.horizon:
            self._round.append(turn)
            self._set_timer(0.0)
        else:
            self._begin_soon()
        try:
            await turn
        finally:
            ends.cancel()
            del self._waiting[turn]
            if not self._waiting:
                self._stand_still()

    def _begin_soon(self) -> None:
        if self._waiting:
            now = asyncio.get_running_loop().time()
            self._set_timer(max(self._began_at + ROUND_S - now, SETTLE_S))

    def _stand_still(self) -> None:
        self._round.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, in_s: float) -> None:
        if self._timer is None and not self._is_telling:
            self._timer = asyncio.get_running_loop().call_later(in_s, self._go_on)

    def _go_on(self) -> None:
        began = asyncio.get_running_loop().time()
        self._timer, self._is_telling = None, True
        if not self._round:
            self._begin(began)
        for _ in range(min(AT_ONCE, len(self._round))):
            _come(self._round.popleft())
        # They answer in this same breath, before we look at how long that took.
        asyncio.get_running_loop().call_soon(self._rest, began)

    def _begin(self, now: float) -> None:
        self._began_at, self.horizon = now, self._last()
        self.rounds += 1
        waiting = self._waiting.items()
        self._round.extend(turn for turn, since in waiting if since < self.horizon)

    def _rest(self, began: float) -> None:
        """Who asks again meanwhile takes about as long as he was told."""
        now = asyncio.get_running_loop().time()
        self._is_telling = False
        if self._round:
            self._set_timer(self._rest_s(now - began))
        elif self._waiting and self._last() > self.horizon:
            self._begin_soon()


def _come(turn: Turn) -> None:
    if not turn.done():
        turn.set_result(None)
