"""From a decision to a running job: the runner, the commit, the order, in this order.

Commit first, then act: what dies in between is found again by what was committed. A runner that is at
hand gets the order ahead of the commit, to make ready what the job needs while the disk is waited for,
and its word to begin after it.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpuq.config import Config
from gpuq.core.decisions import Start
from gpuq.core.ends.bounds import Bounds, MemBound
from gpuq.core.gpus.fitting import matches
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Lease, Snapshot
from gpuq.daemon import faults, order
from gpuq.daemon.attempt import disk
from gpuq.daemon.clock import Clock
from gpuq.daemon.gpus.locks import GpuLocks
from gpuq.daemon.linux import processes
from gpuq.daemon.lookout import Lookout
from gpuq.daemon.readying import Ready, Readying, unbounded
from gpuq.daemon.recent_starts import RecentStarts
from gpuq.daemon.runners import Gate
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import LeaseRefused, Row
from gpuq.daemon.store.happened import NewAttempt
from gpuq.daemon.store.inherited import UnendedAttempt
from gpuq.daemon.supervisor import GO, Known, Supervisor
from gpuq.daemon.systemd.scopes import Scopes

RUNNER_S = 2.0  # a machine that cannot fork must not keep the loop from ending jobs


class CannotStart(Exception):
    """Nothing can be started now: the disk is full, no runner is to be had, or the schema refuses a
    lease that the plan gave. Trying again at once would only try it again."""


class Starter:
    """`watch_memory` is called when an attempt is started whose memory is to be watched."""

    def __init__(
        self,
        store: Store,
        config: Config,
        clock: Clock,
        supervisor: Supervisor,
        lookout: Lookout,
        locks: GpuLocks,
        scopes: Scopes,
        *,
        wake: Callable[[], None],
        watch_memory: Callable[[], None],
    ) -> None:
        self._readying = Readying(self._take_runner, scopes, wake)
        self.is_under_way = self._readying.is_under_way
        self.keep_for = self._readying.keep_for
        self.close = self._readying.close
        self._store = store
        self._config = config
        self._clock = clock
        self._supervisor = supervisor
        self._lookout = lookout
        self._locks = locks
        self._watch_memory = watch_memory
        self._boot_id = processes.boot_id()
        self.recent = RecentStarts()

    async def start(self, start: Start, snapshot: Snapshot) -> bool:
        """True once the order is on its way; False where the job does not want to run any more, its
        runner is not ready yet, or another daemon was faster to lock a GPU. What is locked here and
        then not leased is let go when the locks are settled.

        The runner waits at its gate and its identity is part of the commit, so whichever of us is
        killed, the next daemon knows whom to ask. The commit reads the wish once more: nothing is
        started that somebody wanted gone by then.
        """
        self._check_disk()
        row = self._store.agreed.to_run(start.job)
        if not await self._readying.is_ready(start, _bounds(row), row["grace_s"]):
            return False
        gpus = _chosen(start, snapshot)
        if not self._lock(gpus):
            return False
        ready = await self._readying.take(start)
        new = self._new_attempt(start, row, ready, gpus, snapshot)
        begun = self._begin(Begun(new=new, row=row, ready=ready, gpus=gpus))
        if begun is None:
            return False
        self.send(begun)
        return True

    def start_at_hand(
        self, starts: Sequence[Start], snapshot: Snapshot, *, are_new: bool = False
    ) -> list["Begun"]:
        """The same for those of whom nobody has to be waited for, in the transaction of the caller, who
        sends them once that is committed or dismisses them. Where one does not begin, those behind
        it are left to `start` as well, which says what is wrong. `are_new`: the jobs are of the same
        transaction. Where that is undone their ids are given again, perhaps to another user's, whose
        folders none of these may have made: then nothing is made ready ahead of the commit."""
        is_primed = not (are_new and self._config.mode == "system")
        found: list[Begun] = []
        try:
            for start in starts:
                begun = self._begin_at_hand(start, snapshot, is_primed)
                if begun is None:
                    break
                found.append(begun)
        except CannotStart:
            pass
        except BaseException:
            self.dismiss(found)
            raise
        return found

    def send(self, begun: "Begun") -> None:
        """Its attempt is committed: the order goes out."""
        faults.here("loop.committed")
        self.recent.note(begun.row["queue"], at=self._clock.monotonic())
        self._dispatch(begun)
        if begun.new.mem_bound_by is MemBound.WATCHED:
            self._watch_memory()
        faults.here("loop.dispatched")

    def dismiss(self, begun: Iterable["Begun"]) -> None:
        """Nothing of them is committed."""
        for one in begun:
            self._supervisor.dismiss(one.ready.gate)

    def _begin_at_hand(self, start: Start, snapshot: Snapshot, is_primed: bool) -> "Begun | None":
        self._check_disk()
        row, gpus = self._store.agreed.to_run(start.job), _chosen(start, snapshot)
        if _bounds(row) or not self._lock(gpus):
            return None
        gate = self._supervisor.take_runner_at_hand()
        if gate is None:
            return None
        ready = unbounded(gate)
        new = self._new_attempt(start, row, ready, gpus, snapshot)
        return self._begin(Begun(new=new, row=row, ready=ready, gpus=gpus), is_primed=is_primed)

    def _begin(self, begun: "Begun", *, is_primed: bool = False) -> "Begun | None":
        """Its attempt, stored; None where the job does not want to run any more, or was edited. Where
        it `is_primed` its runner prepares the job meanwhile and during the commit."""
        gate = begun.ready.gate
        faults.here("loop.starting")
        try:
            if is_primed:
                begun = self._primed(begun)
            is_stored = self._store.happened.start(begun.new, now=self._clock.wall())
        except LeaseRefused as refusal:  # the keys of the schema held where the plan did not
            self._supervisor.dismiss(gate)
            raise CannotStart(f"job {begun.new.job}: {refusal}") from refusal
        except BaseException:
            self._supervisor.dismiss(gate)
            raise
        if not is_stored:
            self._supervisor.dismiss(gate)
            return None
        return begun

    def _primed(self, begun: "Begun") -> "Begun":
        known, composed = self._compose(begun)
        is_primed = self._supervisor.prime(begun.ready.gate, composed)
        faults.here("loop.primed")
        return replace(begun, known=known, order=GO if is_primed else composed)

    def _check_disk(self) -> None:
        try:
            has_room = disk.has_room(self._config.state_dir)
        except OSError as error:
            raise CannotStart(f"{self._config.state_dir}: {error.strerror}") from error
        if not has_room:
            raise CannotStart(
                f"the disk of {self._config.state_dir} is full; jobs wait for some room"
            )

    def _lock(self, gpus: Sequence[Gpu]) -> bool:
        try:
            refused = self._locks.take([gpu.uuid for gpu in gpus if not gpu.simulated])
        except OSError as error:
            raise CannotStart(f"its GPUs could not be locked: {error.strerror}") from error
        if refused:
            self._lookout.veto(refused)
        return not refused

    async def _take_runner(self) -> Gate:
        try:
            async with asyncio.timeout(RUNNER_S):
                return await self._supervisor.take_runner()
        except (TimeoutError, OSError) as error:
            why = str(error) or f"none came in {RUNNER_S:g} s"
            raise CannotStart(f"no runner could be forked: {why}") from error

    def _new_attempt(
        self,
        start: Start,
        row: Row,
        ready: Ready,
        gpus: Sequence[Gpu],
        snapshot: Snapshot,
    ) -> NewAttempt:
        job = next(job for job in snapshot.waiting if job.id == start.job)
        request = job.request
        assert all(matches(gpu, request) for gpu in gpus)
        gate, scope = ready.gate, ready.scope
        return NewAttempt(
            job=start.job,
            attempt=start.attempt,
            nonce=ready.nonce,
            boot_id=self._boot_id,
            runner_pid=gate.pid,
            runner_start=gate.start,
            runner_version=gate.version,
            cgroup=gate.cgroup if scope is None else scope.job_group,
            mem_bound_by=ready.mem_bound_by,
            cpu_bound_by=ready.cpu_bound_by,
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
            preempt_signal=self._preempt_signal(row),
            cool_at_once=all(gpu.cools_at_once for gpu in gpus),
            passed=start.passed,
            version=job.version,
            beside=tuple({one.pid for gpu in gpus for one in gpu.foreign_processes}),
        )

    def _preempt_signal(self, row: Row) -> int | None:
        """What it is sent to give way; None where it gives way to nobody."""
        return (
            (row["preempt_signal"] or self._config.preempt_signal) if row["preemptible"] else None
        )

    def _dispatch(self, begun: "Begun") -> None:
        known, composed = begun.known, begun.order
        if known is None or composed is None:
            known, composed = self._compose(begun)
        locks = self._locks.descriptors(gpu.uuid for gpu in begun.gpus)
        self._supervisor.dispatch(begun.ready.gate, known, composed, locks)

    def _compose(self, begun: "Begun") -> tuple[Known, dict[str, Any]]:
        new, gpus, scope = begun.new, begun.gpus, begun.ready.scope
        row = begun.row
        known = known_as(new, row["stop_to"], uid=uid_of_job(self._config, row["uid"]))
        composed = order.compose(
            row,
            known,
            gpus,
            whole=self._lookout.is_whole,
            scope=None if scope is None else scope.path,
            share_bytes=next((one.memory_bytes for one in new.leases if not one.exclusive), None),
            config=self._config,
            attempt_dir=self._supervisor.attempt_dir(new.job, new.attempt),
        )
        return known, composed


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """An attempt whose runner waits for the order, or is primed and waits for GO."""

    new: NewAttempt
    row: Row  # all that its order is made of
    ready: Ready
    gpus: Sequence[Gpu]
    known: Known | None = None
    order: Mapping[str, Any] | None = None  # what is to be sent


def _bounds(row: Row) -> Bounds:
    return Bounds(mem_bytes=row["mem_bytes"], cpus=row["cpu_bound"])


def _chosen(start: Start, snapshot: Snapshot) -> list[Gpu]:
    return [gpu for gpu in snapshot.gpus or () if gpu.uuid in start.gpus]


def uid_of_job(config: Config, submitter: int) -> int:
    """A root daemon's jobs run as who submitted them, all others as the daemon does."""
    return submitter if config.mode == "system" else os.getuid()


def known_as(
    attempt: NewAttempt | UnendedAttempt, stop_to: str, *, uid: int, has_run: bool = False
) -> Known:
    """How the supervisor knows an attempt, new or found again."""
    return Known(
        job=attempt.job,
        attempt=attempt.attempt,
        nonce=attempt.nonce,
        runner_pid=attempt.runner_pid,
        runner_start=attempt.runner_start,
        cgroup=attempt.cgroup,
        stop_to=stop_to,
        uid=uid,
        has_run=has_run,
    )
