"""The heart: on any news it takes one Snapshot, asks the core for a plan, carries it out, sleeps.

Being level-triggered it asks what is the case, never what has changed, so no lost or doubled piece of
news can mislead it. While nothing happens it does not turn. What it looks at, and what follows from a
plan, or from news, is in the rooms beside: `survey`, `deeds` and `starting`, `chronicle`, `lookout` and
`health`, `inheritance`.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from gpuq.config import Config
from gpuq.core.decisions import Decision, Plan, Start
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.gpus.usage import GpuUse
from gpuq.core.model import (
    Closing,
    EndCause,
    GpuHealth,
    Snapshot,
)
from gpuq.core.results.series import Series
from gpuq.core.scheduling.scheduler import plan
from gpuq.daemon import faults
from gpuq.daemon.bell import Bell
from gpuq.daemon.chronicle import Chronicle
from gpuq.daemon.clock import Clock
from gpuq.daemon.containers import Containers
from gpuq.daemon.deeds import Deeds
from gpuq.daemon.gpus.locks import GpuLocks
from gpuq.daemon.health import HealthWatch
from gpuq.daemon.inheritance import Inheritance
from gpuq.daemon.kills import Kills
from gpuq.daemon.linux import cgroup, processes
from gpuq.daemon.linux.process_readings import Aside, FoundProcesses, read_all
from gpuq.daemon.lookout import Lookout
from gpuq.daemon.memory_watch import MemoryWatch
from gpuq.daemon.notices.messenger import Messenger
from gpuq.daemon.reports import Reports
from gpuq.daemon.starting import Begun, CannotStart, Starter, uid_of_job
from gpuq.daemon.status_line import status_line
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.daemon.supervisor import Exited, News, Running, Supervisor
from gpuq.daemon.survey import JOBS_PER_CLASS, Survey
from gpuq.daemon.systemd.bus import Bus
from gpuq.daemon.systemd.notify import Notifier
from gpuq.daemon.systemd.pulse import Pulse
from gpuq.daemon.systemd.scopes import Scopes
from gpuq.daemon.upkeep.retention import Housekeeper
from gpuq.daemon.watchers import Watchers

DISK_AGAIN_S = 5.0
START_AGAIN_S = 1.0

log = structlog.get_logger()


class Loop:
    """Joins the rooms. `plan` and `gpus` are the last turn's, for whoever wants to know why."""

    def __init__(
        self,
        store: Store,
        config: Config,
        watchers: Watchers,
        clock: Clock | None = None,
        locks: GpuLocks | None = None,
        notifier: Notifier | None = None,
        scopes: Scopes | None = None,
    ) -> None:
        self.plan = Plan()
        self.stop_reason: str | None = None
        self.is_replaced = False
        self.turns = 0
        self._store = store
        self._policy = config.policy  # asked each time: settings change while we live
        self._notes = config.notes
        self._minutes_count = False  # the time of day may change what is started
        self._closing: Closing | None = None
        self._somebody_waits = False  # in line, by the last look
        self.on_look: Callable[[Snapshot], None] = _ignore
        self.turn_took: Callable[[float], None] = _ignore
        self._watchers = watchers
        self._clock = clock or Clock()
        self._bell = Bell(self._clock)
        self.wake = self._bell.wake
        self.settle = self._bell.quiet
        self._pulse = Pulse(notifier or Notifier(), self._describe, self._clock.monotonic)
        self._stopping = asyncio.Event()
        self._cgroup_root = cgroup.find_root(config.state_dir, config.cgroup)
        log.info("control groups", root=self._cgroup_root or "none: jobs are known by their runner")
        containers = Containers(config, store.agreed.to_run)
        self._supervisor = Supervisor(
            Path(config.state_dir), self._hear, self._cgroup_root, containers
        )
        self._locks = locks or GpuLocks()
        self._health = HealthWatch(
            store, self._clock, self._locks, config.gpus, wake=self.wake, veto=self._veto
        )
        self._lookout = Lookout(
            store,
            config,
            self._clock,
            wake=self.wake,
            owner_of=self._supervisor.owner_of,
            locked_by=self._locks.holder,
            health=self._health,
        )
        self._lookout.on_reading = watchers.publish_change
        self._memory = MemoryWatch(
            store, self._supervisor, self._clock, self._lookout.usage.series, self.wake
        )
        scopes = scopes or Scopes(Bus(None))
        self._starter = Starter(
            store,
            config,
            self._clock,
            self._supervisor,
            self._lookout,
            self._locks,
            scopes,
            wake=self.wake,
            watch_memory=self._memory.begun,
        )
        self._deeds = Deeds(
            store,
            self._clock,
            watchers,
            self._supervisor,
            self._starter,
            self._lookout,
            self._health,
        )
        self._kills = Kills(store, self._clock, self._supervisor, self._bell)
        self.note_kills = self._kills.note
        self.strike = self._kills.strike
        self._inheritance = Inheritance(
            store, config, self._clock, self._supervisor, self._hear, self._cgroup_root
        )
        self._reports = Reports(store, self._clock, config.state_dir, partial(uid_of_job, config))
        self._chronicle = Chronicle(
            store, self._clock, self._policy, watchers, self._lookout, self._reports.take_last
        )
        self._chronicle.on_end = self._supervisor.end_is_stored
        self._survey = Survey(
            store,
            self._clock,
            self._policy,
            lookout=self._lookout,
            health=self._health,
            memory=self._memory,
            supervisor=self._supervisor,
            deeds=self._deeds,
            recent=self._starter.recent,
            chronicle=self._chronicle,
            wake_in=self._bell.wake_in,
        )
        self._housekeeper = Housekeeper(store, config, self._clock)
        self._messenger = Messenger(store, config, self._clock)
        self.look_closely = self._lookout.look_closely
        self.first_reading = self._lookout.first_reading
        self.gpu_history = self._lookout.history
        self.read_gpus = self._lookout.tell_probe
        self.enforcement = scopes.enforcement

    # ── for handlers and main ──

    @property
    def gpus(self) -> Sequence[Gpu] | None:
        return self._survey.gpus(self.health)

    @property
    def health(self) -> Sequence[GpuHealth]:
        return self._health.known()

    def wish_tests(self, uuids: Sequence[str], actor: str) -> None:
        """Somebody wants these GPUs tested, those that are idle."""
        self._health.wish_tests(uuids, actor)
        self.wake()

    @property
    def gpu_trouble(self) -> str | None:
        return self._lookout.trouble

    @property
    def has_no_driver(self) -> bool:
        return self._lookout.has_no_driver

    def keep_house(self) -> None:
        """Something is to be forgotten."""
        self._housekeeper.wake()

    def settings_changed(self) -> None:
        """All that goes by them is looked at anew."""
        self._lookout.tell_probe()
        self._housekeeper.settings_changed()
        self._messenger.settings_changed()
        self.wake()

    def close_down(self, cause: EndCause | None, within_s: float = 0.0) -> None:
        """What all of this runs on goes away: what runs is ended, by KILL at the latest in so many
        seconds, and nothing is started. None: it stays after all."""
        if cause is None:
            self._closing = None
        elif self._closing is None:
            self._closing = Closing(cause=cause, kill_at=self._clock.monotonic() + within_s)
        self.wake()

    def ask_to_stop(self, reason: str, *, back: bool = False) -> None:
        """The daemon is to leave; jobs stay. `back`: another is about to take its place."""
        self.is_replaced = self.is_replaced or back
        self.stop_reason = self.stop_reason or reason
        self._stopping.set()

    async def stopping(self) -> None:
        await self._stopping.wait()

    def look(self) -> Snapshot:
        """The world as a turn would see it now."""
        return self._survey.take(self._closing)

    @contextmanager
    def commit_and_start(self) -> Iterator[None]:
        """One transaction for what is asked in it. Where nobody waited before and the loop has peace,
        what can start of that begins in the same commit, and does not wait for another one."""
        begun: list[Begun] = []
        try:
            with self._store.transaction():
                yield
                if self._bell.has_peace and not (self._somebody_waits or self._chronicle.inbox):
                    begun = self._begin_at_once()
        except BaseException:
            self._starter.dismiss(begun)
            raise
        try:
            self._deeds.send(begun)
        except Exception as error:
            # Who asked is answered all the same: it is stored. What was not sent the next daemon does.
            self._supervisor.fail(error)

    def owner_of(self, pid: int) -> int | None:
        """The job that a process belongs to."""
        return self._supervisor.owner_of(pid)

    async def processes_of(self, job: int, aside: Aside) -> FoundProcesses:
        """The processes that a job is. Reading of them takes long where there are many, or where one
        hangs in the kernel, so that is done `aside`."""
        table = await aside(processes.Table)
        pids = self._supervisor.members(job, table)
        found: FoundProcesses = await aside(lambda: read_all(pids))
        return found

    def series(self, job: int, attempt: int) -> Series | None:
        """How an attempt that runs is going, as far as this daemon has seen or found it."""
        return self._lookout.usage.series.latest((job, attempt))

    def gpu_use(self, job: int, attempt: int) -> GpuUse | None:
        """What an attempt that runs has made of its GPUs by the last reading."""
        return self._lookout.usage.latest(job, attempt)

    # ── running ──

    def start(self) -> None:
        """Starts launcher and probe, and finds the truth about what an earlier daemon left."""
        self._inheritance.sweep_groups()
        self._housekeeper.skip_known_ids()
        self._messenger.stand()
        self._supervisor.start()
        self._inheritance.take_over()
        self._settle_locks()
        self._inheritance.do_again_what_was_noted()
        faults.here("loop.resolved")

    async def run(self) -> None:
        """Turns until it is cancelled."""
        beside = [
            asyncio.ensure_future(work)
            for work in (
                self._lookout.run(),
                self._housekeeper.run(),
                self._health.run(),
                self._memory.run(),
                self._reports.run(),
                self._messenger.run(),
            )
        ]
        for task in beside:
            task.add_done_callback(lambda _: self.wake())
        self._bell.open()
        try:
            await self._supervisor.settle()
            while True:
                self._bell.turn_begins()
                began = self._clock.monotonic()
                acted = await self._turn()
                self._settle_locks()
                self._pulse.turned()
                self._messenger.heed()
                self._bell.turn_ends()
                self.turn_took(self._clock.monotonic() - began)
                if acted or self._bell.has_rung:
                    await asyncio.sleep(0)  # clients are answered between two turns
                else:
                    await self._sleep()
                for task in beside:
                    if task.done():
                        task.result()  # its fault is ours
        finally:
            self._bell.close()
            self._pulse.stop()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            self._lookout.usage.flush()
            self._reports.close()
            await self._starter.close()
            await self._supervisor.close()
            self._locks.close()
            if self._cgroup_root is not None:
                self._inheritance.sweep_groups()
                cgroup.remove_root(self._cgroup_root)

    def _hear(self, news: News) -> None:
        if isinstance(news, Exited):
            self._deeds.last_kills.pop((news.job, news.attempt), None)
            self._survey.forget(news.job, news.attempt)
            self._housekeeper.job_ended()
            news = self._with_memory_peak(news)
            put_down = partial(self._put_down, news)
            is_silent = news.exit is None or news.exit.nothing_reported
            if not is_silent and self._reports.holds_back(news.job, news.attempt, then=put_down):
                return
        elif isinstance(news, Running):
            self._reports.begun()
            self._chronicle.inbox.append(news)
            self._bell.wake_soon()
            return
        self._put_down(news)

    def _put_down(self, news: News) -> None:
        self._chronicle.inbox.append(news)
        self._bell.ring()

    def _with_memory_peak(self, news: Exited) -> Exited:
        """What was seen of it, where its control group counted nothing."""
        peak_bytes = self._memory.peak(news.job, news.attempt)
        if news.exit is None or peak_bytes is None or news.exit.memory_peak_bytes is not None:
            return news
        return replace(news, exit=replace(news.exit, memory_peak_bytes=peak_bytes))

    def _settle_locks(self) -> None:
        leases = self._store.current.leases_on_real_gpus()
        self._locks.settle([*leases, *self._health.held_on_real_gpus()])

    def _veto(self, locked: Mapping[str, str]) -> None:
        self._lookout.veto(locked)

    async def _turn(self) -> bool:
        """The news, one look, one plan, and its deeds. False where there was nothing to do."""
        self.turns += 1
        try:
            if self._health.take_in(self._lookout.gpus):
                self._lookout.tell_probe()
            snapshot, begun = self._take_in_and_start()
        except DiskTrouble as trouble:
            self._note_disk_trouble(trouble)
            snapshot, begun = self._look_and_plan(), []
        try:
            left = self.plan.decisions[len(begun) :]
            await self._deeds.do(left, snapshot)
            if begun and not left and len(begun) < JOBS_PER_CLASS:
                self._bell.wake_soon()  # those that wait are told why; nothing else follows from starts
                return False
        except DiskTrouble as trouble:
            self._note_disk_trouble(trouble)
            return False
        except CannotStart as trouble:
            log.error("cannot start a job", why=str(trouble), again_in_s=START_AGAIN_S)
            # Told to those who wait, and nothing is tried again before that.
            until = self._clock.monotonic() + START_AGAIN_S
            self._chronicle.start_trouble = str(trouble), until
            return True
        return not all(map(self._starter.is_under_way, self.plan.decisions))

    def _take_in_and_start(self) -> tuple[Snapshot, list[Begun]]:
        """What ended and what begins in its place is one commit, after which the orders go out."""
        begun: list[Begun] = []
        try:
            with self._store.transaction() if self._chronicle.inbox else nullcontext():
                heard = self._chronicle.write_down() if self._chronicle.inbox else 0
                snapshot = self._look_and_plan()
                if starts := _nothing_but_starts(self.plan.decisions):
                    with self._store.transaction():
                        begun = self._starter.start_at_hand(starts, snapshot)
        except BaseException:
            self._starter.dismiss(begun)
            raise
        self._deeds.send(begun)  # before anybody else is told anything: a GPU waits for this
        if heard:
            self._chronicle.announce(heard)
            self._settle_locks()  # its runner may have been the only one with the lock of its GPU
        return snapshot, begun

    def _begin_at_once(self) -> list[Begun]:
        """Where more than this is to be done a turn does it, as after all that is asked."""
        snapshot = self._look_and_plan()
        starts = _nothing_but_starts(self.plan.decisions)
        begun = self._starter.start_at_hand(starts, snapshot, are_new=True)
        if begun and len(begun) == len(starts) < JOBS_PER_CLASS:
            self._bell.turn_ends()  # which follows soon: nobody waits for it
        return begun

    def _look_and_plan(self) -> Snapshot:
        snapshot = self._survey.take(self._closing)
        self._somebody_waits = bool(snapshot.waiting)
        self._heed(snapshot)
        self.on_look(snapshot)
        self.plan = plan(snapshot)
        return snapshot

    def _heed(self, snapshot: Snapshot) -> None:
        """What else those that wait depend on: what is computed on the GPUs, and the time."""
        wishes = [job.request for job in snapshot.waiting]
        self._lookout.heed(wishes)
        has_hours = bool(snapshot.policy.reserve_idle and snapshot.policy.reserve_hours)
        self._minutes_count = has_hours and any(wish.gpus for wish in wishes)

    async def _sleep(self) -> None:
        """Until the next news, or the moment that the plan named."""
        self._lookout.set_pace()
        await self._bell.sleep(
            self._longest_sleep_s(), boottime=self.plan.undelay_at, wall=self.plan.wall_at
        )

    def _longest_sleep_s(self) -> float | None:
        """Until the moment that the plan named. Where the time of day counts no more than to the next
        full minute, at which such hours begin and end: somebody may set the clock meanwhile. Where
        systemd watches, no longer than it may wait to hear of a turn."""
        longest = []
        if self.plan.wake_at is not None:
            longest.append(max(self.plan.wake_at - self._clock.monotonic(), 0.0))
        if self._minutes_count:
            longest.append(60 - self._clock.wall() % 60)
        if self._pulse.longest_sleep_s is not None:
            longest.append(self._pulse.longest_sleep_s)
        return min(longest, default=None)

    def _describe(self) -> str:
        running, queued = self._store.counted.totals()
        driver = None if self.has_no_driver else self.gpu_trouble
        troubles = [self.plan.standstill, driver, *self._notes()]
        leases = self._store.current.leases()
        return status_line(running, queued, self.gpus, leases, self._policy(), troubles)

    def _note_disk_trouble(self, trouble: DiskTrouble) -> None:
        log.error("the database cannot be written", why=str(trouble), again_in_s=DISK_AGAIN_S)
        self._bell.wake_in(DISK_AGAIN_S)


def _nothing_but_starts(decisions: Sequence[Decision]) -> list[Start]:
    """None where anything else is to be done before them."""
    starts = [one for one in decisions if isinstance(one, Start)]
    return starts if len(starts) == len(decisions) else []


def _ignore(_: Snapshot | float) -> None:
    """Nobody else looks, or measures."""
