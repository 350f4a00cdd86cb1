"""The Optuna study of the examples: its trials are jobs, and it learns what it would learn alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_environment, processes_with

pytest.importorskip("optuna")

STUDY = Path(__file__).parents[2] / "examples" / "optuna_study.py"


def run_study(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, STUDY, "--own-daemon", *words],
        env=clean_environment(TMPDIR=str(folder), HOME=str(folder)),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_study_over_four_gpus_learns_what_it_learns_alone(tmp_path: Path) -> None:
    ran = run_study(tmp_path, "--trials", "12", "--check")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("A run without gpuq gives the same.\n")
    assert "\nThe GPUs of 12 trials were simulated; what they trained is real.\n" in ran.stdout
    table = [line.split() for line in ran.stdout.partition("TRIAL")[2].splitlines()[1:13]]
    assert [row[:2] for row in table] == [[str(n), str(n + 1)] for n in range(12)]
    ends = {(row[6], row[7]) for row in table}
    assert ends >= {("COMPLETE", "succeeded"), ("PRUNED", "cancelled"), ("FAIL", "failed")}
    assert not {("COMPLETE", "cancelled"), ("FAIL", "succeeded"), ("FAIL", "cancelled")} & ends
    assert processes_with(str(tmp_path / "gpuq-study-")) == []
    assert [name for name in os.listdir(tmp_path) if name.startswith("gpuq-")] == []
