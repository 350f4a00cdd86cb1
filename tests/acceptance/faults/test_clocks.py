"""Limits, pauses and waits between attempts go on being right while daemons die."""

import itertools
import time
from collections.abc import Callable

import pytest

from tests.acceptance.faults.conftest import FaultyDaemon, MakeDaemon
from tests.conftest import until

LIMIT_S = 1.5
AT_ONCE_S = 1.0
PUNCTUAL_S = 0.3


@pytest.fixture
def daemon(make: MakeDaemon) -> FaultyDaemon:
    return make("--cpu-slots", "8")


def test_what_is_due_while_no_daemon_is_there_is_done_by_the_next_at_once(
    daemon: FaultyDaemon,
) -> None:
    """And what stood still, or has reported meanwhile, is not due."""
    go = daemon.folder / "go"
    hold, beat = f"while [ ! -e {go} ]", "do echo beat >> $GPUQ_REPORT; sleep 0.2; done"
    count = f"do echo >> {daemon.folder}/count; sleep 0.05; done"
    with daemon.client() as client:
        late, silent, beating, paused = client.submit_many(
            [
                daemon.job("sleep 300", time_limit_s=LIMIT_S),
                daemon.job("echo once >> $GPUQ_REPORT; sleep 300", heartbeat_s=LIMIT_S),
                daemon.job(f"{hold}; {beat}; exit 3", heartbeat_s=LIMIT_S),
                daemon.job(f"{hold}; {count}; exit 4", time_limit_s=LIMIT_S, heartbeat_s=LIMIT_S),
            ]
        )
        for job in (late, silent, beating, paused):
            daemon.at_work(job)
        client.call("pause", refs=[str(paused)])
        until(lambda: client.job(paused)["substate"] == "paused", "the pause")
        daemon.kill()
        before = (daemon.folder / "count").stat().st_size
        time.sleep(LIMIT_S + 0.5)
        daemon.start()
        for ended in client.wait([late, silent], timeout_s=AT_ONCE_S):
            assert ended["outcome"] == "timed_out"
        assert client.job(beating)["state"] == "running"
        assert client.job(paused)["substate"] == "paused"
        assert (daemon.folder / "count").stat().st_size == before, "it stands still"
        client.call("pause", refs=[str(paused)], off=True)
        until(lambda: (daemon.folder / "count").stat().st_size > before, "its going on")
        go.touch()
        codes = [job["exit_code"] for job in client.wait([beating, paused], timeout_s=10)]
    assert codes == [3, 4]


def test_a_wait_between_attempts_is_as_long_whoever_dies_in_it(
    daemon: FaultyDaemon, say: Callable[..., None]
) -> None:
    waits = (1.2, 1.6)  # long enough for a daemon to begin on a busy machine
    with daemon.client() as client:
        backoff = ",".join(f"{wait}s" for wait in waits)
        job = client.submit(**daemon.job("exit 1", retries=2, backoff=backoff))
        for attempt in (1, 2):
            until(lambda n=attempt: client.job(job)["attempt"] == n, "the attempt")
            until(lambda: client.job(job)["substate"] == "backoff", "the wait after it")
            daemon.kill()
            daemon.start()
        assert client.wait([job], timeout_s=10)[0]["attempt"] == 3
    with daemon.database() as db:
        times = db.execute("select ended_at, started_at from attempts order by attempt").fetchall()
    gaps = [later[1] - earlier[0] for earlier, later in itertools.pairwise(times)]
    late = [gap - wait for gap, wait in zip(gaps, waits, strict=True)]
    say(tried=2, late_by=" and ".join(f"{seconds * 1000:.0f} ms" for seconds in late))
    assert all(0 <= seconds < PUNCTUAL_S for seconds in late)
