"""What a kill does to a job, and would do: for who kills, and for who wants to know before."""

from collections.abc import Mapping
from typing import Any

from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests import fields
from gpuq.daemon.requests.needing import stranded_by
from gpuq.daemon.requests.refs import References
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import Row

Answer = dict[str, Any]


class Consequences:
    def __init__(self, store: Store, refs: References) -> None:
        self._store = store
        self._refs = refs

    async def consequences(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Of a kill of these jobs, as `kill` would answer it if it came now: to each run of them
        `done`, `grace_s` and whether the caller may (`may`); and in sentences (`stranded`) who waits
        for those that the caller may kill, and would not start any more."""
        rows = self._refs.find(fields.named(request), peer, to_end=True)
        may = [peer.may_change(row["uid"]) for row in rows]
        told = [done_by_kill(row) for row in rows]
        own = [row for row, yes in zip(rows, may, strict=True) if yes]
        done = [run for run, yes in zip(told, may, strict=True) if yes]
        stranded = stranded_by(self._store.waiting, done, own, foreseen=True)
        jobs = [
            run | {"user": row["user"], "may": yes}
            for run, row, yes in zip(told, rows, may, strict=True)
        ]
        return {"jobs": jobs, "stranded": stranded}


def done_by_kill(row: Row, grace_s: float | None = None) -> Answer:
    """Of a row as it is before the kill; `grace_s` None: each with its own."""
    run = {"id": row["id"], "last_id": row["last_id"]}
    if "grace_s" not in row:  # of those that are over
        return run | {"done": "already_ended", "grace_s": None}
    if row["state"] in ("queued", "ended"):  # which was to be queued again
        return run | {"done": "cancelled", "grace_s": None}
    grace_s = float(row["grace_s"] if grace_s is None else grace_s)
    return run | {"done": "stopping" if grace_s else "killing", "grace_s": grace_s}
