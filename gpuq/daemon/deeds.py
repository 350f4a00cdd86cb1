"""What the plan decides, done. A step is noted before it is taken, unless it does no harm undone: what
dies in between is found again by what was noted.

Part of the loop and on its thread.
"""

from collections.abc import Sequence
from signal import SIGKILL

from gpuq.core.decisions import (
    Await,
    Cancel,
    CountWait,
    Decision,
    Divide,
    FallBack,
    MarkDirty,
    Meet,
    Pause,
    Readmit,
    Release,
    Requeue,
    Resume,
    SetAside,
    SetAsideGpu,
    Settling,
    Signal,
    Skip,
    Start,
    TestGpu,
    Undelay,
)
from gpuq.core.ends.ending import left_s
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Snapshot
from gpuq.core.scheduling.judging import judge_needs
from gpuq.daemon import faults
from gpuq.daemon.clock import Clock
from gpuq.daemon.health import HealthWatch
from gpuq.daemon.linux import investigate, processes
from gpuq.daemon.linux.sentences import survivor_sentence
from gpuq.daemon.lookout import Lookout
from gpuq.daemon.starting import Begun, Starter
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.daemon.supervisor import Supervisor
from gpuq.daemon.watchers import Watchers

SETTLED_PER_TURN = 512
SHOWN_SURVIVORS = 3
DEVICE = "/dev/nvidia{}"


class Deeds:
    """`last_kills` is when each attempt, by job and number, was last killed (CLOCK_MONOTONIC, s)."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        watchers: Watchers,
        supervisor: Supervisor,
        starter: Starter,
        lookout: Lookout,
        health: HealthWatch,
    ) -> None:
        self.last_kills: dict[tuple[int, int], float] = {}
        self._store = store
        self._clock = clock
        self._watchers = watchers
        self._supervisor = supervisor
        self._starter = starter
        self._lookout = lookout
        self._health = health

    def send(self, begun: Sequence[Begun]) -> None:
        for one in begun:
            self._starter.send(one)
            self._is_started(one.new.job)

    async def do(self, decisions: Sequence[Decision], snapshot: Snapshot) -> None:
        """Raises DiskTrouble and CannotStart; what was not done then is decided anew."""
        # Signals first: what is being ended is to end though the disk may refuse all the rest.
        self._signal([one for one in decisions if isinstance(one, Signal)], snapshot)
        # Before any other job ends: what was touched stays as it was judged.
        self._settle([one for one in decisions if isinstance(one, Settling)])
        self._cancel([one for one in decisions if isinstance(one, Cancel)])
        self._requeue([one.job for one in decisions if isinstance(one, Requeue)])
        self._count_waits([one.job for one in decisions if isinstance(one, CountWait)])
        self._starter.keep_for(decisions)
        for decision in decisions:
            await self._carry_out(decision, snapshot)
        self._health.forget_considered(snapshot.health)

    async def _carry_out(self, decision: Decision, snapshot: Snapshot) -> None:
        now, mono = self._clock.wall(), self._clock.monotonic()
        happened, machine = self._store.happened, self._store.machine
        match decision:
            case Start():
                if await self._starter.start(decision, snapshot):
                    self._is_started(decision.job)
            case FallBack(job=job, version=version, why=why):
                self._store.falling.fall_back(job, version=version, why=why, now=now)
                faults.here("loop.fell_back")
            case Undelay():
                happened.undelay(decision.job, now=now)
                faults.here("loop.undelayed")
            case Pause():
                happened.pause(decision.job, decision.attempt, mono=mono, now=now)
                faults.here("loop.pause_committed")
                self._supervisor.pause(decision.job)
            case Resume():
                self._supervisor.resume(decision.job)
                faults.here("loop.resumed")
                happened.resume(decision.job, decision.attempt, mono=mono, now=now)
            case SetAside():
                words = self._describe_survivors(decision.job)
                happened.unkillable(decision.job, decision.attempt, words, now=now)
            case Release():
                faults.here("loop.releasing")
                machine.release(decision.gpu, decision.slot, now=now)
            case MarkDirty():
                dirt = decision.dirt + self._describe_holders(decision.gpu, snapshot.gpus or ())
                machine.mark_dirty(decision.gpu, decision.slot, dirt, now=now)
            case SetAsideGpu() | TestGpu() | Readmit():
                self._health.carry_out(decision, snapshot.gpus or ())

    def _is_started(self, job: int) -> None:
        self._watchers.publish(job, "started")
        self._lookout.tell_leases()

    def _cancel(self, cancels: Sequence[Cancel]) -> None:
        """All in one commit: there may be as many as somebody had queued."""
        if not cancels:
            return
        faults.here("loop.cancelling")
        with self._store.transaction():
            for cancel in cancels:
                self._store.happened.cancel(
                    cancel.job, last=cancel.last, actor=cancel.actor, now=self._clock.wall()
                )
        faults.here("loop.cancelled")
        for cancel in cancels:
            self._watchers.publish(cancel.job, "started", last=cancel.last)
            self._watchers.publish(cancel.job, "ended", last=cancel.last)

    def _requeue(self, jobs: Sequence[int]) -> None:
        if not jobs:
            return
        faults.here("loop.requeueing")
        with self._store.transaction():
            for job in jobs:
                self._store.returned.requeue(
                    job,
                    now=self._clock.wall(),
                    boottime=self._clock.boottime(),
                    boot_id=processes.boot_id(),
                )
        faults.here("loop.requeued")

    def _count_waits(self, jobs: Sequence[int]) -> None:
        if jobs:
            mono, boot_id = self._clock.monotonic(), processes.boot_id()
            self._store.falling.count_waits(jobs, mono=mono, boot_id=boot_id)

    def _settle(self, settled: Sequence[Settling]) -> None:
        """All in one commit, as with those that are cancelled, and what they bring about with them: who
        waits for one that is skipped is judged by the same rule, or a long chain would take a turn for
        each of its jobs."""
        if not settled:
            return
        faults.here("loop.settling_needs")
        skipped: list[tuple[int, int]] = []
        done = 0
        with self._store.transaction():
            while settled and done < SETTLED_PER_TURN:
                self._store.needs.take_up([one.need for one in settled])
                for one in settled:
                    skipped += self._settle_one(one)
                done += len(settled)
                settled = judge_needs(self._store.needs.touched())
        faults.here("loop.needs_settled")
        for first, last in skipped:
            self._watchers.publish(first, "started", last=last)
            self._watchers.publish(first, "ended", last=last)

    def _settle_one(self, one: Settling) -> list[tuple[int, int]]:
        """Returns the runs of jobs that have ended by it."""
        needs, now = self._store.needs, self._clock.wall()
        match one:
            case Meet():
                needs.meet(one.need, now=now)
            case Await():
                needs.wait(one.need, now=now)
            case Divide():
                needs.divide(one.need)
            case Skip():
                return needs.skip(one.need, broken_by=one.broken_by, reason=one.reason, now=now)
        return []

    def _signal(self, signals: Sequence[Signal], snapshot: Snapshot) -> None:
        """The step is noted before it is taken: taken twice it does no harm, unnoted it would
        make a cancelled job look like one that failed."""
        if not signals:
            return
        faults.here("loop.signalling")
        try:
            with self._store.transaction():
                for one in signals:
                    self._note_signal(one)
        except DiskTrouble:
            # A full disk is no reason to let what is being ended go on filling it.
            self._send([one for one in signals if self._is_being_ended(one)], snapshot)
            raise
        faults.here("loop.signal_committed")
        self._send(signals, snapshot)
        faults.here("loop.signalled")
        if terms := [one for one in signals if one.ends is not None and one.signal != SIGKILL]:
            with self._store.transaction():
                for one in terms:
                    self._store.happened.term_delivered(one.job, one.attempt)

    def _is_being_ended(self, one: Signal) -> bool:
        return (
            one.ends is not None
            and self._store.agreed.terms(one.job, one.attempt).ending is not None
        )

    def _send(self, signals: Sequence[Signal], snapshot: Snapshot) -> None:
        """Its runner is told first: what is to be done for a job that is ended has to begin while the
        job is there. KILL goes to whole groups before anybody looks who else there is."""
        active = {job.id: job for job in snapshot.active}
        for one in signals:
            if one.ends is not None and one.job in active:
                within_s = left_s(active[one.job], snapshot)
                self._supervisor.mark_ending(one.job, one.ends, within_s)
            if one.ends is not None and one.signal == SIGKILL:
                self._supervisor.kill_group(one.job)
        table = processes.Table()
        for one in signals:
            self._supervisor.signal(
                one.job,
                one.signal,
                table,
                ends=one.ends is not None,
                only_main=one.only_main,
            )

    def _note_signal(self, one: Signal) -> None:
        now, mono = self._clock.wall(), self._clock.monotonic()
        if one.ends is None:
            self._store.happened.signals_sent(one.job, one.attempt, one.signal, now=now)
            return
        kill = one.signal == SIGKILL
        if kill:
            self.last_kills[one.job, one.attempt] = mono
        if one.gives_way_to is not None:
            self._store.giving_way.begin(
                one.job, one.attempt, to=one.gives_way_to, for_whom=str(one.for_whom), now=now
            )
        self._store.happened.stop_step(
            one.job, one.attempt, kill=kill, cause=one.ends, mono=mono, now=now
        )

    def _describe_survivors(self, job: int) -> str:
        """What survives KILL and where it hangs, for people who have to find out why."""
        pids = self._supervisor.members(job)
        shown = [investigate.explain(pid, ask_systemd=False) for pid in pids[:SHOWN_SURVIVORS]]
        words = [survivor_sentence(one) for one in shown if one is not None]
        if len(pids) > SHOWN_SURVIVORS:
            words.append(f"and {len(pids) - SHOWN_SURVIVORS} more")
        return "; ".join(words) or "its runner does not tell of its end"

    def _describe_holders(self, uuid: str, gpus: Sequence[Gpu]) -> str:
        """Who has the GPU's device open, which the driver may not tell: a context that is a zombie
        keeps its memory for as long as anybody holds that file."""
        minor = next((gpu.minor for gpu in gpus if gpu.uuid == uuid), None)
        if minor is None:
            return ""
        device = DEVICE.format(minor)
        pids = processes.holding_open(device)
        words = [f"{processes.command(pid) or '?'} {pid}" for pid in pids[:SHOWN_SURVIVORS]]
        return f"; {device} is open in {', '.join(words)}" if words else ""
