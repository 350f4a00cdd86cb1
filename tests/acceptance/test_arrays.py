"""Arrays on a true daemon: elements start one by one, are killed alone, and outlive their daemon."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuq.client import Client
from tests.conftest import Daemon, until

# Each says that it runs and on what, and ends once somebody has made the file for it.
SCRIPT = """
echo "$GPUQ_ARRAY_INDEX $GPUQ_GPU_INDICES" >> {folder}/ran
until [ -e {folder}/go-$GPUQ_ARRAY_INDEX ]; do sleep 0.02; done
"""


@pytest.fixture
def two_gpus(tmp_path: Path) -> Any:
    daemon = Daemon(tmp_path / "daemon", gpus="sim:2x24G")
    daemon.start()
    yield daemon
    daemon.end()


def states(client: Client, group: str) -> str:
    """In a letter each: queued, running, succeeded or cancelled; s is being started."""
    words = {"queued": "q", "starting": "s", "running": "r"}
    jobs = client.jobs(group)
    return "".join(words.get(job["state"]) or str(job["outcome"])[0].upper() for job in jobs)


def become(client: Client, group: str, wanted: str) -> None:
    until(lambda: states(client, group) == wanted, f"{wanted} (now {states(client, group)})")


def test_an_array_goes_on_under_the_next_daemon(two_gpus: Daemon, tmp_path: Path) -> None:
    def go(index: int) -> None:
        (tmp_path / f"go-{index}").touch()

    script = SCRIPT.format(folder=tmp_path)
    with two_gpus.client() as client:
        jobs = client.submit_many([{"argv": ["sh", "-c", script], "gpus": 1, "array": "0-5%2"}])
        group = client.job(jobs[0])["group"]
        assert (len(jobs), group) == (6, f"g{jobs[0]}")
        become(client, group, "rrqqqq")
        done = client.kill([jobs[3]])
        assert done == [{"id": jobs[3], "last_id": jobs[3], "done": "cancelled", "grace_s": None}]
        become(client, group, "rrqCqq")
        go(0)
        become(client, group, "SrrCqq")
    two_gpus.kill()
    go(1)
    two_gpus.start()
    with two_gpus.client() as client:
        become(client, group, "SSrCrq")
        assert_folded(two_gpus, jobs)
        for index in (2, 4, 5):
            go(index)
        ended = client.wait([group], timeout_s=30)
        assert [job["outcome"] for job in ended] == [
            *["succeeded"] * 3,
            "cancelled",
            *["succeeded"] * 2,
        ]
        assert [job["array_index"] for job in ended] == list(range(6))
        assert {job["attempt"] for job in ended} == {0, 1}
    ran = [line.split() for line in (tmp_path / "ran").read_text().splitlines()]
    assert sorted(index for index, _ in ran) == ["0", "1", "2", "4", "5"], "once each"
    check = two_gpus.gpuq("daemon", "check")
    assert (check.returncode, check.stdout.strip()[:11]) == (0, "all is well"), check.stdout


def assert_folded(daemon: Daemon, jobs: range) -> None:
    """One row on a terminal; all of them on a pipe, and where the group is named."""
    (row,) = json.loads(daemon.gpuq("status", "--fold", "--json").stdout)["jobs"]
    counts = {word: number for word, number in row["counts"].items() if number}
    assert counts == {"queued": 1, "running": 2, "succeeded": 2, "cancelled": 1}
    assert (row["jobs"], row["indices"]) == (f"{jobs[0]}-{jobs[-1]}", "0-5")
    shown = daemon.gpuq("--color", "always", "status").stdout
    assert "2 running, 1 queued, 1 cancelled, 2 succeeded" in shown
    assert len(daemon.gpuq("status").stdout.splitlines()) == 3, "those that have not ended"
    assert len(daemon.gpuq("status", f"g{jobs[0]}").stdout.splitlines()) == 6


def test_no_more_of_an_array_run_at_once_than_it_says(two_gpus: Daemon, tmp_path: Path) -> None:
    script = SCRIPT.format(folder=tmp_path)
    with two_gpus.client() as client:
        asked = {"argv": ["sh", "-c", script], "gpus": 0, "array": "0-3%1"}
        jobs = client.submit_many([asked])
        other = client.submit(["true"], gpus=0)
        assert client.wait([other], timeout_s=30)[0]["outcome"] == "succeeded"
        group = client.job(jobs[0])["group"]
        for index in range(4):
            become(client, group, "S" * index + "r" + "q" * (3 - index))
            (tmp_path / f"go-{index}").touch()
        client.wait([group], timeout_s=30)
    lines = (tmp_path / "ran").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "2", "3"], "one after the other"


def test_an_array_of_a_million_is_cancelled_at_once(two_gpus: Daemon) -> None:
    with two_gpus.client() as client:
        holds: list[int] = list(client.submit_many([{"argv": ["sleep", "100"]}] * 2))
        until(all_run(client, holds), "both to run")
        jobs = client.submit_many([{"argv": ["true"], "array": "0-999999"}])
        deep = client.job(jobs[3_119])
        assert (deep["place"], deep["array_index"]) == (3_120, 3_119)
        assert deep["reason"].startswith("behind ")
        counts = client.call("ping")["counts"]
        queued = {"queued": 1_000_000, "queued_yours": 1_000_000, "held": 0}
        assert counts == {"running": 2} | queued
    killed = two_gpus.gpuq("--color", "always", "kill", "--mine", "--state", "queued")
    said = f"Jobs {jobs[0]}-{jobs[-1]} cancelled: they never started"
    assert killed.stdout.startswith(said)
    assert killed.stdout.count("\n") == 1
    with two_gpus.client() as client:
        answer = client.call("wait", refs=[f"g{jobs[0]}"], timeout_s=30)
        assert answer == {"timed_out": False, "ended": f"{jobs[0]}-{jobs[-1]}"}
        last = client.job(jobs[-1])
        assert (last["outcome"], last["reason"]) == (
            "cancelled",
            f"cancelled by {last['user']} while it was queued",
        )


def all_run(client: Client, jobs: list[int]) -> Callable[[], bool]:
    return lambda: all(job["state"] == "running" for job in client.jobs(jobs))
