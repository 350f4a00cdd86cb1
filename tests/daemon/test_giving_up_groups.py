"""A group whose jobs only fail is given up: what waits is not begun, what runs goes on."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from gpuq.core.asked.elements import Elements
from gpuq.core.model import Exit, Outcome
from gpuq.daemon.store import Store
from gpuq.errors import UsageError
from tests import stored
from tests.daemon.asking import Asked, asked
from tests.stored import ALICE, NOW, end, events, run, spec, start, submit

WHY = "not begun: 2 of g1 failed and none succeeded (on_failure stop:2)"


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(Store(":memory:")) as opened:
        yield opened


def fail(store: Store, job: int, outcome: Outcome = Outcome.FAILED) -> list[range]:
    start(store, job)
    run(store, job)
    end(store, job, exit=Exit(exit_code=1, ended_at=NOW), outcome=outcome)
    return store.giving_up.heed(job, outcome, now=NOW)


def words(store: Store) -> dict[int, str]:
    rows = store.database.rows("select id, coalesce(outcome, state) as word from jobs order by id")
    return {row["id"]: row["word"] for row in rows}


def test_what_waits_is_not_begun_and_what_runs_goes_on(store: Store) -> None:
    submit(store, 5, stop_after=2)
    start(store, 3)
    assert fail(store, 1) == []
    assert fail(store, 2) == [range(4, 5), range(5, 6)]
    assert words(store) == {
        1: "failed",
        2: "failed",
        3: "starting",
        4: "cancelled",
        5: "cancelled",
    }
    assert stored.row(store, 4)["reason"] == WHY
    told = [one for one in events(store) if one["kind"] == "ended" and one["job"] > 3]
    assert {(one["actor"], one["cause"]) for one in told} == {("gpuq", WHY)}


def test_a_long_array_is_given_up_as_one_row(store: Store) -> None:
    (first, *_) = submit(store, stop_after=1, elements=Elements(indices=(range(1_000_000),)))
    assert fail(store, first) == [range(first + 1, first + 1_000_000)]
    assert len(words(store)) == 2


def test_one_success_shows_that_the_others_can_succeed_too(store: Store) -> None:
    submit(store, 5, stop_after=2)
    start(store, 5)
    run(store, 5)
    end(store, 5)
    assert [fail(store, job) for job in (1, 2, 3)] == [[], [], []]
    assert words(store)[4] == "queued"


@pytest.mark.parametrize("outcome", [Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY, Outcome.LOST])
def test_every_end_that_went_wrong_counts(store: Store, outcome: Outcome) -> None:
    submit(store, 2, stop_after=1)
    assert fail(store, 1, outcome) == [range(2, 3)]


def test_what_somebody_cancelled_did_not_fail(store: Store) -> None:
    submit(store, 3, stop_after=1)
    assert fail(store, 1, Outcome.CANCELLED) == []
    store.happened.cancel(2, actor="alice", now=NOW)
    assert store.giving_up.heed(2, Outcome.CANCELLED, now=NOW) == []


def test_other_groups_and_those_that_go_on_are_left_alone(store: Store) -> None:
    submit(store, 2)
    submit(store, 2, stop_after=1)
    assert fail(store, 1) == []
    assert fail(store, 3) == [range(4, 5)]
    assert words(store)[2] == "queued"


# ── what is asked for ──


def stop_after(store: Store, group: int) -> int | None:
    row = store.limited.group(group)
    assert row is not None
    found: int | None = row["stop_after"]
    return found


def test_what_a_submit_says_goes_before_the_setting(store: Store) -> None:
    store.asked.keep_environment(ALICE.uid, stored.DIGEST, stored.ENVIRONMENT)
    said = [None, 0, 7]
    for number in said:
        store.asked.submit(ALICE, [spec(stop_after=number)], now=NOW, stop_after=3)
    assert [stop_after(store, group) for group in (1, 2, 3)] == [3, None, 7]


def test_a_group_has_one_rule_for_all_its_jobs(store: Store) -> None:
    submit(store, 1, stop_after=2)
    with pytest.raises(UsageError, match="have one, not stop:1 and stop:2"):
        store.asked.submit(ALICE, [spec(stop_after=1), spec(stop_after=2)], now=NOW)
    with pytest.raises(UsageError, match="that of group g1 is stop:2"):
        store.asked.submit(ALICE, [spec(stop_after=0)], now=NOW, group=1)
    store.asked.submit(ALICE, [spec(), spec(stop_after=2)], now=NOW, group=1)
    assert stop_after(store, 1) == 2


# ── a daemon ──


def test_the_setting_is_the_rule_of_groups_that_do_not_say(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        environment = ["PATH=/usr/bin:/bin"]
        digest = sha256(b"".join(line.encode() + b"\0" for line in environment)).hexdigest()
        job = {"argv": ["true"], "cwd": "/", "gpus": 0, "held": True}
        for said in ({}, {"on_failure": "continue"}, {"on_failure": "stop:7"}):
            jobs = [job | said, job | said]
            await at.ask("submit", jobs=jobs, env_hash=digest, environment=environment)
        assert [stop_after(at.store, group) for group in (1, 3, 5)] == [2, None, 7]

    asked(tmp_path, deed, on_failure="stop:2")


def test_a_group_that_only_fails_ends_and_can_be_run_once_more(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        go = tmp_path / "go"
        first = at.daemon.submit(
            f"test -e {go} || exit 3",
            elements=Elements(indices=(range(50),)),
            stop_after=2,
            max_running=1,
        )
        waited = await asyncio.wait_for(
            at.ask("wait", f"g{first}", timeout_s=60), 30
        )  # who waits is told of those that were cancelled
        assert not waited["timed_out"]
        counts = at.store.grouped.counts(first)
        assert (counts["failed"], counts["cancelled"]) == (2, 48)
        assert (await at.seen(first + 9))["reason"] == WHY
        assert (await at.seen(first + 9))["on_failure"] == "stop:2"
        go.touch()
        assert set(await at.done("requeue", f"{first + 2}-{first + 4}")) == {"requeued"}
        for job in (first + 2, first + 3, first + 4):
            await at.daemon.ended(job)
        assert at.store.grouped.counts(first)["succeeded"] == 3

    asked(tmp_path, deed)


def test_what_waits_for_its_next_attempt_is_given_up_too(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        elements = Elements(indices=(range(2),))
        script = 'test "$GPUQ_ARRAY_INDEX" = 0 && exit 75; exit 3'
        array = at.daemon.submit(
            script, elements=elements, stop_after=1, retries=3, backoff="1h", retry_on="exit:75"
        )
        await at.daemon.ended(array)
        await at.daemon.ended(array + 1)
        outcomes = [at.daemon.row(job)["outcome"] for job in (array, array + 1)]
        assert outcomes == ["cancelled", "failed"]

    asked(tmp_path, deed, cpu_slots="1")  # one after the other
