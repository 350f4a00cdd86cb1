"""Each measure of the bench runs, at a tiny size and without the peers: so it is there when somebody
wants a figure. What the figures are is no matter here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.figures import GPUQ, Row, Samples, Target, as_json, percentile
from bench.measures import MEASURES
from bench.table import as_markdown, as_text
from tests.conftest import clean_environment, processes_with

PROJECT = Path(__file__).parents[2]


def run_bench(folder: Path, *words: str, code: int = 0) -> tuple[str, str, dict[str, Any]]:
    """What it printed, what it said meanwhile, and what it wrote."""
    told = folder / "told.json"
    command = [sys.executable, "-m", "bench", "--json", told, "--peers", folder / "peers"]
    ran = subprocess.run(
        [*command, "--room", folder, *words],
        cwd=PROJECT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == code, ran.stdout + ran.stderr
    assert processes_with(str(folder)) == []
    assert {path.name for path in folder.iterdir()} == {"told.json", "peers"}
    return ran.stdout, ran.stderr, json.loads(told.read_text())


@pytest.mark.parametrize("measure", MEASURES)
def test_a_measure_runs_and_leaves_nothing_behind(measure: str, tmp_path: Path) -> None:
    _, said, told = run_bench(tmp_path, measure, "--scale", "tiny", "--only")
    assert told["rows"]
    for row in told["rows"]:
        assert row["contenders"][GPUQ]["median"] is not None, row
        for name in ("task-spooler", "HyperQueue", "Slurm", "gflow"):
            if name in row["contenders"]:
                assert row["contenders"][name] == {"why_none": "left out by --only"}
    assert "still there" not in said


def test_a_peer_that_cannot_be_had_is_named_with_what_stands_in_the_way(tmp_path: Path) -> None:
    """Its programs are found by PATH, and there are none in an empty folder."""
    (tmp_path / "peers").mkdir()
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "bench", "commands", "--scale", "tiny"),
            *(
                "--only",
                "task-spooler",
                "--room",
                tmp_path,
                "--json",
                tmp_path / "told.json",
                "--peers",
                tmp_path / "peers",
            ),
        ],
        cwd=PROJECT,
        env=clean_environment(PATH=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    why = "task-spooler is a package of Debian, and there is no apt-get here"
    assert f"task-spooler IS NOT MEASURED: {why}" in ran.stderr
    assert f"* task-spooler: {why}" in ran.stdout


def test_what_does_not_begin_in_time_is_named_in_the_table(tmp_path: Path) -> None:
    words = ("commands", "--scale", "tiny", "--only", "--within", "-1")
    printed, _, told = run_bench(tmp_path, *words, code=1)
    assert "-1 s were over: --within" in printed
    assert "why_none" in told["rows"][0]["contenders"][GPUQ]


def of(*values: float) -> Samples:
    return Samples(values=values)


def row(more_is_better: bool, at_least: float, aim: float, gpuq: Samples, other: Samples) -> Row:
    return Row(
        work="work",
        unit="ms",
        samples={GPUQ: gpuq, "other": other},
        targets=[Target(against="other", at_least=at_least, aim=aim)],
        more_is_better=more_is_better,
    )


def test_a_ratio_of_medians_is_held_against_its_target() -> None:
    (judged,) = row(False, 1.8, 1.1, of(1.0, 3.0, 9.0), of(2.0, 2.0, 2.0)).judged()
    assert (judged.value, judged.is_met, judged.is_aim_met) == (1.5, True, False)
    (judged,) = row(True, 1.8, 1.1, of(3.0), of(2.0)).judged()
    assert (judged.value, judged.is_met, judged.is_aim_met) == (1.5, False, True)


def test_who_was_not_measured_is_judged_neither_way() -> None:
    one = row(False, 1.8, 1.1, of(1.0), Samples(why_none="it is not there"))
    (judged,) = one.judged()
    assert (judged.value, judged.is_met, judged.is_aim_met) == (None, None, None)
    assert as_json(one)["contenders"]["other"] == {"why_none": "it is not there"}


def test_a_table_says_why_there_is_no_figure() -> None:
    one = row(False, 1.8, 1.1, of(1.234), Samples(why_none="it is not there"))
    for drawn in (as_text([one]), as_markdown([one])):
        assert "1.23" in drawn
        assert "* other: it is not there" in drawn
        assert "≤ 1.8, aim 1.1 x other" in drawn


def test_a_percentile_lies_between_the_nearest_ranks() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert percentile([7.0], 95) == 7.0
    assert percentile([float(n) for n in range(101)], 95) == 95.0
