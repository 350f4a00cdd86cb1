"""Each trial is a process that imports torch, about two seconds: the tests share what they can."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
STEPS = 40  # enough for a good learning rate to be far ahead of a terrible one


def trial(*options: object, **environment: object) -> subprocess.CompletedProcess[str]:
    """Run one trial to its end, outside gpuq and without a GPU."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GPUQ_")}
    given = {"PYTHONPATH": ROOT, "CUDA_VISIBLE_DEVICES": ""} | environment
    return subprocess.run(
        [sys.executable, "-m", "gpuq.demo.train", *map(str, options)],
        env=inherited | {name: str(value) for name, value in given.items()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def result_in(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def val_loss(folder: Path, *, lr: float, seed: int) -> float:
    trial("--lr", lr, "--seed", seed, "--steps", STEPS, "--out", folder)
    loss: float = result_in(folder)["val_loss"]
    return loss


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trial") / "made" / "for it"


@pytest.fixture(scope="module")
def good(folder: Path) -> subprocess.CompletedProcess[str]:
    """A trial as the queue runs it: seed and folder come from the environment."""
    return trial("--lr", 0.01, "--steps", STEPS, GPUQ_SEED=77, GPUQ_OUTPUT_DIR=folder)


def test_a_trial_says_how_far_it_is_and_how_it_ended(
    good: subprocess.CompletedProcess[str],
) -> None:
    assert (good.returncode, good.stderr) == (0, "")
    head, *steps, done = good.stdout.splitlines()
    assert re.fullmatch(r"device cpu, model [\d,]+ parameters, text [\d,]+ characters", head)
    assert len(steps) == STEPS
    for step, line in enumerate(steps, start=1):
        assert re.fullmatch(rf"step {step}/{STEPS} loss \d\.\d{{4}}", line)
    assert re.fullmatch(r"done lr 0\.01 val_loss \d\.\d{4} device cpu", done)


def test_the_result_repeats_the_question_and_the_figures_of_the_log(
    good: subprocess.CompletedProcess[str], folder: Path
) -> None:
    result = result_in(folder)
    assert list(result) == ["lr", "seed", "steps", "val_loss", "train_loss", "device", "seconds"]
    assert (result["lr"], result["seed"], result["steps"]) == (0.01, 77, STEPS)
    assert result["device"] == "cpu"
    assert result["seconds"] > 0
    *_, last_step, done = good.stdout.splitlines()
    assert last_step == f"step {STEPS}/{STEPS} loss {result['train_loss']:.4f}"
    assert f"val_loss {result['val_loss']:.4f}" in done
    assert os.listdir(folder) == ["result.json"]  # no draft stays behind


@pytest.mark.usefixtures("good")
def test_the_same_seed_gives_the_same_loss_to_the_last_bit(folder: Path, tmp_path: Path) -> None:
    loss = result_in(folder)["val_loss"]
    assert val_loss(tmp_path / "again", lr=0.01, seed=77) == loss
    assert val_loss(tmp_path / "other", lr=0.01, seed=78) != loss


@pytest.mark.usefixtures("good")
def test_a_good_learning_rate_beats_a_terrible_one(folder: Path, tmp_path: Path) -> None:
    assert result_in(folder)["val_loss"] < val_loss(tmp_path, lr=0.3, seed=77) - 1


def test_a_loss_that_is_no_number_ends_the_trial(tmp_path: Path) -> None:
    run = trial("--lr", 1e6, "--steps", 100, "--out", tmp_path)

    assert (run.returncode, run.stderr) == (3, "")
    *_, step, diverged = run.stdout.splitlines()
    assert re.fullmatch(r"step \d{1,2}/100 loss .*", step)  # every second one is said
    assert re.fullmatch(r"diverged at step \d{1,2}", diverged)
    assert result_in(tmp_path)["val_loss"] is None


def test_a_senseless_learning_rate_is_refused(tmp_path: Path) -> None:
    run = trial("--lr", "nan", "--out", tmp_path / "unmade")

    assert run.returncode == 2
    assert "a learning rate is above 0, not nan" in run.stderr
    assert not (tmp_path / "unmade").exists()


def test_without_torch_it_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text('raise ImportError("No module named torch")\n')
    run = trial("--lr", 0.003, PYTHONPATH=f"{tmp_path}:{ROOT}")

    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr == (
        "gpuq demo needs torch: pip install '.[demo]' in the folder of gpuq's source\n"
    )
