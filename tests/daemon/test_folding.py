"""The list of jobs: groups as one entry each, and unfolded page by page."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuq import config
from gpuq.core.asked.elements import Elements
from gpuq.core.model import Outcome
from gpuq.core.results.reported import Told
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests.handlers import Handlers
from gpuq.daemon.store import Store
from gpuq.daemon.watchers import Watchers
from gpuq.errors import NothingMatched
from tests import stored
from tests.daemon.test_queue_limits import ADMIN, Still
from tests.stored import ALICE, BOB, NOW, lease, spec, start, submit, with_gpus

ANN = Peer(uid=ALICE.uid, gid=ALICE.gid, pid=1, user="alice")


class Desk:
    def __init__(self, store: Store, folder: Path, **flags: Any) -> None:
        self.store = store
        given = {"state_dir": str(folder), "gpus": "none", **flags}
        self._handlers = Handlers(store, config.load(given, {}), Still(), Watchers())

    def ask(self, do: str, peer: Peer = ANN, **what: Any) -> dict[str, Any]:
        return asyncio.run(self._handlers.handle({"do": do, **what}, peer))

    def listed(self, **what: Any) -> list[dict[str, Any]]:
        return self.ask("status", **what)["jobs"]

    def folded(self, **what: Any) -> list[str]:
        """What stands in the column of ids."""
        return [str(job.get("jobs", job["id"])) for job in self.listed(fold=True, **what)]

    def array(self, *indices: range, **changes: Any) -> range:
        return submit(self.store, elements=Elements(indices=indices), **changes)

    def ends(self, job: int, **how: Any) -> None:
        start(self.store, job)
        stored.run(self.store, job)
        stored.end(self.store, job, **how)

    def cancel(self, first: int, last: int) -> None:
        self.store.happened.cancel(first, last=last, actor="alice", now=NOW)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with closing(Store(":memory:")) as store:
        yield Desk(with_gpus(store), tmp_path)


def test_a_page_ends_where_what_its_jobs_reported_fills_it(desk: Desk) -> None:
    """Or a few hundred that report all that is kept would make an answer that no client takes."""
    metrics = {f"{number:080}": "x" * 200 for number in range(100)}
    for job in submit(desk.store, 120):
        start(desk.store, job)
        assert desk.store.reported.write(job, 1, Told(metrics=metrics), after=Told())
    page = desk.ask("status", limit=1000)
    assert 10 < len(page["jobs"]) < 120
    rest = desk.ask("status", limit=1000, before=page["before"])
    assert len(page["jobs"]) + len(rest["jobs"]) == 120


def test_who_asks_for_jobs_alone_is_told_nothing_else(desk: Desk) -> None:
    desk.array(range(3))
    whole, alone = desk.ask("status"), desk.ask("status", jobs_only=True)
    assert alone == {"jobs": whole["jobs"], "before": None}
    assert whole.keys() - alone.keys() >= {"counts", "drained", "gpus"}


def test_a_group_is_the_most_alive_of_its_jobs_with_counts_of_all(desk: Desk) -> None:
    jobs = desk.array(range(10))
    desk.ends(jobs[0])
    desk.cancel(jobs[8], jobs[9])
    (one,) = desk.listed(fold=True)
    assert (one["id"], one["state"], one["count"], one["jobs"]) == (2, "queued", 10, "1-10")
    start(desk.store, jobs[4], lease(jobs[4]), gpu_indices=(3,))
    start(desk.store, jobs[5], lease(jobs[5], "GPU-1"), gpu_indices=(1,))
    stored.run(desk.store, jobs[5])
    (one,) = desk.listed(fold=True)
    assert (one["id"], one["state"], one["array_index"]) == (jobs[5], "running", 5)
    assert one["gpus"] == [1, 3], "those of all that are active"
    said = {word: number for word, number in one["counts"].items() if number}
    assert said == {"queued": 5, "starting": 1, "running": 1, "succeeded": 1, "cancelled": 2}
    assert set(one["counts"]) == {
        *("queued", "starting", "running", "succeeded", "failed", "cancelled"),
        *("timed_out", "out_of_memory", "lost", "skipped"),
    }


def test_of_a_group_that_has_ended_what_went_wrong_stands_for_it(desk: Desk) -> None:
    jobs = desk.array(range(3))
    for job in jobs:
        desk.ends(job, **({"outcome": Outcome.FAILED} if job == jobs[1] else {}))
    assert desk.folded() == []
    (one,) = desk.listed(fold=True, all=True)
    assert (one["id"], one["outcome"]) == (jobs[1], "failed")


def test_a_job_alone_is_no_group(desk: Desk) -> None:
    alone = submit(desk.store).start
    desk.array(range(1))
    (one, element) = desk.listed(fold=True)
    assert one == desk.listed()[0]
    assert (one["id"], "count" in one, "count" in element) == (alone, False, False)


@pytest.mark.parametrize(
    ("indices", "words"),
    [
        ([range(10)], "0-9"),
        ([range(0, 30, 10), range(7, 8)], "0-20:10,7"),
    ],
)
def test_an_array_says_its_indices(desk: Desk, indices: list[range], words: str) -> None:
    desk.array(*indices)
    assert desk.listed(fold=True)[0]["indices"] == words


def test_a_group_of_other_jobs_has_no_indices(desk: Desk) -> None:
    submit(desk.store, 3)
    store = desk.store
    mixed = [spec(), spec(elements=Elements(indices=(range(2),)))]
    store.asked.submit(ALICE, mixed, now=NOW)
    assert [one["indices"] for one in desk.listed(fold=True)] == [None, None]
    assert desk.folded() == ["1-3", "4-6"]


@pytest.mark.parametrize("all_", [False, True], ids=["active", "with ended ones"])
def test_each_group_is_on_one_page_alone_however_many_pieces_it_has(desk: Desk, all_: bool) -> None:
    store, pieces = desk.store, spec(elements=Elements(indices=(range(5),)))
    first = submit(store, elements=pieces.elements).start
    single = submit(store, by=BOB).start
    store.asked.submit(ALICE, [pieces], now=NOW, group=first)
    second = submit(store, 4).start
    store.asked.submit(ALICE, [pieces], now=NOW, group=first)
    wanted = [f"{first}-5,7-11,16-20", str(single), f"{second}-15"]
    assert sorted(desk.folded(all=all_)) == sorted(wanted)
    seen: list[str] = []
    cursor: int | None = None
    while True:
        page = desk.ask("status", fold=True, all=all_, limit=1, before=cursor)
        seen += [str(job.get("jobs", job["id"])) for job in page["jobs"]]
        if (cursor := page["before"]) is None:
            break
    assert sorted(seen) == sorted(wanted)
    assert len(seen) == 3


def test_a_piece_that_has_ended_does_not_hide_its_group(desk: Desk) -> None:
    store, piece = desk.store, spec(elements=Elements(indices=(range(5),)))
    first = submit(store, elements=piece.elements).start
    submit(store, by=BOB)
    store.asked.submit(ALICE, [piece], now=NOW, group=first)
    desk.cancel(1, 5)
    assert desk.folded() == ["6", "1-5,7-11"]


def test_a_million_groups_are_not_read_for_the_first_few(desk: Desk) -> None:
    """What is asked of the database grows with the entries of the page, not with what is behind."""
    for _ in range(40):
        desk.array(range(1_000))
    desk.listed(fold=True, limit=5)  # what is remembered from then on is asked for once
    asked: list[str] = []
    desk.store.database._db.exec_trace = lambda cursor, sql, values: asked.append(sql) or True
    desk.listed(fold=True, limit=5)
    few = len(asked)
    asked.clear()
    for _ in range(40):
        desk.array(range(1_000))
    asked.clear()
    desk.listed(fold=True, limit=5)
    assert len(asked) == few


def test_elements_are_listed_page_by_page(desk: Desk) -> None:
    jobs = desk.array(range(1_300))
    first = desk.ask("status", refs=["g1"])
    assert [job["id"] for job in first["jobs"]] == list(reversed(jobs[800:]))
    assert first["before"] == jobs[800]
    some = desk.ask("status", limit=3, before=jobs[9])
    assert [(job["id"], job["array_index"]) for job in some["jobs"]] == [
        (11, 10),
        (12, 11),
        (13, 12),
    ]
    assert [job["id"] for job in desk.listed(refs=["3-5,9"])] == [9, 5, 4, 3]


def test_runs_are_listed_where_they_will_do(desk: Desk) -> None:
    jobs = desk.array(range(1_000_000))
    start(desk.store, jobs[5])
    listed = desk.listed(runs=True)
    assert [(job["id"], job["last_id"]) for job in listed] == [(1, 5), (6, 6), (7, 1_000_000)]
    page = desk.ask("status", runs=True, limit=2)
    rest = desk.ask("status", runs=True, limit=2, before=page["before"])
    assert [(job["id"], job["last_id"]) for job in rest["jobs"]] == [(7, 1_000_000)]


def test_a_group_of_hidden_jobs_tells_its_numbers_and_no_name(tmp_path: Path) -> None:
    with closing(Store(":memory:")) as store:
        desk = Desk(store, tmp_path, visibility="own")
        desk.array(range(3), name="secret", by=BOB)
        (one,) = desk.listed(fold=True)
        assert (one["name"], one["command"], one["count"]) == ("", [], 3)


def test_a_group_that_is_not_there_is_said(desk: Desk) -> None:
    desk.array(range(3))
    with pytest.raises(NothingMatched):
        desk.listed(fold=True, refs=["g9"])
    assert desk.folded(refs=["2"]) == ["1-3"]


def test_what_is_over_is_one_answer_however_many_ended_on_their_own(desk: Desk) -> None:
    jobs = desk.array(range(1_000))
    for job in jobs[3:9]:
        desk.ends(job)
    desk.cancel(20, 29)
    submit(desk.store, by=BOB)
    desk.cancel(1_001, 1_001)
    done = desk.ask("kill", peer=ADMIN, refs=["5-7,9-30,900-1001"])["jobs"]
    assert [(one["id"], one["last_id"], one["done"]) for one in done] == [
        (5, 7, "already_ended"),
        (9, 9, "already_ended"),
        (10, 19, "cancelled"),
        (20, 29, "already_ended"),
        (30, 30, "cancelled"),
        (900, 1_000, "cancelled"),
        (1_001, 1_001, "already_ended"),
    ]


def test_kill_and_pause_answer_in_runs(desk: Desk) -> None:
    jobs = desk.array(range(1_000))
    desk.ends(jobs[2])
    done = desk.ask("kill", refs=["1-20"])["jobs"]
    assert [(one["id"], one["last_id"], one["done"]) for one in done] == [
        (1, 2, "cancelled"),
        (3, 3, "already_ended"),
        (4, 20, "cancelled"),
    ]
    paused = desk.ask("pause", refs=["30-40"])["jobs"]
    assert paused == [{"id": 30, "last_id": 40, "done": "not_running"}]
    sent = desk.ask("kill", refs=["30-40"], signal=10)["jobs"]
    assert [(one["id"], one["last_id"], one["done"]) for one in sent] == [(30, 40, "not_running")]


def test_an_element_deep_in_a_run_is_shown_with_its_place(desk: Desk) -> None:
    jobs = desk.array(range(0, 2_000_000, 2))
    job = desk.ask("show", ref=str(jobs[3_119]))["job"]
    assert (job["id"], job["place"], job["array_index"]) == (3_120, 3_120, 6_238)
    assert desk.ask("show", ref="@")["job"]["id"] == jobs[-1]
