"""A pipeline's file, judged as a whole before anything is queued."""

import os
from pathlib import Path

import pytest

from gpuq.cli.pipeline_file import Pipeline, read_pipeline
from gpuq.errors import UsageError
from tests.cli.conftest import Gpuq
from tests.cli.said import GIB, FakeDaemon, ended, job, page

THREE = """
name = "vision"
gpus = 1
time = "2h"
env = { RUN = "a", DEPTH = 2 }

[stages.report]
shell = "cat *.json"
gpus = 0
needs = ["faces:any", "decode"]

[stages.decode]
command = ["python", "decode.py", "--lr", "3"]
gpu_mem = "20G"
tag = ["io"]
retries = 2

[stages.faces]
command = ["python", "faces.py"]
env = { RUN = "b" }
cwd = "sub"
needs = ["decode"]
"""


def written(folder: Path, text: str) -> str:
    path = folder / "file.toml"
    path.write_text(text)
    return str(path)


def read(folder: Path, text: str) -> Pipeline:
    return read_pipeline(written(folder, text))


def test_stages_come_after_those_that_they_need_and_otherwise_as_they_are_written(
    tmp_path: Path,
) -> None:
    assert [stage.name for stage in read(tmp_path, THREE).stages] == ["decode", "faces", "report"]
    free = "".join(f'[stages.{name}]\nshell = "true"\n' for name in "cab")
    assert [stage.name for stage in read(tmp_path, free).stages] == ["c", "a", "b"]


def test_needs_become_numbers_of_earlier_entries(tmp_path: Path) -> None:
    decode, faces, report = read(tmp_path, THREE).jobs()
    assert "after" not in decode
    assert faces["after"] == [{"entry": 0, "when": "ok", "each": False}]
    assert report["after"] == [
        {"entry": 1, "when": "any", "each": False},
        {"entry": 0, "when": "ok", "each": False},
    ]


def test_values_mean_what_they_mean_on_the_command_line(tmp_path: Path) -> None:
    decode, _, _ = read(tmp_path, THREE).jobs()
    assert decode["argv"] == ["python", "decode.py", "--lr", "3"]
    assert decode["gpu_mem_bytes"] == 20 * GIB
    assert decode["time_limit_s"] == 7200
    assert (decode["gpus"], decode["retries"], decode["tags"]) == (1, 2, ["io"])


def test_a_stage_has_the_last_word_and_adds_to_the_environment(tmp_path: Path) -> None:
    decode, faces, report = read(tmp_path, THREE).jobs()
    assert (decode["env"], faces["env"]) == ({"RUN": "a", "DEPTH": "2"}, {"RUN": "b", "DEPTH": "2"})
    assert report["gpus"] == 0
    assert report["argv"] == ["/bin/sh", "-c", "cat *.json"]


def test_stages_are_named_after_the_pipeline_and_run_beside_its_file(tmp_path: Path) -> None:
    jobs = read(tmp_path, THREE).jobs()
    assert [one["name"] for one in jobs] == ["vision/decode", "vision/faces", "vision/report"]
    assert [os.path.normpath(one["cwd"]) for one in jobs] == [
        str(tmp_path),
        str(tmp_path / "sub"),
        str(tmp_path),
    ]
    assert read(tmp_path, '[stages.a]\nshell = "x"').name == "file"


def test_other_jobs_can_be_waited_for_too(tmp_path: Path) -> None:
    (only,) = read(tmp_path, '[stages.a]\nshell = "x"\nafter = ["12:any"]').jobs()
    assert only["after"] == [{"jobs": "12", "when": "any", "each": False}]


def test_a_stage_may_be_an_array_whose_elements_wait_for_those_of_another(tmp_path: Path) -> None:
    text = """
        [stages.train]
        command = ["python", "train.py", "{lr}", "{seed}"]
        array = "%2"
        grid = { lr = [0.1, 0.01], seed = "1-3" }
        [stages.eval]
        command = ["python", "eval.py", "{i}"]
        array = "0-5"
        needs = ["train:each"]
    """
    train, evaluate = read(tmp_path, text).jobs()
    assert train["array"]["axes"] == [["lr", ["0.1", "0.01"]], ["seed", ["1", "2", "3"]]]
    assert train["array"]["max_running"] == 2
    assert evaluate["after"] == [{"entry": 0, "when": "ok", "each": True}]


def test_a_table_lies_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("lr\n0.1\n0.2\n")
    text = '[stages.a]\ncommand = ["x", "{lr}"]\nparams = "runs.csv"'
    (only,) = read(tmp_path, text).jobs()
    assert len(only["array"]["rows"]) == 2


STAGE = '[stages.a]\nshell = "true"\n'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it has no stages"),
        ("stages = 3", "it has no stages"),
        ("[stages", "this is no TOML"),
        (f"gpu = 2\n{STAGE}", "there is no 'gpu'; did you mean gpus?"),
        (f"{STAGE}gpu-mem = '2G'", "stages.a: there is no 'gpu-mem'; did you mean gpu_mem?"),
        (f"shell = 'x'\n{STAGE}", "shell is a stage's own"),
        ("stages.a = 3", r"stages.a is a table"),
        ("[stages.a]\ngpus = 1", "stages.a: there is no command to run"),
        ("[stages.a]\ncommand = 'python a.py'", "command is a list of words"),
        (f"{STAGE}command = ['x']", "--shell holds the whole command"),
        (f"{STAGE}gpus = 'two'", "gpus cannot be 'two'"),
        (f"{STAGE}gpus = true", "gpus cannot be True"),
        (f"{STAGE}exclusive = 1", "exclusive cannot be 1"),
        (f"{STAGE}tag = [['x']]", "tag cannot be"),
        (f"{STAGE}time = 30", "--time 30: of what"),
        (f"{STAGE}gpu_mem = 'much'", "--gpu-mem"),
        (f"{STAGE}needs = 'b'", "it is a list of stages"),
        (f"{STAGE}needs = ['b']", "needs: no stage 'b'"),
        (f"{STAGE}needs = ['a']", "stages wait for each other: a needs a"),
        (f"{STAGE}needs = ['a:maybe']", "how is ok, any or fail"),
        (f"name = 3\n{STAGE}", "name is a text"),
        (f"retries = 'x'\n{STAGE}", "retries cannot be 'x'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        read(tmp_path, text)


def test_a_circle_is_named_with_its_way(tmp_path: Path) -> None:
    needs = {"a": "b", "b": "c", "c": "b"}
    text = "".join(f'[stages.{a}]\nshell = "x"\nneeds = ["{b}"]\n' for a, b in needs.items())
    with pytest.raises(UsageError, match="b needs c needs b"):
        read(tmp_path, text)


def test_a_misspelt_stage_is_named_with_its_neighbour(tmp_path: Path) -> None:
    text = '[stages.decode]\nshell = "x"\n[stages.b]\nshell = "x"\nneeds = ["decod"]\n'
    with pytest.raises(UsageError, match=r"stages.b: needs: no stage 'decod'; did you mean decode"):
        read(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere.toml: No such file"):
        read_pipeline(str(tmp_path / "nowhere.toml"))


# ─── on the command line ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
def accepting(fake: FakeDaemon) -> FakeDaemon:
    fake.answers["submit"] = {
        "first": 5,
        "count": 4,
        "group": "g5",
        "entries": [[5, 5], [6, 7], [8, 8]],
        "note": None,
    }
    jobs = [job(number, group="g5", reason=f"after {number - 1} (ok)") for number in (5, 6, 8)]
    fake.answers["status"] = page(*jobs)
    return fake


def test_all_stages_are_one_submission(gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path) -> None:
    ran = gpuq("submit", "--pipeline", written(tmp_path, THREE))
    assert (ran.code, ran.out) == (0, "5\tdecode\n6-7\tfaces\n8\treport\n")
    (sent,) = accepting.requests("submit")
    assert [one["name"] for one in sent["jobs"]] == [
        "vision/decode",
        "vision/faces",
        "vision/report",
    ]


def test_a_terminal_shows_the_stages_with_their_ids_and_reasons(
    gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path
) -> None:
    out = gpuq("submit", "--pipeline", written(tmp_path, THREE), terminal=True).out
    assert out.splitlines()[0] == "Pipeline vision: 3 stages queued, group g5"
    assert "6-7  faces   queued  after 5 (ok)" in out
    assert "gpuq kill g5" in out


def test_it_waits_for_all_and_exits_with_the_highest_code(
    gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path
) -> None:
    jobs = [
        ended(5, outcome="succeeded", exit_code=0),
        ended(6, outcome="failed", exit_code=3, reason="exit code 3"),
    ]
    accepting.answers["wait"] = {"timed_out": False, "ended": "5-6"}
    accepting.answers["status"] = page(*jobs)
    ran = gpuq("submit", "--wait", "--pipeline", written(tmp_path, THREE))
    assert ran.code == 3
    assert "job 6 failed: exit code 3" in ran.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["-g", "2"], "--gpus stands in the pipeline's file: gpus = …"),
        (["--follow"], "--follow shows one log"),
        (["--", "python"], "'python' has no place beside it"),
    ],
)
def test_nothing_is_said_beside_a_pipeline(
    gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path, words: list[str], why: str
) -> None:
    ran = gpuq("submit", "--pipeline", written(tmp_path, THREE), *words)
    assert ran.code == 2
    assert why in ran.err
    assert accepting.requests("submit") == []


def test_a_mistake_in_the_last_stage_queues_nothing(
    gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path
) -> None:
    broken = written(tmp_path, THREE + '\n[stages.last]\nshell = "x"\nneeds = ["decoed"]\n')
    assert gpuq("submit", "--pipeline", broken).code == 2
    assert accepting.requests("submit") == []
