"""A job that saves when it is told to give way, and goes on from there: with the true daemon."""

import json
from pathlib import Path

import pytest

from tests.conftest import Daemon, until

# Counts to 40 in steps that take a while, and keeps in its own directory how far it came.
TRAINER = """
import os, signal, sys, time
from pathlib import Path
saved = Path("checkpoint")
step = int(saved.read_text()) if saved.exists() else 0
print(f"attempt {os.environ['GPUQ_ATTEMPT']} goes on from step {step}", flush=True)
told = []
number = getattr(signal, "SIG" + os.environ["GPUQ_PREEMPT_SIGNAL"])
signal.signal(number, lambda *_: told.append(True))
while step < 40:
    time.sleep(0.05)
    step += 1
    if told:
        saved.write_text(str(step))
        print(f"saved at step {step}", flush=True)
        sys.exit(0)
    Path("step").write_text(str(step))
print("done", flush=True)
"""


@pytest.fixture
def busy(stopped_daemon: Daemon) -> Daemon:
    return stopped_daemon.start("--preempt-after", "0s")


def _train(daemon: Daemon, folder: Path, *options: str) -> str:
    (folder / "train.py").write_text(TRAINER)
    words = ["submit", "-g", "4", "--preemptible", "--preempt-signal", "USR1", *options]
    said = daemon.gpuq(*words, "-C", str(folder), "--", "python3", "train.py")
    assert said.returncode == 0, said.stderr
    until((folder / "step").exists, "its first step")
    return said.stdout.strip()


def test_it_goes_on_from_where_it_was_once_the_urgent_one_is_done(
    busy: Daemon, tmp_path: Path
) -> None:
    job = _train(busy, tmp_path)
    urgent = busy.gpuq("run", "-p", "10", "--", "sh", "-c", "echo urgent")
    assert (urgent.returncode, urgent.stdout) == (0, "urgent\n")
    assert busy.gpuq("wait", job, "--timeout", "60s").returncode == 0
    first = busy.gpuq("logs", job, "--attempt", "1").stdout
    second = busy.gpuq("logs", job, "--attempt", "2").stdout
    step = first.split("saved at step ")[1].strip()
    assert first.startswith("attempt 1 goes on from step 0\n")
    assert 0 < int(step) < 40
    assert second == f"attempt 2 goes on from step {step}\ndone\n"
    (shown,) = json.loads(busy.gpuq("status", job, "--json").stdout)["jobs"]
    assert (shown["outcome"], shown["attempt"], shown["preemptions"]) == ("succeeded", 2, 1)
    page = busy.gpuq("show", job).stdout
    assert "gave way to 2 (priority 10): exit code 0" in page
    told = busy.gpuq("events", job).stdout
    assert "gives way to 2 (priority 10)" in told


def test_a_crash_of_the_daemon_while_it_saves_changes_nothing(busy: Daemon, tmp_path: Path) -> None:
    job = _train(busy, tmp_path, "--grace", "60s")
    with busy.client() as client:
        number = client.submit(["true"], gpus=1, priority=10)
        until(lambda: client.job(int(job))["reason"], "it to be told")
    busy.kill()
    busy.start("--preempt-after", "0s")
    with busy.client() as client:
        (urgent,) = client.wait([number], timeout_s=30)
        assert urgent["outcome"] == "succeeded"
        (ended,) = client.wait([int(job)], timeout_s=60)
        assert (ended["outcome"], ended["preemptions"]) == ("succeeded", 1)
        assert urgent["started_at"] < ended["started_at"]


def test_the_line_that_submits_it_again_makes_it_give_way_as_well(
    busy: Daemon, tmp_path: Path
) -> None:
    job = _train(busy, tmp_path)
    assert "--preemptible --preempt-signal USR1" in busy.gpuq("show", job).stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--preempt-signal", "USR1"], "Add --preemptible"),
        (["--preemptible", "--preempt-signal", "KILL"], "no program hears of SIGKILL"),
        (["--preemptible", "--preempt-signal", "NONE"], "'NONE' is no signal"),
    ],
)
def test_a_signal_that_cannot_be_heard_is_refused(
    busy: Daemon, options: list[str], says: str
) -> None:
    refused = busy.gpuq("submit", *options, "--", "true")
    assert refused.returncode == 2
    assert says in refused.stderr
