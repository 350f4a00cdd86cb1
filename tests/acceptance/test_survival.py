"""What must not be lost when the daemon is."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

from gpuq.daemon.linux import processes
from tests.conftest import BIN, Daemon, until


def test_a_killed_daemon_loses_no_job_and_no_exit_code(daemon: Daemon, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    go = tmp_path / "go"
    hold = f"while [ ! -e {go} ]; do sleep 0.02; done; exit 42"
    with daemon.client() as client:
        running = client.submit(["sh", "-c", hold], gpus=4)
        queued = [
            client.submit(["sh", "-c", f"echo $GPUQ_JOB_ID >> {ran}"], gpus=4) for _ in range(20)
        ]
        until(lambda: client.job(running)["state"] == "running")
        pid = client.job(running)["pid"]
    daemon.kill()
    assert processes.identity(pid) is not None, "the job does not notice"
    go.touch()
    until(lambda: processes.identity(pid) is None)
    daemon.start()
    with daemon.client() as client:
        assert client.wait([running], timeout_s=10)[0]["exit_code"] == 42
        ended = client.wait(queued, timeout_s=30)
    assert {job["outcome"] for job in ended} == {"succeeded"}
    assert {job["attempt"] for job in ended} == {1}
    assert [int(line) for line in ran.read_text().split()] == queued, "once each, in order"


def test_a_restarted_daemon_takes_over_what_runs(daemon: Daemon, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with daemon.client() as client:
        job = client.submit(["sh", "-c", f"while [ ! -e {go} ]; do sleep 0.02; done; exit 3"])
        before = until(lambda: client.job(job)["state"] == "running" and client.job(job))
    assert daemon.stop() == 0
    daemon.start()
    with daemon.client() as client:
        after = client.job(job)
        assert (after["state"], after["pid"]) == ("running", before["pid"])
        assert client.gpus()["gpus"][0]["jobs"] == [job], "its GPU is still its own"
        go.touch()
        assert client.wait([job], timeout_s=10)[0]["exit_code"] == 3


def test_a_kill_goes_on_under_the_next_daemon(daemon: Daemon) -> None:
    with daemon.client() as client:
        script = "trap '' TERM; while :; do sleep 0.1; done"
        job = client.submit(["sh", "-c", script], grace_s=1)
        until(lambda: client.job(job)["state"] == "running")
        client.kill([job])
        until(lambda: client.job(job)["substate"] == "stopping")
    daemon.kill()
    daemon.start()
    with daemon.client() as client:
        assert client.wait([job], timeout_s=10)[0]["outcome"] == "cancelled"


def test_a_runner_that_is_killed_makes_its_job_lost_and_leaves_nothing(daemon: Daemon) -> None:
    with daemon.client() as client:
        job = client.submit(["sh", "-c", "setsid sleep 300 & sleep 300"])
        pid = until(lambda: client.job(job)["pid"])
        runner = processes.ancestors(pid)[0]
        os.kill(runner, signal.SIGKILL)
        ended = client.wait([job], timeout_s=10)[0]
        assert ended["outcome"] == "lost"
        assert "its runner" in ended["reason"]
        assert processes.identity(pid) is None
        after = client.submit(["true"], gpus=4)
        assert client.wait([after], timeout_s=10)[0]["outcome"] == "succeeded"


def test_the_launcher_is_replaced_when_it_is_killed(daemon: Daemon) -> None:
    with daemon.client() as client:
        for _ in range(3):
            for pid, start in processes.descendants(daemon.pid).items():
                if _is_launcher(pid):  # or the runner that it forked ahead
                    processes.send(pid, signal.SIGKILL, start=start)
            assert client.wait([client.submit(["true"])], timeout_s=10)


def test_the_probe_is_replaced_when_it_is_killed(daemon: Daemon) -> None:
    with daemon.client() as client:
        probe = next(pid for pid in processes.descendants(daemon.pid) if _is_probe(pid))
        os.kill(probe, signal.SIGKILL)
        until(lambda: [p for p in processes.descendants(daemon.pid) if _is_probe(p) and p != probe])
        assert client.wait([client.submit(["true"])], timeout_s=10)


def test_of_twenty_daemons_one_serves_and_nineteen_say_who(stopped_daemon: Daemon) -> None:
    stopped_daemon.start()
    stopped_daemon.kill()  # and the next start needs no cleaning
    command = [BIN / "gpuqd", "--state-dir", stopped_daemon.state, "--gpus", "sim:4x24G"]
    starters = [
        subprocess.Popen(command, env=stopped_daemon.environment, stderr=subprocess.PIPE)
        for _ in range(20)
    ]
    until(lambda: sum(starter.poll() is None for starter in starters) == 1)
    serving = next(starter for starter in starters if starter.poll() is None)
    refused = [starter for starter in starters if starter is not serving]
    with stopped_daemon.client() as client:
        until(stopped_daemon_answers(client))
        assert client.call("ping")["pid"] == serving.pid
    for starter in refused:
        assert starter.returncode == 1
        assert f"pid {serving.pid}" in starter.communicate()[1].decode()
    serving.terminate()
    serving.communicate(timeout=10)


def stopped_daemon_answers(client: object):  # type: ignore[no-untyped-def]
    def answers() -> bool:
        try:
            return bool(client.call("ping"))  # type: ignore[attr-defined]
        except Exception:
            return False

    return answers


def test_a_client_waits_through_a_restart(daemon: Daemon) -> None:
    with daemon.client() as client:
        job = client.submit(["sleep", "100"])
        daemon.kill()
        daemon.start()
        assert client.job(job)["id"] == job


def _is_launcher(pid: int) -> bool:
    return b"gpuq.daemon.attempt.launcher" in _words(pid)


def _is_probe(pid: int) -> bool:
    return b"gpuq.daemon.gpus.probe" in _words(pid)


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_who_follows_a_log_misses_nothing_through_a_restart(daemon: Daemon, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo one; while [ ! -e {go} ]; do sleep 0.02; done; echo two; exit 5"
    following = _follow(daemon, script)
    with daemon.client() as client:
        client.call("stop", restart=True)
    assert daemon.process is not None
    daemon.process.wait(10)
    daemon.start()
    go.touch()
    out, _ = following.communicate(timeout=30)
    assert (out, following.returncode) == ("two\n", 5)


def test_who_follows_is_told_when_the_daemon_is_stopped(daemon: Daemon) -> None:
    following = _follow(daemon, "echo one; sleep 300")
    daemon.stop()
    _, err = following.communicate(timeout=10)
    assert following.returncode == 125, "gpuq's own failure, not the job's"
    assert "the daemon was stopped" in err


def _follow(daemon: Daemon, script: str) -> "subprocess.Popen[str]":
    """`gpuq run` of a script that says "one" and then goes on."""
    following = subprocess.Popen(
        [BIN / "gpuq", "run", "--", "sh", "-c", script],
        env=daemon.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    assert following.stdout.readline() == "one\n"
    return following


def test_whenever_the_daemon_is_killed_each_job_runs_once(daemon: Daemon, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    ran.mkdir()
    moments = random.Random(7)
    codes = {}
    with daemon.client() as client:
        for number in range(100):
            code = number % 5
            script = f"echo x >> {ran}/$GPUQ_JOB_ID; sleep 0.0{number % 7}; exit {code}"
            codes[client.submit(["sh", "-c", script], gpus=number % 3)] = code
            if number % 10 == 9:
                time.sleep(moments.random() * 0.1)
                daemon.kill()
                daemon.start()
        ended = client.wait([f"1-{len(codes)}"], timeout_s=60)
        assert {job["id"]: job["exit_code"] for job in ended} == codes
        assert {file.name: file.read_text() for file in ran.iterdir()} == {
            str(number): "x\n" for number in codes
        }
        seqs, since = [], 0
        while page := client.call("events", since=since)["events"]:
            seqs += [event["seq"] for event in page]
            since = seqs[-1]
    assert seqs == list(range(1, len(seqs) + 1)), "no event is missing"
