"""Elements of an array in the database: a run of them is a row, until something befalls some alone."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.asked.elements import Elements
from gpuq.core.model import WaitingJob
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests.refs import References
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.elements import row_of, single_out
from gpuq.daemon.store.found import unfolded
from gpuq.errors import NothingMatched, NotPermitted, UsageError
from tests import stored
from tests.builders import STEADY
from tests.stored import ALICE, BOB, NOW, spec, start, submit, submit_one

SPANS = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), min_size=1, max_size=12)
ANN = Peer(uid=ALICE.uid, gid=ALICE.gid, pid=1, user="alice")


@pytest.fixture
def store() -> Iterator[Store]:
    opened = Store(":memory:")
    yield opened
    opened.close()


def array(count: int) -> Elements:
    return Elements(indices=(range(count),))


def rows(store: Store) -> list[tuple[int, int]]:
    found = store.database.rows("select id, last_id from jobs order by id")
    return [(row["id"], row["last_id"]) for row in found]


def stop(store: Store, first: int, last: int) -> None:
    store.wished.stop(first, last, grace_s=1.0, actor="alice", now=NOW)


def cancel(store: Store, first: int, last: int) -> None:
    stop(store, first, last)
    store.happened.cancel(first, last=last, actor="alice", now=NOW)


# ── rows ──


@given(spans=SPANS)
@STEADY
def test_each_element_keeps_what_it_was_however_rows_are_split(
    spans: list[tuple[int, int]],
) -> None:
    store = Store(":memory:")
    before = submit(store, priority=3)
    jobs = submit(store, elements=array(30), priority=5)
    after = submit(store, priority=7)
    model: dict[int, str | None] = dict.fromkeys(jobs)
    for a, b in spans:
        first, last = jobs[min(a, b)], jobs[max(a, b)]
        actor = f"{first}-{last}"
        with store.transaction():
            single_out(store.database, first, last)
            store.database.write(
                "update jobs set held_by = ? where id >= ? and last_id <= ?", (actor, first, last)
            )
        model |= dict.fromkeys(range(first, last + 1), actor)
    everyone = [*before, *jobs, *after]
    for job in everyone:
        row = row_of(store.database, job)
        assert row is not None
        assert row["held_by"] == model.get(job)
        assert row["place"] + job - row["id"] == job
        assert row["priority"] == (3 if job in before else 5 if job in jobs else 7)
        assert row["array_first"] == (jobs.start if job in jobs else None)
    covered = [job for first, last in rows(store) for job in range(first, last + 1)]
    assert covered == everyone
    assert len(rows(store)) <= 3 + 2 * len(spans)
    store.close()


def test_a_span_within_a_row_gets_a_row_of_its_own_and_no_more(store: Store) -> None:
    jobs = submit(store, elements=array(1_000_000))
    with store.transaction():
        single_out(store.database, jobs[10], jobs[12])
        single_out(store.database, jobs[10], jobs[12])
    first, last = jobs[0], jobs[-1]
    assert rows(store) == [(first, first + 9), (first + 10, first + 12), (first + 13, last)]


def test_ids_that_nobody_has_are_no_trouble(store: Store) -> None:
    jobs = submit(store, elements=array(3))
    with store.transaction():
        single_out(store.database, jobs[2], 1_000)
        single_out(store.database, 500, 600)
    assert rows(store) == [(jobs[0], jobs[1]), (jobs[2], jobs[2])]


# ── asked ──


def test_ids_behind_an_array_are_given_to_what_comes_after_it(store: Store) -> None:
    jobs = submit(store, elements=array(1_000_000))
    assert (jobs, stored.count(store, "jobs")) == (range(1, 1_000_001), 1)
    assert submit(store).start == jobs.stop


def test_a_submission_of_arrays_and_jobs_says_what_each_became(store: Store) -> None:
    store.asked.keep_environment(ALICE.uid, stored.DIGEST, stored.ENVIRONMENT)
    specs = [spec(), spec(elements=array(5)), spec(), spec(elements=array(2))]
    ids = store.asked.submit(ALICE, specs, now=NOW)
    assert store.asked.entries(ids) == [(1, 1), (2, 6), (7, 7), (8, 9)]
    stop(store, 3, 4)
    start(store, 5)
    assert store.asked.entries(ids) == [(1, 1), (2, 6), (7, 7), (8, 9)], "split or not"
    found = {job: store.found.brief([range(job, job + 1)])[0]["element"] for job in ids}
    assert found == dict(zip(ids, [None, 0, 1, 2, 3, 4, None, 0, 1], strict=True))


def test_the_rows_of_a_table_are_kept_element_by_element(store: Store) -> None:
    elements = Elements(indices=(range(2),), columns=("lr", "seed"))
    submit(store, elements=elements, rows=(("0.1", "1"), ("0.2", "2")))
    kept = store.database.rows('select element, "values" from parameters order by element')
    assert [(row["element"], json.loads(row["values"])) for row in kept] == [
        (0, ["0.1", "1"]),
        (1, ["0.2", "2"]),
    ]


def test_a_row_of_a_table_is_looked_up_only_where_there_is_a_table(store: Store) -> None:
    columns = Elements(indices=(range(2),), columns=("lr",))
    first = submit(store, elements=columns, rows=(("0.1",), ("0.2",))).start
    plain = submit(store, elements=array(2)).start
    with_table, without = (stored.row(store, job) for job in (first + 1, plain + 1))
    assert store.found.with_values(with_table)["values"] == '["0.2"]'
    assert store.found.with_values(without) is without


def add_to(store: Store, group: int, count: int, by: stored.Submitter = ALICE) -> range:
    store.asked.keep_environment(by.uid, stored.DIGEST, stored.ENVIRONMENT)
    return store.asked.submit(by, [spec(elements=array(count))], now=NOW, group=group)


def test_a_group_grows_by_what_is_added_to_it(store: Store) -> None:
    group = submit(store, elements=array(3)).start
    assert add_to(store, group, 2) == range(4, 6)
    assert store.found.group(group) == [range(1, 6)], "what follows on is one span"
    submit(store, by=BOB)
    add_to(store, group, 2)
    assert store.found.group(group) == [range(1, 6), range(7, 9)]
    refs = References(store.found)
    assert refs.resolve(["g1"], ANN) == refs.resolve(["@"], ANN) == [range(1, 6), range(7, 9)]
    assert store.asked.group_of(8) == group
    assert store.found.last_id(ALICE.uid) == 8


def test_nobody_adds_to_the_group_of_another_user_or_to_none(store: Store) -> None:
    group = submit(store).start
    with pytest.raises(NotPermitted, match="g1 is another user's"):
        add_to(store, group, 2, by=BOB)
    with pytest.raises(NothingMatched, match="no group g7"):
        add_to(store, 7, 2)
    assert stored.count(store, "jobs") == 1


def test_only_the_first_submit_of_a_group_says_how_many_of_it_run(store: Store) -> None:
    group = submit(store, elements=array(3), max_running=2).start
    other = submit(store, elements=array(3)).start
    with pytest.raises(UsageError, match="limit of 2 running jobs, and 5 were asked"):
        store.asked.submit(ALICE, [spec(max_running=5)], now=NOW, group=group)
    add_to(store, group, 2)
    groups = {row["id"]: row["group_id"] for row in store.database.rows(_CLASS_GROUPS)}
    assert groups == {group: group, other: 0, 7: group}


_CLASS_GROUPS = "select j.id, c.group_id from jobs j join classes c on c.id = j.class"


# ── now ──


def shown(waiting: Sequence[WaitingJob]) -> list[tuple[int, int]]:
    return [(one.id, one.place) for one in waiting]


def test_of_a_row_the_scheduler_sees_as_many_elements_as_of_single_jobs(store: Store) -> None:
    one = submit_one(store)
    jobs = submit(store, elements=array(1_000_000))
    urgent = submit(store, elements=array(2), priority=1)
    seen = shown(store.current.waiting(4))
    assert seen == [(job, job) for job in (urgent[0], urgent[1], one, jobs[0])]
    assert all(one.last is None for one in store.current.waiting(4))


def test_an_element_that_starts_leaves_its_row_and_the_others_wait_on(store: Store) -> None:
    jobs = submit(store, elements=array(5))
    assert start(store, jobs[2])
    assert rows(store) == [(1, 2), (3, 3), (4, 5)]
    assert [stored.row(store, job)["state"] for job in jobs] == ["queued"] * 2 + [
        "starting",
        *["queued"] * 2,
    ]
    assert [job for job, _ in shown(store.current.waiting(9))] == [1, 2, 4, 5]
    assert [store.agreed.to_run(job)["element"] for job in jobs] == [0, 1, 2, 3, 4]


def test_only_the_element_that_was_overtaken_counts_it(store: Store) -> None:
    jobs = submit(store, elements=array(5))
    assert start(store, submit_one(store), passed=[jobs[0]])
    assert [stored.row(store, job)["passes"] for job in jobs] == [1, 0, 0, 0, 0]


def test_an_element_is_placed_among_all_that_ask_for_the_same(store: Store) -> None:
    submit(store, 3)
    jobs = submit(store, elements=array(1_000_000))
    urgent = submit(store, elements=array(10), priority=5)
    assert store.counted.place_in_class(jobs[3_120]) == 10 + 3 + 3_121
    assert store.counted.place_in_class(urgent[9]) == 10
    start(store, jobs[7])
    assert store.counted.place_in_class(jobs[3_120]) == 10 + 3 + 3_120
    assert store.counted.place_in_class(jobs[7]) is None


def test_elements_are_counted_and_not_rows(store: Store) -> None:
    jobs = submit(store, elements=array(100))
    submit(store, elements=array(10), by=BOB)
    start(store, jobs[0])
    assert store.counted.totals() == (1, 109)
    counts = {"queued": 109, "running": 1, "queued_yours": 99, "held": 0}
    assert store.counted.for_user(ALICE.uid) == counts
    assert store.counted.queued(ALICE.uid) == 99


# ── wished ──


def test_a_kill_of_some_is_one_wish_one_cancel_and_one_event_of_each(store: Store) -> None:
    jobs = submit(store, elements=array(1_000))
    stop(store, jobs[10], jobs[499])
    assert rows(store) == [(1, 10), (11, 500), (501, 1_000)]
    (leaving,) = [one for one in store.current.waiting(1) if one.stop]
    assert (leaving.id, leaving.last) == (11, 500)
    store.happened.cancel(leaving.id, last=leaving.last, actor="alice", now=NOW)
    told = [(e["kind"], e["job"], json.loads(e["detail"]).get("last")) for e in events(store)]
    assert told == [("submitted", 1, None), ("stop_asked", 11, 500), ("ended", 11, 500)]
    states = [stored.row(store, job)["outcome"] for job in (10, 11, 500, 501)]
    assert states == [None, "cancelled", "cancelled", None]


def test_a_row_that_was_split_since_is_cancelled_all_the_same(store: Store) -> None:
    jobs = submit(store, elements=array(9))
    stop(store, jobs[0], jobs[8])
    stop(store, jobs[4], jobs[4])
    store.happened.cancel(jobs[0], last=jobs[8], actor="alice", now=NOW)
    assert {row["outcome"] for row in store.found.jobs()} == {"cancelled"}
    assert [(e["job"], json.loads(e["detail"]).get("last")) for e in events(store)][-3:] == [
        (1, 4),
        (5, None),
        (6, 9),
    ]


def events(store: Store) -> list[Row]:
    return store.told.events(0, 100)[0]


def test_what_befell_a_run_is_among_the_events_of_each_of_its_jobs(store: Store) -> None:
    jobs = submit(store, elements=array(100))
    other = submit(store)
    cancel(store, jobs[10], jobs[19])
    for job in (jobs[10], jobs[15], jobs[19]):
        of_job = store.told.events(0, 10, [range(job, job + 1)])[0]
        assert [event["kind"] for event in of_job] == ["stop_asked", "ended"]
    group = store.found.group(jobs.start)
    kinds = [event["kind"] for event in store.told.events(0, 10, group)[0]]
    assert kinds == ["submitted", "stop_asked", "ended"], "each once"
    for job in (jobs[20], other.start):
        of_job = store.told.events(0, 10, [range(job, job + 1)])[0]
        assert {event["kind"] for event in of_job} <= {"submitted"}
    assert store.told.events(0, 1, group)[0][0]["kind"] == "submitted"


# ── found ──

MOVES = st.lists(
    st.tuples(st.sampled_from(["start", "cancel"]), st.integers(0, 39), st.integers(0, 8)),
    max_size=12,
)
WANTED = st.lists(st.tuples(st.integers(-3, 44), st.integers(0, 12)), min_size=1, max_size=6)


@given(moves=MOVES, wanted=WANTED, page=st.integers(1, 9), ended=st.booleans())
@STEADY
def test_what_is_found_is_what_each_element_is_page_by_page(
    moves: list[tuple[str, int, int]],
    wanted: list[tuple[int, int]],
    page: int,
    ended: bool,
) -> None:
    """Against a plain dictionary: with and without spans, in both orders, by pages of any size."""
    store = Store(":memory:")
    arrays = [
        submit(store, elements=array(20)),
        submit(store, 5),
        submit(store, elements=array(15)),
    ]
    model = {job: "queued" for ids in arrays for job in ids}
    for move, offset, length in moves:
        first = 1 + offset
        group = next(ids for ids in arrays if first in ids)
        last = min(first + length, group[-1])
        if move == "start" and model[first] == "queued" and start(store, first):
            model[first] = "starting"
        if move == "cancel" and {model[job] for job in range(first, last + 1)} == {"queued"}:
            cancel(store, first, last)
            model |= dict.fromkeys(range(first, last + 1), "ended")
    refs = References(store.found)
    named = [f"{max(1 + a, 1)}-{max(1 + a, 1) + length}" for a, length in wanted]
    spans = refs.resolve(named, ANN)
    for ids in (None, spans):
        truth = [
            (job, state)
            for job, state in sorted(model.items(), reverse=ended)
            if (ended or state != "ended") and (ids is None or any(job in span for span in ids))
        ]
        assert list(pages(store, ids, ended, page)) == truth
    inside = [job for span in spans for job in span if job in model]
    assert store.found.count(spans) == len(inside)
    still = [job for span in store.found.still_before("ended", spans) for job in span]
    assert still == [job for job in inside if model[job] != "ended"]
    store.close()


def pages(
    store: Store, ids: list[range] | None, ended: bool, size: int
) -> Iterator[tuple[int, str]]:
    cursor: int | None = None
    for _ in range(50):
        found = store.found.jobs(ids=ids, ended=ended, limit=size, cursor=cursor)
        part = list(islice(unfolded(found, newest_first=ended), size))
        for row in part:
            assert row["place"] == row["id"]
            first = row["array_first"]
            assert row["element"] == (None if first is None else row["id"] - first)
            yield row["id"], row["state"]
        if len(part) < size:
            return
        cursor = part[-1]["id"]


def test_a_page_of_a_million_elements_reads_one_row(store: Store) -> None:
    jobs = submit(store, elements=array(1_000_000))
    (row,) = store.found.jobs(ids=[jobs], limit=500, cursor=jobs[700_000])
    assert (row["id"], row["last_id"]) == (1, 700_000)
    (row,) = store.found.jobs(ended=False, limit=500, cursor=jobs[700_000])
    assert (row["id"], row["last_id"]) == (700_002, 1_000_000)


def test_a_number_within_a_run_is_a_job_and_one_behind_it_is_none(store: Store) -> None:
    submit(store, elements=array(10))
    refs = References(store.found)
    assert refs.find_last("7", ANN)["element"] == 6
    assert [(row["id"], row["last_id"]) for row in refs.find(["3-5", "9"], ANN)] == [(3, 5), (9, 9)]
    with pytest.raises(NothingMatched, match="no job 11"):
        refs.find(["3", "11"], ANN)
