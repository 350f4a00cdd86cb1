"""What the daemon sees of its GPUs: keeps the probe going, takes its readings, remembers the GPUs.

Part of the loop and on its thread; it decides nothing about jobs.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from math import inf

import structlog

from gpuq.config import Config
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.gpus.ring import History, Rings
from gpuq.core.model import LeaseState, Request
from gpuq.daemon.clock import Clock
from gpuq.daemon.gpus import BackendSpec, GpuWatch, Probe, parse_gpus
from gpuq.daemon.gpus.backend import is_identified
from gpuq.daemon.health import HealthWatch
from gpuq.daemon.linux import processes
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.daemon.usage import Usage

WATCHED_S = 10.0  # how long somebody who looked counts as still looking
READ_OFTEN_S, READ_SELDOM_S = 1.0, 5.0
DOUBT_APART_S = 60.0  # each doubt loads the driver anew

log = structlog.get_logger()


class Lookout:
    """`wake` is called where a reading may change a decision, `owner_of` gives the job of a pid,
    `locked_by` who else has locked a GPU."""

    def __init__(
        self,
        store: Store,
        config: Config,
        clock: Clock,
        *,
        wake: Callable[[], None],
        owner_of: Callable[[int], int | None],
        locked_by: Callable[[str], str | None],
        health: HealthWatch,
    ) -> None:
        self.trouble: str | None = None  # why there is no reading
        self.on_reading: Callable[[], None] = lambda: None  # somebody looks on
        self._store = store
        self._clock = clock
        self._wake = wake
        self._owner_of = owner_of
        self._seen = asyncio.Event()
        self._watched_until = 0.0
        self._doubted_at = -inf
        self._told = 0  # which state of what jobs hold
        self._chosen: str = config.gpus
        chosen = parse_gpus(config.gpus)
        self._has_driver = chosen.kind == "nvml"
        self._remembered: frozenset[tuple[str, int]] | None = None
        self._watch = GpuWatch(
            config.policy, _known_before(store, chosen), locked_by, chosen.indices
        )
        self.usage = Usage(store, config.policy, clock)
        self._health = health
        self._rings = Rings()
        self._probe = Probe(
            config.gpus,
            on_reading=self._take_reading,
            on_trouble=self._take_trouble,
            on_started=self._note_probe,
            previous=self._previous_probe(),
        )
        self._probe.held = store.current.held
        self.run = self._probe.run

    @property
    def gpus(self) -> tuple[Gpu, ...] | None:
        return self._watch.gpus

    @property
    def has_no_driver(self) -> bool:
        """This machine can have no GPU, as far as is known."""
        return self.trouble is not None and self._probe.has_no_driver

    @property
    def read_at(self) -> float | None:
        return self._watch.read_at

    @property
    def is_whole(self) -> bool:
        return self._watch.is_whole

    def history(self, window_s: float, buckets: int) -> History:
        """What was read in the last `window_s`, beginning at a time by the clock on the wall."""
        now = self._clock.monotonic()
        history = self._rings.history(window_s, buckets, now)
        return replace(history, begin=self._clock.wall() - (now - history.begin))

    def heed(self, wishes: Sequence[Request]) -> None:
        """Jobs that wait with these wishes want to hear of what they depend on."""
        limits = (wish.max_util for wish in wishes)
        self._watch.busy_limits = frozenset(limit for limit in limits if limit is not None)
        self._watch.room_counts = any(not wish.exclusive for wish in wishes)

    def look_closely(self) -> None:
        """Somebody looks at the GPUs: read them often for a while."""
        self._watched_until = self._clock.monotonic() + WATCHED_S
        self.set_pace()

    def set_pace(self) -> None:
        is_watched = self._clock.monotonic() < self._watched_until
        often = is_watched or self._store.current.has_waiting()
        self._probe.interval_s = READ_OFTEN_S if often else READ_SELDOM_S

    def tell_probe(self) -> None:
        """Simulated GPUs show what jobs on them declare; real ones are read after a change."""
        self._told = self._store.current.holdings()
        self._probe.ask()

    def tell_leases(self) -> None:
        """The same where jobs may hold something else by now than when it was told last."""
        if self._store.current.holdings() != self._told:
            self.tell_probe()

    def veto(self, locked: Mapping[str, str]) -> None:
        """These GPUs turned out to be locked by others, in words; soon it is seen whether they are
        still."""
        log.info("GPUs are locked", by=dict(locked))
        self._watch.veto(locked)
        self._probe.ask()

    def doubt(self, why: str) -> None:
        """A new process may find another driver than the one that the probe goes on with."""
        now = self._clock.monotonic()
        if self._has_driver and now - self._doubted_at >= DOUBT_APART_S:
            self._doubted_at = now
            self._probe.renew(why)

    async def first_reading(self, timeout_s: float) -> None:
        """Until it is known which GPUs there are, or why not, or the time is up."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._seen.wait()
        except TimeoutError:
            pass

    def _take_reading(self, raw: list[Gpu]) -> None:
        leases = self._store.current.leases()
        testing = self._health.pids_of_tests()
        raw = [_without(gpu, testing) for gpu in map(_without_dead, raw)]
        at = self._clock.monotonic()
        holding = [*leases, *self._health.held()]
        changed = self._watch.accept(raw, holding, self._owner_of, at)
        self._rings.add(self._watch.gpus or (), at)
        is_over_memory = self.usage.observe(self._watch.gpus or (), leases, at)
        self._remember()
        changed |= self._health.take_reading(self._watch.gpus or (), leases)
        self._seen.set()
        self.on_reading()
        # Whether a dirty GPU is clean depends on the reading alone, however little has changed.
        is_dirty = any(lease.state is LeaseState.DIRTY for lease in leases)
        if changed or is_dirty or is_over_memory:
            self._wake()

    def _remember(self) -> None:
        """Stores which GPUs there are and what they use when idle, whenever that has changed."""
        gpus = [gpu for gpu in self._watch.gpus or () if is_identified(gpu)]
        known = frozenset((gpu.uuid, gpu.baseline_bytes) for gpu in gpus)
        if known == self._remembered:
            return
        try:
            with self._store.transaction():
                self._store.machine.see_gpus(gpus, now=self._clock.wall())
                if self._remembered is None:
                    self._store.machine.forget_other_simulations(gpus, self._chosen)
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
        boot, pid, start = self._store.machine.fact("probe") or (None, 0, 0)
        return (pid, start) if boot == processes.boot_id() else None


def _known_before(store: Store, chosen: BackendSpec) -> list[Gpu]:
    remembered = store.machine.known_gpus() if chosen.kind == "nvml" else []
    return [gpu for gpu in remembered if not gpu.simulated]


def _without_dead(gpu: Gpu) -> Gpu:
    """A reading that was under way when a process ended must not make a stranger of it. From inside
    a container the pids are not ours to look up: there the memory in use speaks for strangers. The
    pids on simulated GPUs are made up."""
    if gpu.processes is None or gpu.simulated:
        return gpu
    living = tuple(p for p in gpu.processes if p.job is not None or processes.identity(p.pid))
    return replace(gpu, processes=living)


def _without(gpu: Gpu, pids: Collection[int]) -> Gpu:
    """A test of the GPU is nobody's work on it."""
    if not gpu.processes or not pids:
        return gpu
    return replace(gpu, processes=tuple(p for p in gpu.processes if p.pid not in pids))
