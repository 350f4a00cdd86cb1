"""The public Client against a daemon whose answers the test gives: threads, forks, waiting."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import gpuq
from gpuq import capture, typed
from gpuq.client import Client
from gpuq.daemon.callers import discretion
from gpuq.errors import (
    DaemonUnreachable,
    GpuqError,
    NothingMatched,
    NotPermitted,
    UsageError,
    WaitTimedOut,
)
from tests.cli.said import FakeDaemon, ended, event, in_full, job, page, running

Said = dict[str, Any]
ASKING = 4


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    there = FakeDaemon(tmp_path)
    yield there
    there.close()


@pytest.fixture
def client(fake: FakeDaemon) -> Iterator[Client]:
    with Client(fake.path) as client:
        yield client


def one_after_the_other(*answers: Said) -> Callable[[Said], Said]:
    left = list(answers)
    return lambda request: left.pop(0)


# ── from several threads, loops and processes ──


def all_at_once(fake: FakeDaemon) -> None:
    """Nobody is answered before all have asked."""
    meeting = threading.Barrier(ASKING)

    def answer(request: Said) -> Said:
        meeting.wait(30)
        return {"said": request["word"]}

    fake.answers["echo"] = answer


def test_threads_ask_at_the_same_time_and_get_their_own_answers(
    fake: FakeDaemon, client: Client
) -> None:
    all_at_once(fake)
    with ThreadPoolExecutor(ASKING) as pool:
        for _ in range(5):
            said = pool.map(lambda word: client.call("echo", word=word)["said"], range(ASKING))
            assert list(said) == list(range(ASKING))
    assert len(fake._connections) == ASKING, "they are kept for the next requests"


def test_it_works_in_a_running_event_loop(fake: FakeDaemon, client: Client) -> None:
    """As in a notebook: each waits in a thread, and the loop goes on."""
    all_at_once(fake)
    fake.answers["ping"] = {"pid": 1}

    async def main() -> list[Said]:
        assert client.call("ping") == {"pid": 1}, "which blocks the loop, and works"
        asked = (asyncio.to_thread(client.call, "echo", word=n) for n in range(ASKING))
        return await asyncio.gather(*asked)

    assert asyncio.run(main()) == [{"said": n} for n in range(ASKING)]


def test_a_forked_process_has_connections_of_its_own(fake: FakeDaemon, client: Client) -> None:
    fake.answers["echo"] = lambda request: {"said": request["word"]}
    assert client.call("echo", word="parent") == {"said": "parent"}
    child = os.fork()
    if not child:
        said = client.call("echo", word="child")
        os._exit(said != {"said": "child"})
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.call("echo", word="again") == {"said": "again"}
    assert len(fake._connections) == 2


def test_nobody_waits_behind_a_request_that_was_given_up(fake: FakeDaemon, client: Client) -> None:
    go = threading.Event()
    fake.answers["slow"] = lambda request: {"said": go.wait(30)}
    fake.answers["ping"] = {"pid": 1}
    with pytest.raises(DaemonUnreachable, match="did not answer in time"):
        client.call("slow", answer_s=0.05)
    assert client.call("ping", answer_s=5.0) == {"pid": 1}
    go.set()


def test_what_is_in_use_when_it_is_closed_is_closed_after_its_answer(
    fake: FakeDaemon, client: Client
) -> None:
    asked, go = threading.Event(), threading.Event()

    def answer(request: Said) -> Said:
        asked.set()
        return {"said": go.wait(30)}

    fake.answers["slow"] = answer
    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(client.call, "slow")
        asked.wait(30)
        client.close()
        go.set()
        assert said.result(30) == {"said": True}
    assert client._link._idle == []
    assert client.call("slow") == {"said": True}, "a closed one connects again"


def test_a_list_of_jobs_is_asked_for_without_the_machine(fake: FakeDaemon, client: Client) -> None:
    """Which would be most of the work for one of them, and is thrown away."""
    fake.answers["status"] = page(running(1))
    assert [one["id"] for one in client.jobs([1])] == [1]
    assert fake.requests("status")[-1]["jobs_only"] is True


# ── as they end ──


def test_jobs_are_told_as_they_end_and_asked_for_no_more(fake: FakeDaemon, client: Client) -> None:
    fake.answers["status"] = one_after_the_other(
        page(*(running(n) for n in (1, 2, 3, 4, 6))),
        page(ended(2)),
        page(ended(4, ended_at=2001.0), ended(6, ended_at=2000.5)),
        page(ended(1), ended(3)),
    )
    fake.answers["wait"] = one_after_the_other(
        {"timed_out": False, "ended": "2"},
        {"timed_out": True, "ended": ""},
        {"timed_out": False, "ended": "4,6"},
        {"timed_out": False, "ended": "1,3"},
    )
    told = [one["id"] for one in client.as_completed(["1-4", 6])]
    assert told == [2, 6, 4, 1, 3]
    waits = fake.requests("wait")
    assert [wait["refs"] for wait in waits] == [["1-4,6"], ["1,3-4,6"], ["1,3-4,6"], ["1,3"]]
    assert all(wait["any"] and wait["timeout_s"] > 10 for wait in waits), "and nobody is hurried"


def test_a_group_is_asked_for_by_its_runs(fake: FakeDaemon, client: Client) -> None:
    fake.answers["status"] = one_after_the_other(
        page(job(1) | {"last_id": 1000}), page(*(ended(n) for n in range(1, 1001)))
    )
    fake.answers["wait"] = {"timed_out": False, "ended": "1-1000"}
    assert [one["id"] for one in client.as_completed("g1")] == list(range(1, 1001))
    assert len(fake.asked) == 3


def test_a_job_that_is_back_in_the_queue_is_told_when_it_has_ended(
    fake: FakeDaemon, client: Client
) -> None:
    fake.answers["status"] = one_after_the_other(
        page(running(1), running(2)), page(ended(1), job(2)), page(ended(2))
    )
    fake.answers["wait"] = one_after_the_other(
        {"timed_out": False, "ended": "1-2"}, {"timed_out": False, "ended": "2"}
    )
    assert [one["id"] for one in client.as_completed("1-2")] == [1, 2]


def test_a_time_to_wait_is_kept_to(fake: FakeDaemon, client: Client) -> None:
    fake.answers["status"] = page(running(1), running(2))
    fake.answers["wait"] = {"timed_out": True, "ended": ""}
    with pytest.raises(WaitTimedOut, match=r"not all ended within 0\.01 s: 1-2"):
        list(client.as_completed("1-2", timeout_s=0.01))


def test_none_of_no_jobs_ends(fake: FakeDaemon, client: Client) -> None:
    assert list(client.as_completed([])) == []
    assert fake.asked == [], "and nobody is asked for all that there are"
    fake.answers["status"] = NothingMatched("no job 7 (your last is 3). See: gpuq status -a")
    with pytest.raises(NothingMatched):
        list(client.as_completed(7))


# ── at each change ──


def test_a_job_is_told_whenever_something_happened_to_it(fake: FakeDaemon, client: Client) -> None:
    fake.answers["events"] = one_after_the_other(
        {"events": [], "last": 40},
        {"events": [event(41, "starting", job=1), event(42, "running", job=1)], "last": 42},
        {"events": [], "last": 50},
        {"events": [event(51, "ended", job=1)], "last": 51},
    )
    fake.answers["status"] = one_after_the_other(page(job(1)), page(running(1)), page(ended(1)))
    assert [one["state"] for one in client.watch(1)] == ["queued", "running", "ended"]
    assert [asked["since"] for asked in fake.requests("events")] == [None, 40, 42, 50]
    assert fake.asked[0]["do"] == "events", (
        "or what happens before the jobs are looked at is missed"
    )


def test_an_event_of_a_run_of_jobs_is_one_of_each(fake: FakeDaemon, client: Client) -> None:
    several = [event(41, job=1, detail={"last": 3}), event(42, job=2), event(43, job=5)]
    fake.answers["events"] = one_after_the_other(
        {"events": [], "last": 40}, {"events": several, "last": 43}
    )
    jobs = [ended(n) for n in (1, 2, 3, 5)]
    fake.answers["status"] = one_after_the_other(page(*(job(n) for n in (1, 2, 3, 5))), page(*jobs))
    assert [one["id"] for one in client.watch("1-3,5")] == [1, 2, 3, 5] * 2
    assert fake.requests("status")[-1]["refs"] == ["1-3,5"]


def test_reports_are_looked_at_as_often_as_asked(fake: FakeDaemon, client: Client) -> None:
    first, second = running(1, metrics={"loss": 1.0}), running(1, metrics={"loss": 0.5})
    fake.answers["events"] = {"events": [], "last": 40}
    fake.answers["status"] = one_after_the_other(
        page(running(1)), page(first), page(first), page(second), page(ended(1))
    )
    told = [(one["state"], one["metrics"]) for one in client.watch(1, every_s=0.01)]
    assert told == [
        ("running", {}),
        ("running", {"loss": 1.0}),
        ("running", {"loss": 0.5}),
        ("ended", {}),
    ]


def test_a_job_that_is_removed_meanwhile_is_passed_over(fake: FakeDaemon, client: Client) -> None:
    gone = NothingMatched("no job 1 (your last is 2). See: gpuq status -a")
    answers: list[Any] = [page(job(1), job(2)), gone, page(ended(1), ended(2))]
    fake.answers["status"] = lambda request: answers.pop(0)
    fake.answers["events"] = one_after_the_other(
        {"events": [], "last": 40},
        {"events": [event(41, job=1)], "last": 41},
        {"events": [event(42, job=1), event(43, job=2)], "last": 43},
    )
    assert [one["state"] for one in client.watch("1-2")] == ["queued", "queued", "ended", "ended"]


# ── logs ──


def test_a_log_is_a_text(fake: FakeDaemon, client: Client, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\ntwo \xff\n")
    first = {"attempt": 1, "log": str(tmp_path / "first")}
    last = ended(7, attempt=2, log=str(tmp_path / "log"), user="root")
    fake.answers["show"] = {"job": in_full(last, attempts=[first, {**first, "attempt": 2}])}
    assert client.logs(7) == "one\ntwo �\n"
    assert client.logs(7, lines=1) == "two �\n"
    assert client.logs(7, attempt=1) == "", "which has not begun to write"
    with pytest.raises(NothingMatched, match="job 7 has no attempt 3"):
        client.logs(7, attempt=3)


def test_a_log_that_is_not_to_be_had_is_no_empty_one(
    fake: FakeDaemon, client: Client, tmp_path: Path
) -> None:
    gone = ended(7, log=str(tmp_path / "gone"), user="root", files_removed_at=3000.0)
    fake.answers["show"] = {"job": in_full(gone)}
    with pytest.raises(GpuqError, match="the log of job 7 was removed"):
        client.logs(7)
    fake.answers["show"] = {"job": in_full(ended(8, user="bob", hidden=True))}
    with pytest.raises(NotPermitted, match="the log of job 8 is readable to bob alone"):
        client.logs(8)


# ── types and names ──


def test_every_field_of_a_job_has_a_type() -> None:
    """Who adds a field to a view adds it to gpuq/typed.py, too."""
    listed = set(get_type_hints(typed.JobInFull)) - {
        "last_id",
        "attempts",
        "needed_by",
        "ran_before",
        *("env", "env_names"),
    }
    assert listed == set(discretion.JOB)
    assert set(get_type_hints(typed.Attempt)) == set(discretion.ATTEMPT)
    assert set(get_type_hints(typed.Event)) == set(discretion.EVENT)


def test_every_option_of_submit_has_a_type() -> None:
    assert set(get_type_hints(typed.NewJob)) == set(capture.OPTIONS)


def test_all_public_names_are_there_and_cost_nothing_before_they_are_used() -> None:
    for name in gpuq.__all__:
        assert getattr(gpuq, name) is not None
    assert set(gpuq.__all__) <= set(dir(gpuq))
    with pytest.raises(AttributeError, match="module 'gpuq' has no attribute 'Cleint'"):
        _ = gpuq.Cleint
    code = "import sys, gpuq; print(*(n for n in sys.modules if n.startswith('gpuq')))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "gpuq\n"


TYPED = """
from gpuq import Client, Job

with Client() as queue:
    job: int = queue.submit(["true"], gpus=2, env={"A": "b"})
    jobs: range = queue.submit_many([{"argv": ["true"], "gpus": 0}])
    for ended in queue.as_completed(jobs, timeout_s=3.0):
        one: Job = ended
        code: int | None = one["exit_code"]
    queue.submit(["true"], gpu=2)
    print(one["exitcode"])
"""


def test_a_type_checker_knows_options_and_fields(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(TYPED)
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "user.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(Path(gpuq.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in ran.stdout.splitlines() if "error" in line and "user.py" in line]
    assert len(lines) == 2, ran.stdout
    assert 'Unexpected keyword argument "gpu"' in lines[0]
    assert 'has no key "exitcode"' in lines[1]


# ── looking back ──


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda c: c.jobs(state="failed"), "jobs has no filter 'state'; did you mean states?"),
        (lambda c: c.groups(nmae="x"), "jobs has no filter 'nmae'; did you mean name?"),
        (lambda c: c.history(untill=3.0), "history has no filter 'untill'; did you mean until?"),
        (lambda c: c.stats(owner="bob"), "stats has no filter 'owner'; known are mine, name, "),
        (
            lambda c: c.errors(states=["lost"]),
            "errors has no filter 'states'; known are mine, name, ",
        ),
    ],
)
def test_a_filter_that_is_not_known_is_refused(
    client: Client, fake: FakeDaemon, ask: Callable[[Any], Any], told: str
) -> None:
    with pytest.raises(UsageError) as refused:
        ask(client)
    assert str(refused.value).startswith(told)
    assert fake.asked == []


def test_a_history_is_asked_for_page_by_page(client: Client, fake: FakeDaemon) -> None:
    told = iter([{"jobs": [ended(3), ended(2)], "after": [1.0, 2]}, {"jobs": [], "after": None}])
    fake.answers["history"] = lambda request: next(told)
    assert [job["id"] for job in client.history("g2", states=["failed"])] == [3, 2]
    first, second = fake.requests("history")
    assert (first["refs"], first["states"], first["after"]) == (["g2"], ["failed"], None)
    assert second["after"] == [1.0, 2]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"grid": {"lr": 0.1}}, "grid: lr has a list of values: {'lr': [0.1]}"),
        ({"grid": {"lr": "abc"}}, "grid: lr has a list of values: {'lr': ['abc']}"),
        ({"grid": ["lr"]}, "grid: ['lr'] is no mapping like {'lr': [0.1, 0.01]}"),
        ({"grid": {1: [2]}}, "grid: the name 1 is no text"),
        ({"params": {"lr": 0.1}}, "params: {'lr': 0.1} is no list like"),
        ({"params": [0.1]}, "params: 0.1 is no mapping like {'lr': 0.1}"),
        ({"array": 5}, "array: 5 is no text like '0-99%4'"),
        ({"argv": ["sleep", 5]}, "argv: 5 is no text: write '5'"),
        ({"argv": 5}, "argv is a list of words, not 5"),
    ],
)
def test_what_has_the_wrong_shape_is_refused_by_its_name(
    client: Client, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError) as refused:
        client.submit(**({"argv": ["true"]} | options))
    assert str(refused.value).startswith(told)
