"""What jobs make of their GPUs, kept from reading to reading; and what is to be told of that: who holds
a GPU and computes nothing, whom a stranger disturbs, who uses more than it asked for.

Part of the loop and on its thread; it ends nobody. Each reading is held against what is written down,
so what a full disk refused, or an earlier daemon did not see, is made up for by the next one.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from gpuq.core.gpus.gpu import Gpu
from gpuq.core.gpus.usage import (
    LONGEST_STRETCH_S,
    TOLD_AGAIN,
    Excess,
    GpuUse,
    Intruder,
    Stray,
    Stretch,
    add,
    busy_words,
    energy_at,
    energy_between,
    find_excess,
    find_stray,
    intruders,
    mean,
    most,
    total,
    used_by,
    utilization,
)
from gpuq.core.model import Lease
from gpuq.core.policy import OverMemory, Policy
from gpuq.daemon.clock import Clock
from gpuq.daemon.series import SeriesOfAttempts
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble, StoreDamaged
from gpuq.daemon.store.measured import OnGpus

WRITE_EVERY_S = 60.0  # what a daemon that is killed may lose
PEAK_EVERY_S, PEAK_GROWN = 4.5, 1.05  # and of a peak: a reading comes every 5 s at the least
MOST_CONTENDERS = 8  # told of for one attempt: somebody's loop of short programs is one trouble

log = structlog.get_logger()


@dataclass(slots=True)
class _Tally:
    """What this daemon knows of an attempt beyond what is written down. Moments are on
    CLOCK_MONOTONIC, s."""

    use: GpuUse
    quiet_since: float  # nothing has been computed since then
    beside: frozenset[int]  # of the strangers that it was started beside those that are still there
    contenders: set[int | None]  # that were told of
    quiet_percent: int = 0  # the most in that time
    excess: Excess | None = None  # at the last reading
    power_w: float | None = None  # at the last reading, its share where it had not the GPU alone
    at_end: GpuUse | None = None  # where it has ended since the last reading
    told_bytes: int | None = None  # what it used when its excess was told of
    is_stray: bool = False  # which was told of


class _Reading:
    """The GPUs that gave one, and who holds them."""

    def __init__(self, at: float, gpus: Sequence[Gpu], leases: Sequence[Lease]) -> None:
        self.at = at
        self.gpus = {gpu.uuid: gpu for gpu in gpus if gpu.fault is None}
        self._held: dict[tuple[int, int], list[tuple[Gpu, Lease]]] = {}
        for lease in leases:
            if lease.gpu in self.gpus:
                held = self._held.setdefault((lease.job, lease.attempt), [])
                held.append((self.gpus[lease.gpu], lease))
        self._holders = Counter(lease.gpu for lease in leases)

    def held_by(self, one: OnGpus) -> list[tuple[Gpu, Lease]]:
        return self._held.get((one.job, one.attempt), [])

    def is_alone_on(self, gpu: Gpu) -> bool:
        return self._holders[gpu.uuid] == 1


# What is to be told.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Idle:
    since: float
    gpu: str | None  # where it is one alone
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Used:
    gpu: str | None
    cause: str


_News = _Idle | _Used | Intruder | Stray | Excess


class Usage:
    """`policy` gives the settings that are in force. `series` is how what runs is going."""

    def __init__(self, store: Store, policy: Callable[[], Policy], clock: Clock) -> None:
        self.series = SeriesOfAttempts(store)
        self._store = store
        self._policy = policy
        self._clock = clock
        self._tallies: dict[tuple[int, int], _Tally] = {}  # by job and attempt
        self._last: _Reading | None = None
        self._written_at = self._peaks_at = clock.monotonic()

    def of(self, job: int, attempt: int) -> GpuUse:
        """What an attempt that ends now has made of its GPUs. No reading will speak for the time since
        the last one, so what they drew then is taken to have gone on."""
        tally = self._tallies.get((job, attempt))
        if tally is None or self._last is None:
            return self._store.measured.use(job, attempt)
        seconds = max(self._clock.monotonic() - self._last.at, 0.0)
        tally.at_end = add(tally.use, Stretch(energy_j=energy_at(tally.power_w, seconds)))
        return tally.at_end

    def latest(self, job: int, attempt: int) -> GpuUse | None:
        """What one that ran at the last reading had made of them by then, or by its end where it has
        ended since; None of any other."""
        tally = self._tallies.get((job, attempt))
        return None if tally is None else tally.at_end or tally.use

    def over_memory(self, job: int, attempt: int) -> str | None:
        """That it uses more of a shared GPU than it asked for, in words, where that is so just now."""
        tally = self._tallies.get((job, attempt))
        return None if tally is None or tally.excess is None else tally.excess.words

    def observe(self, gpus: Sequence[Gpu], leases: Sequence[Lease], at: float) -> bool:
        """Takes in a reading of `at` (CLOCK_MONOTONIC, s). True where a job is to be ended for it."""
        now = _Reading(at, gpus, leases)
        last, self._last = self._last, now
        is_held = any(lease.is_active for lease in leases)
        running = self._store.measured.running() if is_held else []
        self._tallies = {(one.job, one.attempt): self._tally(one, at) for one in running}
        if not running:
            self._written_at = at
            return False
        policy = self._policy()
        sharers = Counter(gpu.uuid for one in running for gpu, _ in now.held_by(one))
        news: list[tuple[OnGpus, _News]] = []
        for one in running:
            self._measure(one, now, last, sharers)
            news += [(one, told) for told in self._find_news(one, now, last, policy)]
        self._write(running, news, at)
        is_over = any(tally.excess for tally in self._tallies.values())
        return is_over and policy.over_memory is OverMemory.END

    def _tally(self, one: OnGpus, at: float) -> _Tally:
        if (known := self._tallies.get((one.job, one.attempt))) is not None:
            return known
        told = self._store.measured.contenders(one.job, one.attempt) if one.is_contended else set()
        return _Tally(
            use=one.use,
            quiet_since=_quiet_from(one, at, self._policy()),
            beside=one.beside,
            contenders=told,
            told_bytes=one.use.peak_bytes if one.is_over_memory else None,
        )

    # ── measured ──

    def _measure(
        self, one: OnGpus, now: _Reading, last: _Reading | None, sharers: Mapping[str, int]
    ) -> None:
        """The time since the last reading, or since it started where that was later. What was before
        this daemon first looked, nobody can tell."""
        tally = self._tallies[one.job, one.attempt]
        gap_s = 0.0 if last is None else now.at - last.at
        seconds = min(gap_s, max(now.at - one.started_mono, 0.0))
        used: dict[str, int | None] = {}
        energies, powers = [], []
        for gpu, _ in now.held_by(one):
            used[gpu.uuid] = used_by(gpu, one.job, alone=now.is_alone_on(gpu))
            before = None if last is None else last.gpus.get(gpu.uuid)
            energy_j = energy_between(before, gpu, gap_s=gap_s, seconds=seconds)
            energies.append(None if energy_j is None else energy_j / sharers[gpu.uuid])
            powers.append(None if gpu.power_w is None else gpu.power_w / sharers[gpu.uuid])
        tally.power_w, tally.at_end = total(powers), None
        tally.excess = find_excess(now.held_by(one), used)
        percents = [gpu.utilization_percent for gpu, _ in now.held_by(one) if not one.is_paused]
        stretch = Stretch(
            seconds=min(seconds, LONGEST_STRETCH_S),
            used_bytes=most(used.values()),
            utilizations=tuple(percent for percent in percents if percent is not None),
            energy_j=total(energies),
        )
        tally.use = add(tally.use, stretch)
        self.series.note(
            (one.job, one.attempt),
            now.at - one.started_mono,
            gpu_memory_bytes=stretch.used_bytes,
            gpu_utilization_percent=mean(stretch.utilizations),
        )

    # ── found out ──

    def _find_news(
        self, one: OnGpus, now: _Reading, last: _Reading | None, policy: Policy
    ) -> list[_News]:
        tally = self._tallies[one.job, one.attempt]
        gpus = [gpu for gpu, _ in now.held_by(one)]
        if not gpus:
            return []
        # Nobody can tell what was before, nor what was while the driver said nothing.
        is_known = last is not None and now.at - last.at <= LONGEST_STRETCH_S
        counts = is_known and not one.is_paused
        news: list[_News | None] = [
            self._find_idleness(one, tally, gpus, now.at, policy, counts=counts)
        ]
        news += self._find_contenders(tally, gpus)
        if not tally.is_stray:
            news.append(find_stray(one.job, {gpu.uuid for gpu in gpus}, now.gpus.values()))
        news.append(self._find_excess(tally, policy))
        return [told for told in news if told is not None]

    def _find_idleness(
        self,
        one: OnGpus,
        tally: _Tally,
        gpus: Sequence[Gpu],
        at: float,
        policy: Policy,
        *,
        counts: bool,
    ) -> _News | None:
        percent = utilization(gpus)
        only = gpus[0].uuid if len(gpus) == 1 else None
        if percent is None or percent >= policy.idle_job_percent or not counts:
            tally.quiet_since, tally.quiet_percent = _quiet_from(one, at, policy), 0
        if percent is None:
            return None
        if percent >= policy.idle_job_percent:
            return _Used(gpu=only, cause=busy_words(gpus, percent)) if one.is_idle else None
        tally.quiet_percent = max(tally.quiet_percent, percent)
        quiet_s = at - tally.quiet_since
        if one.is_idle or not counts or quiet_s < policy.idle_job_s:
            return None
        cause = busy_words(gpus, tally.quiet_percent, quiet_s)
        return _Idle(since=tally.quiet_since, gpu=only, cause=cause)

    def _find_contenders(self, tally: _Tally, gpus: Sequence[Gpu]) -> list[_News | None]:
        if all(gpu.processes is not None for gpu in gpus):  # or they may only be out of sight
            tally.beside &= {process.pid for gpu in gpus for process in gpu.foreign_processes}
        found = {by.pid: by for by in intruders(gpus, tally.beside)}
        new = [by for pid, by in found.items() if pid not in tally.contenders]
        return [*new[: max(MOST_CONTENDERS - len(tally.contenders), 0)]]

    def _find_excess(self, tally: _Tally, policy: Policy) -> _News | None:
        excess, told_bytes = tally.excess, tally.told_bytes
        if excess is None or policy.over_memory is OverMemory.NOTHING:
            return None
        if told_bytes is not None and excess.used_bytes <= told_bytes * TOLD_AGAIN:
            return None
        return excess

    # ── written down ──

    def _write(
        self, running: Sequence[OnGpus], news: Sequence[tuple[OnGpus, _News]], at: float
    ) -> None:
        """Once a minute what was measured, a peak sooner, and at once what is to be told."""
        uses = {(one.job, one.attempt): one.use for one in running}
        changed = [key for key, tally in self._tallies.items() if tally.use != uses[key]]
        is_due = bool(changed) and at - self._written_at >= WRITE_EVERY_S
        has_grown = at - self._peaks_at >= PEAK_EVERY_S and any(
            _has_grown(uses[key], self._tallies[key].use) for key in changed
        )
        if not (news or is_due or has_grown):
            return
        try:
            with self._store.transaction():
                self._write_uses(changed)
                if is_due:
                    self.series.write(changed)
                for one, told in news:
                    self._tell(one, told, at)
        except DiskTrouble as trouble:
            log.error("what jobs make of their GPUs could not be stored", why=str(trouble))
            return
        self._peaks_at = at
        if news or is_due:
            self._written_at = at
        for one, told in news:
            self._note_told(self._tallies[one.job, one.attempt], told)

    def _write_uses(self, keys: Iterable[tuple[int, int]]) -> None:
        for job, attempt in keys:
            self._store.measured.write(job, attempt, self._tallies[job, attempt].use)

    def flush(self) -> None:
        """Writes down what was measured since the last time: this daemon leaves."""
        measured = self._store.measured
        try:
            running = (
                {(one.job, one.attempt) for one in measured.running()} if self._tallies else set()
            )
            watched = {(job, attempt) for job, attempt, *_ in measured.watched()}
            with self._store.transaction():
                self._write_uses(key for key in self._tallies if key in running)
                self.series.write(running | watched)
        except (DiskTrouble, StoreDamaged) as trouble:
            log.error("what jobs make of their GPUs could not be stored", why=str(trouble))

    def _tell(self, one: OnGpus, told: _News, at: float) -> None:
        measured, now = self._store.measured, self._clock.wall()
        match told:
            case _Idle():
                since_at = now - (at - told.since)
                measured.idle(
                    one.job, one.attempt, since_at=since_at, gpu=told.gpu, cause=told.cause, now=now
                )
            case _Used():
                measured.used(one.job, one.attempt, gpu=told.gpu, cause=told.cause, now=now)
            case Intruder():
                measured.contended(one.job, one.attempt, told, now=now)
            case Stray():
                measured.astray(one.job, one.attempt, told, now=now)
            case Excess():
                measured.over_memory(
                    one.job, one.attempt, gpu=told.gpu.uuid, words=told.words, now=now
                )

    def _note_told(self, tally: _Tally, told: _News) -> None:
        """That somebody is idle is read from what was written; this is not."""
        if isinstance(told, Intruder):
            tally.contenders.add(told.pid)
        elif isinstance(told, Stray):
            tally.is_stray = True
        elif isinstance(told, Excess):
            tally.told_bytes = told.used_bytes


def _has_grown(written: GpuUse, now: GpuUse) -> bool:
    """By so much of its peak that a user, or the next job of its command, would be misled."""
    return now.peak_bytes is not None and now.peak_bytes > (written.peak_bytes or 0) * PEAK_GROWN


def _quiet_from(one: OnGpus, at: float, policy: Policy) -> float:
    """What it does in its first seconds says nothing yet."""
    return max(at, one.started_mono + policy.settle_s)
