"""What a job reports is there, whole and as it was said; and no report ever harms the job."""

import ast
import copy
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections import UserDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq import job
from tests.builders import STEADY

SOURCE = Path(job.__file__)


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test begins inside a job, or within a second of a heartbeat."""
    for name in [name for name in os.environ if name.startswith("GPUQ_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(job, "_beat_due", 0.0)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inside a job: where its reports go."""
    monkeypatch.setenv("GPUQ_REPORT", str(tmp_path / "report"))
    return tmp_path / "report"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("job")


def lines(file: Path) -> list[dict[str, Any]]:
    """Every line of the file but empty ones; each is whole and within the limit."""
    content = file.read_bytes()
    assert content.endswith(b"\n")
    assert max(map(len, content.splitlines(keepends=True))) <= 4096
    return [json.loads(line) for line in content.splitlines() if line]


def values(file: Path) -> dict[str, Any]:
    """Those of the last report."""
    said: dict[str, Any] = lines(file)[-1]["v"]
    return said


def script(folder: Path, code: str, python: str = sys.executable) -> list[str]:
    """A command that runs this beside a copy of job.py, without anything else to import from."""
    shutil.copy(SOURCE, folder / "job.py")
    return [
        *(python, "-S", "-I", "-c"),
        f"import sys; sys.path.insert(0, {str(folder)!r})\nimport job\n{code}",
    ]


def alone(folder: Path, code: str, python: str = sys.executable, **environment: object) -> str:
    """What that prints."""
    ran = subprocess.run(
        script(folder, code, python),
        env={name: str(value) for name, value in environment.items()},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def pythons() -> list[str]:
    """This one, and those of other versions that are here; a name may be there that runs nothing."""
    names = [shutil.which(f"python3.{minor}") for minor in range(8, 16)]
    ask = [*("-S", "-I", "-c"), "import sys; print(sys.executable)"]
    asked = [
        subprocess.run([name, *ask], capture_output=True, text=True, check=False)
        for name in names
        if name is not None
    ]
    return [sys.executable, *(ran.stdout.strip() for ran in asked if ran.returncode == 0)]


# ── the line ──


def test_a_report_is_one_line_with_its_writer_number_and_time(file: Path) -> None:
    began = time.time()
    assert job.report(progress=0.5, loss=0.25)
    assert job.report({"val/loss": 1}, note="x")
    first, second = lines(file)
    assert first["v"] == {"progress": 0.5, "loss": 0.25}
    assert second["v"] == {"val/loss": 1, "note": "x"}
    assert second["n"] == first["n"] + 1
    assert first["by"] == second["by"]
    assert first["pid"] == os.getpid()
    assert began - 0.001 <= first["at"] <= time.time() + 0.001
    assert set(first) == {"by", "n", "pid", "at", "v"}
    assert b"\n\n" not in file.read_bytes()


def test_only_the_user_may_read_what_his_job_reports(file: Path) -> None:
    job.report(loss=1)
    assert file.stat().st_mode & 0o777 == 0o600


class Scalar:
    """A number as numpy and torch give it."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def item(self) -> Any:
        if isinstance(self.content, Exception):
            raise self.content
        return self.content

    def __str__(self) -> str:
        return "array([1, 2])"


class Measured:
    def __float__(self) -> float:
        return 2.5


class Hostile:
    def __str__(self) -> str:
        raise KeyError("no")


class Endless:
    def __getattr__(self, name: str) -> Any:
        return Endless

    def __str__(self) -> str:
        return "endless"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Scalar(0.1), 0.1),
        (Scalar(True), True),
        (Scalar(7), 7),
        (Scalar(math.nan), {"float": "nan"}),
        (Scalar(ValueError("can only convert an array of size 1")), "array([1, 2])"),
        (Scalar(RuntimeError("CUDA error")), "array([1, 2])"),
        (Endless(), "endless"),
        (Measured(), 2.5),
        (math.nan, {"float": "nan"}),
        (math.inf, {"float": "inf"}),
        (-math.inf, {"float": "-inf"}),
        (10**30, 10**30),
        (10**5000, "<int>"),
        (1 + 2j, "(1+2j)"),
        ([1, 2], "[1, 2]"),
        (list(range(10**6)), "[0, 1, 2, 3, 4, 5, ...]"),
        ({"a": {"b": 1}}, "{'a': {'b': 1}}"),
        (Path("/data/run"), "/data/run"),
        (b"x" * 10**6, "b'" + "x" * 198),
        (Hostile(), "<Hostile>"),
        ("\ud800 half a character", "\ud800 half a character"),
        ("a\nb", "a\nb"),
        (None, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_is_told_as_well_as_json_can(file: Path, value: Any, said: Any) -> None:
    assert job.report(it=value)
    assert values(file) == {"it": said}


def test_a_name_is_a_text_whatever_it_was(file: Path) -> None:
    assert job.report({1: 1, None: 2, ("a", 1): 3, "x y": 4})
    assert values(file) == {"1": 1, "None": 2, "('a', 1)": 3, "x y": 4}
    assert job.report({Hostile(): 1})
    assert values(file) == {"<Hostile>": 1}


def test_what_is_no_mapping_is_told_under_a_name_of_its_own(file: Path) -> None:
    assert job.report(0.5)
    assert values(file) == {"value": 0.5}
    assert job.report(UserDict(loss=1))
    assert values(file) == {"loss": 1}
    assert job.report()
    assert values(file) == {}


def test_a_mapping_that_fails_to_be_read_costs_only_its_values(file: Path) -> None:
    class Broken(UserDict[str, int]):
        def items(self) -> Any:
            raise RuntimeError("dictionary changed size during iteration")

    assert job.report(Broken(loss=1), accuracy=0.5)
    assert values(file) == {"accuracy": 0.5}


scalars = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=200) | st.floats(allow_nan=False)
)


@STEADY
@given(st.dictionaries(st.text(max_size=30), scalars, max_size=8))
def test_what_was_said_is_read_back_exactly(folder: Path, said: dict[str, Any]) -> None:
    file = folder / "exactly"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUQ_REPORT", str(file))
        assert job.report(said)
    line = lines(file)[-1]
    read = {name: _value(value) for name, value in line["v"].items()}
    assert read == (said if "cut" not in line else {name: said[name] for name in read})
    assert all(type(read[name]) is type(said[name]) for name in read)


def _value(value: Any) -> Any:
    """As a reader takes it."""
    return float(value["float"]) if isinstance(value, dict) else value


@STEADY
@given(
    st.dictionaries(st.text(max_size=300), st.text(max_size=2000) | st.floats(0, 1), max_size=60),
    st.floats(0, 1),
)
def test_a_line_is_cut_to_the_limit_and_says_so(
    folder: Path, said: dict[str, Any], progress: float
) -> None:
    file = folder / "cut"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUQ_REPORT", str(file))
        assert job.report(said, progress=progress)
    line = lines(file)[-1]
    assert line["v"]["progress"] == progress
    assert line.get("cut", False) is (set(line["v"]) != set(said) | {"progress"})


def test_the_largest_values_are_left_out_first(file: Path) -> None:
    job.report(log="x" * 5000, loss=0.5, note="y" * 2000, other="z" * 2500)
    assert lines(file)[-1]["cut"] is True
    assert set(values(file)) == {"loss", "note"}
    many = {f"metric_{number}": number / 7 for number in range(1000)}
    job.report(many, progress=0.123456789)
    assert set(values(file)) > {"progress", "metric_0"}


# ── heartbeats and the end ──


def test_a_heartbeat_is_written_once_a_second_at_most(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("gpuq.job.time", SimpleNamespace(monotonic=lambda: clock[0]))
    for _ in range(1000):
        job.heartbeat()
        clock[0] += 0.01
    assert lines(file) == [{}] * 10


def test_a_heartbeat_in_a_hot_loop_costs_next_to_nothing(file: Path) -> None:
    job.heartbeat()
    began = time.perf_counter()
    for _ in range(100_000):
        job.heartbeat()
    assert time.perf_counter() - began < 1.0  # 60 ns each where it was measured
    assert len(lines(file)) <= 2


def test_a_report_is_a_heartbeat(file: Path) -> None:
    job.report(loss=1)
    job.heartbeat()
    assert [line["v"] for line in lines(file)] == [{"loss": 1}]


def test_a_job_can_tell_that_its_gpu_ran_out_of_memory(file: Path) -> None:
    assert job.out_of_memory(RuntimeError("CUDA out of memory."))
    assert job.out_of_memory("😀" * 10_000)
    assert job.out_of_memory(Hostile())
    assert job.out_of_memory()
    told = lines(file)
    assert {line["event"] for line in told} == {"out_of_memory"}
    messages = ["CUDA out of memory.", "😀" * 300, "<Hostile>", ""]
    assert [line["message"] for line in told] == messages


# ── many writers ──


def test_lines_of_many_processes_stand_whole_and_all_of_them(tmp_path: Path) -> None:
    file = tmp_path / "report"
    code = (
        "for step in range(200):\n"
        "    assert job.report(step=step, text='x' * (step * 17 % 3000))\n"
        "    job.heartbeat()\n"
    )
    command = script(tmp_path, code)
    workers = [subprocess.Popen(command, env={"GPUQ_REPORT": str(file)}) for _ in range(32)]
    assert [worker.wait(120) for worker in workers] == [0] * 32
    told = [line for line in lines(file) if line]
    assert len(told) == 32 * 200
    by: dict[str, list[dict[str, Any]]] = {}
    for line in told:
        by.setdefault(line["by"], []).append(line)
    assert len(by) == 32
    for told_by_one in by.values():
        assert [line["n"] for line in told_by_one] == list(range(1, 201))
        assert [line["v"]["step"] for line in told_by_one] == list(range(200))


def test_threads_number_their_lines_together(tmp_path: Path) -> None:
    code = (
        "import threading\n"
        "def work():\n"
        "    for step in range(200): job.report(step=step)\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
    )
    alone(tmp_path, code, GPUQ_REPORT=tmp_path / "report")
    assert [line["n"] for line in lines(tmp_path / "report")] == list(range(1, 1601))


def test_a_forked_worker_is_a_writer_of_its_own(tmp_path: Path) -> None:
    """Even one that was forked while a thread of its parent was reporting."""
    code = (
        "import os, threading\n"
        "job.report(who='parent')\n"
        "held, done = threading.Event(), threading.Event()\n"
        "def hold():\n"
        "    with job._writer.lock: held.set(); done.wait()\n"
        "thread = threading.Thread(target=hold); thread.start(); held.wait()\n"
        "if (child := os.fork()) == 0:\n"
        "    job.report(who='child'); os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "done.set(); thread.join()\n"
        "job.report(who='parent')\n"
    )
    alone(tmp_path, code, GPUQ_REPORT=tmp_path / "report")
    told = lines(tmp_path / "report")
    assert [(line["v"]["who"], line["n"]) for line in told] == [
        *(("parent", 1), ("child", 1), ("parent", 2)),
    ]
    assert told[0]["by"] == told[2]["by"] != told[1]["by"]
    assert told[0]["pid"] == told[2]["pid"] != told[1]["pid"]


def test_a_signal_handler_may_report_while_the_job_reports(tmp_path: Path) -> None:
    code = (
        "import signal\n"
        "signal.signal(signal.SIGALRM, lambda *_: job.report(who='handler'))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)\n"
        "for step in range(3000): job.report(step=step)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
    )
    alone(tmp_path, code, GPUQ_REPORT=tmp_path / "report")
    told = lines(tmp_path / "report")
    assert sorted(line["n"] for line in told) == list(range(1, len(told) + 1))
    assert len(told) > 3000


# ── whatever befalls the queue ──


@pytest.mark.parametrize(
    "path",
    ["gone/report", "a-file/report", ".", "", "/dev/full", "x" * 300, "/proc/report", "a\udcff/b"],
)
def test_a_file_that_cannot_be_written_stops_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "a-file").touch()
    monkeypatch.setenv("GPUQ_REPORT", str(tmp_path / path) if path else "")
    assert not job.report(loss=1)
    assert not job.out_of_memory()
    job.heartbeat()


def test_a_directory_that_is_removed_and_comes_back_gets_reports_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "attempt" / "report"
    monkeypatch.setenv("GPUQ_REPORT", str(file))
    file.parent.mkdir()
    assert job.report(step=1)
    before = lines(file)
    shutil.rmtree(file.parent)
    assert not job.report(step=2)
    file.parent.mkdir()
    assert job.report(step=3)
    assert lines(file)[0]["n"] == before[0]["n"] + 2  # the gap tells of the one that was lost


def test_who_is_not_permitted_to_report_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "attempt" / "report"
    file.parent.mkdir()
    code = (
        "import os\n"
        f"os.chmod({str(file.parent)!r}, 0o500)\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "print(job.report(loss=1)); job.heartbeat()\n"
    )
    assert alone(tmp_path, code, GPUQ_REPORT=file) == "False\n"
    file.parent.chmod(0o700)
    assert not file.exists()


def test_a_named_pipe_whose_reader_sleeps_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "report"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    code = "print({job.report(text='x' * 1000) for _ in range(999)})"  # more than a pipe holds
    assert alone(tmp_path, code, GPUQ_REPORT=pipe) in ("{False, True}\n", "{True, False}\n")
    os.close(reader)


def test_a_line_that_did_not_fit_spoils_no_other(tmp_path: Path) -> None:
    """As on a full disk: the kernel takes what there is room for."""
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))\n"
        "print(*(job.report(step=step) for step in range(9)))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "print(job.report(step=9))\n"
    )
    printed = alone(tmp_path, code, GPUQ_REPORT=tmp_path / "report").split()
    assert printed == ["True"] * 5 + ["False"] * 4 + ["True"]
    *whole, torn, last = (tmp_path / "report").read_text().splitlines()
    assert [json.loads(line)["n"] for line in whole] == [1, 2, 3, 4, 5]
    assert json.loads(last)["n"] == 10
    with pytest.raises(ValueError, match=r".*"):
        json.loads(torn)


@pytest.fixture
def small_disk(tmp_path: Path) -> tuple[list[str], Path]:
    """The beginning of a command that sees a disk of 8 KiB there, and nobody else does."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=8k none "$0" && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", mount, str(disk)]
    if not shutil.which("unshare") or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("only root may mount a small disk")
    return prefix, disk


def test_a_full_disk_stops_no_training_and_reports_go_on_when_there_is_room(
    tmp_path: Path, small_disk: tuple[list[str], Path]
) -> None:
    prefix, disk = small_disk
    code = (
        "import os, json\n"
        f"ballast, report = {str(disk / 'ballast')!r}, {str(disk / 'report')!r}\n"
        "open(ballast, 'wb').write(b'x' * 4096)\n"
        "said = [job.report(step=step) for step in range(99)]\n"
        "os.remove(ballast)\n"
        "said.append(job.report(step=99)); job.heartbeat()\n"
        "print(said.count(True), said[-1])\n"
        "read = open(report).read().splitlines()\n"
        "print(sum(line.endswith('}}') for line in read), json.loads(read[-1])['n'])\n"
    )
    ran = subprocess.run(
        [*prefix, *script(tmp_path, code)],
        env={"PATH": os.environ["PATH"], "GPUQ_REPORT": str(disk / "report")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr == ""
    written, last, whole, number = ran.stdout.split()
    assert (last, number) == ("True", "100")
    assert 30 < int(written) == int(whole) < 60


# ── what a job was given ──


def test_outside_gpuq_nothing_happens(tmp_path: Path) -> None:
    code = (
        "import random\n"
        "random.seed(1); before = random.getstate()\n"
        "print(job.report(loss=1), job.out_of_memory(), job.heartbeat(), job.seed())\n"
        "print(job.is_job(), job.job_id(), job.attempt(), job.output_dir)\n"
        "assert random.getstate() == before\n"
    )
    assert alone(tmp_path, code) == "False False None None\nFalse None 1 .\n"
    assert {path.name for path in tmp_path.iterdir()} <= {"job.py", "__pycache__"}


def test_a_job_learns_what_it_was_given(tmp_path: Path) -> None:
    code = "print(job.is_job(), job.job_id(), job.attempt(), job.output_dir, job.seed())"
    given = {"GPUQ_JOB_ID": "184", "GPUQ_ATTEMPT": "2", "GPUQ_OUTPUT_DIR": "/out", "GPUQ_SEED": "0"}
    assert alone(tmp_path, code, **given) == "True 184 2 /out 0\n"


def test_the_output_directory_is_a_path_and_may_be_called(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (job.output_dir, job.output_dir()) == (".", ".")
    monkeypatch.setenv("GPUQ_OUTPUT_DIR", "/out")
    assert os.path.join(job.output_dir, "x") == os.path.join(job.output_dir(), "x") == "/out/x"
    assert Path(job.output_dir) / "x" == Path("/out/x")
    assert f"{job.output_dir}/x" == job.output_dir + "/x" == "/out/x"
    for plain in (job.output_dir(), copy.deepcopy(job.output_dir), str(job.output_dir)):
        assert type(plain) is str
        assert plain == "/out"
    assert json.dumps(job.output_dir) == '"/out"'


def test_what_a_job_has_is_named_and_nothing_else_is_there() -> None:
    assert {"output_dir", "report", "seed"} <= set(dir(job))
    with pytest.raises(AttributeError, match=r"'gpuq\.job' has no attribute 'outputdir'"):
        _ = job.outputdir


@pytest.mark.parametrize("text", ["", "x", "-1", "²", " 7", "9" * 5000])
def test_numbers_that_are_none_count_as_not_given(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    for name in ("GPUQ_JOB_ID", "GPUQ_ATTEMPT", "GPUQ_SEED"):
        monkeypatch.setenv(name, text)
    assert (job.job_id(), job.attempt(), job.seed(), job.is_job()) == (None, 1, None, False)


def test_a_seed_gives_the_same_numbers_again(tmp_path: Path) -> None:
    code = "import random\nprint(job.seed(), random.random(), random.random())"
    first, second, other = (alone(tmp_path, code, GPUQ_SEED=seed) for seed in (7, 7, 8))
    assert first == second != other
    assert first.startswith("7 ")


def test_a_seed_reaches_what_is_imported_and_imports_nothing(tmp_path: Path) -> None:
    code = (
        "import types\n"
        "assert job.seed() == 2**32 + 7\n"
        "assert not {'numpy', 'torch'} & set(sys.modules)\n"
        "told = []\n"
        "sys.modules['numpy'] = types.SimpleNamespace(random=types.SimpleNamespace(seed=told.append))\n"
        "sys.modules['torch'] = types.SimpleNamespace(manual_seed=told.append)\n"
        "job.seed(); print(told)\n"
    )
    assert alone(tmp_path, code, GPUQ_SEED=2**32 + 7) == f"[7, {2**32 + 7}]\n"


# ── a file of its own ──


def test_it_can_be_read_by_the_python_of_an_old_environment() -> None:
    ast.parse(SOURCE.read_text(), feature_version=(3, 8))


def test_it_runs_under_every_python_that_is_here(tmp_path: Path) -> None:
    code = "print(job.report(loss=0.5, it=1j), job.seed(), job.attempt()); job.heartbeat()"
    given = {"GPUQ_REPORT": str(tmp_path / "report"), "GPUQ_SEED": "7"}
    ran = [alone(tmp_path, code, python=python, **given) for python in pythons()]
    assert ran == ["True 7 1\n"] * len(ran)
    said = [line["v"] for line in lines(tmp_path / "report")]
    assert said == [{"loss": 0.5, "it": "1j"}] * len(ran)


def test_it_loads_nothing_but_a_little_of_the_standard_library(tmp_path: Path) -> None:
    ours = alone(tmp_path, "print(*sys.modules)").split()
    few = "import json, math, os, reprlib, threading, time; print(*sys.modules)"
    bare = alone(tmp_path, few).split()
    assert set(ours) - set(bare) <= {"job", "__future__", "collections.abc"}
    heavy = {"asyncio", "socket", "subprocess", "logging", "pathlib", "random", "typing_extensions"}
    assert not set(ours) & heavy
