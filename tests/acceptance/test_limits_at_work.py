"""Limits, queues and rates with a real daemon: changed while jobs run, and none is ended for it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuq.client import Client
from tests.conftest import Daemon, until

WAITS = 'while [ ! -e "$1" ]; do sleep 0.02; done'  # for its own file, so that the test ends it


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with daemon.client() as client:
        yield client


def save(daemon: Daemon, text: str) -> None:
    file = Path(daemon.environment["HOME"]) / ".config" / "gpuq" / "gpuq.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


def until_in_force(client: Client, name: str, value: str) -> None:
    def told() -> Any:
        rows = client.call("config")["settings"]
        return {row["name"]: row["value"] for row in rows}.get(name) == value

    until(told, f"{name} = {value}")


class Waiting:
    """Jobs that run until the test lets them end."""

    def __init__(self, client: Client, folder: Path) -> None:
        self._client = client
        self._folder = folder

    def submit(self, number: int, **options: Any) -> list[int]:
        jobs = [
            {"argv": ["sh", "-c", WAITS, "sh", str(self._end_of(one))], "gpus": 0} | options
            for one in range(number)
        ]
        ids = self._client.submit_many(jobs)
        return list(ids)

    def _end_of(self, number: int) -> Path:
        return self._folder / f"end-{number}"

    def end(self, number: int) -> None:
        self._end_of(number).touch()


def running(client: Client) -> list[int]:
    return [job["id"] for job in client.jobs(states=["starting", "running"])]


@pytest.mark.parametrize("by", ["setting", "tag", "group", "queue"])
def test_of_six_that_run_two_are_left_as_they_end_once_the_limit_is_two(
    daemon: Daemon, client: Client, tmp_path: Path, by: str
) -> None:
    """And not one of them is ended for it."""
    save(daemon, "cpu_slots = 20\n[queues.night]\n")
    until_in_force(client, "queues.night", "as any other")
    waiting = Waiting(client, tmp_path)
    jobs = waiting.submit(10, tags=["big"], queue="night")
    until(lambda: len(running(client)) == 10, "all to run")
    for number in range(4):
        waiting.end(number)
    until(lambda: len(running(client)) == 6, "six to run")
    if by == "setting":
        save(daemon, "cpu_slots = 20\nmax_running_per_user = 2\n[queues.night]\n")
        until_in_force(client, "max_running_per_user", "2")
    elif by == "queue":
        save(daemon, "cpu_slots = 20\n[queues.night]\nmax_running = 2\n")
        until_in_force(client, "queues.night.max_running", "2")
    else:
        subject = "tag:big" if by == "tag" else f"g{jobs[0]}"
        assert daemon.gpuq("limit", subject, "--max-running", "2").returncode == 0
    group = {"group": f"g{jobs[0]}"} if by == "group" else {}
    (next_one,) = waiting_in(client, group, queue="night", tags=["big"])
    seen = []
    for number in range(4, 9):
        waiting.end(number)
        left = 9 - number
        until(lambda: not set(jobs[: number + 1]) & set(running(client)), "one to end")  # noqa: B023
        state = client.job(next_one)["state"]
        seen.append((left, state))
    assert seen[:4] == [(5, "queued"), (4, "queued"), (3, "queued"), (2, "queued")]
    (ended,) = client.wait([next_one], timeout_s=20)
    assert ended["outcome"] == "succeeded"
    waiting.end(9)
    outcomes = {job["outcome"] for job in client.wait(jobs)}
    assert outcomes == {"succeeded"}


def waiting_in(client: Client, group: dict[str, str], **options: Any) -> range:
    """One more that asks the same, of the same group where that is what is limited."""
    if not group:
        return client.submit_many([{"argv": ["true"], "gpus": 0} | options])
    request = {"argv": ["true"], "gpus": 0} | options
    return client.submit_many([request], **group)


def test_twenty_jobs_at_five_a_second_take_three_seconds_and_begin_in_order(
    daemon: Daemon, client: Client
) -> None:
    save(daemon, 'cpu_slots = 20\nstart_rate = "5/s"\n')
    until_in_force(client, "start_rate", "5/s")
    jobs = client.submit_many([{"argv": ["true"], "gpus": 0}] * 20)
    last = client.jobs([jobs[-1]])[0]
    assert last["state"] == "queued"
    reason = client.job(jobs[0] + 10)["reason"]
    assert reason.startswith(("no more than 5 starts a second (start_rate)", "behind "))
    ended = client.wait(list(jobs), timeout_s=30)
    assert {job["outcome"] for job in ended} == {"succeeded"}
    begun = [
        event for event in client.call("events", since=0)["events"] if event["kind"] == "starting"
    ]
    assert [event["job"] for event in begun] == list(jobs)
    moments = [event["at"] for event in begun]
    # The wall clock may be adjusted a little meanwhile; the rate goes by another one.
    assert moments[-1] - moments[0] > 2.9
    for first, sixth in zip(moments, moments[5:], strict=False):
        assert sixth - first > 0.95


def test_high_goes_first_and_a_queue_runs_four_at_a_time_and_nothing_when_it_is_idle(
    daemon: Daemon, client: Client, tmp_path: Path
) -> None:
    save(daemon, "cpu_slots = 20\n[queues.batch]\npriority = 10\nmax_running = 4\n")
    until_in_force(client, "queues.batch.max_running", "4")
    daemon.gpuq("drain", "-m", "all are to be there first")
    plain = list(client.submit_many([{"argv": ["true"], "gpus": 0, "queue": ""}] * 3))
    lower = Waiting(client, tmp_path).submit(6, queue="batch", priority=-1)
    waiting = Waiting(client, tmp_path)
    higher = list(client.submit_many([{"argv": ["true"], "gpus": 0, "queue": "batch"}] * 2))
    assert running(client) == []
    daemon.gpuq("drain", "--off")
    until(lambda: len(running(client)) == 4, "four of the queue to run")
    client.wait(plain)
    begun = starts(client)
    assert begun[:2] == higher, "the higher ones first, though they came last"
    assert [job for job in begun if job in plain] == plain, "outside of it first come, first served"
    until(lambda: client.job(lower[4])["reason"] == "4 of 4 running: limit of queue batch", "it")
    for number in range(6):
        waiting.end(number)
        client.wait([lower[number]])
        assert len(running(client)) <= 4
    assert running(client) == []
    assert [job for job in starts(client) if job in lower] == lower, "and FIFO inside"
    (batch,) = json.loads(daemon.gpuq("queues", "--json").stdout)["queues"]
    assert (batch["running"], batch["queued"]) == (0, 0)


def starts(client: Client) -> list[int]:
    events = client.call("events", since=0)["events"]
    return [event["job"] for event in events if event["kind"] == "starting"]


def test_a_queue_that_is_taken_out_of_the_file_keeps_its_jobs_waiting_until_it_is_back(
    daemon: Daemon, client: Client
) -> None:
    text = "[queues.night]\ngpus = [2]\n"
    save(daemon, text)
    until_in_force(client, "queues.night.gpus", "2")
    first = client.submit(["sleep", "600"], queue="night")
    second = client.submit(["true"], queue="night")
    until(lambda: client.job(first)["gpus"] == [2], "the first one")

    def says(words: str) -> None:
        until(lambda: words in (client.job(second)["reason"] or ""), words)

    says("queue night has GPU 2 only")
    save(daemon, "")
    says("queue night is not in the settings any more")
    assert client.job(first)["state"] == "running"
    refused = daemon.gpuq("submit", "-q", "night", "true")
    assert refused.returncode == 2
    assert "there is no queue 'night'" in refused.stderr
    save(daemon, "[queues.night]\ngpus = [2, 3]\n")
    (ended,) = client.wait([second], timeout_s=20)
    assert (ended["outcome"], ended["gpus"]) == ("succeeded", [3])


def test_usage_tells_who_has_had_how_much(daemon: Daemon, client: Client) -> None:
    job = client.submit(["sleep", "0.3"], gpus=2)
    client.wait([job])
    client.submit(["sleep", "600"], gpus=1)
    until(lambda: len(running(client)) == 1, "the second one to run")
    (me,) = json.loads(daemon.gpuq("usage", "--json").stdout)["users"]
    assert me["gpu_s"] >= 0.6
    assert (me["attempts"], me["gpus"], round(me["share_percent"])) == (2, 1, 100)
    assert me["share_gpu_s"] == pytest.approx(me["gpu_s"], rel=0.2), "hardly anything has faded"
