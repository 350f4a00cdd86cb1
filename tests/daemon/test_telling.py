"""Events after a cursor: nothing is missed, and where something would be, that is said."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuq import config
from gpuq.daemon.requests.handlers import Handlers
from gpuq.daemon.store import Store
from gpuq.daemon.watchers import Watchers
from gpuq.errors import GpuqError, NothingMatched
from tests import stored
from tests.daemon.test_queue_limits import ADMIN, Still
from tests.stored import NOW


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(Store(":memory:")) as opened:
        yield opened


@pytest.fixture
def asked(tmp_path: Path, store: Store) -> Handlers:
    given = {"state_dir": str(tmp_path), "gpus": "none"}
    return Handlers(store, config.load(given, {}), Still(), Watchers())


def tell(asked: Handlers, since: int | None, **more: Any) -> tuple[list[int], int]:
    """The numbers of the events, and the cursor to go on with."""
    request = {"do": "events", "since": since, **more}
    answer = asyncio.run(asked.handle(request, ADMIN))
    return [event["seq"] for event in answer["events"]], answer["last"]


def happen(store: Store, number: int, at: float = NOW) -> None:
    for _ in range(number):
        store.machine.event("machine_slept", now=at)


def test_a_cursor_from_before_what_was_removed_is_an_error_that_says_where_to_go_on(
    asked: Handlers, store: Store
) -> None:
    happen(store, 10)
    happen(store, 5, at=NOW + 100)
    store.pruned.prune_events(NOW + 50, 1000)
    with pytest.raises(GpuqError) as refused:
        tell(asked, 4)
    assert str(refused.value) == (
        "events 5 to 10 were removed for their age (setting keep_for), so what came after 4 cannot be "
        "told whole. Go on with what is kept: --since 10"
    )
    assert tell(asked, 10) == ([11, 12, 13, 14, 15], 15), "nothing after it is missing"
    assert tell(asked, 12) == ([13, 14, 15], 15)


def test_who_asks_for_all_gets_all_that_is_kept(asked: Handlers, store: Store) -> None:
    happen(store, 10)
    happen(store, 2, at=NOW + 100)
    store.pruned.prune_events(NOW + 50, 1000)
    assert tell(asked, 0) == ([11, 12], 12)


def test_a_cursor_beyond_the_last_event_is_an_error_and_not_a_wait(
    asked: Handlers, store: Store
) -> None:
    happen(store, 3)
    assert tell(asked, 3) == ([], 3)
    with pytest.raises(GpuqError) as refused:
        tell(asked, 4, timeout_s=0.1)
    assert str(refused.value) == (
        "there is no event 4 yet, the last is 3: a number of another daemon's, or of a database that "
        "was replaced by a backup. Go on from here: --since 3"
    )


def test_a_cursor_survives_the_removal_of_all_that_was(asked: Handlers, store: Store) -> None:
    happen(store, 3)
    store.pruned.prune_events(NOW + 50, 1000)
    assert tell(asked, None) == ([], 3), "numbers go on where they were"
    assert tell(asked, 3) == ([], 3)
    happen(store, 1)
    assert tell(asked, 3) == ([4], 4)


def test_what_a_follower_waits_for_must_not_vanish_meanwhile(asked: Handlers, store: Store) -> None:
    happen(store, 3)

    async def follow() -> Any:
        request = {"do": "events", "since": 3, "timeout_s": 60.0}
        waiting = asyncio.ensure_future(asked.handle(request, ADMIN))
        await asyncio.sleep(0)
        happen(store, 4)
        store.pruned.prune_events(NOW + 50, 1000)
        return await waiting

    with pytest.raises(GpuqError, match="events 4 to 7 were removed"):
        asyncio.run(follow())


def test_a_submission_of_many_is_one_event(asked: Handlers, store: Store) -> None:
    ids = stored.submit(store, 500)
    (event,) = stored.events(store)
    assert (event["kind"], event["job"], json.loads(event["detail"])) == (
        "submitted",
        ids.start,
        {"count": 500},
    )


def test_no_event_is_without_actor_and_cause(store: Store) -> None:
    stored.with_gpus(store)
    job = stored.submit_one(store)
    stored.start(store, job, stored.lease(job))
    stored.run(store, job)
    store.wished.stop(job, grace_s=1.0, actor="bob", now=NOW)
    stored.step(store, job)
    stored.end(store, job)
    store.machine.event("closing", now=NOW)
    told = [(one["kind"], one["actor"]) for one in stored.events(store)]
    assert told == [
        ("submitted", "alice"),
        ("starting", "gpuq"),
        ("running", "gpuq"),
        ("stop_asked", "bob"),
        ("term_sent", "bob"),
        ("ended", "gpuq"),
        ("closing", "gpuq"),
    ]
    assert all(one["cause"] for one in stored.events(store))


def test_who_shows_the_last_ones_is_told_how_many_of_them_are_kept(
    asked: Handlers, store: Store
) -> None:
    happen(store, 10)
    happen(store, 3, at=NOW + 100)
    request = {"do": "events", "since": None}
    assert asyncio.run(asked.handle(request, ADMIN))["removed_to"] == 0
    store.pruned.prune_events(NOW + 50, 1000)
    answer = asyncio.run(asked.handle(request, ADMIN))
    assert (answer["removed_to"], answer["last"]) == (10, 13)
    assert tell(asked, answer["removed_to"]) == ([11, 12, 13], 13)


@pytest.mark.parametrize("removed", [0, 4, 7])
def test_events_are_told_from_a_moment_on(asked: Handlers, store: Store, removed: int) -> None:
    for second in range(10):
        happen(store, 1, at=NOW + second)
    store.pruned.prune_events(NOW + removed, 1000)
    for second in range(11):
        wanted = list(range(max(second, removed) + 1, 11))
        assert tell(asked, 0, since_at=NOW + second) == (wanted, 10)
        assert tell(asked, 0, since_at=NOW + second - 0.5) == (wanted, 10)


def test_events_of_a_job_that_never_was_are_an_error(asked: Handlers, store: Store) -> None:
    job = stored.submit(store).start
    assert tell(asked, 0, refs=[str(job)]) == ([1], 1)
    assert tell(asked, 1, refs=[str(job)], timeout_s=0.0) == ([], 1)
    with pytest.raises(NothingMatched, match="no job 999"):
        tell(asked, 0, refs=["999"], timeout_s=0.0)


def test_events_of_a_job_that_was_forgotten_are_told(asked: Handlers, store: Store) -> None:
    job = stored.submit(store).start
    happen(store, 1, at=NOW + 1)
    stored.write(store, "delete from jobs where id = ?", job)
    assert tell(asked, 0, refs=[str(job)]) == ([1], 2)
    assert tell(asked, 2, refs=[str(job)]) == ([], 2)
