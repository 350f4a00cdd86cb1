"""A true gpuqd on a machine that goes down, comes up again, sleeps, and has several daemons."""

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuq.daemon.linux import processes
from tests.conftest import BIN, PATIENCE_S, Daemon, until
from tests.fake_host import FakeHost, fake_host

SAVES = 'trap "echo saved; exit 0" TERM; echo ready; while :; do sleep 0.05; done'


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[FakeHost]:
    with fake_host(tmp_path / "bus") as host:
        yield host


@pytest.fixture
def daemon(tmp_path: Path, machine: FakeHost) -> Iterator[Daemon]:
    """Not started yet. Its machine is the test's, and so are the services of its user."""
    waiting = Daemon(tmp_path)
    waiting.environment |= {
        "DBUS_SYSTEM_BUS_ADDRESS": machine.address,
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={tmp_path}/no-such-bus",
    }
    yield waiting
    machine.state = "running"
    waiting.end()


def submit(daemon: Daemon, script: str, *flags: str) -> int:
    """Once it runs and has said that it is ready."""
    told = daemon.gpuq("submit", *flags, "--shell", script)
    assert told.returncode == 0, told.stderr
    job = int(told.stdout)
    until(lambda: "ready" in daemon.gpuq("logs", str(job)).stdout, f"job {job} to be ready")
    return job


def show(daemon: Daemon, job: int) -> dict[str, Any]:
    with daemon.client() as client:
        return client.job(job)


def in_database(daemon: Daemon, sql: str) -> list[tuple[Any, ...]]:
    """While no daemon lives."""
    with closing(sqlite3.connect(daemon.state / "gpuq.db")) as db, db:
        return db.execute(sql).fetchall()


def let_reboot(daemon: Daemon) -> None:
    """What it knew is of an earlier boot."""
    in_database(daemon, "update attempts set boot_id = 'an earlier one'")


# ─── going down ──────────────────────────────────────────────────────────────────────────────────


def test_at_a_shutdown_jobs_get_their_grace_and_are_lost_with_that_cause(
    daemon: Daemon, machine: FakeHost
) -> None:
    daemon.start()
    saves = submit(daemon, SAVES)
    again = submit(daemon, SAVES, "--retries", "1", "--backoff", "1h")
    not_lost = submit(daemon, SAVES, "--retries", "1", "--retry-on", "failed")
    machine.state = "stopping"
    assert daemon.stop() == 0
    assert daemon.left() == []
    rows = dict(in_database(daemon, "select id, state || ': ' || reason from jobs"))
    gone = "lost: the machine was shut down; exit code 0"
    assert rows[saves] == f"ended: {gone}"
    assert rows[again] == f"queued: {gone}; attempt 2 of 2 in 1:00:00"
    assert rows[not_lost].startswith(f"ended: {gone}; not retried: lost is not among failed")
    assert "saved" in (daemon.state / "jobs" / str(saves) / "1" / "log").read_text()

    machine.state = "running"
    let_reboot(daemon)
    daemon.start()
    assert show(daemon, saves)["outcome"] == "lost"
    assert show(daemon, again)["state"] == "queued"


def test_a_restart_of_the_daemon_on_a_machine_that_stays_leaves_jobs_running(
    daemon: Daemon,
) -> None:
    daemon.start()
    job = submit(daemon, SAVES)
    pid = show(daemon, job)["pid"]
    assert daemon.stop() == 0
    assert processes.identity(pid) is not None
    daemon.start()
    assert show(daemon, job)["pid"] == pid
    assert show(daemon, job)["state"] == "running"


def test_what_is_submitted_while_the_machine_goes_down_is_kept_for_the_next_boot(
    daemon: Daemon, machine: FakeHost
) -> None:
    daemon.start()
    slow = submit(daemon, 'trap "" TERM; echo ready; while :; do sleep 0.05; done', "--grace", "3s")
    machine.prepare_for_shutdown(True)
    until(lambda: show(daemon, slow)["substate"] == "stopping", "the shutdown to be heard of")
    late = int(daemon.gpuq("submit", "--", "true").stdout)
    assert show(daemon, late)["reason"] == "the machine is shutting down"
    assert "TERM sent: the machine is shutting down" in show(daemon, slow)["reason"]
    assert daemon.stop() == 0
    machine.prepare_for_shutdown(False)
    daemon.start()
    until(lambda: show(daemon, late)["outcome"] == "succeeded", "the late job to have run")


# ─── up again after no daemon was there ──────────────────────────────────────────────────────────


def end_without_daemon(daemon: Daemon, job: int, deed: Callable[[int], None]) -> None:
    """It ends while no daemon is there, and then the machine is restarted."""
    runner = _runner(daemon, job)
    daemon.kill()
    deed(runner)
    until(lambda: processes.identity(runner) is None, "the runner to leave")
    let_reboot(daemon)
    daemon.start()


def _runner(daemon: Daemon, job: int) -> int:
    ((pid,),) = in_database(daemon, f"select runner_pid from attempts where job = {job}")
    return int(pid)


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_job_that_ended_by_itself_before_a_restart_of_the_machine_is_told_as_it_was(
    daemon: Daemon, tmp_path: Path
) -> None:
    daemon.start()
    job = submit(daemon, f"echo ready; while ! [ -e {tmp_path}/go ]; do sleep 0.05; done; exit 7")
    end_without_daemon(daemon, job, lambda runner: (tmp_path / "go").touch())
    told = show(daemon, job)
    assert (told["outcome"], told["exit_code"], told["reason"]) == ("failed", 7, "exit code 7")


def test_a_job_that_went_down_with_the_machine_while_no_daemon_was_there_is_lost(
    daemon: Daemon,
) -> None:
    """Everything got TERM then, its runner too."""
    daemon.start()
    job = submit(daemon, SAVES)

    def shut_down(runner: int) -> None:
        (main,) = _children(runner)
        os.kill(runner, signal.SIGTERM)
        os.kill(main, signal.SIGTERM)

    end_without_daemon(daemon, job, shut_down)
    told = show(daemon, job)
    assert told["reason"] == "lost: the machine was shut down; exit code 0"


def test_a_job_that_died_of_the_shutdowns_own_signal_is_lost(daemon: Daemon) -> None:
    daemon.start()
    job = submit(daemon, "echo ready; exec sleep 600")
    end_without_daemon(daemon, job, lambda runner: os.kill(_children(runner)[0], signal.SIGTERM))
    assert show(daemon, job)["reason"] == "lost: the machine was shut down; ended by SIGTERM"


def test_a_job_of_which_nothing_was_written_down_is_lost(daemon: Daemon) -> None:
    daemon.start()
    job = submit(daemon, "echo ready; exec sleep 600")

    def cut_power(runner: int) -> None:
        (main,) = _children(runner)
        os.kill(runner, signal.SIGKILL)
        os.kill(main, signal.SIGKILL)

    end_without_daemon(daemon, job, cut_power)
    assert show(daemon, job)["reason"] == "lost: the machine was restarted while it ran"


# ─── kept from going down ────────────────────────────────────────────────────────────────────────


def test_the_machine_is_kept_up_while_jobs_run_and_the_setting_is_live(
    daemon: Daemon, machine: FakeHost, tmp_path: Path
) -> None:
    settings = tmp_path / "gpuq.toml"
    settings.write_text("")
    daemon.start("--config", str(settings))
    job = submit(daemon, SAVES)
    assert machine.locks == []
    settings.write_text('inhibit_shutdown = "block"\n')
    until(lambda: machine.locks, "the lock")
    assert machine.locks[0][0::3] == ("shutdown:sleep", "block")
    settings.write_text('inhibit_shutdown = "delay"\n')
    until(lambda: [lock[3] for lock in machine.locks] == ["delay"], "the other lock")
    daemon.gpuq("kill", str(job))
    until(lambda: not machine.locks, "the lock to be let go")


def test_a_lock_that_is_refused_is_told_by_the_daemon(daemon: Daemon, machine: FakeHost) -> None:
    machine.refusal = "not for you"
    daemon.start("--inhibit-shutdown", "block")
    submit(daemon, SAVES)
    note = "inhibit_shutdown = block is not in force: org.freedesktop.login1: not for you"
    until(lambda: note in daemon.gpuq("daemon", "status").stdout, "the note")
    assert note in daemon.gpuq("config").stderr + daemon.gpuq("config").stdout


# ─── where its state lies ────────────────────────────────────────────────────────────────────────


def test_a_state_directory_on_a_network_is_refused_and_another_named(tmp_path: Path) -> None:
    """The mounts that it sees are said by the test; nothing else is."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("NOT SEEN: needs root and unshare to show gpuqd other mounts")
    mounts, state = tmp_path / "mounts", tmp_path / "home" / "state"
    mounts.write_text(f"server:/home {tmp_path}/home nfs4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n")
    shown = f"mount --bind {mounts} /proc/$$/mounts"  # of the shell, which becomes gpuqd
    script = f"{shown} && exec {BIN / 'gpuqd'} --state-dir {state} --gpus none"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert ran.returncode == 78, ran.stderr
    assert ran.stderr == (
        f"gpuqd: the state directory {state} is on nfs4: a queue needs a disk of this machine. "
        "Give another: --state-dir /var/tmp/gpuq-0\n"
    )
    assert list(state.iterdir()) == []


def test_what_grows_old_in_the_state_directory_is_not_cleaned_away_while_a_daemon_lives(
    daemon: Daemon, tmp_path: Path
) -> None:
    cleaner = shutil.which("systemd-tmpfiles")
    if cleaner is None:
        pytest.skip("NOT SEEN: there is no systemd-tmpfiles on this machine")
    aged = tmp_path / "var"
    daemon.state = aged / "state"
    daemon.environment["GPUQ_STATE_DIR"] = str(daemon.state)
    daemon.start()
    old, other = daemon.state / "old", aged / "other" / "old"
    for file in (old, other):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    rules = tmp_path / "rules.conf"
    rules.write_text(f"d {aged} - - - 1us\n")
    subprocess.run([cleaner, "--clean", str(rules)], check=True, timeout=PATIENCE_S)
    assert not other.exists(), "it cleans"
    assert old.exists()
    assert daemon.gpuq("submit", "-g", "0", "--", "true").returncode == 0


def test_a_link_that_somebody_else_has_put_in_place_of_the_state_directory_is_not_followed(
    tmp_path: Path,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT SEEN: needs root to make a link that is another user's")
    link, mine = tmp_path / "gpuq-0", tmp_path / "mine"
    mine.mkdir(mode=0o700)
    link.symlink_to(mine)
    os.chown(link, 2001, 2001, follow_symlinks=False)
    command = [BIN / "gpuqd", "--state-dir", link, "--gpus", "none"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert ran.returncode == 1
    assert f"the state directory {link} is a link that uid 2001 has made" in ran.stderr
    assert list(mine.iterdir()) == []
