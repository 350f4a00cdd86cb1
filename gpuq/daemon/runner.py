"""One process per attempt: starts the job, waits for all of it to end, and writes the record.

It lives in a session of its own and outlives daemon, launcher, upgrade and crash. It waits at the
gate, a socket to the daemon, for one order; if the gate closes first it leaves and nothing has run.
Standard library only, single-threaded. Order and record carry a version and only gain fields, so
that a runner of an older gpuq and a newer daemon understand each other.
"""

import os
import signal as signals
import socket
import time
from typing import Any

from gpuq.daemon import gate, linux, processes, record
from gpuq.daemon.spawn import Spawn, StageFailed, not_started

VERSION = 1

Message = dict[str, Any]


def main(gate_fd: int) -> int:
    """Waits at the gate, runs one order, writes its record."""
    line = socket.socket(fileno=gate_fd)
    _become_runner()
    pid, start = processes.identity(os.getpid()) or (os.getpid(), 0)
    gate.send(line, {"version": VERSION, "hello": {"pid": pid, "start": start}})
    order, _locks = gate.receive(line)  # held until this process ends: GPU locks outlive the daemon
    if order is None:
        return 0
    told = _run(order, line)
    written = record.write(order["attempt_dir"], told)
    gate.send(line, {"ended": told})
    if written is not None:
        record.sync(order["attempt_dir"], written)
    return 0


def _become_runner() -> None:
    os.setsid()
    linux.become_child_subreaper()
    for number in (signals.SIGTERM, signals.SIGHUP, signals.SIGINT):
        signals.signal(number, signals.SIG_IGN)  # its end is the job's end, never a stray signal
    signals.signal(signals.SIGCHLD, signals.SIG_DFL)
    signals.pthread_sigmask(signals.SIG_BLOCK, {signals.SIGCHLD})  # for sigtimedwait below
    _reset_oom_score()


def _reset_oom_score() -> None:
    """A daemon that the kernel is to spare must not pass that on to its jobs."""
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            if int(file.read()) < 0:
                file.write("0")
    except OSError:
        pass


def _run(order: Message, line: socket.socket) -> Message:
    """The life of one job; returns its record."""
    told: Message = {
        "version": VERSION,
        "job": order["job"],
        "attempt": order["attempt"],
        "nonce": order["nonce"],
        "boot_id": processes.boot_id(),
    }
    os.umask(0o077)
    try:
        began = record.begin(order["attempt_dir"], order["nonce"])
        os.makedirs(order["output_dir"], exist_ok=True)
    except OSError as error:
        return told | not_started("making its directories", error)
    spawn = Spawn(order)
    try:
        pid = spawn.start()
    except StageFailed as failed:
        spawn.clean_up()
        return told | failed.facts()
    finally:
        os.umask(0o077)
    _tell_running(line, began, pid)
    told |= _wait_for_main(pid)
    told |= {"leftovers": _end_leftovers(order["grace_s"])}
    spawn.clean_up()
    return told


def _tell_running(line: socket.socket, began: int, pid: int) -> None:
    own = processes.identity(pid)  # None where it has ended already
    start = own[1] if own is not None else None
    gate.send(line, {"running": {"pid": pid, "start": start, "at": time.time()}})
    record.note_main_process(began, pid, start)


def _wait_for_main(main_pid: int) -> Message:
    while True:
        pid, status, usage = os.wait4(-1, 0)
        if pid == main_pid:
            break
    code = os.waitstatus_to_exitcode(status)
    return {
        "ended_at": time.time(),
        "exit_code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "user_s": usage.ru_utime,
        "system_s": usage.ru_stime,
        "peak_rss_bytes": usage.ru_maxrss * 1024,
    }


def _end_leftovers(grace_s: float) -> int:
    """Ends what the main process left behind: TERM, the grace, KILL. Returns how many there were.

    Being a subreaper, it has every descendant as a child in the end, so "no children" proves that
    all are gone, however they forked.
    """
    if _no_children():
        return 0
    left = _signal_descendants(signals.SIGTERM)
    deadline = time.monotonic() + grace_s
    while not _no_children():
        if time.monotonic() >= deadline:
            _signal_descendants(signals.SIGKILL)
        signals.sigtimedwait({signals.SIGCHLD}, 0.05)
    return left


def _signal_descendants(number: int) -> int:
    found = processes.descendants(os.getpid())
    return sum(processes.send(pid, number, start=start) for pid, start in found.items())


def _no_children() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False
