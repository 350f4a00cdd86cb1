"""The form in which a job is written down."""

import asyncio
import io
import shlex
import threading
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input, TextArea

from gpuq.cli.main import run
from gpuq.cli.render import command_line
from gpuq.errors import GpuqError, NeverFits, NotPermitted
from gpuq.tui.screens.jobs.screen import JobsScreen
from tests.cli.said import Said, ended, in_full, simulated
from tests.tui.screened import Screened, row, screened
from tests.tui.test_draft import EDITABLE

WORDS = "would start now on simulated GPU 2"
VERDICT: Said = {
    "count": 1,
    "starting": 1,
    "gpus": [2],
    "gpu_uuids": ["GPU-2"],
    "reason": None,
    "waits_for": [],
    "expected_start_at": None,
    "words": WORDS,
}
WAITS = VERDICT | {
    "starting": 0,
    "words": "would wait for 181: wants 2 GPUs, 0 free; expected start ~14:20",
}
QUEUED = {"first": 184, "count": 1, "group": "g184", "entries": [[184, 184]]}
ANSWERS: dict[str, Any] = {
    "dry_run": {"dry": True, "verdict": [VERDICT], "note": None},
    "submit": QUEUED,
    "editable": EDITABLE,
    "edit": {"jobs": [{"id": 12, "last_id": 12, "done": "edited", "changed": ["time_limit_s"]}]},
    "show": lambda asked: {"job": in_full(row(int(asked["ref"])))},
}
JOBS = [row(12), row(181, state="running")]


@pytest.fixture(autouse=True)
def asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuq.tui.screens.form.ASK_AFTER_S", 0.01)


def form(folder: Path, deed: Any, *, answers: dict[str, Any] | None = None, **how: Any) -> None:
    how.setdefault("jobs", JOBS)
    screened(folder, deed, gpus=[simulated(0)], answers=ANSWERS | (answers or {}), **how)


async def write(screen: Screened, **fields: str) -> None:
    for name, text in fields.items():
        widget = screen.app.screen.query_one(f"#{name}")
        if isinstance(widget, TextArea):
            widget.text = text
        else:
            assert isinstance(widget, Input)
            widget.value = text
    await screen.settle()


def said(screen: Screened) -> str:
    return screen.app.messages.newest_first()[0].text


def preview(screen: Screened) -> list[str]:
    """The words of the line that is shown."""
    lines = screen.text().splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith(" gpuq submit"))
    end = next(n for n, line in enumerate(lines) if line.startswith(" command:"))
    return shlex.split(" ".join(line.strip() for line in lines[begin:end]))


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 30), (160, 48)])
def test_it_shows_the_line_and_what_would_become_of_it(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("n")
        await write(screen, command="python train.py --lr 3e-4", gpus="2", time="2h", tags="sweep")
        await screen.shows("would start")
        await screen.is_golden(f"form_{size[0]}x{size[1]}")
        if size == (80, 24):
            await screen.is_svg_golden("form")

    form(tmp_path, deed, size=size)


def test_what_is_wrong_is_marked_at_once_and_not_asked(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("n")
        await write(screen, command="ls", gpus="two", time="20")
        await screen.is_golden("form_wrong")
        assert screen.daemon.requests("dry_run") == []
        await screen.press("ctrl+s")
        assert screen.app.focused is screen.app.screen.query_one("#gpus")
        assert screen.daemon.requests("submit") == []

    form(tmp_path, deed)


def test_what_was_said_of_another_line_is_not_shown_any_more(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("n")
        await write(screen, command="ls")
        await screen.shows(WORDS)
        await write(screen, gpus="two")
        await screen.shows("! gpus: 'two' is no whole number")
        assert WORDS not in screen.text()

    form(tmp_path, deed)


def test_what_came_of_a_long_line_is_seen(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("n")
        await write(screen, command="python train.py " + "--option value " * 20)
        await screen.press("ctrl+s")
        await screen.shows(": Job 184 queued (M)")
        assert " gpuq submit -- python train.py" in screen.text()

    form(tmp_path, deed)


def test_what_would_wait_or_never_fit_is_said(tmp_path: Path) -> None:
    def foretell(asked: Said) -> Said | GpuqError:
        if asked["jobs"][0].get("gpus") == 9:
            return NeverFits("--gpus 9 can never start: this machine has 1 GPU")
        return {"dry": True, "verdict": [WAITS], "note": "the moment to begin was 3:00 ago"}

    async def deed(screen: Screened) -> None:
        await screen.press("n")
        await write(screen, command="no-such-program x", gpus="2")
        await screen.shows("would wait for 181: wants 2 GPUs, 0 free; expected start ~14:20")
        await screen.shows("! 'no-such-program' is no program that can be found at present")
        await screen.shows("! the moment to begin was 3:00 ago")
        await write(screen, gpus="9")
        await screen.shows("! --gpus 9 can never start: this machine has 1 GPU")
        assert "would wait" not in screen.text()

    form(tmp_path, deed, answers={"dry_run": foretell})


@pytest.mark.parametrize(
    "fields",
    [
        {"command": "python train.py --name 'a b'", "gpus": "2", "tags": "sweep 'two words'"},
        {"command": 'make && ./a.out > "$OUT"', "gpus": "0", "other": "-c 4 -e A='x y'"},
        {"command": "./eval.sh {i}", "array": "0-3%2", "after": "12 13:any", "cwd": "/"},
    ],
)
def test_the_line_that_is_shown_is_what_is_submitted(
    tmp_path: Path, fields: dict[str, str]
) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("n")
        await write(screen, **fields)
        await screen.shows(WORDS)
        line = preview(screen)
        await screen.press("ctrl+s")
        await screen.until(lambda: said(screen).endswith("Job 184 queued"), "it to be queued")
        assert screen.app.messages.newest_first()[0].command == command_line(line)
        typed = ["--socket", screen.daemon.path, *line[1:]]
        said_there = io.TextIOWrapper(io.BytesIO())
        with redirect_stdout(said_there), redirect_stderr(said_there):
            assert await asyncio.to_thread(run, typed) == 0
        foretold = (screen.daemon.requests("dry_run")[-1]["jobs"][0]) | {"seed": 0}
        asked = [request["jobs"][0] | {"seed": 0} for request in screen.daemon.requests("submit")]
        assert len(asked) == 2
        assert asked[0] == asked[1] == foretold

    form(tmp_path, deed, size=(80, 30))


def test_submitting_says_the_job_and_puts_the_cursor_on_it(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("n")
        await write(screen, command="python a.py")
        await screen.press("ctrl+s")
        await screen.shows("gpuq submit -- python a.py: Job 184 queued")
        screen.daemon.push(jobs=[row(184)], looked_at=[[184, 184]])
        jobs = screen.app.screen
        assert isinstance(jobs, JobsScreen)
        await screen.until(lambda: (jobs.table.current or {}).get("id") == 184, "the cursor on 184")
        await screen.press("n")
        assert screen.app.screen.query_one(TextArea).text == ""

    form(tmp_path, deed)


def test_a_job_is_queued_once_however_often_the_key_is_pressed(tmp_path: Path) -> None:
    may_answer = threading.Event()

    def submit(asked: Said) -> Said:
        may_answer.wait(10)
        return QUEUED

    async def deed(screen: Screened) -> None:
        await screen.press("n")
        await write(screen, command="python a.py")
        await screen.press("ctrl+s", "ctrl+s")
        may_answer.set()
        await screen.shows("Job 184 queued")
        assert len(screen.daemon.requests("submit")) == 1

    form(tmp_path, deed, answers={"submit": submit})


@pytest.mark.parametrize("keys", [("escape",), ("f1",), ("ctrl+p",), ("escape", "n", "ctrl+s")])
def test_an_answer_finds_the_form_left_or_covered_and_the_line_is_queued_once(
    tmp_path: Path, keys: tuple[str, ...]
) -> None:
    may_answer = threading.Event()

    def submit(asked: Said) -> Said:
        may_answer.wait(10)
        return QUEUED

    async def deed(screen: Screened) -> None:
        await screen.press("n")
        await write(screen, command="python a.py")
        await screen.press("ctrl+s")
        await screen.press(*keys)
        may_answer.set()
        app = screen.app
        said = app.messages.newest_first
        await screen.until(lambda: any("Job 184" in one.text for one in said()), "the answer")
        if keys in (("f1",), ("ctrl+p",)):
            await screen.press("escape")
        await screen.until(lambda: isinstance(app.screen, JobsScreen), "the list again")
        assert len({request["token"] for request in screen.daemon.requests("submit")}) == 1

    form(tmp_path, deed, answers={"submit": submit})


def test_after_a_refusal_the_draft_is_there_and_may_be_sent_again(tmp_path: Path) -> None:
    answers: list[Said | GpuqError] = [QUEUED, GpuqError("the disk is full: nothing was queued")]

    async def deed(screen: Screened) -> None:
        await screen.press("n")
        await write(screen, command="python a.py")
        await screen.press("ctrl+s")
        await screen.shows("the disk is full: nothing was queued")
        assert screen.app.screen.query_one(TextArea).text == "python a.py"
        await screen.press("ctrl+s")
        await screen.shows("Job 184 queued")
        tokens = [request["token"] for request in screen.daemon.requests("submit")]
        assert tokens[0] == tokens[1]

    form(tmp_path, deed, answers={"submit": lambda asked: answers.pop()})


def test_a_draft_is_kept_over_a_change_of_screens_until_it_is_cleared(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("n")
        await write(screen, command="python a.py", gpus="2")
        await screen.press("escape")
        await screen.press("2", "1", "n")
        assert screen.app.screen.query_one(TextArea).text == "python a.py"
        assert screen.app.screen.query_one("#gpus", Input).value == "2"
        await screen.press("ctrl+r")
        assert screen.app.screen.query_one(TextArea).text == ""
        await screen.press("escape", "n")
        assert screen.app.screen.query_one("#gpus", Input).value == ""

    form(tmp_path, deed)


def test_tab_goes_from_field_to_field_as_they_stand(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("n")
        seen = []
        for _ in range(13):
            seen.append(str(getattr(screen.app.focused, "id", None)))
            await screen.pilot.press("tab")
        assert seen == [
            *("command", "gpus", "gpu_mem", "time", "name", "cwd", "after", "array", "queue"),
            *("priority", "tags", "other", "preview"),
        ]

    form(tmp_path, deed)


def test_without_a_daemon_nothing_is_submitted_and_that_is_said(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("n")
        await write(screen, command="python a.py")
        screen.daemon.hang_up()
        await screen.until(lambda: screen.app.lost is not None, "the loss to be noticed")
        await screen.shows("! nothing is submitted: not while the daemon does not answer")
        await screen.until(lambda: screen.app.lost is None, "it to be found again")
        await screen.until(lambda: "nothing is submitted" not in screen.text(), "it to be said")

    form(tmp_path, deed)


def test_a_duplicate_begins_with_what_the_job_is(tmp_path: Path) -> None:
    def show(asked: Said) -> Said:
        return {"job": in_full(ended(12, user="bob", name="eval", command=["python", "eval.py"]))}

    async def deed(screen: Screened) -> None:
        await screen.press("d")
        await screen.shows("Duplicate of 12")
        await screen.shows(WORDS)
        assert screen.app.screen.query_one(TextArea).text == "python eval.py"
        assert screen.app.screen.query_one("#cwd", Input).value == "/home/alice/vit"
        await screen.shows("it is bob's: this one will be yours")
        await screen.shows("its environment is yours as it is now")

    form(tmp_path, deed, answers={"show": show}, jobs=[row(12, state="ended", outcome="failed")])


def test_a_job_that_is_hidden_has_nothing_to_duplicate(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("d")
        await screen.shows("job 12 is bob's, and what it runs is not told")
        assert isinstance(screen.app.screen, JobsScreen)

    hidden = in_full(row(12, user="bob", name="", command=[], hidden=True))
    form(tmp_path, deed, answers={"show": {"job": hidden}}, jobs=[row(12)], size=(100, 24))


def test_an_edit_sends_only_what_changes_and_the_version_it_is_of(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("e")
        await screen.shows("Edit 12")
        await screen.is_golden("form_edit")
        await write(screen, time="4h")
        await screen.shows("gpuq edit 12 --time 4h")
        assert screen.daemon.requests("dry_run") == []
        await screen.press("ctrl+s")
        await screen.shows("gpuq edit 12 --time 4h: Job 12 is changed: time")
        (asked,) = screen.daemon.requests("edit")
        assert (asked["refs"], asked["version"]) == (["12"], 3)
        assert asked["changes"] == {"time_limit_s": 14400.0}

    form(tmp_path, deed, jobs=[row(12)])


def test_an_edit_that_came_too_late_is_not_lost(tmp_path: Path) -> None:
    why = "somebody has changed it meanwhile"
    refused = {"id": 12, "last_id": 12, "done": "refused", "why": why, "changed": []}

    async def deed(screen: Screened) -> None:
        await screen.press("e")
        await screen.shows("Edit 12")
        await write(screen, time="4h")
        await screen.press("ctrl+s")
        await screen.shows(why)
        assert screen.app.screen.query_one("#time", Input).value == "4h"

    form(tmp_path, deed, jobs=[row(12)], answers={"edit": {"jobs": [refused]}})


def test_what_may_not_be_edited_says_why(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("e")
        await screen.shows("job 12 belongs to bob")
        assert isinstance(screen.app.screen, JobsScreen)

    refusal = NotPermitted("job 12 belongs to bob; only its owner or an admin may edit it")
    form(tmp_path, deed, answers={"editable": refusal}, jobs=[row(12)])
