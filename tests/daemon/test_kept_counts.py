"""How many jobs there are is read, not counted, and is what counting gives, whatever happened."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from gpuq.core.asked.elements import Elements
from gpuq.core.model import Outcome, Request
from gpuq.daemon.check.promises import judge_numbers
from gpuq.daemon.store import Store
from gpuq.daemon.store.audit import Audit
from gpuq.daemon.store.audit_numbers import misnumbered
from gpuq.daemon.store.connection import MOST_STATEMENTS
from gpuq.daemon.store.job_rows import Submitter
from gpuq.daemon.store.pruned import Remains
from tests import stored
from tests.daemon.test_folding import Desk
from tests.daemon.test_retention import steps_of
from tests.stored import ALICE, BOB, BOOT, MONO, NOW, spec, start, submit, with_gpus

DEEDS = 400


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(Store(":memory:")) as opened:
        yield with_gpus(opened)


def counted(store: Store) -> dict[str, Any]:
    """By going through all rows."""
    rows = store.database.rows(
        "select j.*, c.uid, c.queue from jobs j join classes c on c.id = j.class"
    )
    queued: Counter[str] = Counter()
    groups: dict[int, Counter[str]] = {}
    for row in rows:
        number = row["last_id"] - row["id"] + 1
        word = row["outcome"] or row["state"]
        groups.setdefault(row["group_id"], Counter())[word] += number
        if row["state"] == "queued":
            stays = row["stop_asked_at"] is None
            queued["all"] += number
            queued[f"of {row['uid']}"] += number
            queued["held"] += number if row["held_by"] else 0
            queued[f"room of {row['uid']}"] += number if stays else 0
            queued[f"in {row['queue']}"] += number if stays else 0
    running = sum(row["state"] in ("starting", "running") for row in rows)
    return {"queued": queued, "groups": groups, "running": running}


def check_counts(store: Store) -> None:
    there, kept = counted(store), store.counted
    queued = there["queued"]
    assert kept.totals() == (there["running"], queued["all"])
    for user in (ALICE, BOB):
        assert kept.for_user(user.uid) == {
            "queued": queued["all"],
            "running": there["running"],
            "queued_yours": queued[f"of {user.uid}"],
            "held": queued["held"],
        }
        assert kept.queued(user.uid) == queued[f"room of {user.uid}"]
    for queue, number in kept.queued_in_queues().items():
        assert number == queued[f"in {queue}"]
    for group, words in there["groups"].items():
        told = {word: number for word, number in store.grouped.counts(group).items() if number}
        assert told == dict(words), f"group g{group}"


class Life:
    """All that can befall jobs, drawn."""

    def __init__(self, store: Store, seed: int) -> None:
        self._store = store
        self._draw = random.Random(seed)

    def go_on(self) -> None:
        getattr(self, self._draw.choice(self.DEEDS))()

    DEEDS = (
        *("submit", "submit", "add_to_group", "hold", "release", "stop", "undo", "cancel"),
        *("begin", "begin", "begin", "go_back", "end", "end", "fail", "requeue", "limit", "forget"),
    )

    def submit(self) -> None:
        by: Submitter = self._draw.choice((ALICE, BOB))
        what: dict[str, Any] = {
            "request": Request(gpus=self._draw.randrange(3)),
            "queue": self._draw.choice(("", "nights")),
            "held": self._draw.random() < 0.2,
        }
        if self._draw.random() < 0.5:
            what["elements"] = Elements(indices=(range(self._draw.randrange(2, 9)),))
        submit(self._store, self._draw.randrange(1, 4), by, **what)

    def add_to_group(self) -> None:
        own = "select id from groups where uid = ?"
        groups = [row["id"] for row in self._store.database.rows(own, (ALICE.uid,))]
        if groups:
            group = self._draw.choice(groups)
            self._store.asked.submit(ALICE, [spec(), spec()], now=NOW, group=group)

    def hold(self) -> None:
        self._store.changed.hold(*self._part("queued"), actor="ann", as_admin=False, now=NOW)

    def release(self) -> None:
        self._store.changed.release(*self._part("queued"), actor="ann", now=NOW)

    def stop(self) -> None:
        self._store.wished.stop(*self._part("queued"), grace_s=1.0, actor="ann", now=NOW)

    def undo(self) -> None:
        part = self._part(self._draw.choice(("queued", "ended")))
        self._store.changed.undo(*part, since=0.0, actor="ann", now=NOW)
        self._store.returned.requeue(part[0], now=NOW, boottime=MONO, boot_id=BOOT)

    def cancel(self) -> None:
        first, last = self._part("queued")
        self._store.happened.cancel(first, last=last, actor="ann", now=NOW)

    def begin(self) -> None:
        waiting = self._store.current.waiting(3)
        if waiting:
            one = self._draw.choice(waiting)
            start(self._store, one.id, attempt=one.attempt)
            if self._draw.random() < 0.5:
                stored.run(self._store, one.id, attempt=one.attempt)

    def go_back(self) -> None:
        if (job := self._active("starting")) is not None:
            self._store.happened.return_to_queue(*job, cause="no room", now=NOW)

    def end(self) -> None:
        if (job := self._active("running")) is not None:
            outcome = self._draw.choice((Outcome.SUCCEEDED, Outcome.FAILED, Outcome.LOST))
            stored.end(self._store, job[0], attempt=job[1], outcome=outcome)

    def fail(self) -> None:
        if (job := self._active("running")) is not None:
            stored.fail(self._store, job[0], attempt=job[1])

    def requeue(self) -> None:
        part = self._part("ended")
        self._store.changed.requeue(*part, actor="ann", now=self._draw.random())
        self._store.returned.requeue(part[0], now=NOW, boottime=MONO, boot_id=BOOT)

    def limit(self) -> None:
        groups = [row["id"] for row in self._store.database.rows("select id from groups")]
        if groups:
            most: Any = {"max_running": self._draw.choice((None, 2)), "max_gpus": None}
            group = self._draw.choice(groups)
            self._store.limited.limit_group(group, most, actor="ann", now=NOW)

    def forget(self) -> None:
        first, last = self._part("ended")
        span = range(first, last + 1)
        if self._store.wished.prune([span], outputs=False, actor="ann", now=NOW):
            self._store.pruned.forget([Remains(id=first, attempts=0)], {}, now=NOW)

    def _part(self, state: str) -> tuple[int, int]:
        """Some of the jobs of one row; ids that nobody has where there is none."""
        sql = "select id, last_id from jobs where state = ?"
        rows = self._store.database.rows(sql, (state,))
        if not rows:
            return 10**9, 10**9
        row = self._draw.choice(rows)
        first = self._draw.randint(row["id"], row["last_id"])
        return first, self._draw.randint(first, row["last_id"])

    def _active(self, state: str) -> tuple[int, int] | None:
        sql = "select id, attempt from jobs where state = ?"
        rows = self._store.database.rows(sql, (state,))
        if not rows:
            return None
        row = self._draw.choice(rows)
        return row["id"], row["attempt"]


@pytest.mark.parametrize("seed", range(3))
def test_the_numbers_are_those_of_the_rows_whatever_happened(store: Store, seed: int) -> None:
    life = Life(store, seed)
    for _ in range(DEEDS):
        life.go_on()
        check_counts(store)
    assert misnumbered(Audit(store.database._db, ":memory:")) == []


def test_what_is_taken_back_was_never_counted(store: Store) -> None:
    jobs = submit(store, 3)
    before = store.counted.for_user(ALICE.uid)

    def begin_and_fail() -> None:
        with store.transaction():
            start(store, jobs[0])
            submit(store, 5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        begin_and_fail()
    assert store.counted.for_user(ALICE.uid) == before
    check_counts(store)


def test_a_class_of_which_nobody_waits_and_a_job_alone_leave_no_number(store: Store) -> None:
    job = submit(store).start
    start(store, job)
    stored.run(store, job)
    stored.end(store, job)
    assert store.database.rows("select * from queued_jobs") == []
    assert store.database.rows("select * from ended_jobs") == []
    assert store.grouped.counts(job)["succeeded"] == 1


def test_check_finds_a_number_that_is_not_that_of_the_rows(store: Store) -> None:
    jobs = submit(store, 3)
    store.happened.cancel(jobs[2], actor="ann", now=NOW)
    with store.transaction():
        store.database.write("update queued_jobs set jobs = 7")
        store.database.write("delete from ended_jobs")
    found = judge_numbers(misnumbered(Audit(store.database._db, ":memory:")))
    assert [breach.sentence for breach in found] == [
        "0 jobs said to be cancelled in group g1 behind its first, and there are 1",
        "7 jobs said to be queued in class 1, and there are 2",
    ]


# ─── what it costs ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "asked", [{"do": "ping"}, {"do": "status", "fold": True}, {"do": "status"}]
)
def test_what_is_asked_costs_no_more_where_more_wait(tmp_path: Path, asked: Any) -> None:
    def steps(jobs: int) -> int:
        with closing(Store(":memory:")) as store:
            desk = Desk(with_gpus(store), tmp_path)
            for _ in range(2):
                submit(store, jobs)
            desk.ask(**asked, limit=5)  # what is remembered from then on is asked for once
            return steps_of(store, lambda: desk.ask(**asked, limit=5))

    assert steps(1000) < 1.05 * steps(200)


def test_a_statement_is_planned_once_whatever_its_values_are(store: Store) -> None:
    """Planned anew for each `limit ?`, the wide ones take twenty times as long as they run."""
    submit(store, 30)
    planned: list[int] = []
    store.database._db.authorizer = lambda *_: planned.append(1) or apsw.SQLITE_OK  # type: ignore[func-returns-value]

    def look(limit: int) -> None:
        store.found.jobs(ended=False, limit=limit)
        store.current.waiting(limit)
        store.told.events(0, limit)

    look(20)
    assert planned, "SQLite asks what a statement may do when it plans it"
    planned.clear()
    for limit in range(1, 10):
        look(limit)
    assert not planned


def test_the_columns_of_a_statement_are_asked_for_once(store: Store) -> None:
    sql = "select id, state from jobs"
    assert store.database.rows(sql) == [], "of no row no columns are known"
    job = submit(store).start
    for _ in range(2):
        assert store.database.rows(sql) == [{"id": job, "state": "queued"}]
    for number in range(2 * MOST_STATEMENTS):
        assert store.database.rows(f"select {number} as it") == [{"it": number}]
    assert len(store.database._columns) <= MOST_STATEMENTS, (
        "texts that differ are not kept for ever"
    )
