"""A pid is no name: whoever has got the pid of a dead runner, or of a dead job, is a stranger."""

import ctypes
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from gpuq.daemon.linux import processes
from tests.acceptance.faults.conftest import FaultyDaemon, MakeDaemon
from tests.conftest import until

CLONE3, SET_CHILD_SUBREAPER = 435, 36
# Like a runner's: a session of its own, with a child in it.
STRANGER = ["setsid", "sh", "-c", "sleep 300 & exec sleep 300"]

_libc = ctypes.PyDLL(None, use_errno=True)  # which keeps the lock of the interpreter over a fork


class _Clone(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size"),
            *("tls", "set_tid", "set_tid_size"),
        )
    )


@pytest.fixture(params=["auto", "none"])
def orphans(make: MakeDaemon, request: pytest.FixtureRequest) -> tuple[FaultyDaemon, int, int, int]:
    """(a daemon, its job, the pid of its runner, that of its main process): all of them are dead.

    The job is to end, so that the next daemon has every reason to kill somebody.
    """
    daemon = make("--cgroup", request.param)
    with daemon.client() as client:
        deaf = "trap '' TERM; while :; do sleep 0.05; done"
        job = client.submit(**daemon.job(deaf, gpus=2))
        daemon.at_work(job)
        runner, main = daemon.runner_of(job), client.job(job)["pid"]
        client.kill([job], grace_s=0.5)
        until(lambda: client.job(job)["substate"] == "stopping")
    with _inheriting():
        daemon.kill()
        until(lambda: processes.ancestors(runner)[0] == os.getpid(), "the end of the launcher")
        for pid in (runner, main):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        until(lambda: _is_free(runner, main), "the end of all that was theirs")
    return daemon, job, runner, main


@contextmanager
def _inheriting() -> Iterator[None]:
    """Orphans become our children, whom we can wait for: the init of a container may be slow."""
    _libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        _libc.prctl(SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _is_free(*pids: int) -> bool:
    """The kernel gives no pid away that a session or a process group goes by."""
    for pid in pids:
        try:
            os.waitpid(-pid, os.WNOHANG)
        except ChildProcessError:
            pass  # nobody of that group is ours
    fields = list(filter(None, map(processes.stat_fields, processes.all_pids())))
    return not {int(number) for one in fields for number in one[2:4]} & set(pids)


def test_who_got_the_pids_of_a_runner_and_its_job_is_let_alone(
    orphans: tuple[FaultyDaemon, int, int, int],
) -> None:
    daemon, job, runner, main = orphans
    with _stranger(runner), _stranger(main):
        _is_lost(daemon, job)


def test_who_is_named_in_the_database_and_began_at_another_time_is_let_alone(
    orphans: tuple[FaultyDaemon, int, int, int],
) -> None:
    daemon, job, _, _ = orphans
    with _stranger() as runner, _stranger() as main:
        with closing(sqlite3.connect(daemon.state / "gpuq.db")) as db, db:
            db.execute("update attempts set runner_pid = ?, pid = ?", (runner, main))
        notes = next((daemon.state / "attempts" / f"{job}.1").glob("began-*"))
        _, start, mono = notes.read_text().splitlines()[0].split()
        notes.write_text(f"{main} {start} {mono}\n")
        _is_lost(daemon, job)


def test_after_a_reboot_no_process_is_ours_whatever_its_pid_and_its_time(make: MakeDaemon) -> None:
    """The machine is said to have been another one until now. What waited goes on waiting, by the
    wall clock."""
    daemon = make()
    with daemon.client() as client:
        running, waiting = client.submit_many(
            [daemon.job("sleep 300", gpus=2), daemon.job("exit 1", retries=1, backoff="1s")]
        )
        daemon.at_work(running)
        runner = daemon.runner_of(running)
        until(lambda: client.job(waiting)["substate"] == "backoff", "its waiting")
        client.call("pause", refs=[str(running)])  # the next daemon has a reason to touch it
        daemon.kill()
        with closing(sqlite3.connect(daemon.state / "gpuq.db")) as db, db:
            db.execute("update attempts set boot_id = 'an earlier one'")
            db.execute(
                "update jobs set delayed_boot = 'an earlier one', "
                "delayed_until_boottime = delayed_until_boottime + 1e6 where delayed_until_at > 0"
            )
        daemon.start()
        lost, other = client.wait([running, waiting], timeout_s=10)
        assert lost["outcome"] == "lost"
        assert "the machine was restarted" in lost["reason"]
        assert (other["exit_code"], other["attempt"]) == (1, 2)
        start = (processes.identity(runner) or (0, 0))[1]
        alive = processes.descendants(runner)
        assert start
        assert alive, "nobody has touched them"
    for pid, since in (*alive.items(), (runner, start)):
        processes.send(pid, signal.SIGKILL, start=since)


def _is_lost(daemon: FaultyDaemon, job: int) -> None:
    daemon.start()
    with daemon.client() as client:
        ended = client.wait([job], timeout_s=10)[0]
        assert ended["outcome"] == "cancelled"
        assert "lost: its runner" in ended["reason"]
        after = client.submit(**daemon.job("exit 3", gpus=2))
        assert client.wait([after], timeout_s=10)[0]["exit_code"] == 3


@contextmanager
def _stranger(wanted: int | None = None) -> Iterator[int]:
    """Somebody who has nothing to do with gpuq, of that pid where one is given, and who is alive in
    the end."""
    pid = _spawn() if wanted is None else _spawn_as(wanted)
    try:
        child = next(iter(until(lambda: processes.descendants(pid), "its child")))
        yield pid
        assert processes.identity(pid)
        assert processes.identity(child)
    finally:
        for one in processes.descendants(pid):
            os.kill(one, signal.SIGKILL)
        _end(pid)


def _spawn_as(wanted: int) -> int:
    """A fork that gets the pid that it asks for, which nobody else can snatch away: see clone3(2)."""
    pids = (ctypes.c_int * 1)(wanted)
    asked = _Clone(exit_signal=signal.SIGCHLD, set_tid=ctypes.addressof(pids), set_tid_size=1)
    pid = int(_libc.syscall(CLONE3, ctypes.byref(asked), ctypes.sizeof(asked)))
    if pid == 0:
        os.execvp(STRANGER[0], STRANGER)
    if pid < 0:
        why = os.strerror(ctypes.get_errno())
        pytest.skip(f"pid {wanted} is not to be had here: {why} (it takes root, and Linux 5.5)")
    return pid


def _spawn() -> int:
    return os.posix_spawnp(STRANGER[0], STRANGER, os.environ)


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
