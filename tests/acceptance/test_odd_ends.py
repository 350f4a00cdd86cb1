"""Ends and beginnings that no plan foresees: files taken away, runners stopped, garbage, crowds."""

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from gpuq.daemon.linux import processes
from tests.conftest import BIN, Daemon, clean_environment, until


def _run_until_seen(daemon: Daemon, *argv: str, **options: object) -> tuple[int, int]:
    """(job, pid) of a job that runs."""
    with daemon.client() as client:
        job = client.submit(list(argv), **options)
        until(lambda: client.job(job)["state"] == "running")
        return job, client.job(job)["pid"]


def _runner_of(pid: int) -> int:
    return processes.ancestors(pid)[0]


def test_a_job_whose_files_and_runner_are_gone_is_lost_and_gives_its_gpus_back(
    daemon: Daemon,
) -> None:
    job, pid = _run_until_seen(daemon, "sleep", "300", gpus=4)
    shutil.rmtree(daemon.state / "attempts")
    os.kill(_runner_of(pid), signal.SIGKILL)
    with daemon.client() as client:
        assert client.wait([job], timeout_s=10)[0]["outcome"] == "lost"
        assert processes.identity(pid) is None
        assert client.wait([client.submit(["true"], gpus=4)], timeout_s=10)


def test_it_is_lost_under_the_next_daemon_too(daemon: Daemon) -> None:
    job, pid = _run_until_seen(daemon, "sleep", "300", gpus=4)
    daemon.kill()
    shutil.rmtree(daemon.state / "attempts")
    os.kill(_runner_of(pid), signal.SIGKILL)
    daemon.start()
    with daemon.client() as client:
        assert client.wait([job], timeout_s=10)[0]["outcome"] == "lost"
    assert processes.identity(pid) is None


def test_a_job_without_its_mark_does_not_outlive_its_runner(daemon: Daemon) -> None:
    """Its GPUs go to the next job, so nothing of it may be left on them."""
    job, pid = _run_until_seen(
        daemon, "env", "-i", "/bin/sh", "-c", "sleep 300 & sleep 300", gpus=4
    )
    left = {pid, *processes.descendants(pid)}
    os.kill(_runner_of(pid), signal.SIGKILL)
    with daemon.client() as client:
        assert client.wait([job], timeout_s=10)[0]["outcome"] == "lost"
    assert not [one for one in left if processes.identity(one)]


def test_a_stopped_runner_does_not_keep_its_job_from_ending(daemon: Daemon) -> None:
    job, pid = _run_until_seen(daemon, "sleep", "300")
    os.kill(_runner_of(pid), signal.SIGSTOP)
    with daemon.client() as client:
        client.kill([job])
        assert client.wait([job], timeout_s=10)[0]["outcome"] == "cancelled"


def test_a_launcher_that_hangs_keeps_no_job_from_ending_and_nobody_busy(daemon: Daemon) -> None:
    job, _ = _run_until_seen(daemon, "sleep", "300", gpus=1)
    with daemon.client() as client:
        families = processes.descendants(daemon.pid)
        hung = [
            pid
            for pid in families
            if b"gpuq.daemon.attempt.launcher" in Path(f"/proc/{pid}/cmdline").read_bytes()
            and processes.ancestors(pid)[0] == daemon.pid
        ]
        os.kill(hung[0], signal.SIGSTOP)
        try:
            client.submit_many([{"argv": ["true"], "gpus": 1}] * 20)
            client.kill([job], grace_s=0)
            assert client.wait([job], timeout_s=10)[0]["outcome"] == "cancelled"
            before = client.call("ping")["turns"]
            time.sleep(1.5)
            assert client.call("ping")["turns"] - before < 20, "it tries again, but not at once"
        finally:
            os.kill(hung[0], signal.SIGCONT)
        assert client.wait(["2-21"], timeout_s=20)


def test_garbage_in_an_attempts_files_stops_no_daemon(daemon: Daemon) -> None:
    job, pid = _run_until_seen(daemon, "sleep", "300")
    daemon.kill()
    folder = daemon.state / "attempts" / f"{job}.1"
    os.kill(_runner_of(pid), signal.SIGKILL)
    next(folder.glob("began-*")).write_text("x y\n")
    (folder / "record").write_text("[" * 100_000)
    daemon.start()
    with daemon.client() as client:
        assert client.wait([job], timeout_s=10)[0]["outcome"] == "lost"


def test_a_record_with_impossible_numbers_counts_as_none(daemon: Daemon) -> None:
    job, pid = _run_until_seen(daemon, "sleep", "300")
    daemon.kill()
    folder = daemon.state / "attempts" / f"{job}.1"
    nonce = next(folder.glob("began-*")).name.removeprefix("began-")
    os.kill(_runner_of(pid), signal.SIGKILL)
    (folder / "record").write_text(f'{{"nonce": "{nonce}", "exit_code": {2**70}}}')
    daemon.start()
    with daemon.client() as client:
        assert client.wait([job], timeout_s=10)[0]["outcome"] == "lost"


def test_a_lock_on_the_database_is_waited_out(daemon: Daemon) -> None:
    job, pid = _run_until_seen(daemon, "sh", "-c", "sleep 300; exit 4")
    other = sqlite3.connect(daemon.state / "gpuq.db", isolation_level=None)
    other.execute("begin immediate")
    os.kill(pid, signal.SIGTERM)
    refused = daemon.gpuq("submit", "true")
    assert refused.returncode == 1
    assert "another program holds" in refused.stderr
    other.execute("rollback")
    other.close()
    with daemon.client() as client:
        assert client.wait([job], timeout_s=15)[0]["signal"] == signal.SIGTERM


def test_many_idle_connections_leave_room_for_jobs(stopped_daemon: Daemon) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = 256 + len(os.listdir("/proc/self/fd"))  # it holds for who starts the daemon, too
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
    try:
        stopped_daemon.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    clients = [stopped_daemon.client() for _ in range(few + 50)]
    for client in clients:
        client.call("ping")
    with stopped_daemon.client() as client:
        ended = client.wait([client.submit(["sh", "-c", "ulimit -n"])], timeout_s=10)[0]
    assert ended["outcome"] == "succeeded"
    assert Path(ended["log"]).read_text().strip() == str(before[0]), "the submitter's own limit"
    for client in clients:
        client.close()


def test_killing_many_jobs_keeps_the_daemon_answering(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path).start("--cpu-slots", "100")
    try:
        with daemon.client() as client:
            client.submit_many([{"argv": ["sleep", "300"], "gpus": 0}] * 100)
            until(lambda: client.call("ping")["counts"]["running"] == 100)
            client.kill(["1-100"])
            slowest = 0.0
            while client.call("ping")["counts"]["running"]:
                before = time.monotonic()
                client.call("ping")
                slowest = max(slowest, time.monotonic() - before)
        assert slowest < 6.0, "it took 18 s when every signal looked through all processes anew"
    finally:
        daemon.end()


def test_a_job_from_within_a_job_has_a_temporary_directory_of_its_own(
    daemon: Daemon, tmp_path: Path
) -> None:
    inner = f"{BIN}/gpuq submit -g 0 -- sh -c 'sleep 0.5; touch $TMPDIR/x && echo made'"
    assert daemon.gpuq("run", "-g", "0", "--shell", inner).returncode == 0
    with daemon.client() as client:
        ended = client.wait([2], timeout_s=10)[0]
        assert Path(ended["log"]).read_text() == "made\n"
        gone = client.submit(["sh", "-c", "touch $TMPDIR/x"], env={"TMPDIR": str(tmp_path / "no")})
        assert client.wait([gone], timeout_s=10)[0]["outcome"] == "succeeded"


def test_a_thousand_folders_deep_a_job_still_succeeds(daemon: Daemon) -> None:
    dig = (
        "import os\nos.chdir(os.environ['TMPDIR'])\n"
        "for _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')\n"
    )
    with daemon.client() as client:
        job = client.submit([sys.executable, "-c", dig], gpus=0)
        ended = client.wait([job], timeout_s=30)[0]
        assert ended["outcome"] == "succeeded", ended["reason"]
    until(lambda: not _directories_of(ended))


def _directories_of(job: dict[str, object]) -> list[Path]:
    """Its private temporary directory is named after its attempt's nonce, as `began` is."""
    attempts = Path(str(job["log"])).parents[3] / "attempts" / f"{job['id']}.1"
    nonce = next(attempts.glob("began-*")).name.removeprefix("began-")
    return list(Path("/tmp").glob(f"gpuq-{job['id']}-{nonce[:8]}"))


def test_closed_output_and_odd_references_are_no_tracebacks(daemon: Daemon) -> None:
    closed = subprocess.run(
        ["sh", "-c", f"{BIN}/gpuq status >&-"],
        env=daemon.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in closed.stderr
    for odd in ("@~99999999999999999999", "g99999999999999999999", "g²", "1-", "@~-1"):
        refused = daemon.gpuq("show", "--", odd)
        assert refused.returncode in (2, 3), odd
        assert "failed at this request" not in refused.stderr, odd


def test_a_mistake_in_the_config_file_hides_no_running_daemon(
    daemon: Daemon, tmp_path: Path
) -> None:
    config = tmp_path / "gpuq.toml"
    config.write_text("grace = 3s\n")
    environment = clean_environment(
        GPUQ_STATE_DIR=str(daemon.state), GPUQ_CONFIG=str(config), HOME=str(tmp_path)
    )
    assert daemon.gpuq("status", env=environment).returncode == 0
    found = daemon.gpuq("doctor", env=environment)
    assert found.returncode == 1
    assert 'grace = "3s"' in found.stdout


def test_nothing_is_answered_on_a_database_that_was_taken_away(
    daemon: Daemon, tmp_path: Path
) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    for file in daemon.state.glob("gpuq.db*"):
        file.rename(aside / file.name)
    refused = daemon.gpuq("submit", "true")
    assert refused.returncode == 1
    assert "was deleted or replaced" in refused.stderr
    for file in aside.iterdir():
        file.rename(daemon.state / file.name)
    assert daemon.gpuq("submit", "true").returncode == 0
