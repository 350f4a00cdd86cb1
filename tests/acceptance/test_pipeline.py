"""The five-stage pipeline of the examples, with real torch on simulated GPUs."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BIN, Daemon, until

pytest.importorskip("torch")

EXAMPLE = Path(__file__).parents[2] / "examples" / "pipeline"
STAGES = ("detect", "age", "orientation", "describe", "report")


def ends(daemon: Daemon) -> dict[str, tuple[str, int]]:
    """How each stage ended, and on which attempt."""
    with daemon.client() as client:
        jobs = client.wait("g1", timeout_s=120)
    return {job["name"].split("/")[1]: (job["outcome"], job["attempt"]) for job in jobs}


def submit(daemon: Daemon, folder: Path) -> dict[str, str]:
    """The example as a person has it; the ids of its stages."""
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("run", "__pycache__"))
    (folder / "run").mkdir()
    (folder / "run" / "orientation.broken").touch()
    environment = daemon.environment | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    done = daemon.gpuq("submit", "--pipeline", str(folder / "pipeline.toml"), env=environment)
    assert done.returncode == 0, done.stderr
    return {name: job for job, name in (line.split("\t") for line in done.stdout.splitlines())}


def test_what_comes_after_a_failed_stage_is_skipped_and_a_requeue_resumes(
    daemon: Daemon, tmp_path: Path
) -> None:
    folder = tmp_path / "pipeline"
    ids = submit(daemon, folder)
    assert ids == {name: str(number) for number, name in enumerate(STAGES, start=1)}
    assert ends(daemon) == {
        "detect": ("succeeded", 1),
        "age": ("succeeded", 1),
        "orientation": ("failed", 1),
        "describe": ("skipped", 0),
        "report": ("skipped", 0),
    }
    (why,) = daemon.gpuq("why", ids["describe"]).stdout.splitlines()
    assert why.endswith("skipped: 3 failed (exit code 1), and it was to succeed first.")

    (folder / "run" / "orientation.broken").unlink()
    assert daemon.gpuq("requeue", ids["orientation"]).returncode == 0
    until(lambda: ends(daemon)["report"][0] == "succeeded", "the report", timeout_s=120)
    assert ends(daemon) == {  # only what was left has run
        "detect": ("succeeded", 1),
        "age": ("succeeded", 1),
        "orientation": ("succeeded", 2),
        "describe": ("succeeded", 1),
        "report": ("succeeded", 1),
    }
    assert len(found(folder)["lines"]) == 2 + 24


def found(folder: Path) -> Any:
    return json.loads((folder / "run" / "report.json").read_text())
