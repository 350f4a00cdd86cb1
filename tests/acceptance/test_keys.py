"""A key is one submission's at a time, whoever asks at the same moment, and whatever becomes of it."""

import os
import threading
from collections import Counter
from typing import Any

import pytest

from gpuq.errors import UsageError
from tests.conftest import Daemon, until

AT_ONCE = 20


def submitted_at_once(daemon: Daemon, **asked: Any) -> list[range]:
    """What twenty clients get that ask for the same at the same moment."""
    together = threading.Barrier(AT_ONCE)
    got: list[range] = []

    def ask() -> None:
        with daemon.client() as client:
            client.call("ping")
            together.wait()
            got.append(client.submit_many([{"argv": ["sleep", "60"], "gpus": 0, **asked}]))

    threads = [threading.Thread(target=ask) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def test_of_twenty_who_ask_at_once_with_one_key_one_gets_a_job(daemon: Daemon) -> None:
    assert submitted_at_once(daemon, key="nightly") == [range(1, 2)] * AT_ONCE
    with daemon.client() as client:
        assert [job["id"] for job in client.jobs()] == [1]
        assert submitted_at_once(daemon, key="weekly") == [range(2, 3)] * AT_ONCE
        client.kill([1, 2], grace_s=0)
        client.wait([1, 2])
        assert client.submit(["true"], gpus=0, key="nightly") == 3


def test_a_key_of_an_array_is_that_of_all_of_it(daemon: Daemon) -> None:
    """Until its last element has ended, whatever became of the others."""
    with daemon.client() as client:
        ids = client.submit_many(
            [{"argv": ["sleep", "60"], "gpus": 0, "array": "0-9", "key": "sweep"}]
        )
        assert ids == range(1, 11)
        assert submitted_at_once(daemon, key="sweep") == [ids] * AT_ONCE
        client.kill(["1-4,6-10"], grace_s=0)
        client.wait(["1-4,6-10"])
        assert client.submit(["true"], gpus=0, key="sweep") == 1
        assert client.job(5)["key"] == "sweep"
        client.call("requeue", refs=["3"])
        until(lambda: client.job(3)["state"] != "ended", "an element of it to wait once more")
        client.kill([3], grace_s=0)
        client.wait([3])
        client.kill([5], grace_s=0)
        client.wait([5])
        assert client.submit(["true"], gpus=0, key="sweep") == 11


def test_who_asks_again_because_the_answer_was_lost_gets_the_same(daemon: Daemon) -> None:
    token = os.urandom(12).hex()
    job = {"argv": ["true"], "gpus": 0}
    with daemon.client() as client:
        first = client.submit_many([job] * 3, token=token)
        daemon.kill()
        daemon.start()
        assert client.submit_many([job] * 3, token=token) == first
        assert client.submit_many([job], token=token) == first
        counts = Counter(one["name"] for one in client.jobs(["1-100"]))
        assert counts == {"true": 3}


def test_an_ended_job_whose_key_another_has_is_not_run_once_more(daemon: Daemon) -> None:
    with daemon.client() as client:
        first = client.submit(["true"], gpus=0, key="nightly")
        client.wait([first])
        client.submit(["sleep", "60"], gpus=0, key="nightly")
        client.call("requeue", refs=[str(first)])
        until(lambda: client.call("ping")["turns"], "a turn")
        living = [job["id"] for job in client.jobs() if job["key"] == "nightly"]
        assert living == [first + 1]
        assert daemon.process is not None
        assert daemon.process.poll() is None


@pytest.mark.parametrize("jobs", [2, 3])
def test_a_key_of_several_jobs_is_refused(daemon: Daemon, jobs: int) -> None:
    with daemon.client() as client, pytest.raises(UsageError, match="key: it names one job"):
        client.submit_many([{"argv": ["true"], "gpus": 0, "key": "k"}] * jobs)
