"""What a submission is to wait for, as it is asked over the wire."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from gpuq.core.asked.elements import Elements
from gpuq.core.asked.needs import Need, When
from gpuq.core.asked.spec import Spec
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests.needing import Needing, stranded_by
from gpuq.daemon.store import Store
from gpuq.errors import GpuqError, NothingMatched, UsageError
from tests.stored import BOB, spec, submit, submit_one

ME = Peer(uid=1000, gid=1000, pid=1, user="alice")


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(Store(":memory:")) as store:
        yield store


def array(count: int) -> Spec:
    return spec(elements=Elements(indices=(range(count),)))


def read(
    store: Store, *after: Any, of: Spec | None = None, before: tuple[Spec, ...] = ()
) -> tuple[Need, ...]:
    return Needing(store.found).read({"after": list(after)}, of or spec(), before, ME)


def test_jobs_are_named_as_everywhere(store: Store) -> None:
    submit(store, 3)
    submit(store, 2)
    submit(store, 1, by=BOB)
    assert read(store, {"jobs": "1-2,5", "when": "any"}) == (
        Need(jobs=range(1, 3), when=When.ANY),
        Need(jobs=range(5, 6), when=When.ANY),
    )
    assert read(store, {"jobs": "@"}) == (Need(jobs=range(4, 6)),)
    assert read(store, {"jobs": "g1", "when": "fail"}) == (Need(jobs=range(1, 4), when=When.FAIL),)
    assert read(store, {"jobs": "6"}, {"jobs": "6"}) == (Need(jobs=range(6, 7)),)


def test_earlier_entries_are_named_by_their_number(store: Store) -> None:
    before = (array(3), spec())
    assert read(store, {"entry": 1}, of=spec(), before=before) == (Need(entry=1),)
    (each,) = read(store, {"entry": 0, "each": True}, of=array(3), before=before)
    assert each == Need(entry=0, each=True)


def test_each_of_one_is_nothing_special(store: Store) -> None:
    one = submit_one(store)
    assert read(store, {"jobs": str(one), "each": True}) == (Need(jobs=range(one, one + 1)),)


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ({"jobs": "99"}, "no job 99"),
        ({"jobs": "2-99"}, "not all were ever submitted"),
        ({"jobs": "g7"}, "no group g7"),
    ],
)
def test_only_what_is_there_can_be_waited_for(store: Store, after: Any, why: str) -> None:
    submit(store, 5)
    with pytest.raises(NothingMatched, match=why):
        read(store, after)


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ("12", "no object"),
        ({}, "names no job"),
        ({"jobs": 3}, "names no job"),
        ({"jobs": "3", "when": "okay"}, "none of ok, any, fail"),
        ({"jobs": "3", "each": 1}, "true or false"),
        ({"jobs": "1-3", "each": True}, "1-3 are 3 jobs and these are 4"),
        ({"jobs": "1-2,4-5", "each": True}, "not one run"),
        ({"entry": 0}, "no entry before this one"),
        ({"entry": -1}, "no entry before this one"),
        ({"entry": True}, "no entry before this one"),
    ],
)
def test_what_is_wrong_is_said(store: Store, after: Any, why: str) -> None:
    submit(store, 5)
    with pytest.raises(UsageError, match=why):
        read(store, after, of=array(4))


def test_so_many_spans_are_too_many(store: Store) -> None:
    submit(store, 2101)
    odd = ",".join(str(n) for n in range(1, 2101, 2))
    with pytest.raises(GpuqError, match="name up to 1000"):
        read(store, {"jobs": odd})


def test_who_ends_a_job_hears_who_waits_for_it_in_vain(store: Store) -> None:
    first = submit_one(store)
    submit_one(store, needs=(Need(jobs=range(first, first + 1)),))
    submit_one(store, needs=(Need(jobs=range(first, first + 1), when=When.ANY),))
    last = submit_one(store, needs=(Need(jobs=range(first, first + 1)),))
    rows = [{"id": first, "last_id": first}, {"id": last, "last_id": last}]
    ended = [{"done": "cancelled"}, {"done": "cancelled"}]
    assert stranded_by(store.waiting, ended, rows) == ["2 waits for 1 and will never start"]
    not_ended = [{"done": "already_ended"}, {"done": "cancelled"}]
    assert stranded_by(store.waiting, not_ended, rows) == []
