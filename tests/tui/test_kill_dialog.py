"""The dialog before the end of jobs: what it shows, and that it ends those jobs and no others."""

from pathlib import Path
from typing import Any

import pytest
from textual.events import Key

from gpuq.errors import NotPermitted
from gpuq.tui.looks import Line, Signs
from gpuq.tui.screens.dialogs.kill import KillDialog
from tests.cli.said import Said, simulated
from tests.tui.screened import NOW, Screened, row, screened

STRANDED = {"jobs": [], "stranded": ["186 waits for 184 and would never start"]}


def waits(number: int, **changes: Any) -> Said:
    """Alone in its group, so that it has a line of its own."""
    return row(number, **({"group": f"g{number}", "name": f"job-{number}"} | changes))


def runs(number: int, **changes: Any) -> Said:
    begun = {
        "state": "running",
        "attempt": 1,
        "gpus": [0],
        "started_at": NOW - 7984,
        "reason": None,
    }
    return waits(number, **(begun | changes))


def did(request: Said) -> Said:
    """To each job or range that was named, as to one that waits."""
    jobs = []
    for part in ",".join(request["refs"]).split(","):
        first, _, last = part.partition("-")
        jobs.append(
            {
                "id": int(first),
                "last_id": int(last or first),
                "done": "cancelled",
                "grace_s": None,
            }
        )
    return {"jobs": jobs, "stranded": []}


ANSWERS = {"kill": did, "consequences": {"jobs": [], "stranded": []}}
QUEUE = [runs(181, name="vit-b"), waits(184, name="sweep-3"), waits(186, name="sweep-5")]


def dialog(screen: Screened) -> bool:
    return isinstance(screen.app.screen, KillDialog)


def killed(screen: Screened) -> list[list[str]]:
    return [request["refs"] for request in screen.daemon.requests("kill")]


async def is_killed(screen: Screened, refs: str) -> None:
    await screen.until(lambda: killed(screen) == [[refs]], f"{refs} to be killed")


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 30), (160, 48)])
def test_it_says_what_will_be(tmp_path: Path, size: tuple[int, int]) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("asterisk", "x")
        await screen.shows("186 waits for")
        await screen.is_golden(f"kill_{size[0]}x{size[1]}", of="#box")
        if size == (80, 24):
            await screen.is_svg_golden("kill")

    theirs = runs(183, user="bob", name="eval-7", gpus=[2])
    jobs = [*QUEUE, theirs, waits(190, last=229, name="grid"), *map(waits, range(230, 245))]
    answers = ANSWERS | {"consequences": STRANDED}
    screened(tmp_path, deed, size=size, jobs=jobs, gpus=[simulated(0)], answers=answers)


def test_y_ends_the_jobs_and_says_so(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("x")
        assert dialog(screen)
        await screen.press("y")
        await is_killed(screen, "181")
        await screen.shows("gpuq kill 181: Job 181 stopping, KILL in 10 s")
        assert not dialog(screen)
        assert "undoes" not in screen.text()

    done = {"id": 181, "last_id": 181, "done": "stopping", "grace_s": 10.0}
    answers = ANSWERS | {"kill": {"jobs": [done], "stranded": []}}
    screened(tmp_path, deed, jobs=QUEUE, answers=answers)


@pytest.mark.parametrize("key", ["enter", "escape", "n"])
def test_it_keeps_them(tmp_path: Path, key: str) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("x", key)
        assert not dialog(screen)
        await screen.press("y")
        assert killed(screen) == []

    screened(tmp_path, deed, jobs=QUEUE, answers=ANSWERS)


def test_rows_that_come_and_change_places_change_nothing(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("down", "x")
        screen.daemon.push(
            jobs=[waits(100), waits(101), waits(181, state="ended", outcome="succeeded")],
            looked_at=[[100, 101], [181, 181]],
        )
        await screen.until(lambda: len(screen.app.picture.rows) == 5, "the news")
        await screen.press("y")
        await is_killed(screen, "184")

    screened(tmp_path, deed, jobs=QUEUE, answers=ANSWERS)


def test_what_becomes_of_them_meanwhile_is_shown(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("down", "x")
        await screen.shows("-> cancelled (u undoes)")
        screen.daemon.push(jobs=[runs(184, started_at=NOW - 3)])
        await screen.shows("started meanwhile")
        assert "-> TERM, then KILL in 10 s" in screen.text()
        over = runs(184, state="ended", outcome="failed", ended_at=NOW)
        screen.daemon.push(jobs=[over])
        await screen.shows("ended meanwhile")
        screen.daemon.push(jobs=[runs(184, attempt=2, started_at=NOW)])
        await screen.shows("began anew meanwhile, attempt 2")
        screen.daemon.push(jobs=[], looked_at=[[184, 184]])
        await screen.shows("gone meanwhile")
        await screen.press("y")
        await is_killed(screen, "184")

    screened(tmp_path, deed, jobs=QUEUE, answers=ANSWERS, size=(120, 30))


def test_who_waits_is_asked_again_when_something_changed(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("down", "x")
        asked = screen.daemon.requests
        await screen.until(lambda: len(asked("consequences")) == 1, "the question")
        screen.daemon.push(jobs=[waits(186, name="other")])
        await screen.settle()
        assert len(asked("consequences")) == 1
        screen.daemon.push(jobs=[runs(184)])
        await screen.until(lambda: len(asked("consequences")) == 2, "another question")
        assert {tuple(one["refs"]) for one in asked("consequences")} == {("184",)}

    screened(tmp_path, deed, jobs=QUEUE, answers=ANSWERS)


def test_without_a_daemon_nothing_is_ended(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("x")
        screen.daemon.hold_back()
        screen.daemon.hang_up()
        await screen.shows("not while the daemon does not answer")
        await screen.press("y")
        assert dialog(screen)
        await screen.press("s")
        assert killed(screen) == []
        screen.daemon.hold_back(False)
        await screen.until(lambda: screen.app.lost is None, "the daemon to be back")
        await screen.settle()
        assert "does not answer" not in screen.text()
        await screen.press("y")
        await is_killed(screen, "181")

    screened(tmp_path, deed, jobs=QUEUE, answers=ANSWERS)


def test_keys_pressed_twice_do_it_once(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.pilot.press("x", "x")
        asking = screen.app.screen
        assert isinstance(asking, KillDialog)
        asking.action_yes()
        asking.action_yes()
        await is_killed(screen, "181")
        await screen.settle()
        assert not dialog(screen)
        assert killed(screen) == [["181"]]

    screened(tmp_path, deed, jobs=QUEUE, answers=ANSWERS)


def test_it_goes_through_a_change_of_the_window(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("x")
        for size in [(40, 12), (200, 60), (20, 5), (80, 24)]:
            await screen.pilot.resize_terminal(*size)
        assert dialog(screen)
        await screen.pilot.resize_terminal(60, 20)
        await screen.pilot.press("y")
        await is_killed(screen, "181")

    screened(tmp_path, deed, jobs=QUEUE, answers=ANSWERS)


def test_another_signal_ends_nothing(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("x", "s")
        await screen.shows("Send a signal to 1 job")
        await screen.press(*"nope", "enter")
        await screen.shows("'nope' is no signal")
        await screen.press("escape")
        await screen.shows("Kill 1 job")
        await screen.press("s", *"usr1", "enter")
        await screen.shows("gpuq kill 181 --signal SIGUSR1: Job 181 got SIGUSR1")
        (asked,) = screen.daemon.requests("kill")
        assert (asked["refs"], asked["signal"]) == (["181"], 10)

    done = {"id": 181, "last_id": 181, "done": "signalled", "grace_s": None}
    answers = ANSWERS | {"kill": {"jobs": [done], "stranded": []}}
    screened(tmp_path, deed, jobs=QUEUE, answers=answers, size=(120, 30))


def test_thousands_are_one_request(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("x")
        await screen.shows("Kill 5000 jobs")
        screen.daemon.push(jobs=[waits(1, last=4999), runs(5000)], looked_at=[[1, 5000]])
        await screen.shows("4999 queued, 1 running")
        await screen.press("y")
        await is_killed(screen, "1-5000")

    screened(tmp_path, deed, jobs=[waits(1, last=5000, name="grid")], answers=ANSWERS)


def test_nothing_to_kill_is_said(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("x")
        await screen.shows("job 179 has ended: there is nothing to kill")
        assert not dialog(screen)

    screened(tmp_path, deed, jobs=[waits(179, state="ended", outcome="failed")], answers=ANSWERS)


def test_no_job_to_kill_is_said(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("x")
        await screen.shows("there is no job here")

    screened(tmp_path, deed)


def test_others_jobs_are_left_alone(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("x")
        await screen.shows("job 183 belongs to bob; only its owner or an admin may kill it")
        assert not dialog(screen)
        await screen.press("asterisk", "x")
        await screen.shows("Kill 1 job")
        await screen.shows("left alone: job 183 belongs to bob")
        await screen.press("y")
        await is_killed(screen, "184")

    jobs = [runs(183, user="bob"), waits(184)]
    screened(tmp_path, deed, jobs=jobs, answers=ANSWERS, size=(120, 30))


def test_an_admin_may_end_others_jobs(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("x", "y")
        await is_killed(screen, "183")

    beside = {"you": {"user": "root", "uid": 0, "is_admin": True, "may_act": True}}
    screened(tmp_path, deed, jobs=[runs(183, user="bob")], answers=ANSWERS, beside=beside)


def test_what_the_daemon_refuses_is_said(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("x", "y")
        await screen.shows("gpuq kill 181: job 181 belongs to bob")

    answers = ANSWERS | {"kill": NotPermitted("job 181 belongs to bob")}
    screened(tmp_path, deed, jobs=QUEUE, answers=answers)


def test_it_is_drawn_without_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("x")
        await screen.shows("Kill 1 job")

    monkeypatch.setenv("NO_COLOR", "1")
    screened(tmp_path, deed, jobs=QUEUE, answers=ANSWERS)


def test_a_yes_that_was_typed_before_the_dialog_was_to_be_seen_is_none(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        for key in "xy":
            screen.app.post_message(Key(key, key))
        await screen.shows("Kill 1 job")
        await screen.settle()
        assert dialog(screen)
        assert killed(screen) == []
        await screen.press("y")
        await screen.until(lambda: killed(screen), "the kill")

    screened(tmp_path, deed, jobs=[runs(181)], answers=ANSWERS)


def test_what_is_typed_behind_a_key_that_opens_something_is_for_that(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        for name, key in [("slash", "/"), ("h", "h"), ("a", "a")]:
            screen.app.post_message(Key(name, key))
        await screen.shows("/ha")
        assert screen.daemon.requests("hold") == []

    screened(tmp_path, deed, jobs=[waits(181)])


def test_no_text_of_a_line_moves_the_terminal() -> None:
    line = Line(40, Signs()).add("a\x1b[31mb\x9bc\n", wide=30)
    assert line.strip().text.rstrip() == r"a\x1b[31mb\x9bc\n"
