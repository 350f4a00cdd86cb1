"""What the database promises: nothing impossible is stored, nothing answered is lost."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.model import JobState, Lease, LeaseState, Request
from gpuq.daemon.requests.commits import GroupCommit
from gpuq.daemon.store import Store, connection
from gpuq.daemon.store.connection import DiskTrouble, LeaseRefused, StoreRefused
from gpuq.errors import GpuqError, UsageError
from tests.disk import fill
from tests.stored import (
    ALICE,
    BOB,
    DIGEST,
    ENVIRONMENT,
    GPUS,
    NOW,
    count,
    end,
    events,
    fail,
    job_in,
    lease,
    run,
    share,
    spec,
    start,
    states,
    submit,
    submit_one,
    with_gpus,
    write,
)


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(Store(":memory:")) as store:
        yield with_gpus(store)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gpuq.db"


# ─── no GPU is given twice ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("first", "second"),
    [(lease, lease), (lease, share), (share, lease)],
    ids=["exclusive twice", "sharing beside exclusive", "exclusive beside sharing"],
)
def test_no_gpu_is_given_twice(
    store: Store, first: Callable[[int], Lease], second: Callable[[int], Lease]
) -> None:
    one, two = submit(store, 2)
    assert start(store, one, first(one))
    with pytest.raises(LeaseRefused, match="GPU-0"):
        start(store, two, second(two))
    assert [held.job for held in store.current.leases()] == [one]


def test_a_cooling_gpu_is_not_given_either(store: Store) -> None:
    one, two = submit(store, 2)
    start(store, one, lease(one))
    end(store, one, cooling=(5.0, "boot"))
    assert store.current.leases()[0].state is LeaseState.COOLING
    with pytest.raises(LeaseRefused):
        start(store, two, lease(two))
    store.machine.release("GPU-0", 0, now=NOW)
    assert start(store, two, lease(two))


def test_sharing_jobs_get_slots_of_their_own(store: Store) -> None:
    one, two, three = submit(store, 3)
    start(store, one, share(one))
    start(store, two, share(two))
    end(store, one)
    start(store, three, share(three))
    assert {held.job: held.slot for held in store.current.leases()} == {three: 0, two: 1}


def test_a_gpu_has_room_for_64_and_no_more(store: Store) -> None:
    jobs = submit(store, 65)
    for job in jobs[:-1]:
        start(store, job, share(job))
    with pytest.raises(LeaseRefused):
        start(store, jobs[-1], share(jobs[-1]))


def test_a_lease_needs_a_gpu_that_was_seen(store: Store) -> None:
    job = submit_one(store)
    with pytest.raises(LeaseRefused, match="GPU-9"):
        start(store, job, lease(job, "GPU-9"))


def test_a_refused_lease_leaves_everything_as_it_was(store: Store) -> None:
    first, waiting, third = submit(store, 3)
    start(store, first, lease(first, "GPU-1"))
    seen = len(events(store))
    with pytest.raises(LeaseRefused):
        start(store, third, lease(third, "GPU-0"), lease(third, "GPU-1"), passed=[waiting])
    assert states(store)[third] == "queued"
    assert store.found.attempts(third) == []
    assert {held.job for held in store.current.leases()} == {first}
    assert store.database.value("select passes from jobs where id = ?", (waiting,)) == 0
    assert len(events(store)) == seen


def test_a_start_is_one_transaction(store: Store) -> None:
    """Whatever fails in it, and wherever: here the event, which is written last."""
    job = submit_one(store)
    write(
        store,
        "create trigger no_event before insert on events when new.kind = 'starting' "
        "begin select raise(abort, 'planted'); end",
    )
    with pytest.raises(apsw.ConstraintError, match="planted"):
        start(store, job, lease(job))
    assert (states(store)[job], store.current.leases(), count(store, "attempts")) == (
        "queued",
        [],
        0,
    )


@given(st.lists(st.tuples(st.sampled_from(GPUS), st.booleans(), st.booleans()), max_size=20))
def test_whatever_is_asked_the_leases_stay_possible(
    asked: list[tuple[str, bool, bool]],
) -> None:
    with closing(Store(":memory:")) as store:
        with_gpus(store)
        for gpu, exclusive, end_first in asked:
            held = store.current.leases()
            if end_first and held:
                end(store, held[0].job)
            job = submit_one(store)
            before = {h.gpu: h.exclusive for h in store.current.leases()}
            free = gpu not in before or not (before[gpu] or exclusive)
            try:
                start(store, job, lease(job, gpu) if exclusive else share(job, gpu))
            except LeaseRefused:
                assert not free
            else:
                assert free
            _check_leases(store.current.leases())


def _check_leases(leases: list[Lease]) -> None:
    for gpu in GPUS:
        here = [held for held in leases if held.gpu == gpu]
        assert len(here) <= 1 or not any(held.exclusive for held in here)
        assert len({held.slot for held in here}) == len(here)


# ─── no impossible state is stored ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("state", "change"),
    [
        ("queued", "state = 'asleep'"),
        ("queued", "state = 'running', attempt = 1"),
        ("queued", "state = 'starting'"),
        ("queued", "state = 'ended', ended_at = 1"),
        ("queued", "state = 'ended', outcome = 'failed'"),
        ("queued", "state = 'ended', outcome = 'exploded', ended_at = 1"),
        ("queued", "outcome = 'failed'"),
        ("queued", "ended_at = 1"),
        ("queued", "attempt = 1"),
        ("queued", "state = 'starting', attempt = 2"),
        ("queued", "last_id = id - 1"),
        ("queued", "stop_asked_at = 1"),
        ("queued", "delayed_until_at = 1"),
        ("queued", "delayed_until_boottime = 1"),
        ("starting", "delayed_until_at = 1, delayed_until_boottime = 1"),
        ("running", "delayed_until_at = 1, delayed_until_boottime = 1"),
        ("ended", "delayed_until_at = 1, delayed_until_boottime = 1"),
        ("starting", "last_id = id + 1"),
        ("starting", "attempt = 0"),
        ("starting", "attempt = 2"),
        ("running", "state = 'starting'"),
        ("running", "state = 'queued', attempt = 0"),
        ("running", "state = 'queued', attempt = 2"),
        ("running", "state = 'starting', attempt = 2"),
        ("running", "attempt = 0"),
        ("running", "attempt = 2"),
        ("running", "state = 'ended', outcome = 'failed'"),
        ("ended", "state = 'queued', outcome = null, ended_at = null"),
        ("ended", "state = 'running', outcome = null, ended_at = null"),
        ("ended", "outcome = 'failed'"),
        ("ended", "attempt = 0"),
        ("ended", "attempt = 2"),
    ],
)
def test_a_job_is_never_in_an_impossible_state(store: Store, state: str, change: str) -> None:
    job = job_in(store, JobState(state))
    before = store.database.rows("select * from jobs")
    with pytest.raises(apsw.ConstraintError):
        write(store, f"update jobs set {change} where id = ?", job)
    assert store.database.rows("select * from jobs") == before


@pytest.mark.parametrize(
    "change",
    [
        "ended_at = 1",
        "ended_at = 1, exit_code = 0, signal = 9",
        "ended_at = 1, exit_code = 0, lost = 'nobody knows'",
        "ended_at = 1, signal = 9, lost = 'nobody knows'",
        "ended_at = 1, exit_code = 0",
        "outcome = 'failed'",
        "ended_at = 1, exit_code = 0, outcome = 'skipped'",
        "signal = 9, stage = 'executing x', ended_at = 1, outcome = 'failed'",
        "stage = 'executing x'",
        "attempt = 0",
        "gpus = 'no json'",
    ],
)
def test_an_attempt_ends_in_exactly_one_way(store: Store, change: str) -> None:
    job = job_in(store, JobState.RUNNING)
    with pytest.raises(apsw.ConstraintError):
        write(store, f"update attempts set {change} where job = ?", job)


@pytest.mark.parametrize(
    "change",
    [
        "term_mono = 1",
        "kill_mono = 1",
        "term_mono = 1, kill_mono = 2",
        "ending = 'boredom', term_mono = 1",
    ],
)
def test_nothing_is_ended_without_a_cause(store: Store, change: str) -> None:
    job = job_in(store, JobState.RUNNING)
    with pytest.raises(apsw.ConstraintError):
        write(store, f"update attempts set {change} where job = ?", job)
    assert write(store, "update attempts set ending = 'asked', term_mono = 1 where job = ?", job)


@pytest.mark.parametrize(
    "change",
    [
        "state = 'dirty'",
        "state = 'dirty', cooling_mono = null",
        "dirt = 'somebody'",
        "state = 'active'",
        "cooling_mono = null",
    ],
)
def test_a_gpu_that_cools_has_a_beginning_and_a_dirty_one_has_words(
    store: Store, change: str
) -> None:
    job = submit_one(store)
    start(store, job, lease(job))
    end(store, job, cooling=(5.0, "boot"))
    with pytest.raises(apsw.ConstraintError):
        write(store, f"update leases set {change}")
    assert write(store, "update leases set state = 'dirty', dirt = 'somebody'")


@pytest.mark.parametrize(
    "change",
    [
        "retries = -1",
        "time_limit_s = 0",
        "heartbeat_s = -1",
        "stop_to = 'nobody'",
    ],
)
def test_no_job_is_asked_for_that_nothing_could_keep(store: Store, change: str) -> None:
    submit_one(store)
    with pytest.raises(apsw.ConstraintError):
        write(store, f"update specs set {change}")


@pytest.mark.parametrize(
    "change",
    [
        "gpu = 'GPU-1'",
        "slot = 1",
        "exclusive = 0",
        "state = 'cooling'",
        "state = 'active', cooling_mono = 1.0",
        "state = 'dirty', dirt = 'somebody'",
        "dirt = 'somebody'",
        "state = 'lent'",
        "attempt = 2",
        "memory_bytes = -1",
    ],
)
def test_a_lease_does_not_change_under_its_job(store: Store, change: str) -> None:
    job = submit_one(store)
    start(store, job, lease(job))
    with pytest.raises(apsw.ConstraintError):
        write(store, f"update leases set {change} where job = ?", job)


def test_a_job_that_holds_a_gpu_has_not_ended(store: Store) -> None:
    job = submit_one(store)
    start(store, job, lease(job))
    for change in (
        "state = 'ended', outcome = 'failed', ended_at = 1",
        "state = 'queued', attempt = 0",
    ):
        with pytest.raises(apsw.ConstraintError, match="holds a GPU"):
            write(store, f"update jobs set {change} where id = ?", job)
    run(store, job)
    with pytest.raises(apsw.ConstraintError, match="holds a GPU"):
        write(store, "update jobs set state = 'queued' where id = ?", job)


def test_a_job_needs_an_environment_that_is_kept(store: Store) -> None:
    with pytest.raises(apsw.ConstraintError):
        store.asked.submit(ALICE, [spec(environment=b"x" * 32)], now=NOW)
    assert (count(store, "jobs"), count(store, "specs")) == (0, 0)


def test_a_write_outside_a_transaction_is_a_mistake(store: Store) -> None:
    with pytest.raises(AssertionError):
        store.database.write("delete from jobs")


# ─── submissions ─────────────────────────────────────────────────────────────────────────────────


def test_a_submission_is_a_contiguous_range(store: Store) -> None:
    assert submit(store, 3) == range(1, 4)
    assert submit(store, 2, by=BOB) == range(4, 6)
    rows = store.database.rows("select id, group_id from jobs order by id")
    assert {row["id"]: row["group_id"] for row in rows} == {1: 1, 2: 1, 3: 1, 4: 4, 5: 4}
    assert store.found.group(4) == [range(4, 6)]


def test_ids_are_never_given_again(path: Path) -> None:
    with closing(Store(path)) as store:
        last = submit(store, 3)[-1]
        write(store, "delete from jobs")
        assert submit_one(store) == last + 1
        write(store, "delete from jobs")
    with closing(Store(path)) as store:
        assert submit_one(store) == last + 2


def test_a_submission_is_all_or_nothing(store: Store) -> None:
    store.asked.keep_environment(ALICE.uid, DIGEST, ENVIRONMENT)
    specs = [spec(), spec(), spec(umask=0o7777)]
    with pytest.raises(apsw.ConstraintError):
        store.asked.submit(ALICE, specs, now=NOW, token="t")
    assert (count(store, "jobs"), count(store, "specs"), events(store)) == (0, 0, [])
    assert store.asked.answered(ALICE.uid, "t") is None
    assert submit_one(store) == 1


def test_the_same_token_gets_the_same_ids(store: Store) -> None:
    ids = submit(store, 2, token="t")
    assert store.asked.answered(ALICE.uid, "t") == ids
    assert store.asked.answered(BOB.uid, "t") is None  # a token is its user's own
    with pytest.raises(apsw.ConstraintError):
        submit(store, 2, token="t")
    assert count(store, "jobs") == 2
    assert submit(store, 1, by=BOB, token="t") == range(3, 4)


def test_an_environment_is_kept_once_for_each_user(store: Store) -> None:
    assert not store.asked.knows_environment(ALICE.uid, DIGEST)
    for _ in range(3):
        submit(store, 5)
    assert store.asked.knows_environment(ALICE.uid, DIGEST)
    assert not store.asked.knows_environment(BOB.uid, DIGEST)
    submit(store, by=BOB)
    rows = store.database.rows("select uid, content from environments order by uid")
    assert rows == [{"uid": uid, "content": ENVIRONMENT} for uid in (ALICE.uid, BOB.uid)]


def test_bytes_that_are_no_text_come_back_as_they_were(store: Store) -> None:
    words = (b"run", b"\xff\xfe", b"", b"a b\n\"'", b"\xe2\x82")
    job = submit_one(store, argv=words, cwd=b"/data/\xff", changes={b"X": b"\x80="})
    row = store.agreed.to_run(job)
    assert row["argv"] == b"".join(word + b"\0" for word in words)
    assert (row["cwd"], row["changes"]) == (b"/data/\xff", b"X=\x80=\0")


def test_a_key_is_one_living_jobs_of_its_user(store: Store) -> None:
    first = submit_one(store, key="nightly")
    assert store.asked.living(ALICE.uid, "nightly") == range(first, first + 1)
    assert store.asked.living(BOB.uid, "nightly") is None
    with pytest.raises(apsw.ConstraintError, match="a job of this key has not ended"):
        submit(store, key="nightly")
    assert submit_one(store, by=BOB, key="nightly") == first + 1
    assert submit_one(store, key="weekly") == first + 2
    assert submit(store, 2) == range(first + 3, first + 5), "a job needs no key"


def test_a_key_lives_as_long_as_its_job(store: Store) -> None:
    """Also while that waits for its next attempt."""
    job = submit_one(store, key="nightly", retries=1)
    start(store, job)
    run(store, job)
    fail(store, job)
    assert store.asked.living(ALICE.uid, "nightly") == range(job, job + 1)
    with pytest.raises(apsw.ConstraintError):
        submit(store, key="nightly")
    store.happened.cancel(job, actor="alice", now=NOW)
    assert store.asked.living(ALICE.uid, "nightly") is None
    assert submit_one(store, key="nightly") == job + 1


def test_a_list_of_thousands_of_jobs_can_be_asked_for(store: Store) -> None:
    jobs = submit(store, 3000)
    wanted = [range(job, job + 1) for job in jobs[::2]]
    assert [row["id"] for row in store.found.jobs(ids=wanted, ended=False)] == list(jobs[::2])
    overlapping = [range(1, 3), range(2, 4), range(1, 10**30)]
    assert len(store.found.jobs(ids=overlapping, limit=5)) == 5


# ─── durable ─────────────────────────────────────────────────────────────────────────────────────


def test_what_was_answered_is_on_disk(path: Path) -> None:
    with closing(Store(path)) as store:
        assert store.database.value("pragma journal_mode") == "wal"
        assert store.database.value("pragma synchronous") == 2, "FULL: each commit is synced"
        with closing(sqlite3.connect(path)) as other:
            submit(store, 2)
            assert other.execute("select count(*) from jobs").fetchone() == (2,)
            with store.transaction():
                submit(store)
                assert other.execute("select count(*) from jobs").fetchone() == (2,)
            assert other.execute("select count(*) from jobs").fetchone() == (3,)


SUBMIT_AND_WAIT_FOR_DEATH = """
import sys, time
from hashlib import sha256
from gpuq.core.model import Request
from gpuq.core.asked.spec import Spec
from gpuq.daemon.store import Store
from gpuq.daemon.store.job_rows import Submitter

store, content = Store(sys.argv[1]), b"A=1\\0"
digest = sha256(content).digest()
spec = Spec(argv=(b"true",), cwd=b"/", umask=0, environment=digest, request=Request(), name="true",
            limits={}, changes={})
store.asked.keep_environment(7, digest, content)
for _ in range(int(sys.argv[2])):
    print(store.asked.submit(Submitter(7, 7, "carol"), [spec], now=1.0).start, flush=True)
with store.transaction():
    store.asked.submit(Submitter(7, 7, "carol"), [spec], now=1.0)
    print("in the middle", flush=True)
    time.sleep(60)
"""


def test_a_killed_daemon_loses_nothing_that_it_answered(path: Path) -> None:
    command = [sys.executable, "-c", SUBMIT_AND_WAIT_FOR_DEATH, str(path), "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        answered = [child.stdout.readline().strip() for _ in range(21)]
        child.kill()
    assert answered[-1] == "in the middle"
    with closing(Store(path)) as store:
        assert [str(job) for job in states(store)] == answered[:-1]
        assert store.database.value("pragma integrity_check") == "ok"


def test_submits_that_arrive_together_share_a_commit(path: Path) -> None:
    with closing(Store(path)) as store, closing(sqlite3.connect(path)) as other:
        commits: list[int] = []

        def refuse() -> None:
            submit(store, 5)
            raise UsageError("not like this")

        async def arrive() -> list[Any]:
            group = GroupCommit(store)
            deeds = [lambda: submit(store, 2), refuse, lambda: submit(store, 3)]
            answers = await asyncio.gather(*map(group.run, deeds), return_exceptions=True)
            assert other.execute("select count(*) from jobs").fetchone() == (5,)
            return answers

        def note_commit() -> bool:
            commits.append(1)
            return False

        store.database._db.set_commit_hook(note_commit)
        first, refused, last = asyncio.run(arrive())
        assert (first, last, len(commits)) == (range(1, 3), range(3, 6), 1)
        assert isinstance(refused, UsageError)


def test_a_fault_in_one_of_them_leaves_nobody_waiting(store: Store) -> None:
    async def arrive() -> list[Any]:
        group = GroupCommit(store)
        deeds = [lambda: submit(store), lambda: submit(store, umask=0o7777)]
        answers = asyncio.gather(*map(group.run, deeds), return_exceptions=True)
        return await asyncio.wait_for(answers, 5)

    assert all(isinstance(answer, apsw.ConstraintError) for answer in asyncio.run(arrive()))
    assert count(store, "jobs") == 0


# ─── transactions ────────────────────────────────────────────────────────────────────────────────


def test_a_part_of_a_transaction_is_undone_alone(store: Store) -> None:
    def fail_in_a_part() -> None:
        with store.part():
            submit(store)
            with store.transaction():
                submit(store)
            raise KeyError

    with store.transaction():
        submit(store)
        with pytest.raises(KeyError):
            fail_in_a_part()
        with store.transaction():
            submit(store, by=BOB)
    assert list(states(store)) == [1, 2]
    assert [event["actor"] for event in events(store)] == ["alice", "bob"]


def test_who_goes_on_after_what_failed_in_no_part_commits_nothing(store: Store) -> None:
    def go_on() -> None:
        with store.transaction():
            with suppress(KeyError), store.transaction():
                submit(store)
                raise KeyError
            submit(store)

    with pytest.raises(AssertionError, match="stands in a part"):
        go_on()
    assert states(store) == {}
    submit(store)
    assert list(states(store)) == [1], "the next transaction has nothing to do with it"


def test_what_failed_in_a_part_of_a_part_is_undone_with_that(store: Store) -> None:
    def fail_deep() -> None:
        with store.part(), store.transaction():
            submit(store)
            raise KeyError

    with store.transaction():
        submit(store)
        with pytest.raises(KeyError):
            fail_deep()
    assert list(states(store)) == [1]


def test_an_undone_transaction_takes_its_parts_with_it(store: Store) -> None:
    def fail_after_a_part() -> None:
        with store.transaction():
            with store.part():
                submit(store)
            raise KeyError

    with pytest.raises(KeyError):
        fail_after_a_part()
    assert states(store) == {}
    submit(store)
    assert list(states(store)) == [1]


# ─── trouble with the disk ───────────────────────────────────────────────────────────────────────


def fill_until_trouble(store: Store) -> DiskTrouble:
    for _ in range(1000):
        try:
            submit(store, argv=(b"x" * 100_000,))
        except DiskTrouble as trouble:
            return trouble
    raise AssertionError("no trouble at all")


def contents(store: Store) -> list[Any]:
    tables = ("jobs", "specs", "events", "tokens", "environments", "classes", "attempts", "leases")
    return [store.database.rows(f"select * from {table}") for table in tables]


@contextmanager
def pages_limited(store: Store) -> Iterator[None]:
    pages = store.database.value("pragma page_count")
    store.database.value(f"pragma max_page_count = {pages}")
    try:
        yield
    finally:
        store.database.value("pragma max_page_count = 1000000")


def test_a_full_disk_changes_nothing_and_passes(path: Path) -> None:
    with closing(Store(path)) as store:
        job = submit_one(store)
        with pages_limited(store):
            trouble = fill_until_trouble(store)
            before = contents(store)
            assert "nothing was changed: the disk is full" in str(trouble)
            assert str(path.parent) in str(trouble)
            with pytest.raises(DiskTrouble):
                submit(store, 4, argv=(b"x" * 100_000,), token="t")
            assert contents(store) == before
            assert start(store, job)  # what finds room is still written
        assert len(submit(store, 4, argv=(b"x" * 100_000,), token="t")) == 4
        assert store.database.value("pragma integrity_check") == "ok"


def test_a_full_disk_in_a_part_undoes_the_whole(path: Path) -> None:
    with closing(Store(path)) as store, pages_limited(store):

        def submit_twice() -> None:
            with store.transaction():
                submit(store)
                submit(store, 50, argv=(b"x" * 100_000,))

        with pytest.raises(DiskTrouble):
            submit_twice()
        assert states(store) == {}


def test_submits_of_one_commit_are_all_told_of_a_full_disk(path: Path) -> None:
    with closing(Store(path)) as store, pages_limited(store):

        async def arrive() -> list[Any]:
            group = GroupCommit(store)
            deeds = [lambda: submit(store), lambda: submit(store, 50, argv=(b"x" * 100_000,))]
            return await asyncio.gather(*map(group.run, deeds), return_exceptions=True)

        assert all(isinstance(answer, DiskTrouble) for answer in asyncio.run(arrive()))
        assert states(store) == {}


def test_a_disk_that_is_really_full_changes_nothing_and_passes(small_disk: Path) -> None:
    path = small_disk / "gpuq.db"
    with closing(Store(path)) as store:
        submit(store)
        fill(small_disk / "ballast")
        trouble = fill_until_trouble(store)
        before = contents(store)
        assert "nothing was changed" in str(trouble)
        with pytest.raises(DiskTrouble):
            submit(store, 4, argv=(b"x" * 100_000,))
        assert contents(store) == before
        (small_disk / "ballast").unlink()
        submit(store, argv=(b"x" * 100_000,))
    with closing(Store(path)) as store:
        assert store.database.value("pragma integrity_check") == "ok"


def test_a_database_is_not_begun_on_a_full_disk(small_disk: Path) -> None:
    path = small_disk / "gpuq.db"
    fill(small_disk / "ballast")
    with pytest.raises(DiskTrouble, match="nothing was changed"):
        Store(path)
    assert not path.exists()
    (small_disk / "ballast").unlink()
    with closing(Store(path)) as store:
        assert submit_one(store) == 1


def test_an_existing_database_meets_a_full_disk(small_disk: Path) -> None:
    path = small_disk / "gpuq.db"
    with closing(Store(path)) as store:
        submit(store)
    fill(small_disk / "ballast")
    try:
        with closing(Store(path)) as store:
            fill_until_trouble(store)
    except GpuqError as error:
        assert "nothing was changed" in str(error)  # noqa: PT017, opening it may already fail
    (small_disk / "ballast").unlink()
    with closing(Store(path)) as store:
        assert 1 in states(store)


WRITE_PAST_THE_LIMIT = """
import resource, sys
from hashlib import sha256
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble

store = Store(sys.argv[1])
before = store.database.rows("select * from environments")
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, unlimited[1]))
try:
    store.asked.keep_environment(7, sha256(b"").digest(), b"x" * 1_000_000)
except DiskTrouble as trouble:
    print(trouble)
assert store.database.rows("select * from environments") == before
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
store.asked.keep_environment(7, sha256(b"").digest(), b"x" * 1_000_000)
print("works again")
"""


def test_a_limit_on_the_size_of_files_is_trouble_too(path: Path) -> None:
    command = [sys.executable, "-c", WRITE_PAST_THE_LIMIT, str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert told[0].startswith("nothing was changed: the disk refuses to write")
    assert told[1:] == ["works again"]


def test_a_place_where_nothing_can_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskTrouble, match="cannot be opened or made"):
        Store(tmp_path / "nowhere" / "gpuq.db")


# ─── files that are not ours ─────────────────────────────────────────────────────────────────────


def ours(path: Path) -> None:
    with closing(Store(path)) as store:
        submit(store, 3)


def cut(path: Path) -> None:
    ours(path)
    os.truncate(path, path.stat().st_size // 2)


def scrambled(path: Path) -> None:
    """The header is whole, the page that it stands on is not."""
    ours(path)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(bytes(range(256)) * 15)


def newer(path: Path) -> None:
    ours(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma user_version = 99")


def newer_without_a_log(path: Path) -> None:
    newer(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma journal_mode = delete")


def newer_in_the_log(path: Path) -> None:
    """A newer gpuq was killed: what it wrote stands in the write-ahead log alone."""
    script = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1]);"
        "db.execute('pragma user_version = 99'); db.commit(); os.kill(os.getpid(), 9)"
    )
    ours(path)
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert Path(f"{path}-wal").stat().st_size


def others(path: Path, mode: str = "delete") -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"pragma journal_mode = {mode}")
        db.execute("create table songs (title)")
        db.commit()


def others_in_the_log(path: Path) -> None:
    others(path, mode="wal")


NOT_OURS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (Path.touch, "no SQLite database"),
    "garbage": (lambda path: path.write_bytes(bytes(range(256)) * 40), "no SQLite database"),
    "text": (lambda path: path.write_text("dear diary\n" * 500), "no SQLite database"),
    "magic and no more": (lambda path: path.write_bytes(connection.MAGIC), "damaged"),
    "cut": (cut, "damaged"),
    "scrambled": (scrambled, "damaged"),
    "another program's": (others, "another program"),
    "another program's with a log": (others_in_the_log, "another program"),
    "newer": (newer, "newer gpuq .*version 99"),
    "newer without a log": (newer_without_a_log, "newer gpuq .*version 99"),
    "newer, killed": (newer_in_the_log, "newer gpuq .*version 99"),
}


@pytest.mark.parametrize("kind", NOT_OURS)
def test_what_is_not_ours_is_refused_and_left_as_it_is(path: Path, kind: str) -> None:
    make, why = NOT_OURS[kind]
    make(path)
    before = path.read_bytes()
    with pytest.raises(StoreRefused, match=why) as refused:
        Store(path)
    assert str(path) in str(refused.value)
    assert path.read_bytes() == before
    with pytest.raises(StoreRefused, match=why):  # and again
        Store(path)
    assert path.read_bytes() == before


def test_another_programs_database_gets_no_company(path: Path) -> None:
    others(path)
    with pytest.raises(StoreRefused):
        Store(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="Is a directory"):
        Store(tmp_path)


def test_a_database_that_was_taken_away_is_not_replaced(path: Path) -> None:
    newer_in_the_log(path)
    path.unlink()
    with pytest.raises(StoreRefused, match=r"is missing, but .*-wal is there"):
        Store(path)
    assert not path.exists()


def test_a_database_whose_making_was_cut_short_is_made_again(path: Path) -> None:
    Path(f"{path}.partial").write_bytes(b"half a database")
    Path(f"{path}.partial-journal").write_bytes(b"half a journal")
    ours(path)
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]


# ─── versions ────────────────────────────────────────────────────────────────────────────────────


def version_of(path: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(path)) as db:
        columns = db.execute("select count(*) from pragma_table_info('facts')").fetchone()[0]
        return db.execute("pragma user_version").fetchone()[0], columns


def with_migrations(monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    numbered = {int(name[1:]): script for name, script in scripts.items()}
    monkeypatch.setattr(connection, "_migrations", lambda: numbered)


ADD_COLUMN = "-- A colour; for each fact.\nalter table facts add column colour text;\n"


def test_a_database_opens_again(path: Path) -> None:
    for number in range(3):
        with closing(Store(path)) as store:
            assert submit(store) == range(number + 1, number + 2)
    assert version_of(path) == (1, 2)
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]


def test_a_migration_copies_the_file_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours(path)
    with_migrations(monkeypatch, v2=ADD_COLUMN, v3=ADD_COLUMN.replace("colour", "shade"))
    with closing(Store(path)) as store:
        assert list(states(store)) == [1, 2, 3]
    assert version_of(path) == (3, 4)
    aside = Path(f"{path}.before-version-2")
    assert version_of(aside) == (1, 2)
    with closing(sqlite3.connect(aside)) as copy:
        assert copy.execute("select count(*) from jobs").fetchone() == (3,)
        assert copy.execute("pragma integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("fault", ["drop table nonsense;\n", "drop table facts\n; drop", "(;\n"])
def test_a_migration_that_fails_leaves_the_old_version(
    path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    ours(path)
    with_migrations(monkeypatch, v2=ADD_COLUMN + fault)
    with pytest.raises(apsw.Error):
        Store(path)
    assert version_of(path) == (1, 2)
    assert version_of(Path(f"{path}.before-version-2")) == (1, 2)
    monkeypatch.undo()
    with closing(Store(path)) as store:
        assert list(states(store)) == [1, 2, 3]


def test_a_new_database_is_made_in_the_newest_version(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_migrations(monkeypatch, v2=ADD_COLUMN)
    ours(path)
    assert version_of(path) == (2, 3)
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]


# ─── what a turn reads ───────────────────────────────────────────────────────────────────────────


def test_the_first_few_of_each_class_are_read_in_order(store: Store) -> None:
    small = list(submit(store, 5))
    large = list(submit(store, 3, request=Request(gpus=2)))
    bobs = list(submit(store, 1, by=BOB))
    urgent = submit_one(store, priority=5)
    read = store.current.waiting(3)
    assert [job.id for job in read] == [urgent, *small[:2], *large, *bobs]
    assert [job.priority for job in read][:2] == [5, 0]
    assert len({job.class_id for job in read}) == 3


def test_what_may_not_start_is_not_among_them(store: Store) -> None:
    held, running, ended, unwanted, waiting, delayed = submit(store, 6)
    write(store, "update jobs set held_by = 'alice' where id = ?", held)
    start(store, delayed)
    fail(store, delayed)
    start(store, running)
    start(store, ended)
    end(store, ended)
    store.wished.stop(unwanted, grace_s=0.0, actor="alice", now=NOW)
    read = {job.id: job.stop for job in store.current.waiting(10)}
    assert set(read) == {waiting, unwanted}
    assert read[waiting] is None
    assert read[unwanted] is not None


Traced = list[tuple[str, int]]


@contextmanager
def traced(store: Store) -> Iterator[Traced]:
    """The statements run meanwhile, with how many steps of SQLite's machine each took."""
    seen: Traced = []

    def note(event: Any) -> None:
        seen.append((event["sql"], event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]))

    store.database._db.trace_v2(apsw.SQLITE_TRACE_PROFILE, note)
    try:
        yield seen
    finally:
        store.database._db.trace_v2(0, None)


def look(store: Store) -> Traced:
    """What the loop reads of the jobs in each turn."""
    with traced(store) as seen:
        store.current.waiting(16)
        store.current.active()
        store.current.delayed()
        store.current.drain()
        store.current.leases()
        store.current.has_waiting()
    return seen


def test_a_turn_reads_jobs_by_their_index_alone(store: Store) -> None:
    submit(store, 10)
    for sql, _ in look(store):
        values = (16,) if "?" in sql else ()
        steps = [row["detail"] for row in store.database.rows(f"explain query plan {sql}", values)]
        assert steps
        whole = [step for step in steps if step in ("SCAN jobs", "SCAN j", "SCAN a", "SCAN c")]
        assert not whole, sql


def queue_many(store: Store, number: int) -> None:
    """As many jobs of one class as wanted, and as many that have ended, and that wait again."""
    first = submit_one(store)
    columns = "last_id, group_id, place, spec, class, submitted_at"
    write(
        store,
        f"""
        with recursive n (id) as (select ? union all select id + 1 from n where id < ?)
        insert into jobs (id, {columns}, attempt, delayed_until_at, delayed_until_boottime, delayed_for)
        select n.id, n.id, j.group_id, n.id, j.spec, j.class, j.submitted_at, 1, n.id, n.id, 'backoff'
        from n, jobs j where j.id = ?
        """,
        *(first + 2 * number + 1, first + 3 * number, first),
    )
    write(
        store,
        f"""
        with recursive n (id) as (select ? union all select id + 1 from n where id < ?)
        insert into jobs (id, {columns})
        select n.id, n.id, j.group_id, n.id, j.spec, j.class, j.submitted_at
        from n, jobs j where j.id = ?
        """,
        *(first + 1, first + number - 1, first),
    )
    write(
        store,
        f"""
        with recursive n (id) as (select ? union all select id + 1 from n where id < ?)
        insert into jobs (id, {columns}, state, outcome, ended_at)
        select n.id, n.id, j.group_id, n.id, j.spec, j.class, j.submitted_at, 'ended', 'succeeded', 1
        from n, jobs j where j.id = ?
        """,
        *(first + number, first + 2 * number, first),
    )


def test_a_turn_costs_the_same_with_a_hundred_thousand_jobs() -> None:
    costs: list[int] = []
    for number in (100, 100_000):
        with closing(Store(":memory:")) as store:
            queue_many(store, number)
            seen = look(store)
            assert len(store.current.waiting(16)) == 16
            costs.append(sum(steps for _, steps in seen))
    assert costs[1] < 2 * costs[0]
