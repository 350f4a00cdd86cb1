"""What is taken along from a screen: into the clipboard and into files."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import pytest
from textual.widgets import Input

from gpuq.errors import GpuqError
from gpuq.tui.data.copying import copyable, report
from gpuq.tui.data.listing.listing import Listing
from gpuq.tui.data.picture import Picture
from gpuq.tui.export import files
from gpuq.tui.export.files import Export
from gpuq.tui.log_reader import last_lines
from tests.cli.said import Said, ended, in_full, job, running
from tests.tui.screened import NOW, Screened, row, screened

ANSWERS = {"show": {"job": in_full(running(181, log="/state/jobs/181/1/log"))}}

# ── what can be copied ──


def test_the_parts_of_a_job_are_as_a_shell_reads_them() -> None:
    parts = copyable(in_full(running(181, command=["sh", "-c", "a b\n"], log="/s/log")))
    assert parts["command"] == r"sh -c $'a b\n'"
    assert parts["submit"].startswith("gpuq submit -g 1 -n job-181")
    assert (parts["id"], parts["log"], parts["cwd"]) == ("181", "/s/log", "/home/alice/vit")


def test_of_a_job_that_waits_there_is_no_log_to_copy() -> None:
    assert "log" not in copyable(in_full(job(184)))


def test_what_is_somebody_elses_to_know_is_not_offered() -> None:
    assert copyable(in_full(running(181, hidden=True))) == {"id": "181"}


def test_a_report_says_what_ran_how_it_ended_and_what_it_said() -> None:
    failed = in_full(ended(179, log="/s/log", retries=2)) | {"error_signature": "KeyError: 'lr'"}
    lines = report(failed, ["Traceback", "x" * 1000], NOW).splitlines()
    assert lines[0] == "Job 179 failed: exit code 1"
    assert "said     KeyError: 'lr'" in lines
    assert "command  python train.py" in lines
    assert "attempt  1 of 3" in lines
    assert "GPUs     0 (GPU-0)" in lines
    assert any(line.startswith("ended") and line.endswith(", after 1:00") for line in lines)
    assert lines[-3:] == ["last 2 lines of the log:", "Traceback", "x" * 400]


def test_the_last_lines_of_a_log_are_text(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\n\x1b[31mtwo\x1b[0m\n 10%\r 20%")
    assert last_lines(running(181, log=str(log)), 2) == ["two", " 20%"]
    with pytest.raises(GpuqError, match="there is no log of job 181"):
        last_lines(running(181, log=str(tmp_path / "none")), 2)


# ── the menu ──


def box(screen: Screened) -> list[str]:
    """What stands in the dialog."""
    lines = [line for line in screen.text().splitlines() if line.count("│") == 2]
    return [line.split("│")[1].strip() for line in lines]


def test_one_key_copies_and_what_is_said_why_it_may_not_have_worked(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("y")
        await screen.shows("Copy of 181")
        assert box(screen) == [
            "i  its id             181",
            "c  its command        python train.py",
            "s  gpuq submit …      gpuq submit -g 1 -n job-181 -C /home/alice/vit -- p…",
            "l  path of its log    /state/jobs/181/1/log",
            "d  its directory      /home/alice/vit",
            "r  report on it       how it went, and the last 20 lines of its log",
            "m  the marked text    –",
            "esc leave",
        ]
        await screen.press("c")
        await screen.shows("copied (command, 15 signs), where the terminal allows it")
        assert screen.app.clipboard == "python train.py"
        await screen.press("y")
        await screen.shows("Copy of 181")
        await screen.press("r")
        await screen.shows("there is no log of job 181")

    screened(tmp_path, deed, jobs=[row(181, state="running")], answers=ANSWERS)


def test_what_is_typed_behind_the_key_of_the_menu_is_for_the_menu(tmp_path: Path) -> None:
    is_typed = Event()

    def show(asked: Said) -> Said:
        is_typed.wait(1.0)
        return ANSWERS["show"]

    async def deed(screen: Screened) -> None:
        await screen.pilot.press("y", "r")
        is_typed.set()
        await screen.shows("there is no log of job 181")
        assert not screen.daemon.requests("requeue")
        assert len(screen.app.screen_stack) == 1

    screened(tmp_path, deed, jobs=[row(181, state="running")], answers={"show": show})


def test_nothing_is_copied_of_what_is_not_there(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("y")
        await screen.shows("Copy of 184")
        await screen.press("l", "m")
        assert "Copy of 184" in screen.text()
        await screen.press("escape")
        assert screen.app.clipboard == ""

    answers = {"show": {"job": in_full(job(184))}}
    screened(tmp_path, deed, jobs=[row(184)], answers=answers)


# ── files ──


def test_a_table_has_the_columns_of_a_pipe_and_keeps_commas_and_quotes(tmp_path: Path) -> None:
    jobs = [row(181, state="running", command=["echo", 'a,"b"']), row(184)]
    text = files.table(jobs, NOW).text
    first, second = csv.DictReader(text.splitlines())
    assert list(first)[:4] == ["id", "state", "substate", "outcome"]
    assert (first["id"], first["command"]) == ("181", """echo 'a,"b"'""")
    assert (second["substate"], second["priority"]) == ("", "0")


def test_each_job_of_a_group_is_in_the_table_once_folded_or_not() -> None:
    listing, picture = Listing(), Picture()
    group = [row(100, last=102, group="g100"), row(103, group="g100", name="other")]
    picture.take({"is_picture": True, "first": True, "more": False, "number": 1, "jobs": group})
    listing.take(picture)
    for is_open in (False, True):
        listing.fold(0, is_open=is_open)
        table = files.table(files.jobs_shown(listing), NOW)
        assert [one["id"] for one in csv.DictReader(table.text.splitlines())] == ["100-102", "103"]


def test_what_was_not_read_is_an_empty_field_of_a_graph() -> None:
    export = files.graph([{"at": 1.0, "gpu": 0, "util": None}, {"at": 2.0, "gpu": 0, "util": 97}])
    assert export.text == "at,gpu,util\n1.0,0,\n2.0,0,97\n"
    assert export.about == "the graph's 2 readings as CSV"


def test_an_empty_table_is_a_head() -> None:
    export = files.table([], NOW)
    assert export.about == "0 rows as CSV"
    assert export.text.startswith("id,state,")
    assert export.text.count("\n") == 1


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = str(tmp_path / "a.csv")
    export = Export("1 row as CSV", "csv", "id\n1\n")
    assert files.write(export, path, may_replace=False) == path
    assert Path(path).read_text() == "id\n1\n"
    with pytest.raises(GpuqError, match="nothing was written"):
        files.write(export, path, may_replace=False)
    files.write(export._replace(text="id\n2\n"), path, may_replace=True)
    assert Path(path).read_text() == "id\n2\n"
    with pytest.raises(GpuqError, match=r"No such file or directory\. Nothing was changed"):
        files.write(export, str(tmp_path / "none" / "a.csv"), may_replace=False)
    assert os.listdir(tmp_path) == ["a.csv"]


def test_where_it_cannot_go_is_said_before(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    assert files.forecast(f"{tmp_path}/b.csv") == f"{tmp_path}/b.csv"
    assert (
        files.forecast(f"{tmp_path}/a.csv")
        == f"{tmp_path}/a.csv is there already, and is written over"
    )
    for path, why in (
        ("", "wants a name"),
        (f"{tmp_path}", "is a folder"),
        ("/none/a", "no folder"),
    ):
        with pytest.raises(ValueError, match=why):
            files.forecast(path)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path finds room in a dialog."""
    with TemporaryDirectory(prefix="gpuq", dir="/tmp") as folder:
        yield Path(folder)


async def save(screen: Screened, kind: str, path: Path) -> None:
    await screen.press("ctrl+s")
    await screen.shows("Save")
    await screen.press(kind)
    await screen.until(lambda: screen.app.screen.query(Input), "a name to be asked for")
    screen.app.screen.query_one(Input).value = str(path)
    await screen.settle()


def test_the_table_is_saved_as_it_is_filtered(short: Path) -> None:
    path = short / "jobs.csv"

    async def deed(screen: Screened) -> None:
        await screen.press("ctrl+s")
        await screen.shows("Save")
        assert box(screen) == [
            "s  screen as SVG      80x24",
            "t  table as CSV       40 rows",
            "d  graph as CSV       –",
            "esc leave",
        ]
        await screen.press("escape")
        await save(screen, "t", path)
        await screen.press("enter")
        await screen.until(path.exists, "the file to be written")
        await screen.shows("wrote 40 rows as CSV")
        rows = list(csv.DictReader(path.read_text().splitlines()))
        assert [one["id"] for one in rows] == [str(number) for number in range(100, 140)]
        await save(screen, "t", path)
        await screen.shows("is there already")
        await screen.press("escape")

    jobs = [row(number) for number in range(100, 140)]
    screened(short, deed, jobs=jobs, is_readonly=True)


def test_the_screen_is_saved_without_the_menu(short: Path) -> None:
    path = short / "screen.svg"

    async def deed(screen: Screened) -> None:
        await save(screen, "s", path)
        await screen.press("enter")
        await screen.until(path.exists, "the file to be written")
        svg = path.read_text()
        assert svg.startswith("<svg")
        assert svg.rstrip().endswith("</svg>")
        assert "gpuq&#160;on&#160;box7" in svg or "gpuq on box7" in svg
        assert "job-181" in svg
        assert "SVG" not in svg

    screened(short, deed, jobs=[row(181, name="job-181")])


def test_what_goes_wrong_is_said(short: Path) -> None:
    async def deed(screen: Screened) -> None:
        await save(screen, "t", short / "a.csv")
        await screen.shows("a.csv")
        (short / "a.csv").write_text("somebody's\n")
        await screen.press("enter")
        await screen.shows("has come to be meanwhile")
        assert (short / "a.csv").read_text() == "somebody's\n"

    screened(short, deed, jobs=[row(181)])


def test_no_cell_of_a_table_is_a_formula() -> None:
    rows = [row(1, name="=cmd|' /C calc'!A0"), row(2, name="-5"), row(3, name="@sum")]
    table = files.table(rows, NOW)
    names = [one["name"] for one in csv.DictReader(table.text.splitlines())]
    assert names == ["'=cmd|' /C calc'!A0", "-5", "'@sum"]
