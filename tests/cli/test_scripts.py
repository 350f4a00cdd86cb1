"""A script is submitted as sbatch does it: its text, and what it says of itself."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, job, page

PLAIN = "#!/bin/bash\n"


@pytest.fixture
def accepting(fake: FakeDaemon) -> FakeDaemon:
    fake.answers["submit"] = {"first": 184, "count": 1, "group": "g184", "note": None}
    fake.answers["status"] = page(job(184))
    fake.answers["queues"] = {"queues": [{"name": "long"}]}
    return fake


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, *lines: str, mode: int = 0o644) -> None:
    Path(name).write_text("".join(f"{line}\n" for line in lines))
    os.chmod(name, mode)


def submitted(daemon: FakeDaemon) -> dict[str, Any]:
    spec: dict[str, Any] = daemon.requests("submit")[-1]["jobs"][0]
    return spec


# ── what is a script ──


def test_a_script_goes_with_its_text(gpuq: Gpuq, accepting: FakeDaemon, folder: Path) -> None:
    write("train.sh", "#!/bin/bash -e", "#GPUQ --gpus 2", "echo hello")
    assert gpuq("submit", "train.sh", "a", "-g", "b c").code == 0
    asked = submitted(accepting)
    assert asked["argv"] == ["train.sh", "a", "-g", "b c"]
    assert asked["script"] == "#!/bin/bash -e\n#GPUQ --gpus 2\necho hello\n"
    assert asked["interpreter"] == ["/bin/bash", "-e"]
    assert asked["gpus"] == 2
    assert "as_slurm" not in asked


@pytest.mark.parametrize("word", ["./plain.sh", "plain.sh"])
def test_a_text_that_may_not_be_executed_is_read_by_its_interpreter(
    gpuq: Gpuq, accepting: FakeDaemon, folder: Path, word: str
) -> None:
    write("plain.sh", "#!/bin/sh", "echo")
    gpuq("submit", word)
    assert submitted(accepting)["interpreter"] == ["/bin/sh"]


def test_what_else_is_executed_stays_a_program(
    gpuq: Gpuq, accepting: FakeDaemon, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("run.sh", "#!/bin/sh", "echo", mode=0o755)
    write("data.txt", "#GPUQ --gpus 2", "text")
    write("late.sh", "#!/bin/sh", "echo", "#GPUQ --gpus 2", mode=0o755)
    Path("binary").write_bytes(b"#!/bin/sh\n#GPUQ --gpus 2\n\0")
    write("true", "#!/bin/sh", "#GPUQ --gpus 2")  # there is one in PATH, too
    Path("folder").mkdir()
    for word in ("./run.sh", "./data.txt", "./late.sh", "./binary", "true", "./folder", "./no"):
        assert gpuq("submit", word).code == 0
        assert "script" not in submitted(accepting), word
        assert "gpus" not in submitted(accepting), word


def test_a_script_is_looked_for_where_the_job_runs_and_then_here(
    gpuq: Gpuq, accepting: FakeDaemon, folder: Path
) -> None:
    Path("there").mkdir()
    write("train.sh", PLAIN, "# here")
    gpuq("submit", "-C", "there", "./train.sh")
    assert "# here" in submitted(accepting)["script"]
    assert submitted(accepting)["argv"] == [f"{folder}/train.sh"], "it is found again from there"
    write("there/train.sh", PLAIN, "# there")
    gpuq("submit", "-C", "there", "./train.sh")
    assert "# there" in submitted(accepting)["script"]
    assert submitted(accepting)["argv"] == ["./train.sh"]


def test_run_takes_scripts_too(gpuq: Gpuq, accepting: FakeDaemon, folder: Path) -> None:
    write("train.sh", "#!/bin/sh", "#GPUQ -a 1-3", "echo")
    ran = gpuq("run", "./train.sh")
    assert ran.code == 2
    assert "run follows one job, and this is an array" in ran.err


# ── what it says ──


def test_the_command_line_goes_before_the_script(
    gpuq: Gpuq, accepting: FakeDaemon, folder: Path
) -> None:
    write(
        "train.sh",
        "#!/bin/sh",
        "#GPUQ --gpus 2 --time 4h   # for the large one",
        "#GPUQ --name 'two words' -e A=script -e B=script --tag x",
        "#GPUQ --tag y",
    )
    gpuq("submit", "--gpus", "4", "-e", "A=typed", "./train.sh")
    asked = submitted(accepting)
    assert (asked["gpus"], asked["time_limit_s"]) == (4, 4 * 3600.0)
    assert (asked["name"], asked["tags"]) == ("two words", ["x", "y"])
    assert asked["changes"] == {"A": "typed", "B": "script"}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("#GPUQ --gpus two", "invalid value for '-g' / '--gpus'"),
        ("#GPUQ --gpu-men 2", "no such option: --gpu-men"),
        ("#GPUQ --gpu-mem 20", "--gpu-mem: '20' is no size"),
        ("#GPUQ --time 90", "--time 90: of what?"),
        ("#GPUQ --gpus 2 python", "'python' belongs to no option"),
        ("#GPUQ --name 'x", "no closing quotation"),
        ("#GPUQ --wait", "--wait has no place in a script"),
        ("#GPUQ --from x", "--from has no place in a script"),
        ("#GPUQ --shell x", "--shell has no place in a script"),
        ("#GPUQ --help", "--help has no place in a script"),
        ("#SBATCH --time=soon", "--time=soon: it is no time"),
        ("#SBATCH --array=x", "--array: 'x' is no index"),
        ("#SBATCH python", "'python' is no option of sbatch"),
    ],
)
def test_what_is_wrong_with_a_script_names_file_and_line(
    gpuq: Gpuq, accepting: FakeDaemon, folder: Path, line: str, complaint: str
) -> None:
    write("train.sh", "#!/bin/sh", "# It trains.", line, "echo")
    ran = gpuq("submit", "./train.sh")
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith(f"gpuq: ./train.sh, line 3: {complaint}")
    assert accepting.requests("submit") == []


def test_a_script_without_an_interpreter_is_refused(
    gpuq: Gpuq, accepting: FakeDaemon, folder: Path
) -> None:
    write("train.sh", "#!", "echo")
    ran = gpuq("submit", "./train.sh")
    assert (ran.code, accepting.requests("submit")) == (2, [])
    assert "its first line names no interpreter" in ran.err


# ── Slurm ──


def test_a_clusters_script_is_understood(gpuq: Gpuq, accepting: FakeDaemon, folder: Path) -> None:
    write(
        "train.sh",
        "#!/bin/bash",
        "#SBATCH --job-name=sweep",
        "#SBATCH --partition=gpu --account=lab",
        "#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=4",
        "#SBATCH --gres=gpu:a100:2",
        "#SBATCH --mem=16G --time=1-12:00:00",
        "#SBATCH --array=0-9%2",
        "#SBATCH --output=logs/%x-%A_%a.out",
        "#SBATCH --mail-type=END,FAIL --mail-user=ann@example.org",
        "module list",
    )
    accepting.answers["submit"] = {"first": 184, "count": 10, "group": "g184", "note": None}
    ran = gpuq("submit", "train.sh")
    asked = submitted(accepting)
    assert (ran.code, ran.out) == (0, "g184\n")
    assert asked["as_slurm"] is True
    assert asked["changes"] == {"SLURM_SUBMIT_DIR": str(folder)}
    assert (asked["gpus"], asked["gpu_model"], asked["cpus"]) == (2, "a100", 4)
    assert (asked["mem_bytes"], asked["time_limit_s"]) == (16 * 2**30, 129600.0)
    assert asked["array"] == {"indices": [[0, 10, 1]], "max_running": 2}
    assert asked["output"] == f"{folder}/logs/%x-%A_%a.out"
    assert asked["name"] == "sweep"
    notes = [line for line in ran.err.splitlines() if "left out" in line]
    assert notes == [
        "gpuq: train.sh: left out, since they mean nothing here: "
        "--partition, --account, --mail-type, --mail-user"
    ]


def test_a_partition_that_is_a_queue_here_is_one(
    gpuq: Gpuq, accepting: FakeDaemon, folder: Path
) -> None:
    write("train.sh", "#!/bin/sh", "#SBATCH -p long -G1")
    assert gpuq("submit", "./train.sh").err == ""
    assert submitted(accepting)["queue"] == "long"


def test_a_clusters_script_that_asks_for_no_gpu_gets_none(
    gpuq: Gpuq, accepting: FakeDaemon, folder: Path
) -> None:
    write("prepare.sh", "#!/bin/sh", "#SBATCH -n1", "echo")
    ran = gpuq("submit", "./prepare.sh")
    assert submitted(accepting)["gpus"] == 0
    assert ran.err == "gpuq: ./prepare.sh asks for no GPU (--gres, --gpus), so it gets none\n"
    assert gpuq("submit", "-g", "1", "./prepare.sh").err == ""
    assert submitted(accepting)["gpus"] == 1


def test_what_one_machine_cannot_do_is_said_and_queued_all_the_same(
    gpuq: Gpuq, accepting: FakeDaemon, folder: Path
) -> None:
    write("train.sh", "#!/bin/sh", "#SBATCH -G1 --nodes=2", "srun python train.py")
    ran = gpuq("submit", "./train.sh")
    assert ran.code == 0
    said = ran.err.splitlines()
    assert said[0].startswith(
        "gpuq: ./train.sh, line 2: --nodes=2 cannot be had: this is one machine"
    )
    assert "./train.sh calls srun, which is not here" in said[1]
    assert len(said) == 2


def test_slurms_spellings_are_understood_on_the_command_line(
    gpuq: Gpuq, accepting: FakeDaemon, tmp_path: Path
) -> None:
    words = "--gres gpu:a100:2 --job-name vit --cpus-per-task 4 --nice 10 --dependency afterok:7"
    assert gpuq("submit", *words.split(), "--chdir", str(tmp_path), "true").code == 0
    asked = submitted(accepting)
    assert (asked["gpus"], asked["gpu_model"], asked["name"]) == (2, "a100", "vit")
    assert (asked["cpus"], asked["priority"], asked["cwd"]) == (4, -10, str(tmp_path))
    assert "--gres" not in gpuq("submit", "--help").out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-g", "1", "--gres", "gpu:2"], "--gpus is there twice"),
        (["--gres", "license:2"], "only gpu means something here"),
        (["--nice", "x"], "--nice=x"),
    ],
)
def test_a_slip_in_slurms_spelling_queues_nothing(
    gpuq: Gpuq, accepting: FakeDaemon, words: list[str], complaint: str
) -> None:
    ran = gpuq("submit", *words, "true")
    assert ran.code == 2
    assert complaint in ran.err
    assert accepting.requests("submit") == []
