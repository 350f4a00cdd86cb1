"""What became of notices, for whom they are about; and notices for a trial."""

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from gpuq.config import Config
from gpuq.core.asked.hooks import read_hook, shown_hook
from gpuq.core.gpus.gpu import Gpu
from gpuq.daemon import faults
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests import fields
from gpuq.daemon.requests.long_looks import LongLooks
from gpuq.daemon.requests.refs import References
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.notice_rows import TOO_MANY
from gpuq.daemon.store.notices import listed
from gpuq.errors import GpuqError, NotPermitted, UsageError

Answer = dict[str, Any]

_TOLD = (
    *("id", "event", "moment", "origin", "job", "attempt", "gpu", "user", "made_at", "state"),
    *("stands_for", "tries", "due_at", "trouble", "ended_at"),
)


class Noticing:
    """`wake` rings for the loop, which sees to what waits."""

    def __init__(
        self,
        store: Store,
        config: Config,
        refs: References,
        looks: LongLooks,
        machine: Callable[[], list[Gpu]],
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._config = config
        self._refs = refs
        self._looks = looks
        self._machine = machine
        self._wake = wake

    async def notices(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """The newest first: one's own, an admin's are all. Of some jobs (`refs`), or one (`notice`)."""
        refs = fields.named(request)
        jobs = self._refs.resolve(refs, peer) if refs else ()
        find = partial(
            listed,
            uid=None if peer.is_admin else peer.uid,
            jobs=jobs,
            notice=fields.cursor(request, "notice"),
            limit=fields.limit(request.get("limit")),
        )
        found = await self._looks.look(peer.uid, find)
        if not found:
            self._refs.check_any(refs, jobs, peer)
        indices = {gpu.uuid: gpu.index for gpu in self._machine()}
        return {"notices": [self._view(row, peer, indices) for row in found]}

    async def test_notice(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Tells of nothing to a `target`, once, as the caller."""
        try:
            target = read_hook(request.get("target"))
        except ValueError as error:
            raise UsageError(f"--test: {error}") from None
        if peer.uid == 0 and self._config.mode == "system" and not self._config.allow_root_jobs:
            raise NotPermitted(
                "root may not have jobs here, and so nothing is done as root for a trial; be another "
                f"user, or set allow_root_jobs = true in {self._config.config}"
            )
        notice = self._store.notices.ask_trial(
            target, uid=peer.uid, gid=peer.gid, user=peer.user, now=time.time()
        )
        if notice is None:
            raise GpuqError(f"{TOO_MANY}: gpuq notices. Nothing was done.")
        faults.here("notices.asked")
        self._wake()
        return {"notice": notice, "target": target}

    def _view(self, row: Row, peer: Peer, indices: Mapping[str, int]) -> Answer:
        whole, told = self._is_whole(row, peer), json.loads(row["told"])
        return {name: row[name] for name in _TOLD} | {
            "last_job": told.get("last") or row["job"],
            "outcome": told.get("outcome"),
            "gpu_index": indices.get(row["gpu"]),
            "target": row["target"] if whole else shown_hook(row["target"]),
            "output": row["output"] if whole else None,
        }

    def _is_whole(self, row: Row, peer: Peer) -> bool:
        """What the settings of the machine name is root's, whosever job it is done for."""
        if row["origin"] == "settings" or row["uid"] is None:
            return peer.uid == 0 or self._config.mode != "system"
        return peer.may_see_secrets_of(row["uid"])
