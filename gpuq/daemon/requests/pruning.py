"""What people ask in order to have ended jobs forgotten: which ones that would be, that it be done,
and how far it is. It is carried out by `retention`."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpuq.core.model import JobState
from gpuq.core.units import format_spans
from gpuq.daemon import faults
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests import fields
from gpuq.daemon.requests.refs import References
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import Row
from gpuq.daemon.upkeep import job_files
from gpuq.daemon.upkeep.aside import OneByOne
from gpuq.errors import GpuqError, NotPermitted

SHOWN_ACTIVE = 8

Answer = dict[str, Any]


class Pruning:
    """`begin` is called once something is wished."""

    def __init__(
        self, store: Store, refs: References, state_dir: str, begin: Callable[[], None]
    ) -> None:
        self._store = store
        self._refs = refs
        self._state_dir = state_dir
        self._begin = begin
        self._counting = OneByOne()

    async def prunable(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """A page of ended jobs that are meant, with what each has left on disk, as runs `id` to
        `last_id` of such as never started; `after` is the cursor of the next one. Named jobs are all
        there, one's own, and ended, or the answer is an error."""
        refs = fields.named(request)
        after = fields.cursor(request, "after") or 0
        if refs and not after:
            self._check(self._refs.find(refs, peer), peer)
        spans = self._refs.resolve(refs, peer) if refs else None
        rows = self._store.pruned.choose(
            spans=spans,
            uid=_whose(peer, is_named=bool(refs)),
            after=after,
            limit=fields.PAGE,
            **fields.prunable(request, time.time()),
        )
        count_outputs = bool(request.get("outputs"))
        jobs = await self._counting.do(
            peer.uid, lambda: [self._view(row, count_outputs) for row in rows]
        )
        return {"jobs": jobs, "after": rows[-1]["last_id"] if len(rows) == fields.PAGE else None}

    def _view(self, row: Row, count_outputs: bool) -> Answer:
        found = job_files.measure(
            self._state_dir, row["id"], row["attempt"], count_outputs=count_outputs
        )
        kept = ("id", "last_id", "user", "name", "outcome", "ended_at")
        return {name: row[name] for name in kept} | {
            "files_bytes": found.files_bytes,
            "output_bytes": found.output_bytes,
        }

    async def prune(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """These jobs are to be forgotten. Those that have been already are none any more, so that it
        can be asked twice."""
        rows = self._store.found.brief(self._refs.resolve(fields.named(request), peer))
        self._check(rows, peer)
        asked = self._store.wished.prune(
            [range(row["id"], row["last_id"] + 1) for row in rows],
            outputs=bool(request.get("outputs")),
            actor=peer.user,
            now=time.time(),
        )
        faults.here("prune.committed")
        self._begin()
        return {"asked": asked}

    async def pruning(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """How many of one's own jobs are still to be forgotten, and which cannot be, and why."""
        whose = _whose(peer, is_named=True)
        return {
            "pending": self._store.pruned.pending(whose),
            "troubles": self._store.pruned.troubles(whose),
        }

    def _check(self, rows: Sequence[Row], peer: Peer) -> None:
        for row in rows:
            if not peer.may_change(row["uid"]):
                raise NotPermitted(
                    f"job {row['id']} belongs to {row['user']}; "
                    "only its owner or an admin may prune it. Nothing was removed."
                )
        if active := [row for row in rows if row["state"] != JobState.ENDED]:
            raise GpuqError(_not_ended(active))


def _whose(peer: Peer, *, is_named: bool) -> int | None:
    """Whose jobs somebody prunes; None: everybody's. An admin with jobs of his own means those,
    unless he names others."""
    return None if peer.uid == 0 or (is_named and peer.is_admin) else peer.uid


def _not_ended(rows: Sequence[Row]) -> str:
    shown = ", ".join(f"{_is_or_are(row)} {row['state']}" for row in rows[:SHOWN_ACTIVE])
    more = f", and {len(rows) - SHOWN_ACTIVE} more have not" if len(rows) > SHOWN_ACTIVE else ""
    them = format_spans(range(row["id"], row["last_id"] + 1) for row in rows)
    return (
        f"only jobs that have ended can be pruned; {shown}{more}. Nothing was removed. "
        f"To end {'it' if them.isdecimal() else 'them'}: gpuq kill --wait {them}"
    )


def _is_or_are(run: Row) -> str:
    first, last = run["id"], run["last_id"]
    return f"job {first} is" if first == last else f"jobs {first} to {last} are"
