"""Starts a job, waits for all of it to end, and writes the record: one process per attempt, and for
many attempts one after the other where each has ended clean.

It lives in a session of its own and outlives daemon, launcher, upgrade and crash. It waits at the
gate, a socket to the daemon, for an order; when the gate closes it leaves. An order that has not come
by then has not run, and will not; neither has one that came ahead and whose word to begin has not.
Standard library only, single-threaded. Order and record carry a version and only gain fields, so that
a runner of an older gpuq and a newer daemon understand each other.

A runner that says "clean" after the end of its attempt may be given another one, once that end is
committed: no attempt that has not ended shares its runner with another. Clean is who has nothing left
of the job, in no sense: no process, nobody in its control group, no descriptor, no limit or signal that
the next job would take over. All others leave.
"""

from __future__ import annotations

import _socket as socket  # which itself would bring enum and selectors into each runner
import os
import time

from gpuq.daemon import faults
from gpuq.daemon.attempt import gate, record
from gpuq.daemon.attempt.beside import reset_oom_score
from gpuq.daemon.attempt.condition import Condition, condition, is_spent
from gpuq.daemon.attempt.container import end_container
from gpuq.daemon.attempt.disk import DISK_ERRORS
from gpuq.daemon.attempt.on_kill import OnKill
from gpuq.daemon.attempt.other_user import SpawnAsOther
from gpuq.daemon.attempt.place import Place
from gpuq.daemon.attempt.spawn import Spawn, passing_errors, spawn_for
from gpuq.daemon.attempt.stages import StageFailed, not_started
from gpuq.daemon.attempt.steps import MAKING_DIRECTORIES
from gpuq.daemon.attempt.watch import Watch
from gpuq.daemon.linux import processes, signals
from gpuq.daemon.linux import syscalls as linux
from gpuq.daemon.linux.cgroup import Leaf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]

VERSION = 1
KILL_AGAIN_S = 1.0
SHOWN_NAMES = 5
NEVER_S = float("inf")
BESIDE = ("uid", "scope", "container", "on_kill")  # of an order: more than a job of our own
BRIEF_S = 0.005  # that a job which is over by then ran is told with its end
TOGETHER_S = 0.01  # in which all that one KILL has hit are gone
COMMIT_S = 0.02  # longer than this an end does not wait for the daemon's commit to be durable

_told_to_end_at: list[float] = []  # when it got its first TERM, CLOCK_MONOTONIC


def main(gate_fd: int, cgroup_root: str | None, home: str | None) -> int:
    """Waits at the gate and does what it is told there. `home` is the control group of its own that
    it comes from."""
    line = socket.socket(fileno=gate_fd)
    _become_runner()
    pid, start = processes.identity(os.getpid()) or (os.getpid(), 0)
    place = Place.make(cgroup_root, f"{pid}-{start}", home)
    hello = {"pid": pid, "start": start, "cgroup": place.path}
    gate.send(line, {"version": VERSION, "hello": hello})
    before = condition()
    while True:
        order, locks = gate.receive(line)  # held as long as the job: GPU locks outlive the daemon
        faults.here("runner.ordered")
        if order is None:
            break
        if "wait_in_group" in order and place.come_back():
            continue
        if not place.is_ready:  # whatever was ordered runs elsewhere
            break
        place = _enter_scope(order, place)
        if not _run_and_tell(order, line, place, locks, before):
            break
    place.give_up()
    return 0


def _become_runner() -> None:
    os.setsid()
    linux.become_child_subreaper()
    for number in (signals.SIGTERM, signals.SIGHUP, signals.SIGINT):
        signals.signal(number, signals.SIG_IGN)  # its end is the job's end, never a stray signal
    signals.signal(signals.SIGTERM, _note_term)
    signals.signal(signals.SIGCHLD, signals.SIG_DFL)
    signals.pthread_sigmask(signals.SIG_BLOCK, {signals.SIGCHLD})  # for sigtimedwait below
    reset_oom_score()


def _note_term(*_: Any) -> None:
    """It goes on all the same; but when the machine goes down everything gets one, and a job that ends
    after that may not have done so by itself."""
    if not _told_to_end_at:
        _told_to_end_at.append(time.monotonic())


def _enter_scope(order: Message, place: Place) -> Place:
    """Where the daemon has had systemd make a group that bounds the job, we are in there by now: the
    job gets a group of that, and we go back to it and not to where we came from."""
    scope = order.get("scope")
    if scope is None:
        return place
    entered = Place.make(scope, "job", scope)
    place.remove()
    return entered


def _run_and_tell(
    order: Message, line: socket.socket, place: Place, locks: list[int], before: Condition
) -> bool:
    """The daemon is told first, whose commit makes the end last, and the record is written at once, for
    where there is none that hears. True where this runner is as it was `before`, and may take another
    order."""
    os.umask(0o077)
    spawn, room, watch = spawn_for(order), None, None
    if order.get("primed"):
        room, watch = _prepare_ahead(spawn, order)
        go, locks = gate.receive(line)
        faults.here("runner.told_to_go")
        if go is None:
            _forget(spawn, order, room)
            return False
    try:
        began = record.begin(order["attempt_dir"], order["nonce"], room)
    except OSError as error:
        facts = not_started(MAKING_DIRECTORIES, error)
        if error.errno in DISK_ERRORS:
            gate.send(line, {"returned": _returned(facts)})
        else:
            gate.send(line, {"ended": _head(order) | facts})
        return False
    faults.here("runner.begun")
    try:
        told = _head(order) | _run(order, spawn, watch, line, began, place)
    except NoRoom as no_room:
        record.take_back(order["attempt_dir"], order["nonce"], began)
        gate.send(line, {"returned": str(no_room)})
        return False
    faults.here("runner.ended")
    for lock in locks:
        os.close(lock)
    gate.send(line, {"ended": told})
    faults.here("runner.told_end")
    written = record.write(order["attempt_dir"], began, told)
    faults.here("runner.recorded")
    is_clean = written and _is_clean(order, told, place, before)
    if is_clean:
        gate.send(line, {"clean": {"is_in_group": place.is_ready}})
        faults.here("runner.told_clean")
    if written and not (is_clean and _is_committed(line)):
        record.sync(order["attempt_dir"], began)
    record.close(began)
    faults.here("runner.waits_again")
    return is_clean


def _prepare_ahead(spawn: Spawn | SpawnAsOther, order: Message) -> tuple[int | None, Watch | None]:
    """While the daemon commits the attempt: it says "go" once that is done, or closes the gate where
    it is not. Until then nothing has begun, and what has been made is no more than folders and empty
    files. What fails here is told when it has begun. Returns the room that was taken for the record,
    and who is to watch over the job."""
    room, watch = None, None
    try:
        room = record.take_room(order["attempt_dir"], order["nonce"])
        spawn.prepare()
        watch = Watch(order, spawn.files)
    except (OSError, StageFailed):
        pass
    os.umask(0o077)
    faults.here("runner.prepared")
    return room, watch


def _forget(spawn: Spawn | SpawnAsOther, order: Message, room: int | None) -> None:
    spawn.clean_up()
    if room is not None:
        record.give_room_back(order["attempt_dir"], order["nonce"], room)


def _is_clean(order: Message, told: Message, place: Place, before: Condition) -> bool:
    """Has the job left nothing to the next one? That no process of it is left is known by now."""
    has_run_plainly = _is_plain(order) and "stage" not in told and not told["leftovers"]
    if not has_run_plainly or _told_to_end_at or place.counts_memory:
        return False
    os.chdir("/")  # a job's directory is not kept from being unmounted
    return place.is_bare() and not is_spent() and condition() == before


def _is_plain(order: Message) -> bool:
    """Is it a job of the runner's own user, and nothing beside that?"""
    return not any(order.get(name) is not None for name in BESIDE)


def _is_committed(line: socket.socket) -> bool:
    """Has the daemon made the end durable? It speaks to a clean runner only after that."""
    line.settimeout(COMMIT_S)
    try:
        return bool(line.recv(1, socket.MSG_PEEK))
    except OSError:
        return False
    finally:
        line.settimeout(None)


def _head(order: Message) -> Message:
    return {
        "version": VERSION,
        "job": order["job"],
        "attempt": order["attempt"],
        "nonce": order["nonce"],
        "boot_id": processes.boot_id(),
    }


def _run(
    order: Message,
    spawn: Spawn | SpawnAsOther,
    watch: Watch | None,
    line: socket.socket,
    began: record.Began,
    place: Place,
) -> Message:
    """The life of one job; returns what came of it. NoRoom: there was none, for want of room."""
    try:
        spawn.prepare()
        watch = watch or Watch(order, spawn.files)
        watch.begin()
        pid = spawn.start()
    except StageFailed as failed:
        spawn.clean_up()
        return _unless_no_room(order, failed.facts(), failed.error)
    except OSError as error:
        spawn.clean_up()
        return _unless_no_room(order, not_started("preparing to watch over it", error), error)
    finally:
        os.umask(0o077)
    faults.here("runner.born")
    faults.here("runner.spawned")
    place.job_begins()
    if not _is_plain(order):
        place.leave()  # what it starts beside the job is none of its group
    beginning = _Beginning(line, began, pid)
    bounding = Leaf(order["scope"]) if order.get("scope") else None
    if bounding is not None:
        _outlive_job(bounding)
    on_kill = OnKill(order, spawn.tmp_dir, watch.output)
    told = _wait_for_main(pid, beginning, watch, on_kill, place)
    told |= beginning.untold()
    told |= _end_beside(order, spawn, watch, on_kill)
    if told["signal"] == signals.SIGKILL:
        _let_all_die()
    left = _End(order, line, began, place, watch).of_leftovers()
    told |= left | _memory(bounding or place.memory_group())
    told |= watch.findings(succeeded=told["exit_code"] == 0)
    watch.close()
    spawn.clean_up()
    return told


class NoRoom(Exception):
    """The disk has no room for what a job needs before it can begin. That passes, and is no failure of
    the job: it goes back to the queue."""


def _unless_no_room(order: Message, facts: Message, error: Exception) -> Message:
    passing = passing_errors(order, facts["stage"])
    if isinstance(error, OSError) and error.errno in passing:
        raise NoRoom(_returned(facts))
    return facts


def _returned(facts: Message) -> str:
    return f"it could not begin: {facts['stage']}: {facts['error']}"


class _Beginning:
    """That the job runs, told once it has lived for some milliseconds: one that is over sooner is told
    of once and not twice."""

    def __init__(self, line: socket.socket, began: record.Began, pid: int) -> None:
        own = processes.identity(pid)  # None where it has ended already
        self._pid, self._start = pid, own[1] if own is not None else None
        self._at, self._mono = time.time(), time.monotonic()
        self._line = line
        self._is_told = False
        record.note_main_process(began, pid, self._start, self._mono)

    def look(self) -> float:
        """Tells it where that is due; returns in how many seconds it is."""
        left_s = NEVER_S if self._is_told else self._mono + BRIEF_S - time.monotonic()
        if left_s > 0:
            return left_s
        gate.send(self._line, self._said())
        self._is_told = True
        faults.here("runner.told_running")
        return NEVER_S

    def untold(self) -> Message:
        """For the end, where it has not been told before."""
        return {} if self._is_told else self._said()

    def _said(self) -> Message:
        said = {"pid": self._pid, "start": self._start, "at": self._at, "mono": self._mono}
        return {"running": said}


def _wait_for_main(
    main_pid: int, beginning: _Beginning, watch: Watch, on_kill: OnKill, place: Place
) -> Message:
    while (ended := _reap(main_pid, on_kill)) is None:
        pause_s = min(beginning.look(), watch.look())
        on_kill.look()
        leave_in_s = place.leave_in_s()
        if leave_in_s == 0:
            place.leave()
        elif leave_in_s is not None:
            pause_s = min(pause_s, leave_in_s)
        signals.sigtimedwait({signals.SIGCHLD}, pause_s)
    status, usage = ended
    code = os.waitstatus_to_exitcode(status)
    return {
        "ended_at": time.time(),
        "ended_mono": time.monotonic(),
        "told_to_end_mono": _told_to_end_at[0] if _told_to_end_at else None,
        "exit_code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "user_s": usage.ru_utime,
        "system_s": usage.ru_stime,
        "peak_rss_bytes": usage.ru_maxrss * 1024,
    }


def _end_beside(
    order: Message, spawn: Spawn | SpawnAsOther, watch: Watch, on_kill: OnKill
) -> Message:
    """What belongs to a job and is none of the processes that it left behind. It has ended when that
    has."""
    told = on_kill.finish(watch.look)
    told |= end_container(order, spawn.files.folder, spawn.tmp_dir, watch.look)
    return told | ({"ended_at": time.time()} if told else {})


def _reap(main_pid: int, on_kill: OnKill) -> tuple[int, Any] | None:
    """Fetches what has ended; the end of the main process, if that is among it."""
    while True:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        if pid == main_pid:
            return status, usage
        if not pid:
            return None
        on_kill.heard(pid, os.waitstatus_to_exitcode(status))


class _End:
    """The end of what the main process left behind: TERM, the grace, KILL.

    Being a subreaper, the runner has every descendant as a child in the end, so "no children" proves
    that all are gone, however they forked.
    """

    def __init__(
        self,
        order: Message,
        line: socket.socket,
        began: record.Began,
        place: Place,
        watch: Watch,
    ) -> None:
        self._grace_s = order["grace_s"]
        self._line = line
        self._began = began
        self._place = place
        self._watch = watch

    def of_leftovers(self) -> Message:
        """How many there were, and the names of some."""
        if _no_children():
            return {"leftovers": 0}
        self._place.leave()
        found = processes.descendants(os.getpid())
        names = [name for pid in sorted(found) if (name := processes.command(pid))]
        self._tell(len(found))
        self._signal(signals.SIGTERM)
        kill_at = time.monotonic() + self._grace_s
        while not _no_children():
            if time.monotonic() >= kill_at:
                self._signal(signals.SIGKILL)
                kill_at = time.monotonic() + KILL_AGAIN_S
            pause_s = min(self._watch.look(), max(kill_at - time.monotonic(), 0.0))
            signals.sigtimedwait({signals.SIGCHLD}, pause_s)
        ended_at = {"ended_at": time.time()}  # the job has ended when its last process has
        return {"leftovers": len(found), "leftover_names": _some(names)} | ended_at

    def _tell(self, left: int) -> None:
        """The daemon is to know what goes on, should this take long."""
        mono = time.monotonic()
        gate.send(self._line, {"main_ended": {"left": left, "mono": mono}})
        record.note_main_ended(self._began, left, mono)

    def _signal(self, number: int) -> None:
        if number == signals.SIGKILL:
            self._place.kill_job()
        for pid, start in processes.descendants(os.getpid()).items():
            processes.send(pid, number, start=start)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN_NAMES])
    return f"{shown}, …" if len(names) > SHOWN_NAMES else shown


def _no_children() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _let_all_die() -> None:
    """Who is killed as a group dies as one, but not in one moment: a look at all processes would take
    the CPUs from them, and count those who are about to be gone."""
    until = time.monotonic() + TOGETHER_S
    while not _no_children() and (left_s := until - time.monotonic()) > 0:
        signals.sigtimedwait({signals.SIGCHLD}, left_s)


def _outlive_job(group: Leaf) -> None:
    """When what is in there runs out of memory, the kernel is to take the job and not us. Then it takes
    all of the job: the rest would wait for the one that was the largest, perhaps for ever. The job has
    been born before this, so that it inherits none of it."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-1000")
    except OSError:
        return  # only root may, and without it "all" would be us too
    group.die_as_one()


def _memory(group: Leaf | None) -> Message:
    """What only the control group knows, where it has a memory controller."""
    if group is None:
        return {}
    return {
        "oom_kills": group.oom_kills(),
        "bound_hits": group.bound_hits(),
        "memory_peak_bytes": group.peak_bytes(),
    }
