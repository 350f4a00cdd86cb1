"""Another database behind the same socket: the same ids are other jobs, nothing of before stays."""

from pathlib import Path
from typing import Any

from gpuq.tui.data.form.draft import Draft
from gpuq.tui.screens.dialogs.kill import KillDialog
from gpuq.tui.screens.form import FormScreen
from gpuq.tui.screens.jobs.screen import JobsScreen
from tests.cli.said import Said
from tests.tui.screened import Screened, row, screened

QUEUE = [row(number, group=f"g{number}", name=f"scratch-{number}") for number in (1, 2, 3)]
OTHERS = [row(number, group=f"g{number}", name=f"precious-{number}") for number in (1, 2, 3)]
STRANDED: Said = {"jobs": [], "stranded": []}


async def comes_with_another(screen: Screened) -> None:
    """The daemon leaves, and one with another queue listens there."""
    screen.daemon.picture |= {"jobs": OTHERS, "mark": "b", "number": 101, "is_other": True}
    screen.daemon.hang_up()
    await screen.shows("precious-2")


def test_the_mark_of_the_queue_is_said_where_it_is_gone_on_with(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        screen.daemon.picture["mark"] = "later"
        screen.daemon.push(mark="m2", counts={"running": 0, "queued": 1, "queued_yours": 1})
        await screen.until(lambda: screen.app.picture.number == 101, "the news")
        screen.daemon.hang_up()
        await screen.until(lambda: len(screen.daemon.requests("subscribe")) == 2, "it to come back")
        asked = screen.daemon.requests("subscribe")[1]
        assert (asked["since"], asked["mark"]) == (101, "m2")

    screened(tmp_path, deed, jobs=QUEUE, beside={"mark": "m1"})


def test_the_kill_dialog_that_was_open_kills_nothing_there(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("x")
        assert isinstance(screen.app.screen, KillDialog)
        await comes_with_another(screen)
        assert isinstance(screen.app.screen, JobsScreen)
        await screen.press("y")
        await screen.shows("another queue is there now")
        assert not screen.daemon.requests("kill")
        assert "scratch" not in screen.text()

    answers = {"consequences": STRANDED}
    screened(tmp_path, deed, jobs=QUEUE, beside={"mark": "a"}, answers=answers, size=(120, 30))


def test_a_key_that_comes_with_the_other_queue_does_nothing(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("x")
        dialog: Any = screen.app.screen
        other = screen.daemon.picture | {"jobs": OTHERS, "is_other": True}
        screen.app.post_message(screen.app.Told(other))
        while isinstance(screen.app.screen, KillDialog):
            dialog.action_yes() if screen.app.picture.rows.at(1) is None else None
            await screen.pilot.pause()
        dialog.action_yes()
        await screen.shows("precious-2")
        assert not screen.daemon.requests("kill")

    screened(tmp_path, deed, jobs=QUEUE, answers={"consequences": STRANDED}, size=(120, 30))


def test_marks_and_what_can_be_undone_go_with_the_queue_they_were_of(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("space", "j", "space")
        table = screen.app.screen.table
        assert len(table.marks) == 2
        screen.app.screen._undoable = (range(1, 2),)
        await comes_with_another(screen)
        table = screen.app.screen.table
        assert not table.marks
        assert not screen.app.screen._undoable

    screened(tmp_path, deed, jobs=QUEUE, beside={"mark": "a"}, size=(120, 30))


def test_the_screens_that_were_not_up_are_new_too_and_the_same_one_stays(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        before = screen.app.screen
        await screen.app.switch_mode("gpus")
        screen.daemon.picture |= {"jobs": OTHERS, "mark": "b", "is_other": True}
        screen.daemon.hang_up()
        await screen.shows("another queue is there now")
        assert screen.app.current_mode == "gpus"
        await screen.app.switch_mode("jobs")
        assert screen.app.screen is not before
        await screen.shows("precious-2")

    screened(tmp_path, deed, jobs=QUEUE, beside={"mark": "a"}, size=(120, 30))


def test_the_draft_of_a_new_job_outlives_the_queue(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("n")
        form = screen.app.screen
        assert isinstance(form, FormScreen)
        await screen.press("p", "y")
        typed = form.form.draft
        assert typed != Draft()
        await comes_with_another(screen)
        assert [kept.draft for kept in screen.app.drafts.values()] == [typed]

    screened(tmp_path, deed, jobs=QUEUE, beside={"mark": "a"}, size=(120, 30))


def test_what_was_done_in_one_queue_tells_nothing_of_the_other(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        taken: list[Any] = []
        screen.app.ask(lambda client: screen.app._queue, taken.append, group="a")
        screen.app._queue += 1  # while it is under way
        await screen.settle()
        assert not taken

    screened(tmp_path, deed, jobs=QUEUE)
