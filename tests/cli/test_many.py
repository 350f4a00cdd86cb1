"""Many jobs at once: arrays, and a job for each line of a file or a pipe."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuq.cli import many
from gpuq.cli.lines import read_line
from gpuq.errors import GpuqError, UsageError
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, Said, ended, job, page
from tests.conftest import BIN, until


@pytest.fixture
def accepting(fake: FakeDaemon) -> FakeDaemon:
    """A daemon that gives ids from 12 on."""
    given = iter(range(12, 10**9))

    def submit(request: Said) -> Said:
        ids = [next(given) for spec in request["jobs"] for _ in range(_count(spec))]
        return {"first": ids[0], "count": len(ids), "group": f"g{ids[0]}", "note": None}

    fake.answers["submit"] = submit
    fake.answers["status"] = page(job(12, reason="wants 1 GPU, 0 free"))
    return fake


def _count(spec: Said) -> int:
    indices = spec.get("array", {}).get("indices", [[0, 1, 1]])
    return sum(len(range(*span)) for span in indices)


def specs(daemon: FakeDaemon) -> list[dict[str, Any]]:
    return [spec for request in daemon.requests("submit") for spec in request["jobs"]]


def lines(folder: Path, *texts: str) -> str:
    file = folder / "jobs.txt"
    file.write_text("".join(f"{text}\n" for text in texts))
    return str(file)


# ── arrays ──


def test_an_array_is_one_job_on_the_wire(gpuq: Gpuq, accepting: FakeDaemon) -> None:
    assert gpuq("submit", "--array", "0-999999%4", "true", "{i}") == (0, "g12\n", "")
    (asked,) = specs(accepting)
    assert asked["argv"] == ["true", "{i}"]
    assert asked["array"] == {"indices": [[0, 1_000_000, 1]], "max_running": 4}


def test_a_grid_is_each_with_each(gpuq: Gpuq, accepting: FakeDaemon) -> None:
    gpuq("submit", "--grid", "lr=0.1,0.01", "--grid", "seed=1-3", "-a", "%2", "true")
    assert specs(accepting)[0]["array"] == {
        "indices": [[0, 6, 1]],
        "axes": [["lr", ["0.1", "0.01"]], ["seed", ["1", "2", "3"]]],
        "max_running": 2,
    }


def test_a_table_gives_an_element_for_each_row(
    gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path
) -> None:
    (tmp_path / "runs.csv").write_text("lr,name\n0.1,a\n0.2,\udcff\n", errors="surrogateescape")
    gpuq("submit", "--params", str(tmp_path / "runs.csv"), "true")
    assert specs(accepting)[0]["array"] == {
        "indices": [[0, 2, 1]],
        "columns": ["lr", "name"],
        "rows": [["0.1", "a"], ["0.2", "\udcff"]],
    }


def test_on_a_terminal_an_array_is_greeted_as_a_whole(gpuq: Gpuq, accepting: FakeDaemon) -> None:
    assert gpuq("submit", "-a", "0-99%4", "true", terminal=True).out == (
        "Array g12 of 100 jobs queued, at most 4 at once. "
        "Job 12 queued: wants 1 GPU, 0 free\n"
        "  see: gpuq group g12      follow: gpuq logs -f 12      stop: gpuq kill g12\n"
    )


def test_an_array_as_json_is_its_group(gpuq: Gpuq, accepting: FakeDaemon) -> None:
    said = json.loads(gpuq("submit", "--json", "-a", "0-9", "true").out)
    assert said == {"schema": 1, "group": "g12", "first": 12, "count": 10}


def test_waiting_for_an_array_gives_the_highest_code(gpuq: Gpuq, accepting: FakeDaemon) -> None:
    accepting.answers["wait"] = {"timed_out": False, "ended": "12-14"}
    accepting.answers["status"] = page(
        ended(12, outcome="succeeded", exit_code=0),
        ended(13, exit_code=7, reason="exit code 7"),
        ended(14, exit_code=3, reason="exit code 3"),
    )
    ran = gpuq("submit", "-w", "-a", "0-2", "true")
    assert (ran.code, ran.out) == (7, "g12\n")
    assert ran.err.splitlines() == [
        "gpuq: job 13 failed: exit code 7",
        "gpuq: job 14 failed: exit code 3",
    ]
    assert accepting.requests("wait")[0]["refs"] == ["g12"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-a", "5-1", "true"], "--array: '5-1' runs backwards"),
        (["-a", "", "true"], "--array: '' is no index"),
        (["--params", "", "true"], "--params : No such file"),
        (["--grid", "lr", "true"], "--grid: 'lr' is no NAME=VALUES"),
        (["--grid", "lr=1", "--grid", "lr=2", "true"], "--grid lr is there twice"),
        (["--grid", "lr=1", "--grid", "LR=2", "true"], "'lr' and 'LR' would both be GPUQ_PARAM_LR"),
        (["--grid", "lr=1,2", "-a", "1-3", "true"], "--grid gives 2 elements, and --array 3"),
        (["--params", "/no/such", "true"], "--params /no/such: No such file"),
        (["-f", "-a", "0-1", "true"], "--follow follows one job, and this is an array"),
        (
            ["--grid", "lr=1,2", "--shell", "echo {lr}"],
            "--shell: a shell would read the value of {lr} as text of its own: "
            'write "$GPUQ_PARAM_LR", or {{lr}}',
        ),
        (["-a", "0-1", "--shell", "echo {i}"], "--shell: a shell would read the value of {i}"),
    ],
)
def test_a_slip_in_an_array_queues_nothing(
    gpuq: Gpuq, fake: FakeDaemon, words: list[str], complaint: str
) -> None:
    ran = gpuq("submit", *words)
    assert ran.code == 2
    assert complaint in ran.err
    assert fake.asked == []


def test_a_sign_in_the_name_of_the_directory_is_none(
    gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path
) -> None:
    (tmp_path / "50%a").mkdir()
    gpuq("submit", "-C", f"{tmp_path}/50%a", "-o", "%a.log", "--stderr", "/e/%a", "true")
    assert specs(accepting)[0]["output"] == f"{tmp_path}/50%%a/%a.log"
    assert specs(accepting)[0]["stderr"] == "/e/%a"


def test_a_shells_own_braces_stay(gpuq: Gpuq, accepting: FakeDaemon) -> None:
    text = 'for i in a b; do echo ${i} {{i}} {x} "$GPUQ_PARAM_LR"; done'
    assert gpuq("submit", "--grid", "lr=1,2", "--shell", text).code == 0
    assert specs(accepting)[0]["argv"] == ["/bin/sh", "-c", text]


# ── lines ──


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("python train.py --lr 0.1", {"argv": ["python", "train.py", "--lr", "0.1"]}),
        ("  echo 'a  b' \"c d\" e\\ f  ", {"argv": ["echo", "a  b", "c d", "e f"]}),
        ("echo a#b '#c'", {"argv": ["echo", "a#b", "#c"]}),
        ("echo '$HOME' '|' \"a > b; c\" \\$x", {"argv": ["echo", "$HOME", "|", "a > b; c", "$x"]}),
        ("train a=[1,2] x=* y~", {"argv": ["train", "a=[1,2]", "x=*", "y~"]}),
        ("", None),
        ("   ", None),
        ("# a comment", None),
        ('{"argv": ["a", "b"], "gpus": 2}', {"argv": ["a", "b"], "gpus": 2}),
        ('{"shell": "a | b", "name": null}', {"argv": ["/bin/sh", "-c", "a | b"]}),
    ],
)
def test_a_line_is_a_command_or_an_object(line: str, entry: dict[str, Any] | None) -> None:
    assert read_line(line) == entry


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("echo 'a", "no closing quotation"),
        ("'' a", "its first word is empty"),
        ("a | b", "'|' is for a shell"),
        ("a>b", "'>' is for a shell"),
        ("a; b", "';' is for a shell"),
        ("a &", "'&' is for a shell"),
        ("ls ~/data", "'~' is for a shell"),
        ("echo $HOME", "'$HOME' is for a shell"),
        ('echo "$HOME"', "'$HOME' is for a shell"),
        ("echo `date`", "'`' is for a shell"),
        ('{"argv": ["a"]', "it begins like JSON and is none"),
        pytest.param('{"argv":' + "[" * 100_000, "it begins like JSON and is none", id="deep"),
        ('{"argv": ["a"], "gpu": 1}', "a job has no field 'gpu' (is it 'gpus'?)"),
        ('{"gpus": 1}', 'it wants either "argv"'),
        ('{"argv": ["a"], "shell": "b"}', 'it wants either "argv"'),
        ('{"argv": "a b"}', '"argv" is a list of words'),
        ('{"argv": []}', '"argv" is a list of words'),
        ('{"argv": [1]}', '"argv" is a list of words'),
        ('{"shell": 1}', '"argv" is a list of words'),
        ('{"argv": ["a"], "env": ["A=1"]}', '"env" is an object'),
    ],
)
def test_a_line_that_cannot_be_read_says_why(line: str, complaint: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_line(line)
    assert str(refused.value).startswith(complaint)


# ── --from ──


def test_each_line_is_a_job_of_one_group(
    gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "MOST_IN_BATCH", 2)
    file = lines(tmp_path, "\ufefftrue 1", "# no", "", "true 2\r", "true 3", "true 4", "true 5")
    assert gpuq("submit", "--from", file) == (0, "g12\n", "")
    assert [spec["argv"] for spec in specs(accepting)] == [["true", str(n)] for n in range(1, 6)]
    groups = [request.get("group") for request in accepting.requests("submit")]
    assert groups == [None, "g12", "g12"]
    assert len({request["token"] for request in accepting.requests("submit")}) == 3


def test_the_command_line_says_what_the_lines_do_not(
    gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path
) -> None:
    own = {"argv": ["true"], "gpus": 2, "env": {"A": "line"}}
    file = lines(tmp_path, "true", json.dumps(own))
    gpuq("submit", "-g", "0", "-n", "all", "-e", "A=typed", "-e", "B=typed", "--from", file)
    first, second = specs(accepting)
    assert (first["gpus"], first["name"], first["changes"]["A"]) == (0, "all", "typed")
    assert (second["gpus"], second["name"]) == (2, "all")
    assert second["changes"] == {"A": "line", "B": "typed"}


def test_a_last_line_needs_no_end(gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path) -> None:
    file = tmp_path / "jobs"
    file.write_text("true 1\ntrue 2")
    gpuq("submit", "--from", str(file))
    assert specs(accepting)[1]["argv"] == ["true", "2"]


def test_on_a_terminal_the_range_is_told(gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path) -> None:
    file = lines(tmp_path, *["true"] * 3)
    assert gpuq("submit", "--from", file, terminal=True).out == (
        "Jobs 12-14 queued as g12\n  see: gpuq group g12      stop: gpuq kill g12\n"
    )


def test_a_bad_line_is_named_with_what_is_queued_before_it(
    gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "MOST_IN_BATCH", 2)
    ran = gpuq("submit", "--from", lines(tmp_path, "true", "true", "true", "echo 'x"))
    assert (ran.code, ran.out) == (2, "g12\n")
    assert ran.err == (
        f"gpuq: {tmp_path}/jobs.txt, line 4: no closing quotation. Queued from the lines "
        "before, as g12: 2 jobs; to end them: gpuq kill g12\n"
    )
    assert len(specs(accepting)) == 2


def test_a_bad_line_in_the_first_batch_leaves_nothing_queued(
    gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path
) -> None:
    ran = gpuq("submit", "--from", lines(tmp_path, "true", "true | false"))
    assert (ran.code, ran.out, specs(accepting)) == (2, "", [])
    assert "line 2: '|' is for a shell" in ran.err
    assert ran.err.endswith("Nothing was queued\n")


def test_what_the_daemon_refuses_names_the_lines(
    gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path
) -> None:
    fake.answers["submit"] = GpuqError("you have 10 jobs queued.")
    ran = gpuq("submit", "--from", lines(tmp_path, "# first", "true", "true"))
    assert ran.code == 1
    assert "jobs.txt, lines 2 to 3: you have 10 jobs queued. Nothing was queued" in ran.err


@pytest.mark.parametrize(
    ("words", "complaint", "code"),
    [
        (["--from", "/no/such"], "--from /no/such: No such file", 2),
        (["--from", "/tmp"], "--from /tmp: Is a directory", 2),
        (["--from", "FILE", "true"], "'true' has no place beside it", 2),
        (["--from", "FILE", "--shell", "a"], "--shell has no place beside it", 2),
        (["--from", "FILE", "-a", "0-1"], "--array has no place beside it", 2),
        (["--from", "FILE", "-f"], "--follow follows one job", 2),
        (["--from", "FILE", "--gpu-mem", "x"], "--gpu-mem: 'x' is no size", 2),
        (["--from", "EMPTY"], "holds no command: nothing was queued", 3),
    ],
)
def test_a_slip_beside_from_queues_nothing(
    gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path, words: list[str], complaint: str, code: int
) -> None:
    (tmp_path / "empty").write_text("\n# nothing\n")
    files = {"FILE": lines(tmp_path, "true"), "EMPTY": str(tmp_path / "empty")}
    ran = gpuq("submit", *(files.get(word, word) for word in words))
    assert ran.code == code
    assert complaint in ran.err
    assert "line 1" not in ran.err
    assert fake.requests("submit") == []


def test_a_script_in_a_line_is_taken_as_one(
    gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.sh").write_text("#!/bin/sh\n#SBATCH --gres=gpu:2 --account=x\n")
    ran = gpuq("submit", "--from", lines(tmp_path, "./train.sh 1", "./train.sh 2"))
    assert [(spec["gpus"], spec["argv"][1]) for spec in specs(accepting)] == [(2, "1"), (2, "2")]
    assert ran.err.count("--account") == 1


# ── a pipe that stays open ──


@pytest.fixture
def piped(accepting: FakeDaemon) -> Callable[[], "subprocess.Popen[str]"]:
    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [BIN / "gpuq", "submit", "--from", "-"],
            env={**os.environ, "GPUQ_SOCKET": accepting.path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def test_a_quiet_pipe_has_its_jobs_queued(
    piped: Callable[[], "subprocess.Popen[str]"], accepting: FakeDaemon
) -> None:
    with piped() as ran:
        assert ran.stdin is not None
        assert ran.stdout is not None
        os.write(ran.stdin.fileno(), b"true 1\ntrue 2\ntru")
        until(lambda: specs(accepting), "the first jobs")
        assert ran.stdout.readline() == "g12\n"
        assert [spec["argv"][1] for spec in specs(accepting)] == ["1", "2"]
        os.write(ran.stdin.fileno(), b"e 3\n")
        until(lambda: len(specs(accepting)) == 3, "the third job")
        out, err = ran.communicate(timeout=20)
    assert (ran.returncode, out, err) == (0, "", "")
    assert accepting.requests("submit")[1]["group"] == "g12"


def test_an_interrupt_says_what_is_queued(
    piped: Callable[[], "subprocess.Popen[str]"], accepting: FakeDaemon
) -> None:
    with piped() as ran:
        assert ran.stdin is not None
        assert ran.stdout is not None
        os.write(ran.stdin.fileno(), b"true 1\n")
        until(lambda: specs(accepting), "the first job")
        assert ran.stdout.readline() == "g12\n"
        ran.send_signal(signal.SIGINT)
        _, err = ran.communicate(timeout=20)
    assert ran.returncode == 130
    assert err == (
        "gpuq: interrupted. Queued from the lines before, as g12: 1 job; "
        "to end them: gpuq kill g12\n"
    )
