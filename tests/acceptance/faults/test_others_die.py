"""kill -9 of those around the daemon, and of a daemon that has hardly begun."""

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable

import pytest

from gpuq.daemon.linux import processes
from tests.acceptance.faults.conftest import FaultyDaemon, MakeDaemon, assert_all_well
from tests.conftest import until

TIMES, BEGINNINGS = 2, 5
CHAIN, RUNNER_KILLS, SEED = 200, 25, 9


@pytest.mark.parametrize("victim", ["launcher", "probe", "runner"])
def test_who_serves_the_daemon_is_replaced_and_no_job_notices(
    faulty: FaultyDaemon, victim: str, say: Callable[..., None]
) -> None:
    """The runner is the one that waits at its gate."""
    go = faulty.folder / "go"
    with faulty.client() as client:
        held = client.submit(**faulty.job(f"while [ ! -e {go} ]; do sleep 0.02; done; exit 9"))
        faulty.at_work(held)
        own = faulty.runner_of(held)
        for number in range(TIMES):
            os.kill(_find(faulty, victim, but=own), signal.SIGKILL)
            jobs = client.submit_many([faulty.job(f"exit {number}", gpus=gpus) for gpus in (0, 2)])
            codes = [job["exit_code"] for job in client.wait(jobs, timeout_s=30)]
            assert codes == [number, number]
        go.touch()
        assert client.wait([held], timeout_s=10)[0]["exit_code"] == 9
    everyone = range(held, jobs[-1] + 1)
    assert sorted(faulty.runs(*everyone)) == sorted(f"{job}.1" for job in everyone)
    say(tried=TIMES)


def test_runners_may_die_between_their_jobs_and_in_them(
    make: MakeDaemon, say: Callable[..., None]
) -> None:
    """A job is lost if its own runner died while it ran; all others end with their own codes, and none
    runs twice."""
    moments, daemon = random.Random(SEED), make("--cpu-slots", "3")
    began: dict[int, int] = {}
    with daemon.client() as client:
        jobs = client.submit_many([daemon.job(f"exit {n % 7}") for n in range(CHAIN)])
        while len(began) < RUNNER_KILLS and client.jobs([str(jobs[-1])])[0]["state"] != "ended":
            time.sleep(moments.random() * 0.05)
            pids = [pid for pid in daemon.family() if daemon.kind(pid) == "runner"]
            pid = moments.choice(pids) if pids else 0
            own = processes.identity(pid) if pid else None
            if own is not None and processes.send(pid, signal.SIGKILL, start=own[1]):
                began[pid] = own[1]
        ended = client.wait(jobs, timeout_s=60)
    with daemon.database() as db:
        asked = "select job, runner_pid, runner_start from attempts"
        killed = {job for job, *own in db.execute(asked) if began.get(own[0]) == own[1]}
    lost = [job["id"] for job in ended if job["outcome"] == "lost"]
    wrong = [job["id"] for n, job in enumerate(ended) if job["exit_code"] not in (n % 7, None)]
    assert set(lost) <= killed
    assert [job["id"] for job in ended if job["exit_code"] is None] == lost
    assert wrong == []
    assert max(Counter(daemon.runs(*jobs)).values()) == 1
    say(tried=len(began), lost=len(lost))


def _find(daemon: FaultyDaemon, kind: str, *, but: int) -> int:
    """A process of that kind, which may have been replaced a moment ago."""

    def look() -> list[int]:
        return [pid for pid in daemon.family() if pid != but and daemon.kind(pid) == kind]

    return int(until(look, kind)[0])


def test_a_daemon_whose_heart_fails_ends_and_the_next_one_takes_over(make: MakeDaemon) -> None:
    """One that lived on without it would answer everybody and do nothing: the worst state of all."""
    failing = """
from gpuq.daemon.chronicle import Chronicle
from gpuq.daemon.supervisor import Exited
write_down = Chronicle.write_down
def fail_at_an_end(self):
    if any(isinstance(news, Exited) for news in self.inbox):
        raise RuntimeError("a fault of ours")
    return write_down(self)
Chronicle.write_down = fail_at_an_end
from gpuq.daemon.main import main
main()
"""
    daemon = make(start=False)
    sound, daemon.program = daemon.program, [sys.executable, "-P", "-c", failing]
    daemon.start()
    with daemon.client() as client:
        job = client.submit(**daemon.job("exit 3", gpus=2))
        assert daemon.process is not None
        assert daemon.process.wait(10) != 0
        assert "a fault of ours" in daemon.log.read_text()
        daemon.log.write_text("")  # it has been read
        daemon.program = sound
        daemon.start()
    with daemon.client() as client:
        assert client.wait([job], timeout_s=10)[0]["exit_code"] == 3


def test_a_daemon_may_die_while_it_makes_its_first_database(
    make: MakeDaemon, say: Callable[..., None]
) -> None:
    """Later and later, until one has done all that there is to do at the beginning."""
    for number in range(BEGINNINGS):
        daemon = make(start=False)
        daemon.spawn()
        time.sleep(0.1 + 0.2 * number / BEGINNINGS)
        daemon.kill()
        daemon.start()
        assert_all_well(daemon)
        daemon.end()
    say(tried=BEGINNINGS)
