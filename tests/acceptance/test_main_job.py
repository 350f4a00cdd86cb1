"""From submit to outcome, through the whole house, as a person or a script sees it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpuq.errors import UsageError
from tests.conftest import Daemon, until

TREE = """
import os, signal, subprocess, sys, time
# Ten sleepers in a chain of shells, and one that does all it can to get away.
for _ in range(5):
    subprocess.Popen(["sh", "-c", "sleep 300 & wait"])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(300)
    os._exit(0)
time.sleep(300)
"""


def test_a_job_runs_and_its_outcome_is_told(daemon: Daemon) -> None:
    ran = daemon.gpuq("run", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert ran.returncode == 7
    assert ran.stdout == "out\nerr\n"
    job = json.loads(daemon.gpuq("show", "--json", "@").stdout)["jobs"][0]
    assert (job["state"], job["outcome"], job["exit_code"]) == ("ended", "failed", 7)
    assert job["gpus"] == [0]


def test_run_passes_on_what_a_shell_would(daemon: Daemon) -> None:
    assert daemon.gpuq("run", "--", "true").returncode == 0
    assert daemon.gpuq("run", "--", "no-such-program").returncode == 127
    assert daemon.gpuq("run", "--", "/etc/passwd").returncode == 126
    assert daemon.gpuq("run", "--", "sh", "-c", "kill -KILL $$").returncode == 137


def test_what_can_never_run_is_refused_and_nothing_is_queued(daemon: Daemon) -> None:
    refused = daemon.gpuq("submit", "--gpus", "9", "true")
    assert refused.returncode == 6
    assert "this machine has 4 GPUs" in refused.stderr
    assert daemon.gpuq("status", "--all").stdout == ""


def test_a_job_finds_its_gpus_and_nothing_of_the_daemon(daemon: Daemon) -> None:
    with daemon.client() as client:
        job = client.submit(["env"], gpus=2, env={"MINE": "a b\nc"})
        log = Path(client.wait([job])[0]["log"]).read_text()
    found = dict(line.split("=", 1) for line in log.splitlines() if "=" in line)
    assert found["GPUQ_GPU_INDICES"] == "0,1"
    # Simulated GPUs never name a card that this machine may have.
    assert found["CUDA_VISIBLE_DEVICES"] == found["GPUQ_GPU_UUIDS"]
    assert found["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert found["MINE"] == "a b"
    assert "GPUQ_AUTOSTART" not in found
    assert "GPUQ_STATE_DIR" not in found


def test_a_job_without_gpus_sees_none_and_runs_beside_others(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.submit(["sleep", "100"], gpus=4)
        job = client.submit(["sh", "-c", 'echo "<$CUDA_VISIBLE_DEVICES>"'], gpus=0)
        assert Path(client.wait([job])[0]["log"]).read_text() == "<>\n"


def test_a_slip_in_python_is_refused_and_nothing_is_queued(daemon: Daemon) -> None:
    with daemon.client() as client:
        with pytest.raises(UsageError, match="argv is a list of words"):
            client.submit("python train.py")
        with pytest.raises(UsageError, match="a size stands in gpu_mem_bytes"):
            client.submit(["true"], gpu_mem="10G")
        with pytest.raises(UsageError, match="did you mean gpus"):
            client.submit(["true"], gpu=3)
        assert client.jobs(all=True) == []


def test_a_limit_holds_over_pages(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.submit(["sleep", "100"], gpus=4)
        client.submit_many([{"argv": ["true"]}] * 800)
        assert len(client.jobs(limit=700)) == 700


def test_a_machine_without_gpus_says_so_and_runs_what_needs_none(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, "none").start()
    try:
        ran = daemon.gpuq("run", "--", "sh", "-c", "echo $GPUQ_GPU_INDICES.")
        assert ran.stdout == ".\n"
        assert "this machine has no GPU, so the job gets none" in ran.stderr
        refused = daemon.gpuq("submit", "-g", "1", "true")
        assert refused.returncode == 6
        assert "this machine has no GPU" in refused.stderr
    finally:
        daemon.end()


def test_a_waiting_job_says_why(daemon: Daemon) -> None:
    with daemon.client() as client:
        holder = client.submit(["sleep", "100"], gpus=3)
        waiting = client.submit(["sleep", "100"], gpus=2)
        until(lambda: client.job(holder)["state"] == "running")
        reason = client.job(waiting)["reason"]
    assert reason == f"wants 2 GPUs, 1 free (in use by job {holder})"


def test_jobs_share_a_gpu_by_what_they_declare(daemon: Daemon) -> None:
    with daemon.client() as client:
        jobs = [{"argv": ["sleep", "100"], "gpu_mem_bytes": 5 * 2**30} for _ in range(20)]
        client.submit_many(jobs)
        until(lambda: sum(job["state"] == "running" for job in client.jobs()) == 16)
        gpus = client.gpus()["gpus"]
        waiting = [job["id"] for job in client.jobs() if job["state"] == "queued"]
        assert len(waiting) == 4
        why = "wants 1 GPU with 5G, 0 free"
        until(lambda: why in client.job(waiting[0])["reason"], "to be told why it waits")
    assert [len(gpu["jobs"]) for gpu in gpus] == [4, 4, 4, 4]


def test_a_simulated_gpu_shows_the_memory_that_jobs_on_it_declare(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.submit(["sleep", "100"], gpu_mem_bytes=6 * 2**30)
        until(lambda: client.gpus()["gpus"][0]["memory_used_bytes"] == 6 * 2**30)
        assert all(gpu["simulated"] for gpu in client.gpus()["gpus"])


def test_fifty_processes_submit_five_hundred_jobs_at_once(daemon: Daemon) -> None:
    script = "from gpuq import Client\nq = Client()\nfor _ in range(10): print(q.submit(['true']))"
    submitters = [
        subprocess.Popen(
            [sys.executable, "-c", script], env=daemon.environment, stdout=subprocess.PIPE
        )
        for _ in range(50)
    ]
    ids = []
    for submitter in submitters:
        out, _ = submitter.communicate(timeout=60)
        assert submitter.returncode == 0
        ids += [int(line) for line in out.split()]
    assert sorted(ids) == list(range(1, 501))
    with daemon.client() as client:
        ended = client.wait(["1-500"], timeout_s=60)
        assert {job["outcome"] for job in ended} == {"succeeded"}
        started = _events(client, "starting")
    assert started == list(range(1, 501)), "they start in the order of their ids, each once"


def test_kill_ends_a_tree_and_who_tries_to_get_away(daemon: Daemon, tmp_path: Path) -> None:
    escaped = tmp_path / "escaped"
    with daemon.client() as client:
        job = client.submit([sys.executable, "-c", TREE, str(escaped)], grace_s=0.5)
        until(lambda: len(_processes_of(daemon, job)) >= 12 and escaped.exists())
        tree = _processes_of(daemon, job)
        client.kill([job])
        ended = client.wait([job], timeout_s=20)[0]
    assert ended["outcome"] == "cancelled"
    assert int(escaped.read_text()) in tree
    assert _processes_of(daemon, job) == []


def test_kill_now_does_not_wait(daemon: Daemon) -> None:
    with daemon.client() as client:
        job = client.submit(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
        until(lambda: client.job(job)["state"] == "running")
        before = time.monotonic()
        client.kill([job], grace_s=0)
        client.wait([job], timeout_s=5)
    assert time.monotonic() - before < 3


def test_a_signal_by_hand_reaches_the_job_and_does_not_end_it(daemon: Daemon) -> None:
    script = "trap 'echo heard' USR1; echo ready; while :; do sleep 0.05; done"
    with daemon.client() as client:
        job = client.submit(["sh", "-c", script])
        log = until(lambda: client.job(job)["log"])
        until(lambda: "ready" in _text(log))
        assert daemon.gpuq("kill", "--signal", "usr1", str(job)).returncode == 0
        until(lambda: "heard" in _text(log))
        assert client.job(job)["state"] == "running"


def test_a_cancelled_job_never_starts(daemon: Daemon, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    with daemon.client() as client:
        client.submit(["sleep", "100"], gpus=4)
        job = client.submit(["touch", str(witness)])
        client.kill([job])
        assert client.wait([job], timeout_s=5)[0]["outcome"] == "cancelled"
    assert not witness.exists()


def test_a_hundred_thousand_blocked_jobs_hide_nobody(daemon: Daemon) -> None:
    with daemon.client() as client:
        slots = os.cpu_count() or 1
        client.submit(["sleep", "1000"], gpus=0, cpus=slots)
        blocked = {"argv": ["true"], "gpus": 0}
        for _ in range(10):
            client.submit_many([blocked] * 10_000)
        behind = client.submit(["true"], gpus=1)
        assert behind == 100_002
        assert client.wait([behind], timeout_s=10)[0]["outcome"] == "succeeded"
        assert client.job(50_000)["reason"] == "behind 2"
        assert client.job(50_000)["place"] == 49_999
        client.kill(["1-100002"], grace_s=0)
        client.wait([100_001], timeout_s=60)


def test_while_nothing_changes_nothing_turns(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.submit(["sleep", "100"], gpus=3)
        client.submit(["sleep", "100"], gpus=2)  # one that waits: the GPUs are read every second
        until(lambda: client.call("ping")["counts"]["running"] == 1)
        client.call("status", after_turn=True)
        time.sleep(0.5)  # the reading that the start asked for
        turns, size = client.call("ping")["turns"], _bytes_written(daemon.pid)
        time.sleep(2.5)
        assert client.call("ping")["turns"] == turns
        assert _bytes_written(daemon.pid) == size


def _bytes_written(pid: int) -> str:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(line for line in lines if line.startswith("write_bytes"))


def _events(client: object, kind: str) -> list[int]:
    found, since = [], 0
    while page := client.call("events", since=since)["events"]:  # type: ignore[attr-defined]
        found += [event["job"] for event in page if event["kind"] == kind]
        since = page[-1]["seq"]
    return found


def _processes_of(daemon: Daemon, job: int) -> list[int]:
    """Processes of that job alone, by the environment they were started with."""
    found = []
    for pid, _ in daemon.left():
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"GPUQ_JOB_ID=%d" % job in environ:
            found.append(pid)
    return found


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""
