import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.model import EndCause, Exit
from gpuq.daemon.attempt import record
from gpuq.daemon.linux import processes
from tests import stored
from tests.alive import Alive, alive, with_alive
from tests.desk import Desk, is_gone, run, until, with_desk

GRACE_S = 60.0


async def told_to_end(desk: Desk, *, within_s: float = GRACE_S) -> None:
    """As the daemon does it: the mark, then the TERM."""
    await desk.running()
    desk.supervisor.mark_ending(1, EndCause.ASKED, within_s)
    desk.supervisor.signal(1, signal.SIGTERM)


def test_it_runs_once_when_gpuq_ends_the_job_and_the_end_is_told_after_it(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        await desk.start("sleep", "600", on_kill="echo $WHO $PWD >>said; exit 3", env=("WHO=ann",))
        await told_to_end(desk)
        exit = await desk.exited()
        assert exit is not None
        assert (exit.signal, exit.on_kill_code, exit.on_kill_trouble) == (15, 3, None)
        assert (tmp_path / "said").read_text() == f"ann {tmp_path}\n"

    with_desk(tmp_path, deed)


def test_it_begins_while_the_job_is_there(tmp_path: Path) -> None:
    script = "trap 'test -e asked && exit 7' TERM; touch ready; while :; do sleep 0.01; done"

    async def deed(desk: Desk) -> None:
        await desk.start("sh", "-c", script, on_kill="touch asked; kill -TERM $(cat main)")
        pid = (await desk.running()).pid
        (tmp_path / "main").write_text(str(pid))
        await desk.file("ready")
        await told_to_end(desk)  # nothing stands in `asked` yet, and the job goes on
        exit = await desk.exited()
        assert exit is not None
        assert (exit.exit_code, exit.on_kill_code) == (7, 0)

    with_desk(tmp_path, deed)


def test_a_job_that_ends_by_itself_needs_none(tmp_path: Path) -> None:
    exit = run(tmp_path, "sh", "-c", "exit 4", on_kill="touch said")
    assert (exit.exit_code, exit.on_kill_code, exit.on_kill_trouble) == (4, None, None)
    assert not (tmp_path / "said").exists()


def test_it_has_no_more_time_than_the_grace(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        await desk.start("sleep", "600", on_kill="echo $$ >helper; exec sleep 600")
        await told_to_end(desk, within_s=1.5)
        exit = await desk.exited()
        assert exit is not None
        assert exit.on_kill_code == -signal.SIGKILL
        assert exit.on_kill_trouble == "it was ended, since the grace was over"
        assert is_gone(int((tmp_path / "helper").read_text()))

    with_desk(tmp_path, deed)


def test_where_kill_comes_at_once_there_is_no_time_for_it(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        await desk.start("sleep", "600", on_kill="touch said")
        await desk.running()
        desk.supervisor.mark_ending(1, EndCause.ASKED, 0.0)
        desk.supervisor.signal(1, signal.SIGKILL)
        exit = await desk.exited()
        assert exit is not None
        assert "KILL came at once" in str(exit.on_kill_trouble)
        assert not (tmp_path / "said").exists()

    with_desk(tmp_path, deed)


def test_what_it_says_stands_in_the_log_and_what_it_leaves_behind_is_ended(tmp_path: Path) -> None:
    command = "echo cleaned up; sleep 600 & echo $! >left"

    async def deed(desk: Desk) -> None:
        await desk.start("sh", "-c", "echo begun; exec sleep 600", on_kill=command, grace_s=5.0)
        await desk.running()
        await until(lambda: desk.lines() == ["begun"], "the first line")
        await told_to_end(desk)
        exit = await desk.exited()
        assert exit is not None
        assert exit.on_kill_code == 0
        assert desk.lines() == ["begun", "cleaned up"]
        assert is_gone(int((tmp_path / "left").read_text()))

    with_desk(tmp_path, deed)


def test_it_is_one_command_however_often_the_job_is_told_to_end(tmp_path: Path) -> None:
    script = "trap '' TERM; touch ready; while :; do sleep 0.01; done"

    async def deed(desk: Desk) -> None:
        await desk.start("sh", "-c", script, on_kill="trap '' TERM; echo once >>said")
        await desk.file("ready")
        for _ in range(3):
            await told_to_end(desk)
        await desk.file("said")
        desk.supervisor.mark_ending(1, EndCause.TIME_LIMIT, GRACE_S)
        desk.supervisor.signal(1, signal.SIGKILL)
        await desk.exited()
        assert (tmp_path / "said").read_text() == "once\n"

    with_desk(tmp_path, deed)


@pytest.mark.parametrize("text", ["", "asked", "asked x\n", "asked nan\n", "asked 1e300\n"])
def test_a_mark_that_is_cut_or_strange_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "ending-n").write_text(text)
    assert record.ends_within(str(tmp_path), "n") is None


def test_the_first_mark_counts_and_one_of_another_start_is_none(tmp_path: Path) -> None:
    record.note_ending(str(tmp_path), "n", "asked", 10.0)
    record.note_ending(str(tmp_path), "n", "time_limit", 20.0)
    assert record.ends_within(str(tmp_path), "n") == 10.0
    assert record.ends_within(str(tmp_path), "other") is None
    record.note_ending(str(tmp_path / "gone"), "n", "asked", 1.0)  # it has not begun


# ── alive ──


@pytest.mark.parametrize(
    ("asked", "outcome"), [({}, "cancelled"), ({"time_limit_s": 0.1}, "timed_out")]
)
def test_its_end_is_told_with_the_job(tmp_path: Path, asked: dict[str, Any], outcome: str) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit("exec sleep 600", on_kill=b"echo $GPUQ_JOB_ID >said; exit 5", **asked)
        await daemon.running(job)
        if not asked:
            daemon.kill(job, grace_s=GRACE_S)
        row = await daemon.ended(job)
        assert row["outcome"] == outcome
        assert row["reason"].endswith("its --on-kill command ended with code 5")
        assert (tmp_path / "said").read_text() == f"{job}\n"
        (event,) = [one for one in stored.events(daemon.store) if one["kind"] == "on_kill"]
        assert event["detail"] == '{"exit_code": 5}'

    with_alive(tmp_path, deed)


def test_it_runs_though_no_daemon_is_there_any_more(tmp_path: Path) -> None:
    script = "trap 'sleep 1.5; exit 0' TERM; touch ready; while :; do sleep 0.01; done"

    async def live() -> None:
        async with alive(tmp_path, leave=True) as daemon:
            job = daemon.submit(script, on_kill=b"touch said")
            await daemon.running(job)
            await until((tmp_path / "ready").exists, "the job to be ready")
            daemon.kill(job, grace_s=GRACE_S)
            await until(lambda: "term_sent" in stored.kinds(daemon.store, job), "the TERM")
            (attempt,) = daemon.attempts(job)
        await until(
            lambda: not processes.is_alive(attempt["runner_pid"], attempt["runner_start"]),
            "the runner to leave",
        )
        assert (tmp_path / "said").exists()
        async with alive(tmp_path) as daemon:
            assert (await daemon.ended(job))["outcome"] == "cancelled"

    asyncio.run(live())


def test_what_did_not_go_well_is_no_secret_and_quotes_nothing() -> None:
    from gpuq.core.ends.beside import beside_words, on_kill_words

    assert beside_words(Exit(exit_code=0, on_kill_code=0)) == []
    assert on_kill_words(Exit(exit_code=0)) is None
    assert beside_words(Exit(exit_code=0, on_kill_code=-9)) == [
        "its --on-kill command was ended by SIGKILL"
    ]
    (words,) = beside_words(Exit(exit_code=0, container_trouble="container 3f2a: docker rm …"))
    assert words.endswith("it may be there still")
