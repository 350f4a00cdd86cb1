"""The heart: on any news it takes one Snapshot, asks the core for a plan, carries it out, sleeps.

It has the only clock and writes all facts. Being level-triggered it asks what is the case, never
what has changed, so no lost or doubled piece of news can mislead it. While nothing happens it does
not turn.
"""

import asyncio
import os
import secrets
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL

import structlog

from gpuq.config import Config
from gpuq.core.model import (
    Cancel,
    Decision,
    Exit,
    Gpu,
    JobState,
    Lease,
    Plan,
    Release,
    Signal,
    Snapshot,
    Start,
)
from gpuq.core.placement import matches
from gpuq.core.scheduler import plan
from gpuq.core.states import conclude, explain
from gpuq.daemon import order, processes
from gpuq.daemon.gpus import GpuWatch, Probe
from gpuq.daemon.gpus.backend import is_identified
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble, LeaseRefused
from gpuq.daemon.store.happened import NewAttempt
from gpuq.daemon.store.seen import UnendedAttempt
from gpuq.daemon.supervisor import Exited, Gate, Known, News, Running, Supervisor
from gpuq.daemon.watchers import Watchers

JOBS_PER_CLASS = 16  # seen of each class in one turn
DISK_AGAIN_S = 5.0
WATCHED_S = 10.0  # how long somebody who looked counts as still looking
READ_OFTEN_S, READ_SELDOM_S = 1.0, 5.0
MOST_RETURNS = 3
START_AGAIN_S = 1.0
RUNNER_S = 2.0  # a machine that cannot fork must not keep the loop from ending jobs

log = structlog.get_logger()


class CannotStart(Exception):
    """Nothing can be started now: no runner is to be had, or the schema refuses a lease that the
    plan gave. Trying again at once would only try it again."""


class Loop:
    """Joins the rooms. `plan` and `gpus` are the last turn's, for whoever wants to know why."""

    def __init__(self, store: Store, config: Config, watchers: Watchers) -> None:
        self.plan = Plan()
        self.gpu_trouble: str | None = None
        self.stop_reason: str | None = None
        self.is_replaced = False
        self.turns = 0
        self._store = store
        self._config = config
        self._policy = config.policy()
        self._watchers = watchers
        self._boot_id = processes.boot_id()
        self._inbox: deque[News] = deque()
        self._returns: Counter[int] = Counter()
        self._bell = asyncio.Event()
        self._idle = asyncio.Event()
        self._stopping = asyncio.Event()
        self._gpus_seen = asyncio.Event()
        self._watched_until = 0.0
        self._remembered: frozenset[tuple[str, int]] | None = None
        self._supervisor = Supervisor(Path(config.state_dir), self._hear)
        remembered = [] if config.gpus != "nvml" else store.seen.known_gpus()
        self._watch = GpuWatch(self._policy, [gpu for gpu in remembered if not gpu.simulated])
        self._probe = Probe(
            config.gpus,
            on_reading=self._take_reading,
            on_trouble=self._take_gpu_trouble,
            on_started=self._note_probe,
            previous=self._previous_probe(),
        )

    # ── for handlers and main ──

    @property
    def gpus(self) -> Sequence[Gpu] | None:
        return self._watch.gpus

    def wake(self) -> None:
        """Something was asked or wished."""
        self._idle.clear()
        self._bell.set()

    def look_closely(self) -> None:
        """Somebody looks at the GPUs: read them often for a while."""
        self._watched_until = time.monotonic() + WATCHED_S
        self._set_pace()

    def ask_to_stop(self, reason: str, *, back: bool = False) -> None:
        """The daemon is to leave; jobs stay. `back`: another is about to take its place."""
        self.is_replaced = self.is_replaced or back
        self.stop_reason = self.stop_reason or reason
        self._stopping.set()

    async def stopping(self) -> None:
        await self._stopping.wait()

    async def settle(self) -> None:
        """Until what was asked so far has been considered, or a second has passed."""
        try:
            await asyncio.wait_for(self._idle.wait(), 1.0)
        except TimeoutError:
            pass

    async def first_reading(self, timeout_s: float) -> None:
        """Until it is known which GPUs there are, or why not, or the time is up."""
        try:
            await asyncio.wait_for(self._gpus_seen.wait(), timeout_s)
        except TimeoutError:
            pass

    # ── running ──

    def start(self) -> None:
        """Starts launcher and probe, and finds the truth about what an earlier daemon left."""
        self._supervisor.start()
        self._resolve_attempts()

    async def run(self) -> None:
        """Turns until it is cancelled."""
        probing = asyncio.ensure_future(self._probe.run())
        try:
            while True:
                self._bell.clear()
                acted = self._take_in_news()
                acted |= await self._turn()
                if acted or self._bell.is_set():
                    await asyncio.sleep(0)  # clients are answered between two turns
                else:
                    await self._sleep()
                self._raise_if_done(probing)
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
            await self._supervisor.close()

    def _raise_if_done(self, probing: "asyncio.Future[None]") -> None:
        if probing.done():
            probing.result()

    async def _turn(self) -> bool:
        """One look, one plan, and its deeds. False where there was nothing to do."""
        self.turns += 1
        snapshot = self._look()
        self.plan = plan(snapshot)
        try:
            self._cancel([one for one in self.plan.decisions if isinstance(one, Cancel)])
            self._signal([one for one in self.plan.decisions if isinstance(one, Signal)])
            for decision in self.plan.decisions:
                await self._carry_out(decision, snapshot)
        except DiskTrouble as trouble:
            self._note_disk_trouble(trouble)
            return False
        except CannotStart as trouble:
            log.error("cannot start a job", why=str(trouble), again_in_s=START_AGAIN_S)
            asyncio.get_running_loop().call_later(START_AGAIN_S, self.wake)
            return False
        return bool(self.plan.decisions)

    def _look(self) -> Snapshot:
        seen = self._store.seen
        return Snapshot(
            now=time.monotonic(),
            gpus=self._watch.gpus,
            leases=tuple(seen.leases()),
            waiting=tuple(seen.waiting(JOBS_PER_CLASS)),
            active=tuple(seen.active()),
            policy=self._policy,
            jobs_per_class=JOBS_PER_CLASS,
            gpus_read_at=self._watch.read_at,
            gpu_trouble=self.gpu_trouble,
        )

    async def _sleep(self) -> None:
        """Until the next news, or the moment that the plan named."""
        self._idle.set()
        self._set_pace()
        wake_at = self.plan.wake_at
        timeout = None if wake_at is None else max(wake_at - time.monotonic(), 0.0)
        try:
            await asyncio.wait_for(self._bell.wait(), timeout)
        except TimeoutError:
            pass
        self._idle.clear()

    # ── carrying out ──

    async def _carry_out(self, decision: Decision, snapshot: Snapshot) -> None:
        match decision:
            case Start():
                await self._start(decision, snapshot)
            case Release():
                self._store.happened.release(
                    decision.gpu, decision.slot, warm=decision.warm, now=time.time()
                )

    def _cancel(self, cancels: Sequence[Cancel]) -> None:
        """All in one commit: there may be as many as somebody had queued."""
        if not cancels:
            return
        with self._store.transaction():
            for cancel in cancels:
                self._store.happened.cancel(cancel.job, actor=cancel.actor, now=time.time())
        for cancel in cancels:
            self._watchers.publish(cancel.job, "started")
            self._watchers.publish(cancel.job, "ended")

    async def _start(self, start: Start, snapshot: Snapshot) -> None:
        """Commit first, then act: what dies in between is found again by what was committed.

        The runner waits at its gate and its identity is part of the commit, so whichever of us is
        killed, the next daemon knows whom to ask. The commit reads the wish once more: nothing is
        started that somebody wanted gone by then.
        """
        try:
            async with asyncio.timeout(RUNNER_S):
                gate = await self._supervisor.take_runner()
        except (TimeoutError, OSError) as error:
            why = str(error) or f"none came in {RUNNER_S:g} s"
            raise CannotStart(f"no runner could be forked: {why}") from error
        gpus = [gpu for gpu in snapshot.gpus or () if gpu.uuid in start.gpus]
        new = self._new_attempt(start, gate, gpus, snapshot)
        try:
            committed = self._store.happened.start(new, now=time.time())
        except LeaseRefused as refusal:  # the keys of the schema held where the plan did not
            self._supervisor.dismiss(gate)
            raise CannotStart(f"job {start.job}: {refusal}") from refusal
        except DiskTrouble:
            self._supervisor.dismiss(gate)
            raise
        if not committed:
            self._supervisor.dismiss(gate)
            return
        self._dispatch(gate, new, gpus)

    def _new_attempt(
        self, start: Start, gate: Gate, gpus: Sequence[Gpu], snapshot: Snapshot
    ) -> NewAttempt:
        request = next(job.request for job in snapshot.waiting if job.id == start.job)
        assert all(matches(gpu, request) for gpu in gpus)
        return NewAttempt(
            job=start.job,
            attempt=start.attempt,
            nonce=secrets.token_hex(8),
            boot_id=self._boot_id,
            runner_pid=gate.pid,
            runner_start=gate.start,
            runner_version=gate.version,
            leases=tuple(
                Lease(
                    gpu=gpu.uuid,
                    slot=0,
                    job=start.job,
                    attempt=start.attempt,
                    exclusive=request.exclusive,
                    memory_bytes=request.gpu_mem_bytes,
                )
                for gpu in gpus
            ),
            gpu_indices=tuple(gpu.index for gpu in gpus),
            simulated=any(gpu.simulated for gpu in gpus),
            passed=start.passed,
        )

    def _dispatch(self, gate: Gate, new: NewAttempt, gpus: Sequence[Gpu]) -> None:
        known = _known(new)
        composed = order.compose(
            self._store.seen.to_run(new.job),
            known,
            gpus,
            whole=self._watch.is_whole,
            state_dir=self._config.state_dir,
            attempt_dir=self._supervisor.attempt_dir(new.job, new.attempt),
            socket=self._config.socket,
        )
        self._supervisor.dispatch(gate, known, composed)
        self._watchers.publish(new.job, "started")
        self._tell_probe()

    def _signal(self, signals: Sequence[Signal]) -> None:
        """The step is noted before it is taken: taken twice it does no harm, unnoted it would
        make a cancelled job look like one that failed."""
        if not signals:
            return
        with self._store.transaction():
            for one in signals:
                if one.ends:
                    column = "kill_mono" if one.signal == SIGKILL else "term_mono"
                    self._store.happened.stop_step(one.job, one.attempt, column, time.monotonic())
                else:
                    self._store.happened.signal_sent(one.job)
        table = processes.Table()
        for one in signals:
            self._supervisor.signal(one.job, one.signal, table)

    # ── news ──

    def _hear(self, news: News) -> None:
        self._inbox.append(news)
        self.wake()

    def _take_in_news(self) -> bool:
        """Writes down what was heard, in order and in one commit, and then tells who waits for it.

        What the disk refuses is kept and tried again.
        """
        batch = list(self._inbox)
        if not batch:
            return False
        try:
            with self._store.transaction():
                for news in batch:
                    self._write_down(news)
        except DiskTrouble as trouble:
            self._note_disk_trouble(trouble)
            return False
        for news in batch:
            self._inbox.popleft()
            self._announce(news)
        self._tell_probe()
        return True

    def _write_down(self, news: News) -> None:
        match news:
            case Running():
                self._store.happened.running(
                    news.job, news.attempt, news.pid, news.pid_start, news.at
                )
            case Exited(exit=None):
                self._return_to_queue(news.job, news.attempt)
            case Exited(exit=Exit() as exit):
                self._end(news.job, news.attempt, exit)

    def _announce(self, news: News) -> None:
        if isinstance(news, Exited) and self._store.seen.state(news.job) != JobState.ENDED:
            return  # it never ran and waits again
        self._watchers.publish(news.job, "started")
        if isinstance(news, Exited):
            self._returns.pop(news.job, None)
            self._watchers.publish(news.job, "ended")

    def _return_to_queue(self, job: int, attempt: int) -> None:
        self._returns[job] += 1
        if self._returns[job] > MOST_RETURNS:
            self._end(job, attempt, Exit(lost=f"its runner died {MOST_RETURNS} times at the gate"))
            return
        cause = "its runner was gone before the job began"
        self._store.happened.return_to_queue(job, attempt, cause=cause, now=time.time())

    def _end(self, job: int, attempt: int, exit: Exit) -> None:
        outcome = conclude(exit, stopped=self._store.seen.is_stopping(job, attempt))
        self._store.happened.end(
            job,
            attempt,
            exit,
            outcome=outcome,
            reason=explain(exit, outcome, self._store.seen.stop_wish(job)),
            now=time.time(),
            cooling=self._cooling(),
        )

    def _cooling(self) -> tuple[float, str] | None:
        """From when the GPUs of a job that ended cool down; simulated ones are cool at once."""
        if all(gpu.simulated for gpu in self._watch.gpus or ()):
            return None
        return time.monotonic(), self._boot_id

    def _note_disk_trouble(self, trouble: DiskTrouble) -> None:
        log.error("the database cannot be written", why=str(trouble), again_in_s=DISK_AGAIN_S)
        asyncio.get_running_loop().call_later(DISK_AGAIN_S, self.wake)

    # ── what an earlier daemon left ──

    def _resolve_attempts(self) -> None:
        """Each attempt that has not ended is alive and adopted, or ended, or lost, or never ran.

        The supervisor finds out which; only a reboot is plain from here.
        """
        for lease in self._store.seen.stale_cooling(self._boot_id):
            self._store.happened.release(lease.gpu, lease.slot, warm=None, now=time.time())
        for left in self._store.seen.unended_attempts():
            if left.boot_id != self._boot_id:
                lost = Exit(lost="the machine was restarted while it ran")
                self._hear(Exited(job=left.job, attempt=left.attempt, exit=lost))
            else:
                log.info("adopting", job=left.job, attempt=left.attempt)
                has_run = left.state is JobState.RUNNING
                self._supervisor.adopt(replace(_known(left), has_run=has_run))

    # ── GPUs ──

    def _take_reading(self, raw: list[Gpu]) -> None:
        leases = self._store.seen.leases()
        raw = [_without_dead(gpu) for gpu in raw]
        changed = self._watch.accept(raw, leases, self._supervisor.owner_of, time.monotonic())
        self._remember_gpus()
        self._gpus_seen.set()
        if changed:
            self.wake()

    def _remember_gpus(self) -> None:
        """Stores which GPUs there are and what they use when idle, whenever that has changed."""
        gpus = [gpu for gpu in self._watch.gpus or () if is_identified(gpu)]
        known = frozenset((gpu.uuid, gpu.baseline_bytes) for gpu in gpus)
        if known == self._remembered:
            return
        try:
            self._store.happened.see_gpus(gpus, now=time.time())
            self._remembered = known
        except DiskTrouble as trouble:
            self._note_disk_trouble(trouble)

    def _take_gpu_trouble(self, trouble: str | None) -> None:
        if trouble != self.gpu_trouble:
            log.warning("GPUs", trouble=trouble or "answer again")
            self.gpu_trouble = trouble
            self.wake()
        self._gpus_seen.set()

    def _tell_probe(self) -> None:
        """Simulated GPUs show what jobs on them declare; real ones are read after a change."""
        self._probe.hold(self._store.seen.held())
        self._probe.ask()

    def _set_pace(self) -> None:
        watched = time.monotonic() < self._watched_until or self._store.seen.has_waiting()
        self._probe.interval_s = READ_OFTEN_S if watched else READ_SELDOM_S

    def _note_probe(self, pid: int, start: int) -> None:
        """For the next daemon, which must not start a second one beside it."""
        try:
            self._store.happened.note("probe", [self._boot_id, pid, start])
        except DiskTrouble as trouble:
            self._note_disk_trouble(trouble)

    def _previous_probe(self) -> tuple[int, int] | None:
        boot, pid, start = self._store.seen.fact("probe") or (None, 0, 0)
        return (pid, start) if boot == self._boot_id else None


def _without_dead(gpu: Gpu) -> Gpu:
    """A reading that was under way when a process ended must not make a stranger of it. From inside
    a container the pids are not ours to look up: there the memory in use speaks for strangers."""
    if gpu.processes is None:
        return gpu
    living = tuple(p for p in gpu.processes if p.job is not None or processes.identity(p.pid))
    return replace(gpu, processes=living)


def _known(attempt: NewAttempt | UnendedAttempt) -> Known:
    return Known(
        job=attempt.job,
        attempt=attempt.attempt,
        nonce=attempt.nonce,
        runner_pid=attempt.runner_pid,
        runner_start=attempt.runner_start,
        uid=os.getuid(),
    )
