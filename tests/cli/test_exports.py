"""Tables as files: the same bytes for the same rows, whole or not at all."""

import json
import os
from pathlib import Path

import pytest
import yaml

from gpuq.cli.results.exports import as_csv, export, format_of
from gpuq.errors import GpuqError, UsageError

ROWS = [
    {"id": 1, "lr": "0.1", "loss": 0.25, "note": None, "tags": ["a"]},
    {"id": 2, "lr": "0,2", "loss": None, "note": 'say "ä"', "tags": []},
]


def test_csv_has_a_head_and_quotes_what_it_must() -> None:
    assert as_csv(ROWS).splitlines() == [
        "id,lr,loss,note,tags",
        '1,0.1,0.25,,"[""a""]"',
        '2,"0,2",,"say ""ä""",[]',
    ]


@pytest.mark.parametrize("ending", ["csv", "json", "yaml", "yml"])
def test_the_same_rows_are_the_same_bytes(tmp_path: Path, ending: str) -> None:
    one, other = (tmp_path / f"{name}.{ending}" for name in ("one", "other"))
    for path in (one, other):
        export(str(path), "jobs", ROWS, group="g1")
    assert one.read_bytes() == other.read_bytes()
    assert sorted(os.listdir(tmp_path)) == sorted([one.name, other.name])


def test_json_and_yaml_say_the_same(tmp_path: Path) -> None:
    for ending in ("json", "yaml"):
        export(str(tmp_path / f"x.{ending}"), "jobs", ROWS, group="g1")
    read = json.loads((tmp_path / "x.json").read_text())
    assert read == yaml.safe_load((tmp_path / "x.yaml").read_text())
    assert read == {"schema": 1, "group": "g1", "jobs": ROWS}


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.mkdir()
    with pytest.raises(GpuqError, match="cannot be written"):
        export(str(path), "jobs", ROWS)
    assert os.listdir(tmp_path) == ["x.csv"]


def test_nothing_that_others_laid_beside_it_is_followed_or_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where a name can be guessed, nor where one was guessed right."""
    path, theirs = tmp_path / "x.csv", tmp_path / "theirs"
    theirs.write_text("as it was")
    laid = tmp_path / f"x.csv.{os.getpid()}.partial"
    laid.symlink_to(theirs)
    export(str(path), "jobs", ROWS)
    assert path.is_file()
    assert not path.is_symlink()
    monkeypatch.setattr(os, "urandom", lambda number: b"\0" * number)
    guessed = tmp_path / f"x.csv.{'00' * 8}.partial"
    guessed.symlink_to(theirs)
    with pytest.raises(GpuqError, match="cannot be written: File exists"):
        export(str(path), "jobs", ROWS[:1])
    assert theirs.read_text() == "as it was"
    assert guessed.is_symlink(), "it is not ours to remove"


def test_a_table_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        export(str(tmp_path / "x.csv"), "jobs", ROWS)
    finally:
        os.umask(before)
    assert (tmp_path / "x.csv").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["table", "table.txt", "csv"])
def test_a_name_that_says_no_format_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"\.csv, \.json or \.yaml"):
        format_of(name)
