"""What is told of a group: counts that add up, the best, the end, the errors, a table page by page."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.asked.elements import Elements
from gpuq.core.model import Exit, Outcome
from gpuq.core.results.ranking import in_order, parse_order
from gpuq.daemon.callers.discretion import Discretion
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests.groups import Groups
from gpuq.daemon.requests.long_looks import LongLooks
from gpuq.daemon.requests.refs import References
from gpuq.daemon.store import Store
from gpuq.errors import NothingMatched, UsageError
from tests import stored
from tests.daemon.asking import ANN, BEN, CAROL
from tests.stored import BOB, NOW, end, run, start, submit, submit_one, write

Answer = dict[str, Any]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """On disk, so that it is read beside its writer."""
    with closing(Store(tmp_path / "gpuq.db")) as opened:
        yield stored.with_gpus(opened)


def ask(store: Store, ref: str, peer: Peer = ANN, visibility: str = "all", **more: Any) -> Answer:
    def discretion(peer: Peer) -> Discretion:
        return Discretion(peer=peer, visibility=visibility, owner_of=store.found.owner)

    groups = Groups(store, References(store.found), discretion, LongLooks(store))
    return asyncio.run(groups.group({"ref": ref, **more}, peer))


def group(store: Store, ref: str, **more: Any) -> Answer:
    found: Answer = ask(store, ref, limit=0, **more)["group"]
    return found


def rows(store: Store, ref: str, **more: Any) -> list[Answer]:
    found: list[Answer] = ask(store, ref, **more)["jobs"]
    return found


def ids(found: list[Answer]) -> list[int]:
    return [row["id"] for row in found]


def report(store: Store, job: int, progress: float | None = None, **metrics: Any) -> None:
    write(
        store,
        "insert into reports (job, attempt, metrics, progress, progress_from) values (?, 1, ?, ?, ?)",
        job,
        json.dumps(metrics),
        progress,
        None if progress is None else "report",
    )


def begin(store: Store, *jobs: int) -> None:
    for job in jobs:
        start(store, job)
        run(store, job)


def succeed(store: Store, *jobs: int, after_s: float = 9.0) -> None:
    for job in jobs:
        begin(store, job)
        end(store, job, exit=Exit(exit_code=0, ended_at=NOW + after_s))


def fail(store: Store, *jobs: int, code: int = 1, signature: str | None = None, **how: Any) -> None:
    for job in jobs:
        begin(store, job)
        exit = Exit(exit_code=code, ended_at=NOW + 9)
        end(store, job, **{"exit": exit, "outcome": Outcome.FAILED} | how)
        sql = "update attempts set error_signature = ? where job = ?"
        write(store, sql, signature, job)


def grid(store: Store, number: int = 8, **changes: Any) -> range:
    axes = (("lr", tuple(f"0.{n}" for n in range(1, number + 1))),)
    elements = Elements(indices=(range(number),), axes=axes)
    first = submit_one(store, elements=elements, name="sweep-{lr}", **changes)
    return range(first, first + number)


# ── how many ──


def test_a_group_is_never_empty_after_its_submit(store: Store) -> None:
    jobs = grid(store)
    told = group(store, f"g{jobs[0]}")
    assert (told["total"], told["unstarted"]) == (8, 8)
    assert told["estimated_end"] is None


def test_eight_in_the_middle_of_it_are_counted_as_what_they_are(store: Store) -> None:
    jobs = grid(store)
    succeed(store, *jobs[:4])
    begin(store, *jobs[4:6])
    told = group(store, "@")
    named = ("total", "unstarted", "running", "succeeded", "failed")
    assert [told[name] for name in named] == [8, 2, 2, 4, 0]
    assert told["name"] == f"g{jobs[0]}"


def test_whatever_became_of_a_job_it_counts_once(store: Store) -> None:
    jobs = grid(store)
    fail(store, jobs[0])
    fail(store, jobs[1], outcome=Outcome.TIMED_OUT)
    fail(store, jobs[2], outcome=Outcome.LOST)
    succeed(store, jobs[3])
    begin(store, jobs[4])
    store.happened.cancel(jobs[5], actor="alice", now=NOW)
    write(store, "update jobs set held_by = 'alice' where id = ?", jobs[6])
    told = group(store, f"g{jobs[0]}")
    parts = ("unstarted", "running", "succeeded", "failed", "cancelled", "skipped")
    assert [told[name] for name in parts] == [2, 1, 1, 3, 1, 0]
    assert sum(told[name] for name in parts) == told["total"] == sum(told["counts"].values())
    assert told["held"] == 2  # the row that begins with it
    assert told["why_cancelled"] == "cancelled by alice while it was queued"


def test_a_million_elements_are_one_row(store: Store) -> None:
    first = submit_one(store, elements=Elements(indices=(range(1_000_000),)))
    succeed(store, first + 5)
    answer = ask(store, f"g{first}")
    assert answer["group"]["total"] == 1_000_000
    assert answer["group"]["unstarted"] == 999_999
    assert [(row["id"], row["last_id"]) for row in answer["jobs"]] == [
        (first, first + 4),
        (first + 5, first + 5),
        (first + 6, first + 999_999),
    ]
    assert answer["after"] is None


def test_a_submission_of_single_jobs_is_a_group_too(store: Store) -> None:
    jobs = submit(store, 3)
    assert group(store, f"g{jobs[0]}")["total"] == 3
    assert group(store, str(jobs[1]))["name"] == f"g{jobs[0]}"


def test_a_family_is_all_that_is_called_so_and_goes_on_behind_a_sign(store: Store) -> None:
    for name in ("vit", "vit-1", "vit_2", "vit{lr}", "vitamin", "my-vit"):
        submit_one(store, name=name)
    assert group(store, "vit")["total"] == 4
    assert group(store, "name:vit")["total"] == 4
    assert group(store, "vit*")["total"] == 5
    assert group(store, "*vit*")["total"] == 6
    assert group(store, "vit-[0-9]*".replace("[0-9]", "?"))["total"] == 1


def test_a_tag_joins_submissions(store: Store) -> None:
    first = submit(store, 2, tags=("paper",))
    second = submit(store, 3, tags=("paper", "night"))
    submit(store, 1)
    told = group(store, "tag:paper")
    assert (told["total"], told["kind"], told["forgotten"]) == (5, "tag", None)
    assert ids(rows(store, "tag:paper")) == [*first, *second]


def test_others_jobs_of_a_name_are_there_once_they_are_asked_for(store: Store) -> None:
    submit_one(store, name="vit")
    submit_one(store, name="vit", by=BOB)
    assert group(store, "vit")["total"] == 1
    assert group(store, "vit", all=True)["total"] == 2
    assert group(store, "vit", user="bob")["total"] == 1
    with pytest.raises(NothingMatched, match="no job of yours has the name 'rnn'"):
        group(store, "rnn")


@pytest.mark.parametrize("ref", ["g999", "tag:none", "@~7", "999"])
def test_what_is_not_there_is_said_to_be_missing(store: Store, ref: str) -> None:
    submit_one(store)
    with pytest.raises(NothingMatched):
        group(store, ref)


@pytest.mark.parametrize("ref", ["", None, 7, "tag:", "\udcff"])
def test_a_word_that_can_name_no_group_is_refused(store: Store, ref: Any) -> None:
    with pytest.raises(UsageError):
        group(store, ref)


# ── the best, the end, the errors ──


def test_the_best_goes_by_its_direction_and_is_a_number(store: Store) -> None:
    jobs = grid(store)
    begin(store, *jobs[:5])
    for job, loss in zip(jobs, (0.5, 0.25, "nan", "-inf", None), strict=False):
        report(store, job, loss=loss)
    lowest, highest = (group(store, "@", best=goal)["best"] for goal in ("loss:min", "loss:max"))
    assert (lowest["job"], lowest["value"]) == (jobs[1], 0.25)
    assert lowest["parameters"] == {"lr": "0.2"}
    assert (highest["job"], highest["value"]) == (jobs[0], 0.5)
    assert group(store, "@", best="acc:max")["best"] is None
    assert group(store, "@")["reported"] == ["loss"]


def test_what_is_too_great_for_a_number_does_not_win(store: Store) -> None:
    jobs = submit(store, 2)
    begin(store, *jobs)
    for job, loss in zip(jobs, ("1e999", "0.5"), strict=True):
        report(store, job)
        text = f'{{"loss": {loss}}}'
        write(store, "update reports set metrics = ? where job = ?", text, job)
    assert group(store, "@", best="loss:max")["best"]["value"] == 0.5


def test_values_come_back_exactly(store: Store) -> None:
    (job,) = submit(store)
    begin(store, job)
    values = {"a": 0.1 + 0.2, "b": 2**53 + 1, "c": 5e-324, "d": 2**70, "e": "x", "f": None}
    report(store, job, **values)
    assert rows(store, "@")[0]["metrics"] == values
    assert group(store, "@", best="a:max")["best"]["value"] == 0.1 + 0.2
    assert group(store, "@", best="d:max")["best"]["value"] == 2**70


def test_a_goal_that_says_no_direction_is_refused(store: Store) -> None:
    submit_one(store)
    with pytest.raises(UsageError, match="--best: 'acc'"):
        group(store, "@", best="acc")


def test_the_end_is_estimated_by_the_groups_own_runs_and_what_runs_now(store: Store) -> None:
    submit_one(store)  # and no other's
    jobs = grid(store)
    begin(store, jobs[0])
    assert group(store, "@")["estimated_end"] is None
    succeed(store, jobs[1], after_s=100.0)
    succeed(store, jobs[2], after_s=110.0)
    found = group(store, "@")["estimated_end"]
    assert (found["runs"], found["at_once"], found["mean_s"]) == (2, 1, 105.0)
    assert found["sureness"] == "rough"
    assert found["earliest_at"] < found["at"] < found["latest_at"]


def test_what_is_held_is_not_waited_for(store: Store) -> None:
    jobs = submit(store, 4)
    succeed(store, jobs[0], after_s=100.0)
    begin(store, jobs[1])
    before = group(store, "@")["estimated_end"]["at"]
    write(store, "update jobs set held_by = 'alice' where id = ?", jobs[3])
    assert before - group(store, "@")["estimated_end"]["at"] == pytest.approx(100.0, abs=2)


def test_alike_errors_are_one_line_with_their_number(store: Store) -> None:
    jobs = grid(store)
    fail(store, *jobs[:3], signature="RuntimeError: bad lr in train.py:31", code=1)
    fail(store, jobs[3], signature="RuntimeError: bad lr in train.py:31", code=2)
    fail(store, jobs[4], code=7)
    fail(store, jobs[5], outcome=Outcome.LOST, exit=Exit(lost="gone", ended_at=NOW))
    fail(store, jobs[6], exit=Exit(signal=11, ended_at=NOW))
    assert [(one["count"], one["what"], one["job"]) for one in group(store, "@")["errors"]] == [
        (4, "RuntimeError: bad lr in train.py:31", jobs[0]),
        (1, "failed, exit code 7", jobs[4]),
        (1, "lost", jobs[5]),
        (1, "failed, ended by SIGSEGV", jobs[6]),
    ]


# ── the table ──


def test_parameters_stand_beside_metrics(store: Store) -> None:
    jobs = grid(store)
    succeed(store, jobs[1])
    report(store, jobs[1], progress=1.0, loss=0.5)
    (_, found, _) = rows(store, "@")
    assert found["name"] == "sweep-0.2"
    assert (found["array_index"], found["parameters"]) == (1, {"lr": "0.2"})
    assert (found["metrics"], found["progress"]) == ({"loss": 0.5}, 1.0)
    assert found["report_trouble"] is None
    write(store, "update reports set refused_values = 2 where job = ?", jobs[1])
    assert rows(store, "@")[1]["report_trouble"] == "2 values not taken"
    assert (found["state"], found["outcome"], found["exit_code"]) == ("ended", "succeeded", 0)


def test_each_job_of_a_run_has_its_own_row_where_that_is_wanted(store: Store) -> None:
    jobs = grid(store, 5)
    table = Elements(indices=(range(2),), columns=("file",))
    more = submit_one(store, elements=table, rows=(("a.txt",), ("b.txt",)), name="sweep-{file}")
    found = rows(store, "sweep", each=True)
    assert ids(found) == [*jobs, more, more + 1]
    assert [row["parameters"] for row in found[3:]] == [
        {"lr": "0.4"},
        {"lr": "0.5"},
        {"file": "a.txt"},
        {"file": "b.txt"},
    ]
    assert all(row["last_id"] == row["id"] for row in found)


@pytest.mark.parametrize("each", [True, False])
@pytest.mark.parametrize("limit", [1, 3, 4, 500])
def test_pages_together_are_the_whole_table(store: Store, each: bool, limit: int) -> None:
    jobs = grid(store, 9)
    submit(store, 2)  # which lie between two pieces of it
    stored_more = stored.spec(name="sweep-more")
    now: Any = {"now": NOW, "group": jobs[0]}
    more = store.asked.submit(stored.ALICE, [stored_more] * 2, **now)
    succeed(store, jobs[2], jobs[7])
    whole = rows(store, f"g{jobs[0]}", each=each)
    covered = [n for row in whole for n in range(row["id"], row["last_id"] + 1)]
    assert covered == [*jobs, *more]
    found: list[Answer] = []
    after: int | None = None
    for _ in range(len(covered) + 1):
        page = ask(store, f"g{jobs[0]}", each=each, limit=limit, after=after)
        assert ("group" in page) == (after is None)
        assert len(page["jobs"]) <= limit
        found += page["jobs"]
        after = page["after"]
        if after is None:
            break
    assert found == whole


@pytest.mark.parametrize("order", ["loss", "-loss"])
def test_the_first_of_an_order_are_those_that_the_whole_table_begins_with(
    store: Store, order: str
) -> None:
    jobs = submit(store, 12)
    begin(store, *jobs[:10])
    told = (0.5, 3, "nan", -1.5, None, "inf", 3.0, True, 2**70, "a b")
    for job, loss in zip(jobs, told, strict=False):
        report(store, job, loss=loss)
    whole = in_order(rows(store, "@"), parse_order(order))
    for limit in (1, 4, 12):
        answer = ask(store, "@", sort=order, limit=limit)
        assert answer["sorted"]
        assert ids(answer["jobs"]) == ids(whole)[:limit]


def test_an_order_by_what_is_no_metric_is_left_to_whoever_asks(store: Store) -> None:
    grid(store)
    assert not ask(store, "@", sort="lr")["sorted"]


# ── discretion ──


def secrets(store: Store) -> range:
    jobs = grid(store, tags=("paper",))
    fail(store, jobs[0], signature="ValueError: token abc")
    begin(store, jobs[1])
    report(store, jobs[1], progress=0.5, loss=0.5)
    return jobs


def test_others_are_told_how_a_group_goes_and_not_what_its_jobs_wrote(store: Store) -> None:
    jobs = secrets(store)
    told = ask(store, f"g{jobs[0]}", BEN, best="loss:min")
    assert told["group"]["errors"][0]["what"] == "failed, exit code 1"
    assert told["group"]["best"]["value"] == 0.5
    mine, admins = (ask(store, f"g{jobs[0]}", peer)["group"]["errors"] for peer in (ANN, CAROL))
    assert mine[0]["what"] == admins[0]["what"] == "ValueError: token abc"


def test_of_hidden_jobs_only_numbers_are_told(store: Store) -> None:
    jobs = secrets(store)
    asked: dict[str, Any] = {"best": "loss:min", "sort": "loss"}
    told = ask(store, f"g{jobs[0]}", BEN, "own", **asked)
    assert (told["group"]["total"], told["group"]["failed"]) == (8, 1)
    assert (told["group"]["best"], told["group"]["reported"]) == (None, [])
    assert ids(told["jobs"]) == [jobs[0], jobs[1], jobs[2]]  # and in no order that tells of it
    assert not told["sorted"]
    for row in told["jobs"]:
        assert (row["name"], row["parameters"], row["metrics"]) == ("", {}, {})
        assert row["progress"] is None
    said = json.dumps(told)
    assert not any(word in said for word in ("sweep", "loss", "token", "0.5"))


@pytest.mark.parametrize("ref", ["sweep", "tag:paper"])
def test_hidden_jobs_cannot_be_guessed_by_name_or_tag(store: Store, ref: str) -> None:
    secrets(store)
    for more in ({}, {"all": True}, {"user": "alice"}):
        with pytest.raises(NothingMatched):
            ask(store, ref, BEN, "own", **more)
    assert ask(store, ref, CAROL, "own", all=True)["group"]["total"] == 8


def test_jobs_on_simulated_gpus_are_marked_and_counted(store: Store) -> None:
    first, second, third = submit(store, 3)
    succeed(store, first, second)
    write(store, "update attempts set gpus = json_set(gpus, '$.simulated', true) where job = 1")
    assert group(store, "g1")["simulated"] == 1
    found = rows(store, "g1")
    assert {row["id"]: row["gpus_simulated"] for row in found} == {
        first: True,
        second: False,
        third: False,
    }


@pytest.mark.parametrize("ref", ["8-19", "8,9", "1-3,7"])
def test_a_range_of_jobs_is_no_group(store: Store, ref: str) -> None:
    grid(store)
    with pytest.raises(UsageError, match=f"{ref} are jobs, .* Those jobs: gpuq status {ref}"):
        group(store, ref)
