"""`status`, `show`, `why`, `kill`, `wait`, `logs` and `gpus`: what they ask and how they answer."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from gpuq import service
from gpuq.errors import NothingMatched
from tests.cli.conftest import Gpuq
from tests.cli.said import (
    GIB,
    FakeDaemon,
    attempt,
    ended,
    gpu,
    in_full,
    job,
    page,
    process,
    running,
    simulated,
)

# ── status ──


def test_bare_gpuq_is_status(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(running(181), job(184))
    assert gpuq() == gpuq("status") == gpuq("st") == gpuq("ls")
    assert gpuq().out.splitlines()[0].startswith("181\trunning\t")


def test_a_terminal_sees_gpus_jobs_and_a_count(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(
        running(181), job(184), gpus=[simulated(state="leased", jobs=[181], exclusive=True)]
    )
    assert gpuq(terminal=True).out == (
        "GPU               MEM              UTIL  TEMP   W  JOB\n"
        "0    simulated  0/24G  ░░░░░░░░░░    0%   34C  61  181 job-181 (alice)\n"
        "\n"
        "ID   ST  NAME     GPU  TIME  COMMAND / REASON\n"
        "181  R   job-181  0    1:00  python train.py\n"
        "184  Q   job-184  x1      -  wants 1 GPU, 0 free\n"
        "1 running, 1 queued | 1 simulated GPU | finished: gpuq history\n"
    )


def test_an_empty_queue_says_so_on_a_terminal_and_nothing_on_a_pipe(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    fake.answers["status"] = page()
    assert gpuq(terminal=True).out == "0 running, 0 queued | finished: gpuq history\n"
    assert gpuq("status", "-a", terminal=True).out == "0 running, 0 queued\n"
    assert gpuq() == (0, "", "")


def test_no_gpus_come_with_the_reason(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(gpu_trouble="no NVIDIA driver is loaded")
    assert gpuq(terminal=True).out.startswith("no GPUs: no NVIDIA driver is loaded\n")


def test_a_terminal_gets_25_rows_and_hears_of_the_others(gpuq: Gpuq, fake: FakeDaemon) -> None:
    counts = {"running": 0, "queued": 40, "queued_yours": 3}
    fake.answers["status"] = page(*map(job, range(1, 27)), before=26, counts=counts)
    lines = gpuq("status", terminal=True).out.splitlines()
    assert fake.requests("status")[0]["limit"] == 26
    assert len(lines) == 1 + 25 + 1
    assert lines[-1].startswith("0 running, 40 queued (3 yours), 15 more not shown: --limit 0 |")


def test_exactly_25_rows_hide_nothing(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(*map(job, range(1, 26)))
    assert "more not shown" not in gpuq("status", terminal=True).out


def test_filters_reach_the_daemon(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page()
    gpuq(
        "status", "-m", "-a", "-u", "bob", "-s", "failed,lost", "-s", "held", "--tag", "x", "@", "7"
    )
    asked = fake.requests("status")[0]
    assert {name: asked[name] for name in ("mine", "all", "user", "states", "tag", "refs")} == {
        "mine": True,
        "all": True,
        "user": "bob",
        "states": ["failed", "lost", "held"],
        "tag": "x",
        "refs": ["@", "7"],
    }


def test_json_is_complete_and_pages_through_all(gpuq: Gpuq, fake: FakeDaemon) -> None:
    pages = [page(job(2), before=2), page(job(1))]
    fake.answers["status"] = lambda _: pages.pop(0)
    assert json.loads(gpuq("status", "--json").out) == {"schema": 1, "jobs": [job(1), job(2)]}


# ── show, why ──


def test_show_tells_fields_attempts_and_the_line_to_submit_again(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    fake.answers["show"] = {"job": in_full(ended(179), attempts=[attempt()])}
    out = gpuq("show", "179", terminal=True).out
    assert "reason        exit code 1\n" in out
    assert (
        "submit again  gpuq submit -g 1 -n job-179 -C /home/alice/vit -- python train.py\n" in out
    )
    assert "ATTEMPT  STARTED" in out
    piped = dict(line.split("\t") for line in gpuq("show", "179").out.splitlines())
    assert piped["state"] == "ended, failed"


def test_show_has_the_environment_only_where_it_is_asked_for(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["show"] = lambda asked: {
        "job": in_full(job(1)) | ({"environment": ["A=1"]} if asked["with_env"] else {})
    }
    assert "environment" not in gpuq("show", "1").out
    assert "environment\tA=1\n" in gpuq("show", "--with-env", "1").out


def test_show_as_json_is_the_daemons_own_view(gpuq: Gpuq, fake: FakeDaemon) -> None:
    view = in_full(job(1), attempts=[attempt()])
    fake.answers["show"] = {"job": view}
    assert json.loads(gpuq("show", "--json", "1").out) == {"schema": 1, "jobs": [view]}


def test_why_gives_the_reason_in_a_sentence(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["gpus"] = page()
    waits = "Job 184 (job-184) waits: wants 1 GPU, 0 free.\n"
    fake.answers["show"] = {"job": in_full(job(184), place=1) | {"place_of": 1}}
    assert gpuq("why", "184").out == waits, "there is no other that asks for the same"
    fake.answers["show"] = {"job": in_full(job(184), place=1) | {"place_of": 2}}
    first = "It is the 1st of those that ask for the same.\n"
    assert gpuq("why", "184").out == waits + first


# ── kill ──


@pytest.fixture
def killing(fake: FakeDaemon) -> FakeDaemon:
    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        ends = [ref.split("-") for ref in asked["refs"]]
        jobs = [
            job for first, *last in ends for job in range(int(first), int((last or [first])[0]) + 1)
        ]
        return {"jobs": [{"id": job, "done": "stopping", "grace_s": 10.0} for job in jobs]}

    fake.answers["kill"] = answer
    return fake


def test_kill_without_a_target_is_a_usage_error(gpuq: Gpuq, fake: FakeDaemon) -> None:
    ran = gpuq("kill")
    assert (ran.code, fake.asked) == (2, [])
    assert ran.err.startswith("gpuq: kill what?")


@pytest.mark.parametrize(
    ("words", "how"),
    [
        ([], {}),
        (["--now"], {"grace_s": 0}),
        (["--grace", "1m30s"], {"grace_s": 90.0}),
        (["--signal", "USR1"], {"signal": 10}),
        (["--signal", "sigint"], {"signal": 2}),
        (["--signal", "9"], {"signal": 9}),
    ],
)
def test_how_a_job_is_ended(
    gpuq: Gpuq, killing: FakeDaemon, words: list[str], how: dict[str, Any]
) -> None:
    assert gpuq("kill", "184", *words) == (0, "184\tstopping\n", "")
    asked = killing.requests("kill")[0]
    assert {name: asked[name] for name in ("grace_s", "signal") if name in asked} == how


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["184", "--signal", "FOO"], "--signal: 'FOO' is no signal"),
        (["184", "--now", "--grace", "3"], "--grace, --now and --signal exclude each other"),
        (["184", "--grace", "long"], "--grace: 'long' is no length of time"),
    ],
)
def test_a_slip_ends_nothing(
    gpuq: Gpuq, fake: FakeDaemon, words: list[str], complaint: str
) -> None:
    ran = gpuq("kill", *words)
    assert (ran.code, fake.asked) == (2, [])
    assert ran.err.startswith(f"gpuq: {complaint}")


@pytest.mark.parametrize(
    ("done", "sentence", "code"),
    [
        (
            {"done": "cancelled"},
            "Job 184 cancelled: it never started (undo: gpuq undo 184)",
            0,
        ),
        ({"done": "stopping", "grace_s": 10.0}, "Job 184 stopping, KILL in 10 s", 0),
        ({"done": "killing", "grace_s": 0.0}, "Job 184 stopping: KILL", 0),
        ({"done": "signalled"}, "Job 184 got SIGUSR1", 0),
        ({"done": "already_ended"}, "Job 184 had already ended", 0),
        ({"done": "not_running"}, "Job 184 does not run, so there is nothing to signal", 1),
        ({"done": "thawed"}, "Job 184 thawed", 0),
    ],
)
def test_kill_says_what_it_did(
    gpuq: Gpuq, fake: FakeDaemon, done: dict[str, Any], sentence: str, code: int
) -> None:
    fake.answers["kill"] = {"jobs": [{"id": 184, "grace_s": None} | done]}
    words = ["--signal", "USR1"] if "signal" in sentence or "SIG" in sentence else []
    assert gpuq("kill", "184", *words, terminal=True) == (code, f"{sentence}\n", "")


def test_a_selector_that_means_two_running_jobs_is_asked_about(
    gpuq: Gpuq, killing: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    killing.answers["status"] = page(running(1), running(2), job(3))
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    ran = gpuq("kill", "--mine")
    assert ran.code == 1
    asked = "This ends 2 running jobs: 1 job-1, 2 job-2. End them? [y/N] "
    assert ran.err == f"{asked}gpuq: nothing was ended\n"
    assert killing.requests("kill") == []
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert gpuq("kill", "--mine").code == 0
    assert killing.requests("kill")[0]["refs"] == ["1-3"]


def test_where_nobody_can_answer_the_selector_needs_a_yes(gpuq: Gpuq, killing: FakeDaemon) -> None:
    killing.answers["status"] = page(running(1), running(2))
    ran = gpuq("kill", "--name", "job-*")
    assert ran.code == 2
    assert ran.err.endswith("Nobody is here to answer: -y\n")
    assert gpuq("kill", "--name", "job-*", "-y").out == "1\tstopping\n2\tstopping\n"


def test_one_running_job_is_not_asked_about(gpuq: Gpuq, killing: FakeDaemon) -> None:
    killing.answers["status"] = page(running(1), job(2), running(3, name="other"))
    assert gpuq("kill", "--name", "job-*").out == "1\tstopping\n2\tstopping\n"


def test_a_selector_that_means_none_says_so(gpuq: Gpuq, killing: FakeDaemon) -> None:
    for answer in (page(), page(ended(1))):
        killing.answers["status"] = answer
        assert gpuq("kill", "--tag", "x").code == 3
    assert killing.requests("kill") == []


def test_kill_wait_returns_when_they_are_gone(gpuq: Gpuq, killing: FakeDaemon) -> None:
    killing.answers["wait"] = {"timed_out": False, "ended": "184"}
    killing.answers["status"] = page(ended(184))
    assert gpuq("kill", "-w", "184").code == 0
    assert killing.requests("wait")[0]["refs"] == ["184"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# ── wait ──


def test_wait_exits_with_the_highest_code(gpuq: Gpuq, fake: FakeDaemon) -> None:
    over = [ended(1, exit_code=3), ended(2, exit_code=None, signal=15), ended(3, exit_code=0)]
    fake.answers["status"] = page(*over)
    fake.answers["wait"] = {"timed_out": False, "ended": "1-3"}
    ran = gpuq("wait", "1-3")
    assert ran.code == 143
    assert [line.split("\t")[0] for line in ran.out.splitlines()] == ["1", "2", "3"]


def test_wait_has_a_timeout_that_ends_no_job(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(running(1))
    fake.answers["wait"] = {"timed_out": True, "ended": ""}
    ran = gpuq("wait", "--timeout", "0.01s", "1")
    assert ran.code == 124
    assert {request["do"] for request in fake.asked} == {"status", "wait"}


def test_waiting_for_no_job_is_said_at_once(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = NothingMatched("no job 814 (your last is 184). See: gpuq status -a")
    assert gpuq("wait", "814") == (
        3,
        "",
        "gpuq: no job 814 (your last is 184). See: gpuq status -a\n",
    )


# ── logs ──


@pytest.fixture
def logged(fake: FakeDaemon, tmp_path: Path) -> Path:
    """The log of job 179, of two attempts."""
    for number in ("1", "2"):
        (tmp_path / number).write_bytes(b"attempt %s\nlast \xff\r" % number.encode())
    attempts = [attempt(attempt=n, log=str(tmp_path / str(n))) for n in (1, 2)]
    view = ended(179, attempt=2, log=str(tmp_path / "2"))
    fake.answers["show"] = {"job": in_full(view, attempts=attempts)}
    return tmp_path


@pytest.mark.parametrize(
    ("words", "out"),
    [
        ([], "attempt 2\nlast \udcff\r"),
        (["-n", "1"], "last \udcff\r"),
        (["-n", "0"], ""),
        (["--attempt", "1", "-n", "9"], "attempt 1\nlast \udcff\r"),
        (["-f"], "attempt 2\nlast \udcff\r"),
        (["-f", "-n", "1", "--attempt", "1"], "last \udcff\r"),
    ],
)
def test_a_log_comes_byte_by_byte_or_in_part(
    gpuq: Gpuq, logged: Path, words: list[str], out: str
) -> None:
    ran = gpuq("logs", *words, "179")
    assert ran.out == out
    assert ran.code == 0


def test_the_path_of_a_log(gpuq: Gpuq, logged: Path) -> None:
    assert gpuq("logs", "--path", "179").out == f"{logged}/2\n"
    assert gpuq("logs", "--path", "--attempt", "1", "179").out == f"{logged}/1\n"


def test_an_attempt_that_never_was(gpuq: Gpuq, logged: Path) -> None:
    ran = gpuq("logs", "--attempt", "3", "179")
    assert (ran.code, ran.err) == (
        3,
        "gpuq: job 179 has no attempt 3. See: gpuq show 179\n",
    )


def test_a_job_that_waits_has_no_log_yet(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["show"] = {"job": in_full(job(184))}
    ran = gpuq("logs", "184")
    assert (ran.code, ran.err) == (
        1,
        "gpuq: job 184 has no log yet: wants 1 GPU, 0 free. Follow it: gpuq logs -f 184\n",
    )


def test_a_job_that_wrote_nothing_is_not_a_riddle(
    gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path
) -> None:
    (tmp_path / "log").touch()
    fake.answers["show"] = {"job": in_full(ended(179, log=str(tmp_path / "log")))}
    assert gpuq("logs", "179") == (
        0,
        "",
        "gpuq: it wrote nothing. Job 179 failed: exit code 1\n",
    )


@pytest.mark.parametrize("words", [[], ["-f"]])
def test_somebody_elses_log_is_theirs(
    gpuq: Gpuq, logged: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)  # the tests may run as root, who may read everything
        ran = gpuq("logs", *words, "179")
    assert (ran.code, ran.err) == (5, "gpuq: the log of job 179 is readable to alice alone\n")


def test_errors_that_went_to_a_file_of_their_own(
    gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path
) -> None:
    (tmp_path / "err").write_text("oh\n")
    mine = {"user": service.own_name(), "stderr": str(tmp_path / "err")}
    fake.answers["show"] = {"job": in_full(ended(1, **mine))}
    assert gpuq("logs", "--stderr", "1").out == "oh\n"
    fake.answers["show"] = {"job": in_full(ended(1))}
    assert gpuq("logs", "--stderr", "1").code == 3


# ── gpus ──


def test_gpus_on_a_terminal_on_a_pipe_and_as_json(gpuq: Gpuq, fake: FakeDaemon) -> None:
    both = [simulated(0, state="leased", jobs=[181], exclusive=True), gpu(1)]
    fake.answers["gpus"] = page(gpus=both)
    fake.answers["status"] = page(running(181))
    lines = gpuq("gpus", terminal=True).out.splitlines()
    assert lines[1].startswith("0    simulated  Simulated 24G")
    assert lines[1].endswith("181 job-181 (alice)")
    assert gpuq("gpus").out.splitlines()[1].split("\t")[:5] == [
        "1",
        "GPU-1",
        "NVIDIA H100 80GB HBM3",
        "real",
        "free",
    ]
    assert json.loads(gpuq("gpus", "--json").out) == {"schema": 1, "gpus": both}


def test_processes_on_the_gpus(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["gpus"] = page(gpus=[gpu(0, processes=[process(40121)])])
    assert gpuq("gpus", "--procs").out == f"0\tGPU-0\treal\t40121\tcarol\t{40 * GIB}\t\tpython\t\n"


def test_a_machine_without_gpus_says_why(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["gpus"] = page(gpu_trouble="no NVIDIA driver is loaded")
    assert gpuq("gpus") == (0, "", "gpuq: no GPUs: no NVIDIA driver is loaded\n")
