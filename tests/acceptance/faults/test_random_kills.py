"""Thirty times kill -9 at no chosen moment, under a load of three hundred jobs."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

from gpuq.client import Client
from tests.acceptance.faults.conftest import FaultyDaemon, MakeDaemon, assert_checked

JOBS, KILLS, SEED = 300, 30, 20


def test_thirty_kills_under_three_hundred_jobs_lose_and_double_nothing(
    make: MakeDaemon, say: Callable[..., None]
) -> None:
    """The submitting client knows nothing of all this: it waits for a daemon that is away. One job
    in ten fails at first and is tried again; the others take CPU slots or GPUs."""
    moments = random.Random(SEED)
    began = time.monotonic()
    daemon = make("--cpu-slots", "4")
    codes: dict[int, int] = {}
    with daemon.client() as client, daemon.client() as other, daemon.kept():
        submitter = threading.Thread(target=_submit_all, args=(other, daemon, codes))
        submitter.start()
        for _ in range(KILLS):
            time.sleep(moments.random() * 0.8)
            _kill(daemon)
        submitter.join()
        ended = client.wait([f"1-{JOBS}"], timeout_s=60)
    took_s = time.monotonic() - began
    runs = daemon.runs(*codes)
    doubled = [run for run, times in Counter(runs).items() if times > 1]
    wrong = [job["id"] for job in ended if job["exit_code"] != codes[job["id"]]]
    with daemon.database() as db:
        counts = dict(db.execute("select kind, count(*) from events group by kind"))
        tries = db.execute("select job || '.' || attempt from attempts").fetchall()
    say(
        tried=daemon.deaths,
        jobs=len(codes),
        kills=daemon.deaths,
        attempts=len(tries),
        returned=counts.get("returned", 0),
        run_twice=len(doubled),
        wrong_codes=len(wrong),
        seconds=f"{took_s:.1f}",
    )
    assert list(codes) == list(range(1, JOBS + 1)), "one job for each submit, and no other"
    assert [job["id"] for job in ended] == list(codes)
    assert (doubled, wrong) == ([], [])
    assert sorted(runs) == sorted(run for (run,) in tries), "each attempt ran, and nothing else"
    assert_checked(daemon)


def _submit_all(client: Client, daemon: FaultyDaemon, codes: dict[int, int]) -> None:
    """Ten for each death, so that none comes when all is done."""
    for number in range(JOBS):
        while number >= JOBS // KILLS * (daemon.deaths + 1):
            time.sleep(0.005)
        codes[client.submit(**_job(daemon, number))] = _code(number)


def _job(daemon: FaultyDaemon, number: int) -> dict[str, object]:
    if number % 10 == 9:
        return daemon.job("exit $((2 - GPUQ_ATTEMPT))", retries=1, backoff="0.05s")
    return daemon.job(f"exit {_code(number)}", gpus=number % 3)


def _code(number: int) -> int:
    return 0 if number % 10 == 9 else number % 7


def _kill(daemon: FaultyDaemon) -> None:
    """Whatever it is doing, and were it only starting; who keeps it starts the next one."""
    deaths = daemon.deaths
    os.kill(daemon.pid, signal.SIGKILL)
    while daemon.deaths == deaths:
        time.sleep(0.001)
