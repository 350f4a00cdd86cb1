"""Starts attempts, adopts those of an earlier daemon, signals them, and hears how they end.

It acts and decides nothing: what it hears it passes on as news. It never touches the store.
"""

import asyncio
import signal as signals
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from gpuq.core.model import EndCause, Exit
from gpuq.daemon import faults
from gpuq.daemon.attempt import record
from gpuq.daemon.linux import processes
from gpuq.daemon.linux.cgroup import Leaf
from gpuq.daemon.runners import IDLE_S, Gate, Runners, wait_for_death

SWEEP_AGAIN_S = 0.05
SWEEP_SELDOM_S = 1.0
LOOK_AT_ADOPTED_S = 2.0
SETTLE_S = 1.0
GO: Mapping[str, Any] = {"go": True}  # for a runner that was primed
STOP_ROUNDS = 50  # SIGSTOP, until nobody new is found who had been forked in between


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """How an attempt is known across daemons: its runner by pid and start time, its control group,
    its mark."""

    job: int
    attempt: int
    nonce: str
    runner_pid: int
    runner_start: int
    uid: int
    cgroup: str | None = None
    stop_to: str = "all"
    has_run: bool = False  # an earlier daemon saw it run

    @property
    def mark(self) -> bytes:
        return f"GPUQ_MARK={self.job}.{self.attempt}:{self.nonce}".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The job's process exists, since `at` on the wall clock and `mono` on CLOCK_MONOTONIC."""

    job: int
    attempt: int
    pid: int
    pid_start: int | None
    at: float
    mono: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MainEnded:
    """The job's own process is gone; `left` others of it live on, and are being ended."""

    job: int
    attempt: int
    left: int
    mono: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """All of the attempt is gone. `exit` is None where it is known never to have run."""

    job: int
    attempt: int
    exit: Exit | None
    cause: str | None = None  # why it could not even begin, where the machine is to blame
    ending: EndCause | None = None  # what ended it, where that was no daemon of gpuq


News = Running | MainEnded | Exited


class JobContainers(Protocol):
    """Containers are children of their engine, and not of the job that started them."""

    def owner_of(self, pid: int, attempts: Iterable[Known]) -> int | None:
        """The job of whose container this process is."""

    async def remove(self, known: Known) -> str | None:
        """In place of a runner that is gone; returns why it may be there still."""


class Supervisor:
    """`report` is called on the loop's thread with each piece of news. `containers` knows those that
    jobs have started. A runner that has ended clean waits for `idle_s` for another attempt."""

    def __init__(
        self,
        state_dir: Path,
        report: Callable[[News], None],
        cgroup_root: str | None = None,
        containers: JobContainers | None = None,
        idle_s: float = IDLE_S,
    ) -> None:
        self._attempts_dir = state_dir / "attempts"
        self._report = report
        self._containers = containers
        self._runners = Runners(cgroup_root, idle_s)
        self._attended: set[Gate] = set()  # their runners have an order
        # By attempt: is the end stored that was told, of those that have not said yet whether they are
        # clean; and who is, and waits for that.
        self._ended: dict[tuple[int, int], bool] = {}
        self._clean: dict[tuple[int, int], Gate] = {}
        self._disturbed: set[int] = set()  # jobs to which something was done from here
        self._attempts: dict[int, Known] = {}  # by job
        self._mains: dict[int, tuple[int, int]] = {}  # (pid, start) of the job's own, by job
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended_before: list[asyncio.Task[None]] = []
        self.start = self._runners.start

    async def close(self) -> None:
        """Leaves: the launcher and a runner without an order go with us, jobs stay."""
        for task in self._tasks.copy():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for gate in (*self._clean.values(), *self._attended):
            gate.close()
        await self._runners.close()

    def fail(self, error: BaseException) -> None:
        """A fault of ours, by which the daemon ends: one that lives on without what failed is worse."""
        asyncio.get_running_loop().call_exception_handler(
            {"message": "the supervisor failed", "exception": error, "fatal": True}
        )

    # ── starting ──

    async def take_runner(self) -> Gate:
        """A runner that waits at its gate for an order, or to be dismissed."""
        return await self._runners.take()

    def take_runner_at_hand(self) -> Gate | None:
        """The same without waiting; None where none waits at its gate now."""
        return self._runners.take_at_hand()

    def dismiss(self, gate: Gate) -> None:
        """Not needed after all: it leaves without having run anything."""
        gate.close()

    def end_is_stored(self, job: int, attempt: int) -> None:
        """The end of that attempt, which was told as news, is committed. If its runner is clean it may
        take another one only now: each attempt that has not ended has a runner of its own."""
        if (job, attempt) in self._ended:
            self._ended[job, attempt] = True
        gate = self._clean.pop((job, attempt), None)
        if gate is not None:
            self._keep(gate)

    def _keep(self, gate: Gate) -> None:
        faults.here("supervisor.keeping")
        self._runners.keep(gate)
        faults.here("supervisor.kept")

    def prime(self, gate: Gate, order: Mapping[str, Any]) -> bool:
        """Has the runner make ready what its job needs, while the attempt is being committed. It begins
        when GO is dispatched, and leaves where it is dismissed. False: it has heard nothing."""
        return gate.send_at_once({**order, "primed": True})

    def dispatch(
        self, gate: Gate, known: Known, order: Mapping[str, Any], fds: Sequence[int] = ()
    ) -> None:
        """Sends the order, with descriptors that the runner is to hold for its life. The attempt is
        committed by now: see the runner for what follows."""
        self._attempts[known.job] = known
        faults.here("supervisor.ordering")
        if rest := gate.send(order, fds):
            self._spawn_task(gate.send_rest(rest))
        faults.here("supervisor.ordered")
        self._attended.add(gate)
        gate.listen(partial(self._hear, gate, known))

    def adopt(self, known: Known) -> None:
        """Watches over an attempt of an earlier daemon, alive or not."""
        self._attempts[known.job] = known
        task = self._spawn_task(self._attend_adopted(known))
        if not processes.is_alive(known.runner_pid, known.runner_start):
            self._ended_before.append(task)

    async def settle(self) -> None:
        """Until what ended while no daemon was there has been told, as far as that is quick: what has
        ended is not to be ended for its time being up."""
        if self._ended_before:
            await asyncio.wait(self._ended_before, timeout=SETTLE_S)
            self._ended_before.clear()

    # ── acting on what runs ──

    def signal(
        self,
        job: int,
        number: int,
        table: processes.Table | None = None,
        *,
        ends: bool = True,
        only_main: bool = False,
    ) -> int:
        """Sends a signal to everything the job is, or (`only_main`) to its main process as long as that
        is there; returns to how many processes.

        That is the runner's descendants, which nobody leaves while the runner lives, and all that is
        in its control group; `table` is a look at all processes that several jobs share. `ends`: the
        signal is a step towards its end, so what stands still has to wake for it.
        """
        known = self._attempts.get(job)
        if known is None:
            return 0
        self._disturbed.add(job)
        # A runner that somebody stopped would never tell of the end.
        processes.send(known.runner_pid, signals.SIGCONT, start=known.runner_start)
        leaf = _leaf_of_job(known)
        members = self._members(known, table or processes.Table())
        only_main |= known.stop_to == "main" and number != signals.SIGKILL
        receivers = self._receivers(known, members) if only_main else members
        if leaf is not None and ends:
            leaf.freeze(False)
            if number == signals.SIGKILL:
                leaf.kill()  # at once, so that no fork gets away; the others follow one by one
        sent = sum(processes.send(pid, number, start=start) for pid, start in receivers.items())
        if ends:  # who is told to end may need the others for it
            _wake({pid: start for pid, start in members.items() if pid not in receivers})
        return sent

    def kill_group(self, job: int) -> bool:
        """KILL to all that is in its control group, at one stroke: `signal`, which is to follow for all
        others, looks at all processes first, and that takes longer than this and their deaths. False
        where it has none that can be killed.

        Not without its runner, to which everybody comes whose parents die here: those who have left the
        group and the session would be found by nothing any more.
        """
        known = self._attempts.get(job)
        if known is None or not processes.is_alive(known.runner_pid, known.runner_start):
            return False
        self._disturbed.add(job)
        leaf = _leaf_of_job(known)
        return leaf is not None and leaf.kill()

    def mark_ending(self, job: int, cause: EndCause, within_s: float) -> None:
        """Tells the job's runner, before the first signal goes out, that it is ended, and how long it
        has until KILL."""
        known = self._attempts.get(job)
        if known is not None:
            self._disturbed.add(job)
            folder = self.attempt_dir(job, known.attempt)
            record.note_ending(folder, known.nonce, cause.value, within_s)

    def pause(self, job: int) -> None:
        """All of it stands still; its memory, and its GPUs', stays as it is."""
        known = self._attempts.get(job)
        if known is None:
            return
        self._disturbed.add(job)
        leaf = _leaf_of_job(known)
        frozen = leaf if leaf is not None and leaf.freeze(True) else None
        stopped: set[int] = set()
        for _ in range(STOP_ROUNDS):
            members = self._members(known, processes.Table())
            inside = [] if frozen is None else frozen.members()
            members = {pid: start for pid, start in members.items() if pid not in inside}
            if members.keys() <= stopped:
                return
            for pid, start in members.items():
                processes.send(pid, signals.SIGSTOP, start=start)
            stopped |= members.keys()

    def resume(self, job: int) -> None:
        known = self._attempts.get(job)
        if known is None:
            return
        if leaf := _leaf(known):
            leaf.freeze(False)
        _wake(self._members(known, processes.Table()))

    def members(self, job: int, table: processes.Table | None = None) -> list[int]:
        """The pids of all that the job is now; `table` as for `signal`."""
        known = self._attempts.get(job)
        return [] if known is None else sorted(self._members(known, table or processes.Table()))

    def last_beat(self, job: int) -> float | None:
        """When the job last reported, on CLOCK_MONOTONIC."""
        known = self._attempts.get(job)
        return None if known is None else record.last_beat(self.attempt_dir(job, known.attempt))

    def owner_of(self, pid: int) -> int | None:
        """The job to which a process belongs; None for a process outside gpuq."""
        runners = {known.runner_pid: known for known in self._attempts.values()}
        for ancestor in [pid, *processes.ancestors(pid)]:
            known = runners.get(ancestor)
            if known is not None and processes.is_alive(known.runner_pid, known.runner_start):
                return known.job
        if self._containers is None:
            return None
        return self._containers.owner_of(pid, self._attempts.values())

    def _receivers(self, known: Known, members: dict[int, int]) -> dict[int, int]:
        main = self._main_of(known)
        if main is not None and members.get(main[0]) == main[1]:
            return {main[0]: main[1]}
        return members

    def _members(self, known: Known, table: processes.Table) -> dict[int, int]:
        if processes.is_alive(known.runner_pid, known.runner_start):
            found = table.descendants(known.runner_pid)
        else:
            found = self._orphans(known, table)
        leaf = _leaf(known)
        inside = {} if leaf is None else _identified(leaf)
        inside.pop(known.runner_pid, None)
        return found | inside

    def _orphans(self, known: Known, table: processes.Table) -> dict[int, int]:
        """Who belongs to the job when its runner is dead: its session, its main process with all
        below it, and whoever carries the mark."""
        start = known.runner_start
        found = table.left_in_session(known.runner_pid, start)
        main = self._main_of(known)
        if main is not None and processes.is_alive(*main):
            found |= {main[0]: main[1]} | table.descendants(main[0])
        return found | processes.marked(
            known.mark, uid=known.uid, not_before=start, among=processes.all_pids()
        )

    def _main_of(self, known: Known) -> tuple[int, int] | None:
        """(pid, start) of the job's own process, as it was told or noted."""
        folder = self.attempt_dir(known.job, known.attempt)
        return self._mains.get(known.job) or record.main_process(folder, known.nonce)

    # ── one attempt ──

    def _hear(self, gate: Gate, known: Known, message: Mapping[str, Any] | None) -> None:
        """What the runner of an attempt says, or None: it is gone."""
        try:
            if message is None:
                self._leave(gate)
                self._hear_nothing(known)
            elif "running" in message:
                self._report_running(known, message["running"])
            elif "main_ended" in message:
                said = message["main_ended"]  # a newer runner may say more than we know
                self._report_main_ended(known, left=said["left"], mono=said["mono"])
            elif "returned" in message:
                self._leave(gate)
                self._report_ended(known, None, cause=str(message["returned"]))
            elif "ended" in message:
                self._hear_end(gate, known, message["ended"])
            elif "clean" in message:
                self._hear_clean(gate, known, message["clean"])
        except Exception as error:
            self.fail(error)

    def _hear_end(self, gate: Gate, known: Known, told: Mapping[str, Any]) -> None:
        """What was done to a job may yet reach its group, so nobody is to come back into that: such a
        runner leaves, like all who do not say that they are clean."""
        if known.job in self._disturbed:
            self._leave(gate)
        else:
            self._ended[known.job, known.attempt] = False
        if "running" in told:  # it was over before that was worth a word
            self._report_running(known, told["running"])
        self._report_ended(known, read_exit(told))

    def _hear_clean(self, gate: Gate, known: Known, clean: Mapping[str, Any]) -> None:
        self._attended.discard(gate)
        gate.be_silent()
        gate.is_in_group = bool(clean["is_in_group"])
        if self._ended.pop((known.job, known.attempt)):
            self._keep(gate)
        else:
            self._clean[known.job, known.attempt] = gate

    def _hear_nothing(self, known: Known) -> None:
        """Its runner is gone, or about to be."""
        if self._ended.pop((known.job, known.attempt), None) is None:
            self._spawn_task(self._conclude(known))
        elif leaf := _leaf(known):
            leaf.remove()  # the runner's own to do, where it was there to do it

    def _leave(self, gate: Gate) -> None:
        self._attended.discard(gate)
        gate.be_silent()
        gate.close()

    async def _attend_adopted(self, known: Known) -> None:
        watching = asyncio.ensure_future(self._watch_notes(known))
        try:
            await wait_for_death(known.runner_pid, known.runner_start)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        await self._conclude(known)

    async def _watch_notes(self, known: Known) -> None:
        """An adopted runner has no gate to us: what it notes on disk says how far its job is."""
        folder = self.attempt_dir(known.job, known.attempt)
        pause_s = 0.01
        while not self._report_noted(known):
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 1.0)
        while (ended := record.main_ended(folder, known.nonce)) is None:
            await asyncio.sleep(LOOK_AT_ADOPTED_S)
        self._report_main_ended(known, left=ended[0], mono=ended[1])

    async def _conclude(self, known: Known) -> None:
        """The runner is gone or about to be: what it left on disk tells how it ended."""
        await wait_for_death(known.runner_pid, known.runner_start)
        if not (known.has_run or known.job in self._mains):
            self._report_noted(known)  # it ran while no daemon was there, and has an end by now
        folder = self.attempt_dir(known.job, known.attempt)
        told = record.read(folder, known.nonce)
        if told is not None:
            await self._sweep(known)  # a job can write a record, and end its runner
            self._report_ended(known, read_exit(told))
        elif not (known.has_run or known.job in self._mains) and not record.has_begun(
            folder, known.nonce
        ):
            self._report_ended(known, None)
        else:
            await self._sweep(known)
            trouble = None if self._containers is None else await self._containers.remove(known)
            cause = f"its runner (pid {known.runner_pid}) is gone and left no record of its end"
            self._report_ended(known, Exit(lost=cause, container_trouble=trouble))

    async def _sweep(self, known: Known) -> None:
        """Without its runner a job has nobody: what is left of it is ended."""
        pause_s = 0.0
        while found := self._members(known, processes.Table()):
            if not pause_s:
                self._report_main_ended(known, left=len(found), mono=time.monotonic())
            if leaf := _leaf(known):
                leaf.kill()
            for pid, start in found.items():
                processes.send(pid, signals.SIGKILL, start=start)
            pause_s = min(max(pause_s * 2, SWEEP_AGAIN_S), SWEEP_SELDOM_S)
            await asyncio.sleep(pause_s)

    def _report_noted(self, known: Known) -> bool:
        """That it runs, by its runner's note on disk; False where there is none."""
        folder = self.attempt_dir(known.job, known.attempt)
        main = record.main_process(folder, known.nonce)
        if main is None:
            return False
        at, mono = record.began_at(folder, known.nonce), record.running_since(folder, known.nonce)
        said = {"pid": main[0], "start": main[1] or None, "at": at}
        self._report_running(known, said | ({} if mono is None else {"mono": mono}))
        return True

    def _report_running(self, known: Known, said: Mapping[str, Any]) -> None:
        self._mains[known.job] = (said["pid"], said["start"] or 0)
        self._report(
            Running(
                job=known.job,
                attempt=known.attempt,
                pid=said["pid"],
                pid_start=said["start"],
                at=said["at"],
                mono=said.get("mono", time.monotonic()),  # a runner of before there were limits
            )
        )

    def _report_main_ended(self, known: Known, left: int, mono: float) -> None:
        self._report(MainEnded(job=known.job, attempt=known.attempt, left=left, mono=mono))

    def _report_ended(self, known: Known, exit: Exit | None, cause: str | None = None) -> None:
        self._attempts.pop(known.job, None)
        self._mains.pop(known.job, None)
        self._disturbed.discard(known.job)
        may_be_kept = (known.job, known.attempt) in self._ended
        if not may_be_kept and (leaf := _leaf(known)):
            leaf.remove()  # the runner's own to do, where it was there to do it
        self._report(Exited(job=known.job, attempt=known.attempt, exit=exit, cause=cause))

    def attempt_dir(self, job: int, attempt: int) -> str:
        """Where began and record are: out of the job's reach where it is another user's."""
        return f"{self._attempts_dir}/{job}.{attempt}"

    def _spawn_task(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)


def read_exit(told: Mapping[str, Any]) -> Exit:
    """A record as a value. A newer runner may say more than we know, an older one less."""
    return Exit(
        exit_code=told.get("exit_code"),
        signal=told.get("signal"),
        stage=told.get("stage"),
        error=told.get("error"),
        leftovers=told.get("leftovers") or 0,
        leftover_names=told.get("leftover_names"),
        last_output=told.get("last_output"),
        told_out_of_memory=told.get("told_out_of_memory"),
        on_kill_code=told.get("on_kill_code"),
        on_kill_trouble=told.get("on_kill_trouble"),
        container_trouble=told.get("container_trouble"),
        oom_kills=told.get("oom_kills"),
        bound_hits=told.get("bound_hits"),
        memory_peak_bytes=told.get("memory_peak_bytes"),
        log_dropped_bytes=told.get("log_dropped_bytes") or 0,
        nothing_reported=bool(told.get("nothing_reported")),
        ended_at=told.get("ended_at"),
        ended_mono=told.get("ended_mono"),
        user_s=told.get("user_s"),
        system_s=told.get("system_s"),
        peak_rss_bytes=told.get("peak_rss_bytes"),
    )


def _leaf(known: Known) -> Leaf | None:
    return None if known.cgroup is None else Leaf(known.cgroup)


def _leaf_of_job(known: Known) -> Leaf | None:
    """Its group as something to act on as a whole: not while its runner is still in there, which is
    so for some milliseconds after it has started the job."""
    leaf = _leaf(known)
    return None if leaf is None or known.runner_pid in leaf.members() else leaf


def _wake(members: Mapping[int, int]) -> None:
    for pid, start in members.items():
        processes.send(pid, signals.SIGCONT, start=start)


def _identified(leaf: Leaf) -> dict[int, int]:
    """Who is in a group, with start times. Looked at twice: a pid that was given away in between
    names a process that is not in there."""
    found = {pid: own[1] for pid in leaf.members() if (own := processes.identity(pid))}
    still = set(leaf.members()) if found else set()
    return {pid: start for pid, start in found.items() if pid in still}
