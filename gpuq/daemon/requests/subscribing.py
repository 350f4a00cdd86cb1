"""The request that keeps telling: a picture of the queue and the GPUs, then whatever changes in it.

A picture has a number, that of the last event in it; what follows are rows as they are after later
events, so whoever comes back with a number is told what he missed, and where that would be too much he
gets a new picture. With each number comes a mark that no other database gives: another daemon may
listen there by now, or an older state may have been put back, and then the same ids are other jobs.

Who reads slowly is asked nothing: the connection comes for the next part when it has been able to send
the one before, and what happened meanwhile is told in one. Rows hold what a list shows; all about a job
is in `show`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from gpuq.core.units import quoted
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests import fields
from gpuq.daemon.requests.teller import Answer, JobView, Teller, Turns
from gpuq.daemon.requests.world import World
from gpuq.daemon.store import Store
from gpuq.daemon.watchers import Watchers
from gpuq.errors import GpuqError, UsageError

PACE_S, SLOWEST_PACE_S = 0.25, 60.0
SETTLE_S = 0.02  # what happens in one breath is told in one
SIGN_OF_LIFE_S = 10.0
MOST_AT_ONCE = 64  # subscriptions of one user


class Subscriptions:
    """`picture` gives what is said beside the jobs: counts, GPUs, the drain."""

    def __init__(
        self,
        store: Store,
        world: World,
        watchers: Watchers,
        job_view: JobView,
        picture: Callable[[Peer], Answer],
    ) -> None:
        self._store = store
        self._world = world
        self._watchers = watchers
        self._job_view = job_view
        self._picture = picture
        self._taken: dict[int, int] = {}
        self._turns = Turns(watchers.rest_s)

    async def subscribe(
        self, request: Mapping[str, Any], peer: Peer
    ) -> AsyncGenerator[Answer, None]:
        """`since`: the number to go on from, `mark`: what came with it.
        `finished_since`: the picture holds also those that ended at that moment
        or later (s since the epoch). `pace_s`: news is told at most so often. The parts
        of a picture say `is_picture`, the `first` of them that it begins, and with the one that says
        `more`: false it is whole; `is_other`: the mark is of another queue."""
        since = fields.cursor(request, "since")
        mark = _mark(request)
        finished_since = fields.moment(request, "finished_since")
        pace_s = _pace(request)
        if self._taken.get(peer.uid, 0) >= MOST_AT_ONCE:
            raise GpuqError(f"you have {MOST_AT_ONCE} screens open already: close one")
        is_other = mark is not None and not self._store.told.is_ours(mark)
        told = self._tell(None if is_other else since, finished_since, pace_s, peer)
        return _of_another_queue(told) if is_other else told

    async def _tell(
        self, since: int | None, finished_since: float | None, pace_s: float, peer: Peer
    ) -> AsyncGenerator[Answer, None]:
        self._taken[peer.uid] = self._taken.get(peer.uid, 0) + 1
        teller = Teller(
            self._store,
            self._world,
            self._job_view,
            self._picture,
            peer,
            finished_since,
            self._turns,
        )
        try:
            seen, told_at = self._watchers.changes, time.monotonic()
            news = None if since is None else await teller.catch_up(since)
            while True:
                looked_at = time.monotonic()
                if news is None:
                    seen = self._watchers.changes
                    async for part in teller.picture():
                        yield part
                elif news.keys() != {"number", "mark"} or looked_at - told_at >= SIGN_OF_LIFE_S:
                    yield news
                    told_at = looked_at
                await self._watchers.next_change(seen, teller.looks_again_in_s(SIGN_OF_LIFE_S))
                await asyncio.sleep(max(looked_at + pace_s - time.monotonic(), SETTLE_S))
                seen = self._watchers.changes  # what comes while we wait for our turn is told twice
                news = await teller.catch_up()
        finally:
            self._taken[peer.uid] -= 1
            if not self._taken[peer.uid]:
                del self._taken[peer.uid]


async def _of_another_queue(told: AsyncGenerator[Answer, None]) -> AsyncGenerator[Answer, None]:
    async with aclosing(told):
        yield await anext(told) | {"is_other": True}
        async for part in told:
            yield part


def _mark(request: Mapping[str, Any]) -> str | None:
    mark = request.get("mark")
    if mark is not None and not isinstance(mark, str):
        raise UsageError(f"mark: {quoted(mark)} is no text")
    return mark


def _pace(request: Mapping[str, Any]) -> float:
    pace_s = request.get("pace_s", PACE_S)
    if isinstance(pace_s, bool) or not isinstance(pace_s, int | float) or not pace_s >= 0:
        raise UsageError(f"pace_s: {pace_s!r} is no length of time in seconds")
    return float(min(max(pace_s, PACE_S), SLOWEST_PACE_S))
