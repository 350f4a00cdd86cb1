"""Waiting for jobs to start or to end, until all have, or the first, or the time is up."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gpuq.core.units import format_spans, without
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests import fields
from gpuq.daemon.requests.refs import References
from gpuq.daemon.store.found import Found
from gpuq.daemon.watchers import Watchers
from gpuq.errors import GpuqError

# Jobs and ranges that all connections of one user together wait for. Each takes memory, and those
# whose events are followed are looked up at each commit.
MOST_AWAITED, MOST_FOLLOWED = 200_000, 20_000

Answer = dict[str, Any]


class Attention:
    """What the users wait for, as the number of jobs and ranges; `most` is for each of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[int] = Counter()

    @contextmanager
    def on(self, spans: int, uid: int) -> Iterator[None]:
        """While somebody waits for so many; GpuqError where that is too many."""
        if self._taken[uid] + spans > self._most:
            raise GpuqError(
                f"you wait for {self._taken[uid]} jobs and ranges of jobs already, and {spans} more "
                f"are over {self._most}: name them as ranges, or wait in fewer places"
            )
        self._taken[uid] += spans
        try:
            yield
        finally:
            self._taken[uid] -= spans
            if not self._taken[uid]:
                del self._taken[uid]


class Waiting:
    def __init__(self, found: Found, refs: References, watchers: Watchers) -> None:
        self._found = found
        self._refs = refs
        self._watchers = watchers
        self._attention = Attention(MOST_AWAITED)

    async def wait(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Answers when all jobs have ended (`any`: the first; `started`: have left the queue).

        `ended` are the ids of those that have, as ranges. Costs as much as there are ranges of jobs
        that have not, and not as there are jobs.
        """
        refs = fields.named(request)
        spans = self._refs.spans(refs, peer)
        number = self._found.count(spans)
        if not number:
            raise self._refs.no_such_job(refs, peer)
        moment = "started" if request.get("started") else "ended"
        wanted = 1 if request.get("any") else number
        deadline = time.monotonic() + fields.timeout_s(request.get("timeout_s") or 0.0)
        while True:
            # Read anew each time: what had ended may be back in the queue.
            still = self._found.still_before(moment, spans)
            missing = wanted - (number - sum(map(len, still)))
            left = deadline - time.monotonic()
            if missing <= 0 or left <= 0:
                past = format_spans(without(spans, still))
                return {"timed_out": missing > 0, "ended": past}
            with self._attention.on(len(still), peer.uid):
                watch = self._watchers.watch(still, moment, missing)
                try:
                    await asyncio.wait((watch,), timeout=left)
                finally:
                    watch.cancel()
