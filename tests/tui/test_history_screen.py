"""The screen of what has ended."""

from pathlib import Path
from typing import Any

import pytest
from textual.widgets import TextArea

from gpuq.errors import DaemonUnreachable, GpuqError
from gpuq.tui.screens.history.asking import PAGE
from gpuq.tui.screens.history.screen import HistoryScreen
from gpuq.tui.screens.job import JobScreen
from gpuq.tui.widgets.filter_line import FilterLine
from tests.cli.said import Said, ended, in_full, simulated
from tests.tui.screened import NOW, Screened, row, screened

LAST = 190


def over(number: int, **changes: Any) -> Said:
    """The job of that number ended a minute before the next one."""
    at = NOW - 60 * (LAST + 1 - number)
    is_bad = number % 2 == 1
    usual: Said = {
        "started_at": at - 90,
        "ended_at": at,
        "user": "bob" if number % 3 else "alice",
        "outcome": "failed" if is_bad else "succeeded",
        "exit_code": int(is_bad),
        "gpu_util_mean": None if number % 4 else 71.0,
    }
    told = ended(number, **(usual | changes))
    beside = {"held_idle": number == 188, "error_signature": None}
    return told | beside | {"gpus_simulated": number % 5 == 0}


class Kept:
    """A history of jobs, the last of which ended last, told in pages as the daemon has them."""

    def __init__(self, first: int, last: int = LAST) -> None:
        self.jobs = [over(number) for number in range(last, first - 1, -1)]

    def __call__(self, asked: Said) -> Said:
        after = asked.get("after")
        found = [
            job
            for job in self.jobs
            if (after is None or (job["ended_at"], job["id"]) < tuple(after))
            and job["outcome"] in (asked.get("states") or [job["outcome"]])
            and job["user"] == asked.get("user", job["user"])
            and job["ended_at"] >= asked.get("since", 0)
        ][: asked["limit"]]
        return {"jobs": found, "after": [found[-1]["ended_at"], found[-1]["id"]] if found else None}


def fared(user: str, jobs: int, failed: int) -> Said:
    return {"key": user, "jobs": jobs, "queued": 0, "running": 0, "failed": failed}


TOTALS: dict[str, Any] = {
    "stats": {"stats": [fared("alice", 31, 3), fared("bob", 11, 2)]},
    "usage": {
        "users": [
            {"user": "alice", "leased_gpu_s": 7200.0},
            {"user": "bob", "leased_gpu_s": 1800.0},
        ],
        "total": {"leased_gpu_s": 9000.0, "simulated_gpu_s": 1800.0, "cost": None},
    },
    "show": lambda asked: {"job": in_full(over(int(asked["ref"])))},
    "dry_run": GpuqError("not now"),
    "requeue": {"jobs": [{"id": 190, "last_id": 190, "done": "requeued", "why": None}]},
}


# Who may do something to the jobs of all.
AN_ADMIN = {"you": {"user": "alice", "uid": 1000, "is_admin": True, "may_act": True}}


def history(folder: Path, deed: Any, kept: Kept | None = None, **how: Any) -> None:
    async def opened(screen: Screened) -> None:
        await screen.press("3")
        await screen.shows(str(LAST))
        await deed(screen)

    answers = TOTALS | {"history": kept or Kept(150)} | how.pop("answers", {})
    screened(folder, opened, gpus=[simulated(0)], answers=answers, **how)


@pytest.fixture(autouse=True)
def without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TYPED_S", "NEWS_S"):
        monkeypatch.setattr(f"gpuq.tui.screens.history.asking.{name}", 0.01)


def shown(screen: Screened) -> HistoryScreen:
    found = screen.app.screen
    assert isinstance(found, HistoryScreen)
    return found


async def type_filter(screen: Screened, text: str) -> None:
    line = screen.app.screen.query_one(FilterLine)
    if not line.display:
        await screen.press("slash")
    line.input.value = text
    await screen.settle()


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 30), (160, 48)])
def test_what_ended_last_is_first(tmp_path: Path, size: tuple[int, int]) -> None:
    async def deed(screen: Screened) -> None:
        await screen.shows("42 ended, 5 failed" if size[0] < 120 else "as of")
        await screen.is_golden(f"history_{size[0]}x{size[1]}")

    history(tmp_path, deed, size=size)


def test_more_is_asked_when_the_cursor_nears_the_end_and_never_all(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        assert len(screen.daemon.requests("history")) == 1
        await screen.press("G")
        await screen.shows(f"the last {2 * PAGE} jobs")
        assert len(screen.daemon.requests("history")) == 2
        assert shown(screen).table.cursor == PAGE - 1

    history(tmp_path, deed, Kept(LAST - 5 * PAGE))


def test_the_window_of_time_and_how_it_ended_are_asked_of_the_daemon(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("w")
        await screen.shows("ended: 30 days")
        await screen.press("w")
        await screen.shows("ended: all")
        await screen.press("w")
        await screen.shows("ended: today")
        since = [asked.get("since") for asked in screen.daemon.requests("history")]
        midnight = NOW - NOW % 86400
        assert {NOW - 30 * 86400, None, midnight} <= set(since)
        assert screen.daemon.requests("stats")[-1]["since"] == midnight
        await screen.press("s")
        await screen.shows("ended: today · bad")
        await screen.until(lambda: "189" in screen.text(), "bad ones")
        assert "188" not in screen.text()

    history(tmp_path, deed)


def test_a_filter_is_asked_of_the_daemon_where_it_can_answer_it(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await type_filter(screen, "user:alice job-18")
        await screen.shows("user:alice job-18 · ")
        await screen.until(
            lambda: screen.daemon.requests("history")[-1].get("user") == "alice", "the question"
        )
        await screen.press("enter")
        await screen.settle()
        assert [row["id"] for row in shown(screen).past.rows] == [189, 186, 183, 180]
        await screen.press("escape")
        await screen.shows("41 jobs")

    history(tmp_path, deed)


def test_a_wrong_word_in_a_filter_is_said_until_it_is_mended(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await type_filter(screen, "since:soon")
        await screen.shows("since: 'soon' is neither")
        await screen.press("enter")
        await screen.shows("since: 'soon' is neither")
        await type_filter(screen, "since:2m")
        await screen.press("enter")
        await screen.shows("since:2m · 2 jobs")

    history(tmp_path, deed, size=(120, 24))


def test_who_ends_now_comes_in_at_the_top_and_the_cursor_stays(tmp_path: Path) -> None:
    kept = Kept(150)

    async def deed(screen: Screened) -> None:
        await screen.press("j", "j")
        assert (shown(screen).table.current or {})["id"] == 188
        kept.jobs.insert(0, over(191))
        screen.daemon.push(jobs=[row(191, state="ended", outcome="failed", ended_at=NOW)])
        await screen.shows("191")
        assert (shown(screen).table.current or {})["id"] == 188

    history(tmp_path, deed, kept)


def test_who_was_requeued_leaves(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("r", "y")
        await screen.shows("gpuq requeue 190: ")
        assert screen.daemon.requests("requeue")[0]["refs"] == ["190"]
        screen.daemon.push(jobs=[row(190, state="queued")])
        await screen.until(lambda: (shown(screen).table.current or {})["id"] == 189, "190 to leave")

    history(tmp_path, deed, beside=AN_ADMIN)


def test_a_job_that_ended_is_duplicated(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("d")
        await screen.shows("Duplicate of 190")
        assert screen.app.screen.query_one(TextArea).text == "python train.py"
        await screen.press("escape")
        assert isinstance(screen.app.screen, HistoryScreen)

    history(tmp_path, deed)


def test_enter_shows_all_about_it_and_escape_leads_back(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("j", "enter")
        assert isinstance(screen.app.screen, JobScreen)
        await screen.shows("exit code 1")
        await screen.press("escape")
        assert (shown(screen).table.current or {})["id"] == 189

    history(tmp_path, deed)


def test_what_goes_wrong_is_said_and_asked_again_with_the_daemon_back(tmp_path: Path) -> None:
    kept = Kept(185)
    troubles: list[GpuqError] = [GpuqError("others look already: try again in a minute")]

    async def deed(screen: Screened) -> None:
        await screen.press("3")
        await screen.shows("others look already")
        screen.daemon.hang_up()
        await screen.shows("188")

    def answer(asked: Said) -> Said | GpuqError:
        return troubles.pop() if troubles else kept(asked)

    screened(tmp_path, deed, answers=TOTALS | {"history": answer})


def test_totals_are_asked_once_a_window(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("1", "3", "1", "3")
        await screen.shows("190")
        assert len(screen.daemon.requests("stats")) == 1
        assert len(screen.daemon.requests("usage")) == 1

    history(tmp_path, deed)


def ids(screen: Screened) -> list[int]:
    return [row["id"] for row in shown(screen).past.rows]


def test_it_is_sorted_like_the_list_of_jobs(tmp_path: Path) -> None:
    kept = Kept(186)
    kept.jobs[0]["started_at"] = None
    kept.jobs[2]["started_at"] -= 1000.0

    async def deed(screen: Screened) -> None:
        await screen.press("o", "o", "o", "o")
        await screen.shows("sort: time ▼ · 5 jobs")
        assert ids(screen) == [188, 189, 187, 186, 190]  # who never began is the last
        assert (shown(screen).table.current or {})["id"] == 188
        await screen.press("O")
        await screen.shows("sort: time ▲")
        assert ids(screen) == [189, 187, 186, 188, 190]
        await screen.press("w")
        await screen.shows("30 days · sort: time ▲ · 5 jobs")
        assert ids(screen) == [189, 187, 186, 188, 190]

    history(tmp_path, deed, kept)


def test_marked_jobs_are_run_once_more_together(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("j", "space", "j", "space")
        await screen.shows("2 marked: 187 189")
        assert " *189" in screen.text()
        await screen.press("r")
        await screen.until(lambda: screen.daemon.requests("requeue"), "the request")
        assert screen.daemon.requests("requeue")[0]["refs"] == ["187,189"]
        screen.daemon.push(jobs=[row(187, state="queued")])
        await screen.shows("1 marked: 189")
        await screen.press("escape")
        await screen.until(lambda: "marked" not in screen.text(), "the marks to be forgotten")
        await screen.press("v", "j", "v")
        await screen.until(lambda: len(shown(screen).table.marks) == 2, "a range to be marked")
        await screen.press("asterisk")
        assert len(shown(screen).table.marks) == 40

    history(tmp_path, deed, beside=AN_ADMIN)


def test_marked_jobs_of_which_some_succeeded_are_asked_about(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("space", "space", "space", "r")
        await screen.shows("2 jobs have succeeded. Run once more?")
        assert screen.daemon.requests("requeue") == []
        await screen.press("y")
        await screen.until(lambda: screen.daemon.requests("requeue"), "the request")
        assert screen.daemon.requests("requeue")[0]["refs"] == ["188-190"]

    history(tmp_path, deed, beside=AN_ADMIN)


def test_mine_are_asked_of_the_daemon(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("m")
        await screen.shows("mine · 14 jobs")
        assert screen.daemon.requests("history")[-1]["user"] == "alice"
        assert {row["user"] for row in shown(screen).past.rows} == {"alice"}
        await type_filter(screen, "user:bob")
        await screen.press("enter")
        await screen.shows("mine · user:bob · nothing of that has ended")
        await screen.press("escape", "m")
        await screen.shows("7 days · 41 jobs")

    history(tmp_path, deed)


@pytest.mark.parametrize("key", ["x", "h", "z"])
def test_a_key_that_does_nothing_to_what_has_ended_says_so(tmp_path: Path, key: str) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press(key)
        await screen.shows("what has ended ")
        assert isinstance(screen.app.screen, HistoryScreen)

    history(tmp_path, deed)


def test_without_a_daemon_nothing_is_said_to_be_asked(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        screen.daemon.hold_back()
        screen.daemon.hang_up()
        await screen.until(lambda: screen.app.lost is not None, "the loss to be noticed")
        await screen.press("3")
        await screen.shows("ended: 7 days · not asked: no daemon answers")
        assert "asking" not in screen.text()
        assert "reckoning" not in screen.text()
        screen.daemon.hold_back(False)
        await screen.shows("7 days · 41 jobs")
        await screen.shows("42 ended, 5 failed")

    screened(tmp_path, deed, answers=TOTALS | {"history": Kept(150)})


def test_what_was_said_of_a_lost_daemon_goes_when_it_is_back(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("j")
        screen.daemon.hold_back()
        screen.daemon.hang_up()
        await screen.until(lambda: screen.app.lost is not None, "the loss to be noticed")
        await screen.press("r")
        await screen.shows("not while the daemon does not answer")
        screen.daemon.hold_back(False)
        await screen.until(lambda: screen.app.lost is None, "it to be back")
        await screen.until(lambda: "not while" not in screen.text(), "the message to go")
        await screen.press("M")
        await screen.shows("not while the daemon does not answer")

    history(tmp_path, deed)


def test_only_what_is_said_of_the_connection_goes_with_its_return(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        screen.app.say_error(DaemonUnreachable("the daemon was stopped: root stopped it"))
        screen.app.say_error(GpuqError("the disk is full"))
        screen.app.forget_loss()
        await screen.shows("the disk is full")
        screen.app.say_error(DaemonUnreachable("the daemon was stopped: root stopped it"))
        await screen.shows("root stopped it")
        screen.app.forget_loss()
        await screen.until(lambda: "root stopped it" not in screen.text(), "it to go")

    screened(tmp_path, deed)
