"""`gpuq report`, and how what was reported is shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpuq.cli.job_page import job_fields
from gpuq.cli.job_text import column_values, job_table, metrics_of
from gpuq.cli.main import run
from gpuq.cli.render import Look
from tests.cli.said import ended, in_full, job

LOOK = Look(width=200, user="alice", now=2000.0)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inside a job: where its reports go."""
    monkeypatch.setattr("gpuq.job._beat_due", 0.0)
    monkeypatch.setenv("GPUQ_REPORT", str(tmp_path / "report"))
    return tmp_path / "report"


def values(file: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(file.read_text().splitlines()[-1])["v"]
    return said


def test_values_are_reported_as_what_they_are(file: Path) -> None:
    words = ["progress=0.4", "loss=-1.5e-3", "step=12", "ok=true", "none=null", "stage=warm up"]
    assert run(["report", *words, "nan=nan", "text=1_000", "eq=a=b", "empty="]) == 0
    assert values(file) == {
        "progress": 0.4,
        "loss": -0.0015,
        "step": 12,
        "ok": True,
        "none": None,
        "stage": "warm up",
        "nan": {"float": "nan"},
        "text": "1_000",
        "eq": "a=b",
        "empty": "",
    }


def test_progress_may_be_in_percent_or_so_many_of_so_many(file: Path) -> None:
    assert run(["report", "progress=40%", "share=40%"]) == 0
    assert values(file) == {"progress": 0.4, "share": "40%"}
    assert run(["report", "progress=50/200", "share=50/200"]) == 0
    assert values(file) == {"progress": 0.25, "share": "50/200"}


@pytest.mark.parametrize("text", ["1/0", "1/x", "x%", "1_0%", "half", "/"])
def test_a_progress_that_is_no_number_is_named_here_and_by_the_daemon(
    file: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", f"progress={text}"]) == 0
    assert values(file) == {"progress": text}
    assert capsys.readouterr().err == (
        f"gpuq: progress is a number from 0 to 1, and not {text}: this value does not count\n"
    )


@pytest.mark.parametrize("text", ["140%", "80", "-1/200", "nan", "true"])
def test_a_progress_beyond_its_bounds_is_named_and_ends_no_script(
    file: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", f"progress={text}", "loss=1"]) == 0
    assert values(file)["loss"] == 1
    assert "progress is a number from 0 to 1, and not" in capsys.readouterr().err
    assert run(["report", "progress=100%"]) == 0
    assert capsys.readouterr().err == ""


def test_alone_it_is_a_sign_of_life(file: Path) -> None:
    assert run(["report"]) == 0
    assert file.read_text() == "{}\n"


def test_outside_a_job_it_says_so_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GPUQ_REPORT", raising=False)
    assert run(["report", "loss=1"]) == 0
    assert capsys.readouterr() == ("", "gpuq: this is no job of gpuq, so nothing is reported\n")


def test_a_report_that_finds_no_room_does_not_end_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPUQ_REPORT", str(tmp_path / "gone" / "report"))
    assert run(["report", "loss=1"]) == 0
    assert "could not be written; the job goes on" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["loss", "=1", "-x"])
def test_what_is_no_value_is_refused(
    file: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", "a=1", word]) == 2
    assert not file.exists(), "all of it or nothing"
    assert capsys.readouterr().err.startswith("gpuq: ")


# ─── shown ───────────────────────────────────────────────────────────────────────────────────────


def running(**changes: Any) -> dict[str, Any]:
    plain = {"state": "running", "started_at": 1000.0, "gpus": [0], "attempt": 1}
    return job(184, **(plain | changes))


def test_the_list_has_a_column_of_progress_where_somebody_says_so() -> None:
    quiet = job_table([running()], LOOK)
    assert "PROGRESS" not in quiet[0]
    head, row = job_table([running(progress=0.6179)], LOOK)
    column = slice(head.index("PROGRESS"), head.index("PROGRESS") + len("PROGRESS"))
    assert row[column] == "     61%"
    assert "PROGRESS" not in job_table([ended(184, progress=1.0)], LOOK)[0]


def test_a_folded_group_has_no_progress_of_one_of_its_jobs() -> None:
    counts = {"queued": 0, "starting": 0, "running": 4}
    some = {"jobs": "184-187", "count": 4, "counts": counts}
    group = running(progress=0.5) | some
    assert "PROGRESS" not in job_table([group], LOOK)[0]
    assert column_values(0.0)["metrics"](group | {"metrics": {"loss": 1}}) == ""


def test_a_pipe_gets_both_uncut() -> None:
    one = running(progress=0.61789, metrics={"loss": 0.123456789, "ok": True, "n": None, "s": "x"})
    columns = column_values(2000.0)
    assert columns["progress"](one) == 0.61789
    assert columns["metrics"](one) == metrics_of(one) == "loss=0.123457 ok=true n=null s=x"


def test_the_page_of_a_job_tells_what_it_reported() -> None:
    one = in_full(
        running(
            progress=0.5,
            progress_from="log",
            metrics={"loss": 0.25},
            reported_at=1500.0,
            report_lines=200,
            report_trouble="at byte 7: no JSON; 1 line not taken",
        )
    )
    pairs = dict(job_fields(one, 2000.0))
    assert pairs["progress"] == "50 %, by the bar in its log"
    assert pairs["metrics"] == "loss=0.25"
    assert pairs["reported"].endswith(", the last of 200 reports")
    assert pairs["report trouble"] == "at byte 7: no JSON; 1 line not taken"
    silent = dict(job_fields(in_full(running()), 2000.0))
    assert not {"progress", "metrics", "reported", "report trouble"} & set(silent)
