"""What ends and what begins in its place are one commit, and what is asked at each turn is
remembered."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from gpuq.core.model import EndCause, Request
from gpuq.daemon import bell
from gpuq.daemon.linux import processes
from gpuq.daemon.runners import Gate
from gpuq.daemon.starting import Begun
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import Database, DiskTrouble, LeaseRefused
from gpuq.daemon.store.happened import NewAttempt
from gpuq.daemon.supervisor import Known
from tests import stored
from tests.alive import Alive, with_alive

DRAINED = "select value from wishes where name = 'drain'"


def note_commits(daemon: Alive) -> list[int]:
    """The last event of each commit from now on."""
    found: list[int] = []
    tell = daemon.store.database.on_commit

    def note() -> None:
        tell()
        found.extend(one["seq"] for one in stored.events(daemon.store)[-1:])

    daemon.store.database.on_commit = note
    return found


def test_the_next_job_begins_in_the_commit_of_the_end_before(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        commits = note_commits(daemon)
        jobs = [daemon.submit("true") for _ in range(12)]
        for job in jobs:
            assert (await daemon.ended(job))["outcome"] == "succeeded"
        events = stored.events(daemon.store)
        ended = {one["seq"] for one in events if one["kind"] == "ended"}
        begun = {one["seq"] for one in events if one["kind"] == "starting"}
        assert any(seq + 1 in begun and seq not in commits for seq in ended)
        assert ended.isdisjoint(begun)

    with_alive(tmp_path, deed, cpu_slots="1")


def test_an_end_is_kept_where_the_next_start_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the schema: that is a part of the commit which is undone alone."""

    async def deed(daemon: Alive) -> None:
        def refuse(new: NewAttempt, *, now: float) -> bool:
            if new.job == second and not has_refused:
                has_refused.append(True)
                with daemon.store.part():
                    daemon.store.database.write("update jobs set priority = 99")
                    raise LeaseRefused("planted")
            return start(new, now=now)

        start, has_refused = daemon.store.happened.start, []
        monkeypatch.setattr(daemon.store.happened, "start", refuse)
        first, second = daemon.submit("true"), daemon.submit("true")
        for job in (first, second):
            assert (await daemon.ended(job))["outcome"] == "succeeded"
        assert has_refused
        assert daemon.row(second)["priority"] == 0

    with_alive(tmp_path, deed, cpu_slots="1")


def test_what_the_disk_refuses_is_neither_ended_nor_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deed(daemon: Alive) -> None:
        def refuse(new: NewAttempt, *, now: float) -> bool:
            start(new, now=now)
            states.append([daemon.row(job)["state"] for job in (first, second)])
            raise DiskTrouble("planted")

        start, states = daemon.store.happened.start, []
        first, second = daemon.submit("sleep 0.1"), daemon.submit("true")
        await daemon.running(first)
        monkeypatch.setattr(daemon.store.happened, "start", refuse)
        await daemon.until(lambda: states, "the end of one and the start of the other")
        assert states[0] == ["ended", "starting"]
        assert [daemon.row(job)["state"] for job in (first, second)] == ["running", "queued"]
        monkeypatch.undo()
        daemon.loop.wake()
        for job in (first, second):
            assert (await daemon.ended(job))["outcome"] == "succeeded"

    with_alive(tmp_path, deed, cpu_slots="1")


def test_the_order_goes_out_before_anybody_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deed(daemon: Alive) -> None:
        def dispatch(gate: Gate, known: Known, *order: Any) -> None:
            steps.append((known.job, "ordered"))
            send(gate, known, *order)

        def publish(job: int, moment: str, *, last: int | None = None) -> None:
            steps.append((job, moment))
            tell(job, moment, last=last)

        steps: list[tuple[int, str]] = []
        send, tell = daemon.loop._supervisor.dispatch, daemon.watchers.publish
        monkeypatch.setattr(daemon.loop._supervisor, "dispatch", dispatch)
        monkeypatch.setattr(daemon.watchers, "publish", publish)
        jobs = [daemon.submit("true") for _ in range(12)]
        await daemon.ended(jobs[-1])
        behind = [
            steps.index((job + 1, "ordered")) < steps.index((job, "ended")) for job in jobs[:-1]
        ]
        assert any(behind), "where both are of one turn"

    with_alive(tmp_path, deed, cpu_slots="1")


def test_of_many_wishes_not_each_gets_a_turn_and_the_last_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell, "SOON_S", 0.3)

    async def deed(daemon: Alive) -> None:
        await daemon.turn()
        turns = daemon.loop.turns
        for _ in range(50):
            daemon.loop.wake()
            await asyncio.sleep(0)
        assert daemon.loop.turns - turns < 25
        job = daemon.submit("true")
        assert (await daemon.ended(job))["outcome"] == "succeeded"

    with_alive(tmp_path, deed)


@pytest.mark.parametrize(("script", "reads"), [("true", False), ("echo x >> $GPUQ_REPORT", True)])
def test_a_report_is_read_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reads: bool
) -> None:
    async def deed(daemon: Alive) -> None:
        def take(job: int, attempt: int) -> None:
            read.append(job)
            take_last(job, attempt)

        read: list[int] = []
        take_last = daemon.loop._chronicle._take_reports
        monkeypatch.setattr(daemon.loop._chronicle, "_take_reports", take)
        job = daemon.submit(script)
        await daemon.ended(job)
        assert read == [job] * reads

    with_alive(tmp_path, deed)


# ─── what is asked, and what begins of it ────────────────────────────────────────────────────────


async def peace(daemon: Alive) -> None:
    """Nothing is to be done, and a runner is at hand."""
    gate = await daemon.loop._supervisor.take_runner()
    daemon.loop._supervisor._keep(gate)
    await daemon.until(lambda: daemon.loop._bell.has_peace, "the loop to have peace")


def submit_at_once(daemon: Alive, script: str, **asked: Any) -> int:
    """As the daemon does it for whoever asks."""
    with daemon.loop.commit_and_start():
        return store_job(daemon, script, **asked)


def store_job(daemon: Alive, script: str, **asked: Any) -> int:
    return stored.submit_one(
        daemon.store,
        argv=(b"sh", b"-c", os.fsencode(script)),
        cwd=os.fsencode(daemon.folder),
        request=Request(gpus=0),
        changes={b"PATH": b"/usr/bin:/bin"},
        **asked,
    )


def test_a_job_begins_in_the_commit_of_its_submit_where_nobody_waits(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await peace(daemon)
        commits = note_commits(daemon)
        job = submit_at_once(daemon, "exit 3")
        kinds = [one["kind"] for one in stored.events(daemon.store)][-2:]
        assert (kinds, len(commits)) == (["submitted", "starting"], 1)
        assert daemon.row(job)["state"] == "starting"
        ended = await daemon.ended(job)
        assert (ended["exit_code"], ended["attempt"]) == (3, 1)

    with_alive(tmp_path, deed)


def test_it_waits_for_its_turn_behind_others(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        first, second = daemon.submit("sleep 0.2"), daemon.submit("true", priority=-1)
        await daemon.running(first)
        await peace(daemon)
        turns = daemon.loop.turns
        third = submit_at_once(daemon, "true")
        assert (daemon.row(third)["state"], daemon.loop.turns) == ("queued", turns)
        daemon.loop.wake()
        for job in (second, third):
            assert (await daemon.ended(job))["outcome"] == "succeeded"
        began = [daemon.row(job)["started_at"] for job in (third, second)]
        assert began == sorted(began)

    with_alive(tmp_path, deed, cpu_slots="1")


@pytest.mark.parametrize("wish", ["held", "drained", "closing"])
def test_nothing_begins_at_once_that_is_not_to_begin(tmp_path: Path, wish: str) -> None:
    async def deed(daemon: Alive) -> None:
        if wish == "drained":
            daemon.drain("a new fan")
        elif wish == "closing":
            daemon.loop.close_down(EndCause.SHUTDOWN, 60.0)
        await daemon.turn()
        await peace(daemon)
        job = submit_at_once(daemon, "true", held=wish == "held")
        assert daemon.row(job)["state"] == "queued"
        assert daemon.attempts(job) == []

    with_alive(tmp_path, deed)


def test_what_the_disk_refuses_is_neither_asked_nor_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runner, which has made ready already, is told to leave."""

    async def deed(daemon: Alive) -> None:
        def refuse() -> list[Begun]:
            begun = begin()
            runners.extend((one.new.runner_pid, one.new.runner_start) for one in begun)
            daemon.store.database._db.set_commit_hook(lambda: True)
            return begun

        begin, runners = daemon.loop._begin_at_once, list[tuple[int, int]]()
        monkeypatch.setattr(daemon.loop, "_begin_at_once", refuse)
        await peace(daemon)
        with pytest.raises(apsw.ConstraintError):
            submit_at_once(daemon, "touch ran")
        daemon.store.database._db.set_commit_hook(None)
        assert stored.events(daemon.store) == []
        assert daemon.store.found.jobs(ended=False) == []
        await daemon.until(lambda: not processes.is_alive(*runners[0]), "its runner to leave")
        assert not (daemon.folder / "ran").exists()
        monkeypatch.undo()
        await peace(daemon)
        job = submit_at_once(daemon, "touch ran")
        assert (await daemon.ended(job))["outcome"] == "succeeded"

    with_alive(tmp_path, deed)


@pytest.mark.parametrize(("mode", "primed"), [("user", 1), ("system", 0)])
def test_nothing_is_made_ready_for_a_job_of_another_user_that_is_not_stored_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, primed: int
) -> None:
    """Where its submit is undone its id is the next one's, who could not use its folder."""

    async def deed(daemon: Alive) -> None:
        def refuse() -> list[Begun]:
            begun.extend(begin())
            daemon.store.database._db.set_commit_hook(lambda: True)
            return begun

        def prime(gate: Gate, order: dict[str, Any]) -> bool:
            ahead.append(gate)
            return send(gate, order)

        settings = daemon.config.having("mode", mode, "the test")
        monkeypatch.setattr(daemon.loop._starter, "_config", settings)
        begin, begun, ahead = daemon.loop._begin_at_once, list[Begun](), list[Gate]()
        send = daemon.loop._supervisor.prime
        monkeypatch.setattr(daemon.loop._supervisor, "prime", prime)
        monkeypatch.setattr(daemon.loop, "_begin_at_once", refuse)
        await peace(daemon)
        with pytest.raises(apsw.ConstraintError):
            submit_at_once(daemon, "true")
        daemon.store.database._db.set_commit_hook(None)
        assert (len(begun), len(ahead)) == (1, primed)

    with_alive(tmp_path, deed)


def test_an_order_that_cannot_be_sent_ends_the_daemon_and_not_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored by then: to say that it failed would have it asked for again."""

    async def deed(daemon: Alive) -> None:
        def fail(begun: list[Begun]) -> None:
            daemon.loop._starter.dismiss(begun)  # as they leave with their daemon
            raise RuntimeError("planted")

        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        await peace(daemon)
        with monkeypatch.context() as planted:
            planted.setattr(daemon.loop._deeds, "send", fail)
            job = submit_at_once(daemon, "true")
        assert [(str(one["exception"]), one["fatal"]) for one in told] == [("planted", True)]
        assert daemon.row(job)["state"] == "starting"

    with_alive(tmp_path, deed, leave=True)


def test_more_than_there_are_runners_for_begin_all_the_same(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await peace(daemon)
        with daemon.loop.commit_and_start():
            jobs = [store_job(daemon, "true") for _ in range(9)]
        for job in jobs:
            assert (await daemon.ended(job))["outcome"] == "succeeded"

    with_alive(tmp_path, deed, cpu_slots="16")


# ─── remembered ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def database() -> Iterator[Database]:
    with closing(Store(":memory:")) as opened:
        yield opened.database


def asked_by(database: Database, deed: Callable[[], object]) -> int:
    """How many statements were run."""
    asked: list[str] = []
    database._db.exec_trace = lambda cursor, sql, values: bool(asked.append(sql)) or True
    deed()
    database._db.exec_trace = None
    return len(asked)


def drain(database: Database, reason: str) -> None:
    database.write(
        "insert or replace into wishes (name, value, actor, at) values ('drain', ?, 'ann', 0.0)",
        (reason,),
    )


def test_it_is_asked_again_only_once_something_was_written_there(database: Database) -> None:
    def ask() -> list[dict[str, object]]:
        return database.remembered(("wishes",), DRAINED)

    assert ask() == []
    assert asked_by(database, ask) == 0
    with database.transaction():
        drain(database, '{"reason": "one"}')
        assert ask() == [{"value": '{"reason": "one"}'}], "in the same transaction, too"
    with database.transaction():
        database.write("delete from events")
    assert asked_by(database, ask) == 0
    with database.transaction():
        database.write("delete from wishes where name = 'another'")
    assert asked_by(database, ask) == 0, "nothing was deleted"


@pytest.mark.parametrize("is_part", [False, True])
def test_what_was_undone_is_forgotten(database: Database, is_part: bool) -> None:
    def fail() -> None:
        with database.part():
            drain(database, '{"reason": "one"}')
            assert len(database.remembered(("wishes",), DRAINED)) == 1
            raise RuntimeError

    def undone() -> None:
        with pytest.raises(RuntimeError):
            fail()

    if is_part:
        with database.transaction():
            undone()
            assert database.remembered(("wishes",), DRAINED) == []
    else:
        undone()
    assert database.remembered(("wishes",), DRAINED) == []


@pytest.mark.parametrize(
    "sql",
    [
        "insert or replace into wishes (name, value, actor, at) values ('drain', '{}', 'ann', 0.0)",
        "  insert into wishes (name, value, actor, at) select 'drain', '{}', 'ann', 0.0",
        "with w (a) as (select 1)\ninsert into wishes (name, value, actor, at) "
        "select 'drain', '{}', 'ann', 0.0 from w",
    ],
)
def test_each_way_to_write_counts(database: Database, sql: str) -> None:
    assert database.remembered(("wishes",), DRAINED) == []
    with database.transaction():
        database.write(sql)
    assert len(database.remembered(("wishes",), DRAINED)) == 1


def test_a_transaction_that_changes_nothing_is_no_news(database: Database) -> None:
    told: list[None] = []
    database.on_commit = lambda: told.append(None)
    with database.transaction():
        database.write("delete from wishes")
    assert told == []
    with database.transaction():
        drain(database, "{}")
    assert told == [None]
