"""The request that tells what happened: events after a cursor, waited for where there are none yet."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpuq.core.gpus.gpu import Gpu
from gpuq.daemon.callers.discretion import Discretion
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests import fields, views
from gpuq.daemon.requests.refs import References
from gpuq.daemon.requests.waiting import MOST_FOLLOWED, Attention
from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.told import Told
from gpuq.daemon.watchers import Watchers
from gpuq.errors import GpuqError

Answer = dict[str, Any]


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

    async def events(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Those after a cursor (`since`; null: only what comes; 0: all that are kept), or from a moment
        on (`since_at`), of some jobs or of all. Where there are none it waits for them up to
        `timeout_s`. `last` is the cursor to go on with, `removed_to` the last of those that are kept
        no more. GpuqError where not all that came after the cursor can be told."""
        last = self._start(request)
        refs = fields.named(request)
        jobs = self._refs.resolve(refs, peer) if refs else None
        deadline = time.monotonic() + fields.timeout_s(request.get("timeout_s") or 0.0)
        while True:
            self._check_cursor(last)
            rows, last = self._told.events(last, fields.PAGE, jobs)
            if jobs is not None and not rows:
                self._check_jobs(refs, jobs, peer)
            left = deadline - time.monotonic()
            if rows or left <= 0:
                removed_to = self._told.pruned_to()
                told = self._views(rows, peer)
                return {"events": told, "last": last, "removed_to": removed_to}
            with self._followed.on(len(jobs or ()), peer.uid):
                await self._watchers.next_commit(left)

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
