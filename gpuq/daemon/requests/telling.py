"""The request that tells what happened: events after a cursor, waited for where there are none yet.

Of those who follow all events many have come equally far, and see as much of others' jobs: they get the
same answer, which is read and encoded once.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpuq import protocol
from gpuq.core.gpus.gpu import Gpu
from gpuq.daemon.callers.discretion import Discretion, Sight
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests import fields, views
from gpuq.daemon.requests.following import Followers
from gpuq.daemon.requests.refs import References
from gpuq.daemon.requests.waiting import MOST_FOLLOWED, Attention
from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.told import Told
from gpuq.daemon.watchers import Watchers
from gpuq.errors import GpuqError

MOST_PAGES = 64  # that are kept: those who follow are rarely at more places

Answer = dict[str, Any]


class _Page:
    """What came after a cursor up to `last`, and the answers that were made of it: by what is seen of
    the jobs of each user."""

    __slots__ = ("answers", "last", "removed_to", "rows", "uids")

    def __init__(self, rows: Sequence[Row], last: int, removed_to: int) -> None:
        self.rows = rows
        self.last = last
        self.removed_to = removed_to
        self.uids = tuple({row["uid"] for row in rows})
        self.answers: dict[tuple[Sight, ...], protocol.Shared] = {}


class Telling:
    """`gpus` gives the GPUs as they are now, `discretion` what somebody may see."""

    def __init__(
        self,
        told: Told,
        refs: References,
        watchers: Watchers,
        gpus: Callable[[], Sequence[Gpu] | None],
        discretion: Callable[[Peer], Discretion],
    ) -> None:
        self._told = told
        self._refs = refs
        self._watchers = watchers
        self._gpus = gpus
        self._discretion = discretion
        self._followed = Attention(MOST_FOLLOWED)
        self._followers = Followers(watchers, told.last_event)
        self._pages: dict[int, _Page] = {}  # by cursor, of one round
        self._pages_of = 0

    async def events(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Those after a cursor (`since`; null: only what comes; 0: all that are kept), or from a moment
        on (`since_at`), of some jobs or of all. Where there are none it waits for them up to
        `timeout_s`. `last` is the cursor to go on with, `removed_to` the last of those that are kept
        no more. GpuqError where not all that came after the cursor can be told."""
        last = self._start(request)
        timeout_s = fields.timeout_s(request.get("timeout_s") or 0.0)
        deadline = time.monotonic() + timeout_s
        if fields.named(request):
            return await self._events_of_jobs(request, peer, last, deadline)
        self._check_cursor(last)
        if timeout_s:
            await self._followers.turn(last, timeout_s)
            return self._shared(last, peer)
        return self._answer(self._read(last, self._told.last_event()), peer)

    async def _events_of_jobs(
        self, request: Mapping[str, Any], peer: Peer, last: int, deadline: float
    ) -> Answer:
        refs = fields.named(request)
        jobs = self._refs.resolve(refs, peer)
        while True:
            self._check_cursor(last)
            rows, last = self._told.events(last, fields.PAGE, jobs)
            if not rows:
                self._check_jobs(refs, jobs, peer)
            left = deadline - time.monotonic()
            if rows or left <= 0:
                return self._answer(_Page(rows, last, self._told.pruned_to()), peer)
            with self._followed.on(len(jobs), peer.uid):
                await self._followers.turn(last, left)

    def _shared(self, since: int, peer: Peer) -> Answer:
        """What this round tells of what came after it."""
        if self._pages_of != self._followers.rounds or len(self._pages) >= MOST_PAGES:
            self._pages, self._pages_of = {}, self._followers.rounds
        page = self._pages.get(since)
        if page is None:
            self._check_cursor(since)
            page = self._pages[since] = self._read(since, self._followers.horizon)
        discretion = self._discretion(peer)
        sights = tuple(map(discretion.sight, page.uids))
        answer = page.answers.get(sights)
        if answer is None:
            answer = page.answers[sights] = protocol.Shared(self._answer(page, peer))
        return answer

    def _read(self, since: int, up_to: int) -> _Page:
        """Where the clock is up before there is anything to tell, nothing is told."""
        rows, _ = self._told.events(since, fields.PAGE)
        rows = [row for row in rows if row["seq"] <= up_to]
        last = rows[-1]["seq"] if len(rows) == fields.PAGE else max(up_to, since)
        return _Page(rows, last, self._told.pruned_to())

    def _answer(self, page: _Page, peer: Peer) -> Answer:
        events = self._views(page.rows, peer)
        return {"events": events, "last": page.last, "removed_to": page.removed_to}

    def _start(self, request: Mapping[str, Any]) -> int:
        """The cursor to begin behind."""
        since, at = fields.cursor(request, "since"), fields.moment(request, "since_at")
        if at is not None:
            return self._told.before(at)
        return self._told.last_event() if since is None else since

    def _check_jobs(self, refs: Sequence[Any], jobs: Sequence[range], peer: Peer) -> None:
        """Of jobs that were forgotten there may be events still."""
        if not self._told.events(0, 1, jobs)[0]:
            self._refs.check_any(refs, jobs, peer)

    def _check_cursor(self, since: int) -> None:
        """Whoever goes on from a cursor relies on having missed nothing."""
        removed, last = self._told.pruned_to(), self._told.last_event()
        if 0 < since < removed:
            raise GpuqError(
                f"events {since + 1} to {removed} were removed for their age (setting keep_for), so "
                f"what came after {since} cannot be told whole. Go on with what is kept: "
                f"--since {removed}"
            )
        if since > last:
            raise GpuqError(
                f"there is no event {since} yet, the last is {last}: a number of another daemon's, or "
                f"of a database that was replaced by a backup. Go on from here: --since {last}"
            )

    def _views(self, rows: Sequence[Row], peer: Peer) -> list[Answer]:
        machine, discretion = self._gpus() or (), self._discretion(peer)
        return [views.event_view(row, machine, sight=discretion.sight(row["uid"])) for row in rows]
