"""What happens to running jobs of several users while their daemon is restarted, killed, upgraded,
frozen: nothing. Each test begins with jobs that run, and ends them with a code that must come back.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import until
from tests.systemd import wheels as made_wheels
from tests.systemd.box import SERVICE, Box, Held
from tests.systemd.keeper import PREFIX, mounts

NEXT_VERSION = "99.0.0"
# No more than a GiB, should nothing stop it.
GREEDY = (
    "import pathlib, sys, time\n"
    "while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.05)\n"
    "held = [bytearray(1 << 20) for _ in range(1024)]\n"
)


@pytest.fixture
def jobs(shared_box: Box) -> Iterator[dict[int, Held]]:
    """One of alice's and one of bob's, by the exit code that each is to end with."""
    shared_box.run("systemctl", "reset-failed")  # so many starts a minute are not of one box's life
    running = {3: shared_box.held("alice"), 5: shared_box.held("bob")}
    yield running
    for job in running.values():
        if shared_box.alive(job.pid):
            job.end_with(0)


def assert_they_go_on(jobs: dict[int, Held]) -> None:
    for job in jobs.values():
        job.assert_untouched()
    for code, job in jobs.items():
        job.assert_ends_with(code)


def test_a_restart_leaves_the_jobs_of_everybody_alone(
    shared_box: Box, jobs: dict[int, Held]
) -> None:
    before = shared_box.main_pid()
    shared_box.run("systemctl", "restart", SERVICE)
    assert shared_box.until_active(other_than=before) != before
    assert_they_go_on(jobs)


def test_a_killed_daemon_is_started_again_and_finds_its_jobs(
    shared_box: Box, jobs: dict[int, Held]
) -> None:
    before = shared_box.main_pid()
    shared_box.run("kill", "-KILL", str(before))
    shared_box.until_active(other_than=before)
    assert shared_box.unit(SERVICE, "NRestarts")["NRestarts"] != "0"
    assert_they_go_on(jobs)


def test_an_upgrade_changes_the_daemon_and_not_the_jobs(
    shared_box: Box, jobs: dict[int, Held], tmp_path: Path
) -> None:
    newer = made_wheels.build_wheel(tmp_path / "newer", NEXT_VERSION)
    (shared_box.root / "var/tmp" / newer.name).write_bytes(newer.read_bytes())
    before = shared_box.main_pid()
    assert shared_box.daemon()["version"] != NEXT_VERSION
    pip = ("/opt/gpuq/bin/pip", "install", "--no-index", "--no-deps", f"/var/tmp/{newer.name}")
    shared_box.run(*pip)
    for job in jobs.values():
        job.assert_untouched()
    shared_box.install()
    shared_box.until_active(other_than=before)
    assert shared_box.daemon()["version"] == NEXT_VERSION
    assert_they_go_on(jobs)


def test_the_watchdog_replaces_a_daemon_that_has_frozen(
    shared_box: Box, jobs: dict[int, Held]
) -> None:
    shared_box.write(f"/etc/systemd/system/{SERVICE}.d/soon.conf", "[Service]\nWatchdogSec=2\n")
    shared_box.run("systemctl", "daemon-reload")
    shared_box.run("systemctl", "restart", SERVICE)
    before = shared_box.until_active()
    try:
        assert_it_is_fed(shared_box)
        assert shared_box.main_pid() == before
        shared_box.run("kill", "-STOP", str(before))
        shared_box.until_active(other_than=before)
    finally:
        shared_box.run("rm", "-r", f"/etc/systemd/system/{SERVICE}.d")
        shared_box.run("systemctl", "daemon-reload")
    told = [entry["MESSAGE"] for entry in shared_box.journal("UNIT=gpuqd.service")]
    assert any("Watchdog timeout" in message for message in told)
    assert_they_go_on(jobs)


def assert_it_is_fed(box: Box) -> None:
    """A daemon with nothing to do says that it is there as often as it has to."""
    for _ in range(4):
        last = box.unit(SERVICE, "WatchdogTimestampMonotonic")
        until(lambda last=last: box.unit(SERVICE, "WatchdogTimestampMonotonic") != last, "a word")


def test_a_job_that_ends_while_no_daemon_runs_keeps_its_exit_code(
    shared_box: Box, jobs: dict[int, Held]
) -> None:
    shared_box.run("systemctl", "stop", SERVICE)
    for code, job in jobs.items():
        job.end_with(code)
        until(lambda pid=job.pid: not shared_box.alive(pid), "the end of a job")
    assert shared_box.unit(SERVICE, "ActiveState")["ActiveState"] == "inactive"
    assert [shared_box.job(job.id)["exit_code"] for job in jobs.values()] == list(jobs)


def test_a_job_that_the_kernel_ends_for_want_of_memory_takes_nobody_along(
    shared_box: Box, jobs: dict[int, Held], report: list[str]
) -> None:
    before = shared_box.main_pid()
    told = "/home/alice/be-greedy"
    asked = ("--mem", "128M") if "memory" in shared_box.controllers() else ()
    id = shared_box.submit("alice", *asked, "--", "python3", "-c", GREEDY, told)
    pid = shared_box.until_state(id, "running")["pid"]
    with short_of_memory(shared_box, pid, report, has_scope=bool(asked)):
        shared_box.run("touch", told)
        ended = shared_box.until_state(id, "ended")
    assert ended["outcome"] == ("out_of_memory" if asked else "failed")
    assert ended["signal"] == signal.SIGKILL
    assert "memory" in ended["reason"]
    assert shared_box.unit(SERVICE, "OOMPolicy")["OOMPolicy"] == "continue"
    assert shared_box.main_pid() == before
    assert_they_go_on(jobs)


@contextmanager
def short_of_memory(box: Box, pid: int, report: list[str], *, has_scope: bool) -> Iterator[None]:
    """A process that gets 128 MiB and no more: by its scope, or from outside the box."""
    if has_scope:
        report.append(
            "out of memory: the kernel ended a job in its scope, by memory.max of cgroup 2"
        )
        yield
        return
    here = "cgroup 2 has no memory controller here"
    first = [top for top in mounts("cgroup") if "memory" in top.name.split(",")]
    if not first:
        report.append(f"NOT SEEN, since {here}: a job that the kernel ends for want of memory")
        pytest.skip(f"{here}, and neither has cgroup 1")
    report.append(
        f"NOT SEEN, since {here}: memory.max of a job's scope (its files are read on an injected "
        "tree in tests/daemon). Seen in its place: a job of the service that the kernel ended for "
        "want of memory by a limit of cgroup 1"
    )
    group = first[0] / f"{PREFIX}{os.getpid()}-greedy"
    group.mkdir()
    try:
        for limit in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
            if (group / limit).exists():
                (group / limit).write_text(str(128 << 20))
        (group / "cgroup.procs").write_text(str(box.number_outside(pid)))
        yield
    finally:
        until(lambda: not (group / "cgroup.procs").read_text(), "an empty group")
        group.rmdir()
