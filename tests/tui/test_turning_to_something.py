"""What a newcomer meets: words instead of signs, columns after a resize, a question before a requeue of
many, messages that give way, drafts that are kept apart, and what to do without a daemon."""

from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input, TextArea

from gpuq.cli.change import HOLD, REQUEUE, UNDO, sentence
from gpuq.cli.submit_again import exact_time
from gpuq.core.units import in_words, parse_seconds
from gpuq.errors import DaemonUnreachable, UsageError
from gpuq.tui.app import GpuqApp
from gpuq.tui.data.messages import Message, Messages
from gpuq.tui.keymap import read_keymap, shown, with_keys
from gpuq.tui.looks import Signs
from gpuq.tui.screens.form import FormScreen
from gpuq.tui.settings import Written
from tests.cli.said import Said, in_full
from tests.tui.screened import NOW, Screened, row, screened
from tests.tui.test_form import ANSWERS

GROUP = [
    row(n, state="ended", outcome="succeeded", group="g7", ended_at=NOW - 60.0)
    for n in range(7, 19)
]


def requeued(request: Said) -> Said:
    return {"jobs": [{"id": 7, "last_id": 18, "done": "requeued", "why": None}]}


def show(asked: Said) -> Said:
    return {"job": in_full(row(int(asked["ref"])), seed=42, time_limit_s=7200.0)}


# ── what is drawn ──


def test_keys_are_words_where_only_ascii_is_drawn(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        assert "enter Detail" in screen.text()
        assert shown(["up", "shift+tab", "question_mark"], screen.app) == "up shift+tab ?"

    ascii_only = Signs(unicode=False, now=lambda: NOW)
    screened(tmp_path, deed, jobs=[row(181)], size=(160, 24), signs=ascii_only)


def test_columns_are_measured_with_the_window(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("c", "end")  # the group, which is done, is the last
        await screen.pilot.resize_terminal(40, 12)
        await screen.settle()
        lines = screen.text().splitlines()
        head = next(line for line in lines if "ID" in line)
        group = next(line for line in lines if "7…18" in line)
        assert head.index("ST") == group.index("✓")

    screened(tmp_path, deed, jobs=[*GROUP, *(row(n) for n in range(20, 50))])


def test_an_empty_list_says_how_to_begin(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.shows("no jobs · n submits one")
        screen.daemon.push(jobs=[row(181)])
        await screen.shows("job-181")
        assert "submits one" not in screen.text()

    screened(tmp_path, deed)


# ── what is asked first ──


@pytest.mark.parametrize("leave", ["enter", "q"])
def test_many_that_succeeded_are_not_requeued_unasked(tmp_path: Path, leave: str) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("c", "r")
        await screen.shows("12 jobs have succeeded")
        await screen.press(leave)
        assert screen.daemon.requests("requeue") == []
        await screen.press("r", "y")
        await screen.until(lambda: screen.daemon.requests("requeue"), "the request")
        assert screen.daemon.requests("requeue")[0]["refs"] == ["7-18"]

    screened(tmp_path, deed, jobs=GROUP, answers={"requeue": requeued})


def test_one_that_failed_is_requeued_at_once(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("r")
        await screen.until(lambda: screen.daemon.requests("requeue"), "the request")

    failed = row(7, state="ended", outcome="failed", exit_code=1)
    screened(tmp_path, deed, jobs=[failed], answers={"requeue": requeued})


# ── messages ──


@pytest.mark.parametrize("keys", [["s"], ["o"], ["slash"], ["2"], ["n"]])
def test_a_message_gives_way_to_what_one_turns_to(tmp_path: Path, keys: list[str]) -> None:
    async def deed(screen: Screened) -> None:
        screen.app.say("job 18: it has ended", is_error=True)
        await screen.shows("it has ended")
        await screen.press(*keys)
        assert "it has ended" not in screen.text()
        assert [one.text for one in screen.app.messages.newest_first()] == ["job 18: it has ended"]

    screened(tmp_path, deed, jobs=[row(18)], answers=ANSWERS)


@pytest.mark.parametrize(("is_error", "fades_s"), [(False, 8.0), (True, 15.0)])
def test_a_message_fades(is_error: bool, fades_s: float) -> None:
    messages = Messages()
    messages.add(Message(text="said", at=100.0, is_error=is_error))
    assert messages.shown(100.0 + fades_s - 0.1) is not None
    assert messages.shown(100.0 + fades_s) is None


def test_without_a_daemon_it_is_said_what_to_do(tmp_path: Path) -> None:
    now = [NOW]

    async def deed(screen: Screened) -> None:
        screen.app.post_message(GpuqApp.Lost(DaemonUnreachable("it went away")))
        await screen.shows("reconnecting")
        now[0] += 6.0
        screen.app.post_message(GpuqApp.Lost(DaemonUnreachable("it went away")))
        await screen.shows("gpuq --state-dir /s daemon start")

    options: dict[str, Any] = {"signs": Signs(now=lambda: now[0])}
    options["daemon_options"] = ["--state-dir", "/s"]
    screened(tmp_path, deed, jobs=[row(181)], size=(120, 24), **options)


# ── the form ──


def test_a_new_job_is_not_the_duplicate_that_was_left(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("d")
        await screen.shows("Duplicate of 7")
        screen.app.screen.query_one(TextArea).text = "python other.py"
        await screen.press("escape", "n")
        await screen.shows("New job")
        assert screen.app.screen.query_one(TextArea).text == ""
        await screen.press("escape", "d")
        await screen.shows("python other.py")

    screened(tmp_path, deed, jobs=[row(7)], answers=ANSWERS | {"show": show})


def test_a_duplicate_of_several_says_of_which_and_leaves_the_seed_out(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("d")
        await screen.shows("Duplicate of 7, the first of 6")
        assert screen.app.screen.query_one("#time", Input).value == "2h"
        assert "--seed" not in screen.app.screen.query_one("#other", Input).value
        await screen.shows("not in it: its seed, 42")

    screened(
        tmp_path, deed, jobs=[row(7, last=12)], answers=ANSWERS | {"show": show}, size=(140, 40)
    )


@pytest.mark.parametrize("key", ["n", "d", "e"])
def test_a_screen_that_only_looks_opens_no_form(tmp_path: Path, key: str) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press(key)
        assert not isinstance(screen.app.screen, FormScreen)
        await screen.shows("this screen only looks (--readonly)")
        active = screen.app.screen.active_bindings[key]
        assert not active.enabled

    screened(tmp_path, deed, jobs=[row(7)], answers=ANSWERS, is_readonly=True)


def test_nothing_is_wrong_before_anything_is_written(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("n")
        assert "there is no command" not in screen.flowing()
        await screen.press("tab", "1")
        await screen.shows("there is no command")

    screened(tmp_path, deed, answers=ANSWERS)


def test_a_prompt_begins_without_an_error(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("p")
        await screen.shows("Priority of job 7")
        assert "whole number" not in screen.text()
        await screen.press("x")
        await screen.shows("whole number")

    screened(tmp_path, deed, jobs=[row(7)])


def test_the_key_of_an_edit_changes(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("e")
        await screen.shows("^s Change")

    screened(tmp_path, deed, jobs=[row(12)], answers=ANSWERS)


def test_a_busy_queue_does_not_put_off_what_is_asked_of_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("n", "x")
        form = screen.app.screen
        assert isinstance(form, FormScreen)
        due = form._asking
        screen.daemon.push(counts={"running": 1, "queued": 5})
        await screen.until(lambda: screen.app.picture.counts.get("queued") == 5, "the news")
        await screen.settle()
        assert form._asking is due

    monkeypatch.setattr("gpuq.tui.screens.form.ASK_AFTER_S", 60.0)
    screened(tmp_path, deed, answers=ANSWERS)


# ── words ──


def test_several_jobs_are_spoken_of_as_several() -> None:
    run = {"id": 7, "last_id": 12, "done": "refused", "why": "it is queued already"}
    assert sentence(run, REQUEUE) == "Jobs 7-12: they are queued already"
    assert sentence(run | {"last_id": 7}, REQUEUE) == "Job 7: it is queued already"
    ended = {"why": "it has ended; gpuq requeue 7-12 runs it again"}
    assert sentence(run | ended, HOLD).endswith(
        "they have ended; gpuq requeue 7-12 runs them again"
    )


@pytest.mark.parametrize(("is_held", "state"), [(True, "held"), (False, "queued")])
def test_an_undo_says_as_what_they_come_back(is_held: bool, state: str) -> None:
    run = {"id": 7, "last_id": 7, "done": "undone", "held": is_held}
    assert sentence(run, UNDO) == f"Job 7 is {state} again, as before"


def test_a_length_of_time_is_said_as_people_do() -> None:
    said = [in_words(seconds) for seconds in (0.2, 10, 3600, 5400, 3 * 86400)]
    assert said == ["0 s", "10 s", "1 h", "1 h 30 min", "3 d"]
    times = [exact_time(seconds) for seconds in (7200, 1200, 90, 0.5, 86400)]
    assert times == ["2h", "20m", "90s", "0.5s", "1d"]
    assert [parse_seconds(one) for one in times] == [7200, 1200, 90, 0.5, 86400]


def test_a_refusal_names_the_key_beside_the_command(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        assert with_keys("it runs: gpuq pause 13", screen.app) == "it runs: gpuq pause 13 (P)"
        assert with_keys("gpuq release 7-9 first", screen.app) == "gpuq release 7-9 (h) first"

    screened(tmp_path, deed)


def test_a_key_that_is_not_there_brings_no_wall_of_names() -> None:
    def why(name: str) -> str:
        with pytest.raises(UsageError) as slip:
            read_keymap({name: Written(value="x", where="here")})
        return str(slip.value)

    assert "did you mean kill" in why("kil")
    assert why("zzzzzz").endswith("? in gpuq top shows all names")


def test_ending_is_for_the_jobs_screen(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("2", "x")
        await screen.shows("nothing is ended here: 1 has the jobs")

    screened(tmp_path, deed, jobs=[row(7)])
