"""The request for metrics. What is counted is brought up to date first; what costs more with a longer
queue, and the text itself, are made beside the loop."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import gpuq
from gpuq.config import Config
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.results.tallying import COMMIT, TURN
from gpuq.daemon.callers.discretion import Discretion, Sight
from gpuq.daemon.callers.peer import NOBODY, Peer
from gpuq.daemon.metrics.durations import Durations
from gpuq.daemon.metrics.exposition import exposition
from gpuq.daemon.metrics.families import Sample
from gpuq.daemon.metrics.gauges import depth_samples, gpu_samples, holder_samples
from gpuq.daemon.requests.long_looks import LongLooks
from gpuq.daemon.requests.world import World
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.daemon.store.depth import file_bytes, holders, queue_depth
from gpuq.daemon.store.reading import Readable
from gpuq.daemon.store.tallies import read_tallies

EVENTS_AT_ONCE = 1000  # counted between two turns of the loop
# Whoever reads a file that lies open for everybody: an account of its own, and no admin.
ANYBODY = Peer(uid=NOBODY, gid=NOBODY, pid=0, user="nobody")

Answer = dict[str, Any]


class Metrics:
    """`turns` and `commits` are for who does them to note how long they took; `discretion` is what
    somebody may see."""

    def __init__(
        self,
        store: Store,
        config: Config,
        world: World,
        looks: LongLooks,
        discretion: Callable[[Peer], Discretion],
    ) -> None:
        self.turns, self.commits = Durations(TURN), Durations(COMMIT)
        self._store = store
        self._config = config
        self._world = world
        self._looks = looks
        self._discretion = discretion
        self._started_at, self._started = time.time(), time.monotonic()

    async def metrics(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        return {"text": await self.text(peer)}

    async def text(self, peer: Peer) -> str:
        """All that this caller may know, in the text format of Prometheus."""
        with suppress(DiskTrouble):  # who watches the disk wants to see how it is all the same
            await self._count()
        gpus = tuple(self._world.gpus or ())
        sight = self._discretion(peer).sight
        render = partial(
            _render,
            samples=self._samples(gpus),
            gpus=gpus,
            is_told=lambda uid: sight(uid) >= Sight.COMMANDS,
        )
        return await self._looks.look(peer.uid, render)

    async def _count(self) -> None:
        while self._store.tallies.count_events(EVENTS_AT_ONCE):
            await asyncio.sleep(0)  # after some weeks without a scrape there are many
        self.keep()

    def keep(self) -> None:
        """Adds what was measured in this daemon to what others before it measured."""
        for durations in (self.turns, self.commits):
            counted = durations.counted()
            self._store.tallies.add(counted)
            durations.forget(counted)

    def _samples(self, gpus: Sequence[Gpu]) -> list[Sample]:
        world = self._world
        is_readable = world.has_no_driver or (world.gpus is not None and world.gpu_trouble is None)
        daemon = [
            Sample("gpuq_info", 1.0, (gpuq.__version__, self._config.mode)),
            Sample("gpuq_start_time_seconds", self._started_at),
            Sample("gpuq_uptime_seconds", time.monotonic() - self._started),
            Sample("gpuq_drained", float(self._store.current.drain() is not None)),
            Sample("gpuq_gpus_readable", float(is_readable)),
        ]
        leases, health = self._store.current.leases(), self._store.health.rows()
        return daemon + gpu_samples(gpus, leases, self._config.policy(), health)


def _render(
    db: Readable, *, samples: Sequence[Sample], gpus: Sequence[Gpu], is_told: Callable[[int], bool]
) -> str:
    stored = [
        Sample("gpuq_database_bytes", float(file_bytes(db))),
        *depth_samples(queue_depth(db)),
        *holder_samples(holders(db), gpus, is_told),
    ]
    return exposition([*samples, *stored], read_tallies(db))
