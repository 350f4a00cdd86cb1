"""Jobs that make it hard to end them, or that turn against those who look after them."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuq.client import Client
from gpuq.daemon.linux import cgroup, processes
from tests.acceptance.faults.conftest import FaultyDaemon, MakeDaemon
from tests.conftest import until

MIB = 2**20
DEAF = "trap '' TERM; while :; do sleep 0.05; done"

# Fifty lines of descent that hear no TERM; each lives on only in its children, a thousand of them
# in a second.
STORM = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(50):
    if not os.fork():
        while True:
            time.sleep(0.02 + os.getpid() % 7 / 100)  # out of step with each other
            if os.fork():
                os._exit(0)
open(os.environ["GPUQ_OUTPUT_DIR"] + "/storm", "w").close()
while True:
    time.sleep(60)
"""

# The main thread goes; the process, a zombie at the first look, is alive in another.
HEADLESS = """
import ctypes, os, threading, time
def live_on():
    time.sleep(0.1)
    open(os.environ["GPUQ_OUTPUT_DIR"] + "/lives", "w").close()
    time.sleep(300)
threading.Thread(target=live_on).start()
ctypes.CDLL(None).pthread_exit(None)
"""

# At once, and for as long as it takes to look at it twice.
FLOODS = [
    f"""
import sys, time
for number in range(100_000):
    print(f"line {{number:05}}", "." * 50)
    if number % 10_000 == 0:
        time.sleep({pause_s})
sys.exit(6)
"""
    for pause_s in (0, 0.1)
]


@pytest.fixture(params=["auto", "none"])
def daemon(make: MakeDaemon, request: pytest.FixtureRequest, tmp_path: Path) -> FaultyDaemon:
    """With a control group for each job, and without any."""
    if request.param == "auto":
        root = cgroup.find_root(str(tmp_path))
        if root is None:
            pytest.skip("no control groups are to be had here: that takes root, or Delegate=yes")
        cgroup.remove_root(root)
    return make("--cgroup", request.param)


def test_a_job_that_ignores_term(daemon: FaultyDaemon) -> None:
    with daemon.client() as client:
        job = client.submit(**daemon.job(DEAF, gpus=2))
        daemon.at_work(job)
        client.kill([job], grace_s=0.3)
        ended = client.wait([job], timeout_s=10)[0]
    assert (ended["outcome"], ended["signal"]) == ("cancelled", signal.SIGKILL)


def test_a_grandchild_that_left_its_session_and_ignores_term(daemon: FaultyDaemon) -> None:
    """And its environment with the mark; and its parents are dead, so that it is init's for all it
    knows."""
    pid_file = daemon.folder / "pid"
    grandchild = f"setsid env -i sh -c 'echo $$ > {pid_file}; {DEAF.replace(chr(39), chr(34))}'"
    with daemon.client() as client:
        job = client.submit(**daemon.job(f"({grandchild} & ) & sleep 300", gpus=2))
        until(lambda: pid_file.exists() and pid_file.read_text(), "the grandchild")
        client.kill([job], grace_s=0.3)
        assert client.wait([job], timeout_s=10)[0]["outcome"] == "cancelled"
    assert processes.identity(int(pid_file.read_text())) is None


def test_a_storm_of_forks_is_ended_at_once(daemon: FaultyDaemon, say: Callable[..., None]) -> None:
    with daemon.client() as client:
        job = client.submit([sys.executable, "-c", STORM], gpus=2)
        storm = until(lambda: client.job(job)["output_dir"], "the job")
        until(lambda: Path(storm, "storm").exists(), "the storm")
        time.sleep(0.3)
        began = time.monotonic()
        client.kill([job], grace_s=0)
        assert client.wait([job], timeout_s=30)[0]["outcome"] == "cancelled"
        say(ended_in=f"{time.monotonic() - began:.1f} s")


def test_a_process_without_its_main_thread_is_alive_and_is_ended(daemon: FaultyDaemon) -> None:
    with daemon.client() as client:
        job = client.submit([sys.executable, "-c", HEADLESS], gpus=2)
        lives = until(lambda: client.job(job)["output_dir"], "the job")
        until(lambda: Path(lives, "lives").exists(), "the other thread")
        client.kill([job], grace_s=5)
        ended = client.wait([job], timeout_s=10)[0]
    assert (ended["outcome"], ended["signal"]) == ("cancelled", signal.SIGTERM)


def test_a_job_that_kills_its_own_runner(daemon: FaultyDaemon) -> None:
    with daemon.client() as client:
        job = client.submit(
            **daemon.job(f"(setsid env -i sh -c 'sleep 300' &); kill -9 $PPID; {DEAF}", gpus=2)
        )
        ended = client.wait([job], timeout_s=20)[0]
    assert ended["outcome"] == "lost"
    assert "its runner" in ended["reason"]


def test_a_job_of_which_all_that_looked_after_it_is_killed_at_once(daemon: FaultyDaemon) -> None:
    """As by somebody who kills whatever is called python."""
    with daemon.client() as client:
        job = client.submit(
            **daemon.job(f"(setsid sh -c 'sleep 300' &); sleep 300 & {DEAF}", gpus=2)
        )
        daemon.at_work(job)
        runner = daemon.runner_of(job)
        until(lambda: len(processes.descendants(runner)) >= 4, "all of its processes")
        of_job = processes.descendants(runner)
        os.kill(daemon.pid, signal.SIGSTOP)  # so that it is not the one who notices
        for pid in sorted(daemon.family(), key=lambda pid: pid == daemon.pid):
            os.kill(pid, signal.SIGKILL)
        daemon.kill()
        assert any(processes.is_alive(*one) for one in of_job.items()), "there is something to do"
        daemon.start()
        ended = client.wait([job], timeout_s=10)[0]
    assert ended["outcome"] == "lost"
    assert not [pid for pid, start in of_job.items() if processes.is_alive(pid, start)]


def test_a_lost_attempt_is_gone_before_the_next_one_begins(daemon: FaultyDaemon) -> None:
    first = f"echo $$ > {daemon.folder}/pid; kill -9 $PPID; {DEAF}"
    look = f"{{ read pid name state rest < /proc/$(cat {daemon.folder}/pid)/stat; }} 2>/dev/null"
    second = f"state=; {look}; [ -z $state ] || [ $state = Z ] || exit 9; exit 0"
    with daemon.client() as client:
        script = f"if [ $GPUQ_ATTEMPT = 1 ]; then {first}; fi; {second}"
        job = client.submit(**daemon.job(script, gpus=2, retries=1, backoff="0s"))
        ended = client.wait([job], timeout_s=20)[0]
    assert (ended["outcome"], ended["attempt"]) == ("succeeded", 2)


# ── on one daemon ──


@pytest.fixture
def plain(make: MakeDaemon) -> FaultyDaemon:
    return make("--log-cap", "1M")


def test_a_job_that_closes_its_output(plain: FaultyDaemon) -> None:
    with plain.client() as client:
        job = client.submit(**plain.job("exec 1>&- 2>&-; echo lost; exit 5"))
        assert client.wait([job], timeout_s=10)[0]["exit_code"] == 5


def test_a_job_that_fills_its_log(plain: FaultyDaemon) -> None:
    """Head and tail are kept, and the disk is used up to the cap."""
    with plain.client() as client:
        jobs = [client.submit([sys.executable, "-c", text], gpus=0) for text in FLOODS]
        for ended in client.wait(jobs, timeout_s=30):
            assert ended["exit_code"] == 6
            log = Path(ended["log"])
            assert log.stat().st_size > 6_000_000, "offsets mean what they meant"
            assert log.stat().st_blocks * 512 <= MIB
            with log.open("rb") as file:
                assert file.readline().startswith(b"line 00000 ")
                file.seek(-62, os.SEEK_END)
                assert file.readline().startswith(b"line 99999 ")


def test_a_job_that_removes_its_directories(plain: FaultyDaemon) -> None:
    """Its own and its runner's, before and while it is looked for."""
    away = f"rm -rf {plain.state}/jobs/$GPUQ_JOB_ID {plain.state}/attempts/$GPUQ_JOB_ID.*"
    with plain.client() as client:
        jobs = client.submit_many(
            [
                plain.job(f"{away}; echo more; exit 7", gpus=2),
                plain.job(f"{away}; sleep 300", gpus=2, heartbeat_s=1, grace_s=1),
                plain.job("exit 8", gpus=2),
            ]
        )
        ended = client.wait(jobs, timeout_s=20)
    assert ended[0]["exit_code"] == 7
    assert ended[1]["outcome"] == "timed_out"
    assert ended[2]["exit_code"] == 8


def test_a_job_that_stops_its_runner(plain: FaultyDaemon) -> None:
    """Nobody tells of its end then: it is a zombie, for the next daemon too. But it can be ended."""
    with plain.client() as client:
        job, _ = _stop_runner_and_exit(plain, client)
        client.kill([job], grace_s=5)
        ended = client.wait([job], timeout_s=10)[0]
    assert (ended["outcome"], ended["exit_code"]) == ("cancelled", 9)


def test_a_main_process_that_is_a_zombie_while_daemons_change(plain: FaultyDaemon) -> None:
    """It proves nothing but its own end: its runner, once it goes on, knows the code."""
    with plain.client() as client:
        job, runner = _stop_runner_and_exit(plain, client)
        processes.send(runner, signal.SIGCONT, start=(processes.identity(runner) or (0, 0))[1])
        ended = client.wait([job], timeout_s=10)[0]
    assert (ended["outcome"], ended["exit_code"]) == ("failed", 9)


def _stop_runner_and_exit(daemon: FaultyDaemon, client: Client) -> tuple[int, int]:
    """(job, runner): the main process has ended since, and its daemon has been replaced."""
    go = daemon.folder / "go"
    hold = f"while [ ! -e {go} ]; do sleep 0.02; done"
    job = client.submit(**daemon.job(f"{hold}; kill -STOP $PPID; exit 9", gpus=2))
    daemon.at_work(job)
    runner, main = daemon.runner_of(job), client.job(job)["pid"]
    go.touch()
    until(lambda: processes.identity(main) is None, "its end, as a zombie")
    daemon.kill()
    daemon.start()
    assert client.job(job)["state"] == "running"
    return job, runner


def test_a_job_that_kills_the_daemon_and_the_launcher(plain: FaultyDaemon) -> None:
    family = f"{plain.one('launcher')} {plain.one('probe')} {plain.pid}"
    with plain.client() as client, plain.kept():
        jobs = client.submit_many([plain.job(f"kill -9 {family}; exit 5", gpus=2), plain.job()])
        ended = client.wait(jobs, timeout_s=20)
    assert plain.deaths == 1
    assert [job["exit_code"] for job in ended] == [5, 0]
    assert plain.runs(*jobs) == [f"{job}.1" for job in jobs]
