"""gpuq prune: what goes, what is asked before, and what is said."""

import io
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuq.errors import GpuqError, NothingMatched, NotPermitted, UsageError
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, Said
from tests.conftest import BIN, Daemon, until

MIB = 2**20


def listed(number: int = 7, **changes: Any) -> Said:
    """A job as `prunable` lists it."""
    job: Said = {
        "id": number,
        "user": "alice",
        "name": f"job-{number}",
        "outcome": "failed",
        "ended_at": 1000.0,
        "files_bytes": MIB,
        "output_bytes": 0,
    }
    assert changes.keys() <= job.keys()
    return job | changes


@pytest.fixture
def pruning(fake: FakeDaemon) -> Callable[..., None]:
    """What the daemon has that may be pruned, in pages, and what comes of it."""

    def answer(*pages: list[Said], troubles: list[Said] | None = None) -> None:
        left = list(pages)
        looks = iter([2, 1])

        def next_page(request: Said) -> Said:
            jobs = left.pop(0)
            return {"jobs": jobs, "after": jobs[-1]["id"] if left else None}

        fake.answers["prunable"] = next_page
        fake.answers["prune"] = {"asked": 1}
        fake.answers["pruning"] = lambda request: {
            "pending": next(looks, 0),
            "troubles": troubles or [],
        }

    return answer


def asked(fake: FakeDaemon, do: str) -> list[Said]:
    """The requests, without what every one of them has."""
    return [
        {k: v for k, v in request.items() if k not in ("id", "do") and v not in (None, [], False)}
        for request in fake.requests(do)
    ]


# ─── which are meant ─────────────────────────────────────────────────────────────────────────────


def test_without_a_word_of_which_it_is_a_mistake(gpuq: Gpuq, fake: FakeDaemon) -> None:
    ran = gpuq("prune", "-y")
    assert (ran.code, ran.out) == (2, "")
    assert "prune what? Give jobs, or a selector" in ran.err
    assert fake.asked == []


@pytest.mark.parametrize("selector", [["--older-than", "7d"], ["-s", "failed"], ["--keep", "3"]])
def test_jobs_and_a_selector_are_a_mistake(gpuq: Gpuq, fake: FakeDaemon, selector: Any) -> None:
    ran = gpuq("prune", "7", "-y", *selector)
    assert (ran.code, fake.asked) == (2, [])
    assert "not both" in ran.err


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["12-18,20", "@"], {"refs": ["12-18,20", "@"]}),
        (["--older-than", "7d"], {"older_than_s": 7 * 86400.0}),
        (["-s", "failed,oom", "--state", "lost"], {"states": ["failed", "oom", "lost"]}),
        (["--keep", "10", "--outputs"], {"keep": 10, "outputs": True}),
    ],
)
def test_what_is_typed_is_what_is_asked(
    gpuq: Gpuq, fake: FakeDaemon, pruning: Any, words: list[str], wanted: Said
) -> None:
    pruning([])
    assert gpuq("prune", "-n", *words).code == 0
    assert asked(fake, "prunable") == [wanted]


def test_no_length_of_time_is_a_mistake(gpuq: Gpuq, fake: FakeDaemon) -> None:
    ran = gpuq("prune", "--older-than", "soon")
    assert (ran.code, fake.asked) == (2, [])
    assert "--older-than: 'soon' is no length of time" in ran.err


@pytest.mark.parametrize(
    "error",
    [
        UsageError("only jobs that have ended can be pruned: 'running' is none of succeeded"),
        GpuqError("only jobs that have ended can be pruned; job 7 is running"),
        NotPermitted("job 7 belongs to bob; only its owner or an admin may prune it"),
        NothingMatched("no job 7"),
    ],
)
def test_what_the_daemon_refuses_is_told(gpuq: Gpuq, fake: FakeDaemon, error: GpuqError) -> None:
    fake.answers["prunable"] = error
    ran = gpuq("prune", "7", "-y")
    assert (ran.code, ran.err) == (error.exit_code, f"gpuq: {error}\n")
    assert fake.requests("prune") == []


def test_where_nothing_matches_there_is_nothing_to_do(
    gpuq: Gpuq, fake: FakeDaemon, pruning: Any
) -> None:
    """A script that cleans up each night is not to fail when there is nothing to clean."""
    pruning([])
    ran = gpuq("prune", "--older-than", "7d")
    assert (ran.code, ran.out) == (0, "")
    assert "there is nothing to remove" in ran.err
    assert fake.requests("prune") == []


# ─── a dry run ───────────────────────────────────────────────────────────────────────────────────


def test_a_dry_run_lists_and_does_nothing(gpuq: Gpuq, fake: FakeDaemon, pruning: Any) -> None:
    pruning([listed(7), listed(8, outcome="out_of_memory", output_bytes=None)])
    ran = gpuq("prune", "-n", "7-8", terminal=True)
    ended = ran.out.splitlines()[1].split("job-7")[1].split()[:2]
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "ID  END            NAME   ENDED                LOGS  OUTPUT",
        f"7   failed         job-7  {' '.join(ended)}    1M",
        f"8   out of memory  job-8  {' '.join(ended)}    1M   stays",
        "would remove 2 jobs and 2M of logs",
        "1 output directory with something in it stays; --outputs removes that too",
    ]
    assert fake.requests("prune") == []


def test_a_dry_run_on_a_pipe_has_a_line_for_each(gpuq: Gpuq, pruning: Any) -> None:
    pruning([listed(7), listed(8, output_bytes=None)])
    ran = gpuq("prune", "-n", "7-8")
    assert ran.out == (
        "7\twould_remove\tfailed\tjob-7\t1970-01-01T00:16:40Z\t1048576\t0\n"
        "8\twould_remove\tfailed\tjob-8\t1970-01-01T00:16:40Z\t1048576\t\n"
    )


def test_outputs_are_counted_where_they_go(gpuq: Gpuq, pruning: Any) -> None:
    pruning([listed(7, output_bytes=3 * MIB)])
    ran = gpuq("prune", "-n", "--outputs", "7", terminal=True)
    assert "would remove 1 job and 1M of logs and 3M of outputs" in ran.out
    assert "stays" not in ran.out


def test_pages_are_read_to_the_end(gpuq: Gpuq, fake: FakeDaemon, pruning: Any) -> None:
    pruning([listed(1), listed(2)], [listed(5)])
    ran = gpuq("prune", "-n", "-s", "failed")
    assert [line.split("\t")[0] for line in ran.out.splitlines()] == ["1", "2", "5"]
    assert [request["after"] for request in fake.requests("prunable")] == [None, 2]


# ─── asked before ────────────────────────────────────────────────────────────────────────────────


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_where_nobody_can_answer_it_wants_a_yes(
    gpuq: Gpuq, fake: FakeDaemon, pruning: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    pruning([listed(7)])
    ran = gpuq("prune", "7")
    assert (ran.code, ran.out) == (2, "")
    assert (
        "This removes 1 job and 1M of logs for good. Remove? Nobody is here to answer: -y"
        in ran.err
    )
    assert fake.requests("prune") == []


@pytest.mark.parametrize(("answer", "goes"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_person_is_asked(
    gpuq: Gpuq,
    fake: FakeDaemon,
    pruning: Any,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    goes: bool,
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    pruning([listed(number) for number in range(1, 31)])
    ran = gpuq("prune", "1-30", terminal=True)
    assert "This removes 30 jobs and 30M of logs for good. Remove? [y/N]" in ran.err
    assert "… and 10 more" in ran.out
    assert (len(fake.requests("prune")) == 1, ran.code) == (goes, 0 if goes else 1)


# ─── done ────────────────────────────────────────────────────────────────────────────────────────


def test_exactly_what_was_listed_is_asked_for(gpuq: Gpuq, fake: FakeDaemon, pruning: Any) -> None:
    """A job that ends between the question and the answer was not in the question."""
    pruning([listed(1), listed(2), listed(5)])
    ran = gpuq("prune", "-y", "-s", "failed", "--outputs")
    assert ran.code == 0
    assert asked(fake, "prune") == [{"refs": ["1-2,5"], "outputs": True}]
    assert len(fake.requests("pruning")) == 3, "it waits until all is gone"
    assert [line.split("\t")[:2] for line in ran.out.splitlines()] == [
        ["1", "removed"],
        ["2", "removed"],
        ["5", "removed"],
    ]


def test_many_are_asked_for_in_portions(gpuq: Gpuq, fake: FakeDaemon, pruning: Any) -> None:
    pruning([listed(number) for number in range(1, 1201)])
    ran = gpuq("prune", "-y", "-s", "failed", terminal=True)
    assert [request["refs"] for request in asked(fake, "prune")] == [
        ["1-500"],
        ["501-1000"],
        ["1001-1200"],
    ]
    assert ran.out == "removed 1200 jobs and 1.2G of logs\n"


def test_what_could_not_be_removed_is_told(gpuq: Gpuq, pruning: Any) -> None:
    trouble = {"id": 8, "trouble": "jobs/8/1/output/x: Permission denied"}
    older = {"id": 3, "trouble": "of another time"}
    pruning([listed(7), listed(8)], troubles=[older, trouble])
    ran = gpuq("prune", "-y", "7-8", terminal=True)
    assert (ran.code, ran.out) == (1, "removed 1 job and 1M of logs\n")
    assert ran.err == "gpuq: job 8 is still there: jobs/8/1/output/x: Permission denied\n"


def test_json_has_all_of_it(gpuq: Gpuq, pruning: Any) -> None:
    pruning([listed(7), listed(8)], troubles=[{"id": 8, "trouble": "no"}])
    ran = gpuq("prune", "-y", "--json", "7-8")
    said = json.loads(ran.out)
    assert (said["schema"], said["dry_run"]) == (1, False)
    assert [(job["id"], job["removed"], job["trouble"]) for job in said["jobs"]] == [
        (7, True, None),
        (8, False, "no"),
    ]


# ─── with a daemon ───────────────────────────────────────────────────────────────────────────────


def ran_jobs(daemon: Daemon, *scripts: str) -> list[int]:
    with daemon.client() as client:
        jobs = [client.submit(["sh", "-c", script], gpus=0) for script in scripts]
        client.wait(jobs, timeout_s=30)
    return jobs


def folders(daemon: Daemon) -> list[str]:
    return sorted(
        path.name for kind in ("jobs", "attempts") for path in (daemon.state / kind).iterdir()
    )


def test_pruned_jobs_are_gone_with_all_that_they_left(daemon: Daemon) -> None:
    failed, put_out, kept = ran_jobs(
        daemon, "echo x; exit 1", "echo x > $GPUQ_OUTPUT_DIR/model; exit 1", "true"
    )
    ran = daemon.gpuq("prune", "-y", "-s", "failed")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert folders(daemon) == sorted([str(put_out), str(kept), f"{kept}.1"])
    with daemon.client() as client:
        assert [job["id"] for job in client.jobs(all=True)] == [kept]
        model = daemon.state / "jobs" / str(put_out) / "1" / "output" / "model"
        assert model.read_text() == "x\n"
        assert client.submit(["true"], gpus=0) == kept + 1
    assert daemon.gpuq("show", str(failed)).returncode == 3
    assert daemon.gpuq("daemon", "check").returncode == 0


def test_active_jobs_are_named_and_nothing_goes(daemon: Daemon) -> None:
    (over,) = ran_jobs(daemon, "true")
    with daemon.client() as client:
        active = client.submit(["sleep", "100"])
        until(lambda: client.job(active)["state"] == "running")
        ran = daemon.gpuq("prune", "-y", f"{over}-{active}")
        assert (ran.returncode, ran.stdout) == (1, "")
        assert f"only jobs that have ended can be pruned; job {active} is running" in ran.stderr
        assert f"gpuq kill --wait {active}" in ran.stderr
        assert len(client.jobs(all=True)) == 2
        assert daemon.gpuq("prune", "-y", "-s", "running").returncode == 2
        assert daemon.gpuq("prune", "-y", "--keep", "0").returncode == 0
        assert [job["id"] for job in client.jobs(all=True)] == [active], "it is never meant"


def test_to_keep_some_keeps_the_newest(daemon: Daemon) -> None:
    jobs = ran_jobs(daemon, *["true"] * 5)
    assert daemon.gpuq("prune", "-y", "--keep", "1").returncode == 0
    with daemon.client() as client:
        assert [job["id"] for job in client.jobs(all=True)] == jobs[4:]


def test_what_is_young_is_not_old(daemon: Daemon) -> None:
    ran_jobs(daemon, "true")
    ran = daemon.gpuq("prune", "-y", "--older-than", "1h")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert daemon.gpuq("prune", "-y", "--older-than", "0s").stdout.startswith("1\tremoved")


def test_a_wish_survives_the_daemon(stopped_daemon: Daemon, tmp_path: Path) -> None:
    """kill -9 when the files are gone and the rows are not, and right after the wish."""
    faults = tmp_path / "faults"
    faults.mkdir()
    stopped_daemon.environment["GPUQ_FAULTS"] = str(faults)
    for step in ("prune.committed", "retention.files_pruned"):
        stopped_daemon.start()
        assert stopped_daemon.process is not None
        jobs = ran_jobs(stopped_daemon, "true", "true")
        (faults / step).touch()
        command = [BIN / "gpuq", "prune", "-y", f"{jobs[0]}-{jobs[1]}"]
        with subprocess.Popen(command, env=stopped_daemon.environment) as asking:
            assert stopped_daemon.process.wait(30) == -signal.SIGKILL
            assert stopped_daemon.gpuq("daemon", "check").returncode == 0
            stopped_daemon.start()
            assert asking.wait(30) == 0, "it waits for the next daemon, and asks again"
        with stopped_daemon.client() as client:
            assert client.jobs(all=True) == []
        assert folders(stopped_daemon) == []
        assert stopped_daemon.gpuq("daemon", "check").returncode == 0
        stopped_daemon.stop()
