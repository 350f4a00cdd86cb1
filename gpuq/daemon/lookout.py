"""What the daemon sees of its GPUs: keeps the probe going, takes its readings, remembers the GPUs.

Part of the loop and on its thread; it decides nothing about jobs.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from gpuq.config import Config
from gpuq.core.model import Gpu, LeaseState, Policy
from gpuq.daemon.clock import Clock
from gpuq.daemon.gpus import GpuWatch, Probe
from gpuq.daemon.gpus.backend import is_identified
from gpuq.daemon.linux import processes
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble

WATCHED_S = 10.0  # how long somebody who looked counts as still looking
READ_OFTEN_S, READ_SELDOM_S = 1.0, 5.0

log = structlog.get_logger()


class Lookout:
    """`wake` is called where a reading may change a decision, `owner_of` gives the job of a pid."""

    def __init__(
        self,
        store: Store,
        config: Config,
        clock: Clock,
        *,
        wake: Callable[[], None],
        owner_of: Callable[[int], int | None],
    ) -> None:
        self.trouble: str | None = None  # why there is no reading
        self._store = store
        self._clock = clock
        self._wake = wake
        self._owner_of = owner_of
        self._seen = asyncio.Event()
        self._watched_until = 0.0
        self._remembered: frozenset[tuple[str, int]] | None = None
        self._watch = GpuWatch(config.policy(), _known_before(store, config))
        self._probe = Probe(
            config.gpus,
            on_reading=self._take_reading,
            on_trouble=self._take_trouble,
            on_started=self._note_probe,
            previous=self._previous_probe(),
        )
        self.run = self._probe.run

    @property
    def gpus(self) -> tuple[Gpu, ...] | None:
        return self._watch.gpus

    @property
    def read_at(self) -> float | None:
        return self._watch.read_at

    @property
    def is_whole(self) -> bool:
        return self._watch.is_whole

    @property
    def policy(self) -> Policy:
        return self._watch.policy

    def look_closely(self) -> None:
        """Somebody looks at the GPUs: read them often for a while."""
        self._watched_until = self._clock.monotonic() + WATCHED_S
        self.set_pace()

    def set_pace(self) -> None:
        is_watched = self._clock.monotonic() < self._watched_until
        often = is_watched or self._store.seen.has_waiting()
        self._probe.interval_s = READ_OFTEN_S if often else READ_SELDOM_S

    def tell_probe(self) -> None:
        """Simulated GPUs show what jobs on them declare; real ones are read after a change."""
        self._probe.hold(self._store.seen.held())
        self._probe.ask()

    async def first_reading(self, timeout_s: float) -> None:
        """Until it is known which GPUs there are, or why not, or the time is up."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._seen.wait()
        except TimeoutError:
            pass

    def _take_reading(self, raw: list[Gpu]) -> None:
        leases = self._store.seen.leases()
        raw = [_without_dead(gpu) for gpu in raw]
        changed = self._watch.accept(raw, leases, self._owner_of, self._clock.monotonic())
        self._remember()
        self._seen.set()
        # Whether a dirty GPU is clean depends on the reading alone, however little has changed.
        if changed or any(lease.state is LeaseState.DIRTY for lease in leases):
            self._wake()

    def _remember(self) -> None:
        """Stores which GPUs there are and what they use when idle, whenever that has changed."""
        gpus = [gpu for gpu in self._watch.gpus or () if is_identified(gpu)]
        known = frozenset((gpu.uuid, gpu.baseline_bytes) for gpu in gpus)
        if known == self._remembered:
            return
        try:
            self._store.machine.see_gpus(gpus, now=self._clock.wall())
            self._remembered = known
        except DiskTrouble as trouble:
            log.error("the GPUs could not be stored", why=str(trouble))

    def _take_trouble(self, trouble: str | None) -> None:
        if trouble != self.trouble:
            log.warning("GPUs", trouble=trouble or "answer again")
            self.trouble = trouble
            self._wake()
        self._seen.set()

    def _note_probe(self, pid: int, start: int) -> None:
        """For the next daemon, which must not start a second one beside it."""
        try:
            self._store.machine.note("probe", [processes.boot_id(), pid, start])
        except DiskTrouble as trouble:
            log.error("the probe could not be noted", why=str(trouble))

    def _previous_probe(self) -> tuple[int, int] | None:
        boot, pid, start = self._store.seen.fact("probe") or (None, 0, 0)
        return (pid, start) if boot == processes.boot_id() else None


def _known_before(store: Store, config: Config) -> list[Gpu]:
    remembered = store.seen.known_gpus() if config.gpus == "nvml" else []
    return [gpu for gpu in remembered if not gpu.simulated]


def _without_dead(gpu: Gpu) -> Gpu:
    """A reading that was under way when a process ended must not make a stranger of it. From inside
    a container the pids are not ours to look up: there the memory in use speaks for strangers."""
    if gpu.processes is None:
        return gpu
    living = tuple(p for p in gpu.processes if p.job is not None or processes.identity(p.pid))
    return replace(gpu, processes=living)
