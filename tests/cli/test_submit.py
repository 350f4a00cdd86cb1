"""From a command line to what the daemon is asked, and from a job's end to an exit code."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest

from gpuq.cli.job_options import describe
from gpuq.errors import NeverFits, UsageError
from tests.cli.conftest import Gpuq
from tests.cli.said import GIB, FakeDaemon, ended, in_full, job, page, running, simulated
from tests.conftest import BIN, until


@pytest.fixture
def accepting(fake: FakeDaemon) -> FakeDaemon:
    """A daemon that takes every job as 184 and lets it wait."""
    fake.answers["submit"] = {"first": 184, "count": 1, "group": "g184", "note": None}
    fake.answers["status"] = page(job(184, reason="2 GPUs, behind 1 job"))
    return fake


def submitted(daemon: FakeDaemon) -> dict[str, Any]:
    spec: dict[str, Any] = daemon.requests("submit")[0]["jobs"][0]
    return spec


# ── what is asked ──


def test_options_come_before_the_command_and_the_rest_is_the_jobs(
    gpuq: Gpuq, accepting: FakeDaemon
) -> None:
    assert gpuq("submit", "-g", "2", "python", "train.py", "--lr", "3", "-g", "7").code == 0
    assert submitted(accepting)["argv"] == ["python", "train.py", "--lr", "3", "-g", "7"]
    assert submitted(accepting)["gpus"] == 2


@pytest.mark.parametrize(
    ("typed", "argv"),
    [
        (["--", "python", "-g", "7"], ["python", "-g", "7"]),
        (["-g2", "--", "--odd-program", "x"], ["--odd-program", "x"]),
        (["echo", "--", "-n"], ["echo", "--", "-n"]),
        (["echo", ""], ["echo", ""]),
        (["echo", "a b", "$HOME", "*"], ["echo", "a b", "$HOME", "*"]),
        (["echo", "byte \udcff"], ["echo", "byte \udcff"]),
        (["sh", "-c", "a\nb"], ["sh", "-c", "a\nb"]),
        (["--shell", "a; b"], ["/bin/sh", "-c", "a; b"]),
    ],
)
def test_argv_is_exact(
    gpuq: Gpuq, accepting: FakeDaemon, typed: list[str], argv: list[str]
) -> None:
    assert gpuq("submit", *typed).code == 0
    assert submitted(accepting)["argv"] == argv


def test_all_options_reach_the_daemon(gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path) -> None:
    words = (
        "-g 2 --gpu-mem 20G --exclusive --gpu-model H100 --visible uuid -c 4 --mem 8G -n vit -p 5 "
        "--grace 1m -e A=1 -e B=x=y --tag a --tag b -o out.log --stderr err.log --seed 7"
    )
    assert gpuq("submit", *words.split(), "-C", str(tmp_path), "true").code == 0
    asked = submitted(accepting)
    assert asked.pop("limits")
    assert isinstance(asked.pop("umask"), int)
    assert asked == {
        "argv": ["true"],
        "gpus": 2,
        "gpu_mem_bytes": 20 * GIB,
        "exclusive": True,
        "gpu_model": "H100",
        "visible": "uuid",
        "cpus": 4,
        "mem_bytes": 8 * GIB,
        "name": "vit",
        "priority": 5,
        "grace_s": 60.0,
        "changes": {"A": "1", "B": "x=y"},
        "tags": ["a", "b"],
        "output": str(tmp_path / "out.log"),
        "stderr": str(tmp_path / "err.log"),
        "seed": 7,
        "cwd": str(tmp_path),
    }


def test_as_much_as_was_used_before_is_asked_for_by_a_word(
    gpuq: Gpuq, accepting: FakeDaemon
) -> None:
    assert gpuq("submit", "--gpu-mem", "auto", "true").code == 0
    asked = submitted(accepting)
    assert asked["gpu_mem"] == "auto"
    assert "gpu_mem_bytes" not in asked
    ran = gpuq("submit", "--gpu-mem", "much", "true")
    assert ran.code == 2
    assert "--gpu-mem" in ran.err


def test_what_is_not_said_is_left_to_the_daemon(gpuq: Gpuq, accepting: FakeDaemon) -> None:
    gpuq("submit", "true")
    for option in ("gpus", "gpu_mem_bytes", "exclusive", "cpus", "priority", "grace_s", "name"):
        assert option not in submitted(accepting)
    assert {"gpu_mem", "mem_bytes"}.isdisjoint(submitted(accepting))


def test_a_job_can_be_held_from_the_start(gpuq: Gpuq, accepting: FakeDaemon) -> None:
    gpuq("submit", "--hold", "true")
    assert submitted(accepting)["held"] is True
    gpuq("submit", "true")
    assert "held" not in accepting.requests("submit")[-1]["jobs"][0]


def test_an_environment_file_is_read_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# a comment\n\nA=1\nB=two words\nC='quoted'\n")
    assert describe(["true"], env_file=str(file), env=["A=over"])["env"] == {
        "A": "over",
        "B": "two words",
        "C": "'quoted'",
    }


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "there is no command to run"),
        (["--"], "there is no command to run"),
        (["--shell", "a", "b"], "--shell holds the whole command, so 'b' has no place beside it"),
        (["-g", "two", "true"], "invalid value for '-g' / '--gpus'"),
        (["--gpu-men", "20G", "true"], "no such option: --gpu-men"),
        (["--gpu-mem", "20", "true"], "--gpu-mem: '20' is no size: write it like 24G or 500M"),
        (["--exclusive", "true"], "--exclusive says how --gpu-mem is meant"),
        (["--gpu-id", "", "true"], "--gpu-id names no GPU: write it like 0-2,5 or GPU-8f3a"),
        (["--gpu-id", ",", "true"], "--gpu-id names no GPU"),
        (["--gpu-id", "0,", "true"], "--gpu-id names no GPU"),
        (["--exclude-gpu", " ", "true"], "--exclude-gpu names no GPU"),
        (
            ["--gpu-id", "0-99999999", "true"],
            "--gpu-id 0-99999999: no machine has a GPU above 1023",
        ),
        (["--exclude-gpu", "1024", "true"], "--exclude-gpu 1024: no machine has a GPU above 1023"),
        (["--gpu-id", "9" * 5000, "true"], "--gpu-id: "),
        (["--visible", "all", "true"], "--visible all: it is auto, uuid or index"),
        (["--grace", "soon", "true"], "--grace: 'soon' is no length of time"),
        (["-e", "novalue", "true"], "-e: 'novalue' is no K=V"),
        (["--env-file", "/no/such", "true"], "--env-file /no/such: No such file"),
        (["-f", "--json", "true"], "--json and --follow both want stdout"),
    ],
)
@pytest.mark.parametrize("command", ["submit", "run"])
def test_a_slip_queues_nothing(
    gpuq: Gpuq, fake: FakeDaemon, command: str, words: list[str], complaint: str
) -> None:
    if command == "run" and "-f" in words:
        complaint = "no such option: -f"
    ran = gpuq(command, *words)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith(f"gpuq: {complaint}")
    assert ran.err.count("\n") == 1
    assert fake.asked == []


# ── what is answered ──


def test_on_a_pipe_submit_prints_the_id_alone(gpuq: Gpuq, accepting: FakeDaemon) -> None:
    assert gpuq("submit", "true") == (0, "184\n", "")
    assert accepting.requests("status") == []


def test_on_a_terminal_submit_says_what_became_of_the_job(
    gpuq: Gpuq, accepting: FakeDaemon
) -> None:
    ran = gpuq("submit", "true", terminal=True)
    assert ran.out == (
        "Job 184 queued: 2 GPUs, behind 1 job\n"
        "  follow: gpuq logs -f 184      stop: gpuq kill 184\n"
    )
    assert accepting.requests("status")[0]["after_turn"] is True


def test_a_job_on_simulated_gpus_is_greeted_as_such(gpuq: Gpuq, accepting: FakeDaemon) -> None:
    accepting.answers["status"] = page(running(184), gpus=[simulated()])
    assert gpuq("submit", "true", terminal=True).out.startswith(
        "Job 184 running on simulated GPU 0\n"
    )


def test_submit_as_json_is_the_daemons_own_view(gpuq: Gpuq, accepting: FakeDaemon) -> None:
    ran = gpuq("submit", "--json", "true")
    assert json.loads(ran.out) == {
        "schema": 1,
        "jobs": [job(184, reason="2 GPUs, behind 1 job")],
    }


def test_what_can_never_run_keeps_its_code(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["submit"] = NeverFits("--gpus 9 can never start: this machine has 8 GPUs.")
    assert gpuq("run", "-g", "9", "true") == (
        6,
        "",
        "gpuq: --gpus 9 can never start: this machine has 8 GPUs.\n",
    )


# ── how it ends ──


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"outcome": "succeeded", "exit_code": 0}, 0, ""),
        ({"exit_code": 7, "reason": "exit code 7"}, 7, "gpuq: job 184 failed: exit code 7\n"),
        ({"exit_code": None, "signal": 9, "reason": None}, 137, "gpuq: job 184 failed\n"),
        ({"exit_code": None, "outcome": "lost", "reason": "lost: a power cut"}, 125, None),
    ],
)
def test_submit_wait_passes_the_jobs_code_on(
    gpuq: Gpuq, accepting: FakeDaemon, changes: dict[str, Any], code: int, said: str | None
) -> None:
    accepting.answers["wait"] = {"timed_out": False, "ended": "184"}
    accepting.answers["status"] = page(ended(184, **changes))
    ran = gpuq("submit", "-w", "true")
    assert (ran.code, ran.out) == (code, "184\n")
    assert said is None or ran.err == said


def test_a_failure_of_our_own_while_waiting_is_no_code_of_the_jobs(
    gpuq: Gpuq, accepting: FakeDaemon
) -> None:
    accepting.answers["wait"] = UsageError("this daemon knows no wait")
    assert gpuq("submit", "-w", "true").code == 125


def test_run_follows_the_log_to_its_end(gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"step 1\nstep 2\r\xff\x00")
    views = [job(184), running(184, log=str(log)), ended(184, exit_code=3, log=str(log))]
    accepting.answers["show"] = lambda _: {"job": in_full(views.pop(0))}
    accepting.answers["wait"] = {"timed_out": False, "ended": "184"}
    accepting.answers["gpus"] = page(gpus=[simulated()])
    ran = gpuq("run", "true")
    assert ran.code == 3
    assert ran.out.encode("utf-8", "surrogateescape") == b"step 1\nstep 2\r\xff\x00"
    assert "gpuq: job 184 running on simulated GPU 0\n" in ran.err


def start_run(fake: FakeDaemon, log: Path | None = None) -> "subprocess.Popen[str]":
    """`gpuq run` as a process of its own, whose job runs and does not end."""
    view = running(184, log=None if log is None else str(log))
    fake.answers["submit"] = {"first": 184, "count": 1, "group": "g184", "note": None}
    fake.answers["show"] = {"job": in_full(view)}
    fake.answers["wait"] = {"timed_out": True, "ended": ""}
    fake.answers["gpus"] = page()
    return subprocess.Popen(
        [BIN / "gpuq", "run", "train"],
        env={**os.environ, "GPUQ_SOCKET": fake.path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupt(ran: "subprocess.Popen[str]", fake: FakeDaemon) -> None:
    until(lambda: fake.requests("wait"), "following")
    ran.send_signal(signal.SIGINT)


def test_the_first_interrupt_detaches_and_says_how_to_come_back(fake: FakeDaemon) -> None:
    with start_run(fake) as ran:
        interrupt(ran, fake)
        _, err = ran.communicate(timeout=20)
    assert ran.returncode == 130
    assert "job 184 goes on" in err
    assert "gpuq logs -f 184" in err
    assert "gpuq kill 184" in err
    assert fake.requests("kill") == []


def test_the_second_interrupt_kills_and_waits_for_the_end(fake: FakeDaemon) -> None:
    fake.answers["kill"] = {"jobs": [{"id": 184, "done": "stopping", "grace_s": 10}]}
    with start_run(fake) as ran:
        assert ran.stderr is not None
        interrupt(ran, fake)
        while "detached" not in ran.stderr.readline():
            pass
        fake.answers["wait"] = {"timed_out": False, "ended": "184"}
        over = ended(184, outcome="cancelled", exit_code=None, signal=15)
        fake.answers["status"] = page(over)
        ran.send_signal(signal.SIGINT)
        ran.communicate(timeout=20)
    assert ran.returncode == 143
    assert fake.requests("kill")[0]["refs"] == ["184"]


def test_a_reader_who_leaves_does_not_end_the_job(fake: FakeDaemon, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"many words\n" * 100_000)
    with start_run(fake, log) as ran:
        assert ran.stdout is not None
        ran.stdout.close()
        assert ran.stderr is not None
        err = ran.stderr.read()
        assert ran.wait(20) == 141
    assert "nobody reads any more; job 184 goes on" in err
    assert "Traceback" not in err
    assert fake.requests("kill") == []


@pytest.mark.parametrize(
    ("words", "doubt"),
    [
        (["no-such-program"], "'no-such-program' is no program that can be found"),
        (["python train.py | tee x"], "goes to a shell with --shell"),
        (["-C", "/no/such", "true"], "no directory /no/such"),
        (["-o", "/no/such/log", "true"], "no directory /no/such for --output"),
        (["./setup.cfg.txt"], "chmod +x"),
    ],
)
def test_what_is_going_to_fail_is_said_and_queued_all_the_same(
    words: list[str], doubt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpuq.cli.foresight import foresee

    monkeypatch.chdir(tmp_path)
    (tmp_path / "setup.cfg.txt").write_text("x")
    said: list[str] = []
    monkeypatch.setattr("gpuq.cli.console.keep_note", lambda context, line: said.append(line))
    options = {"-C": "cwd", "-o": "output"}
    asked: dict[str, object] = {"argv": words[-1:]}
    if words[0] in options:
        asked[options[words[0]]] = words[1]
    foresee(cast(Any, None), asked)
    assert len(said) == 1
    assert doubt in said[0]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["echo", "{LR}"], "no {lr} in the command, there is {LR}; unless it reads GPUQ_PARAM_LR"),
        (["echo", "hello"], "no {lr} in the command; unless it reads GPUQ_PARAM_LR by itself, all"),
        (["echo", "{{lr}} ${lr}"], "no {lr} in the command;"),
        (["echo", "{lr}"], None),
        (["sh", "-c", 'echo "$GPUQ_PARAM_LR"'], None),
    ],
)
def test_a_parameter_that_nothing_uses_is_said(
    argv: list[str], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpuq.cli.foresight import foresee

    notes: list[str] = []
    monkeypatch.setattr("gpuq.cli.console.keep_note", lambda context, line: notes.append(line))
    for array in ({"axes": [["lr", ["0.1", "1"]]]}, {"columns": ["lr"], "rows": [["0.1"]]}):
        foresee(cast(Any, None), {"argv": argv, "array": array})
    assert len(notes) == (0 if said is None else 2)
    assert all(said is not None and said in note for note in notes)
    notes.clear()
    asked = {"argv": ["true"], "output": "run-{lr}", "env": {"WD": "{wd}"}}
    foresee(cast(Any, None), asked | {"array": {"axes": [["lr", ["1"]], ["wd", ["0"]]]}})
    foresee(cast(Any, None), {"argv": ["true"], "array": {"indices": [[0, 4, 1]]}})
    assert notes == []


def test_nothing_is_said_of_what_will_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuq.cli.foresight import foresee

    monkeypatch.setattr("gpuq.cli.console.keep_note", pytest.fail)
    foresee(cast(Any, None), {"argv": ["true"]})
    foresee(cast(Any, None), {"argv": ["/bin/sh", "-c", "x"], "cwd": "/", "output": "/tmp/log"})
