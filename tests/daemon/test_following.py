"""Many follow what happens: each is told all of it once, one answer does for many, and what the daemon
is there for does not wait for them."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gpuq import config, protocol
from gpuq.daemon import watchers as watching
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests import fields, following
from gpuq.daemon.requests.handlers import Handlers
from gpuq.daemon.store import Store
from gpuq.daemon.watchers import Watchers
from tests.daemon.test_queue_limits import ADMIN, ANN, BEN, Still
from tests.stored import NOW, start, submit

MANY = 40


class Queue:
    def __init__(self, store: Store, folder: Path, **flags: Any) -> None:
        self.store = store
        given = {"state_dir": str(folder), "gpus": "none", **flags}
        self.watchers = Watchers()
        self._handlers = Handlers(store, config.load(given, {}), Still(), self.watchers)

    async def ask(self, since: int | None, peer: Peer = ANN, timeout_s: float = 60.0) -> Any:
        asked = {"do": "events", "since": since, "timeout_s": timeout_s}
        return await self._handlers.handle(asked, peer)

    def follow(self, since: int, number: int = MANY, peer: Peer = ANN) -> list[Any]:
        return [asyncio.ensure_future(self.ask(since, peer)) for _ in range(number)]

    def happen(self, number: int = 1) -> int:
        """Returns the number of the last event."""
        with self.store.transaction():
            for _ in range(number):
                self.store.machine.event("machine_slept", now=NOW)
        return self.store.told.last_event()


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with closing(Store(":memory:")) as store:
        yield Queue(store, tmp_path)


async def breath() -> None:
    await asyncio.sleep(0)


def lived(life: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await life()

    asyncio.run(main())


def numbers(answer: dict[str, Any]) -> list[int]:
    return [event["seq"] for event in answer["events"]]


def test_many_who_have_come_equally_far_get_one_answer(queue: Queue) -> None:
    async def life() -> None:
        last = queue.happen()
        followers = queue.follow(last)
        await breath()
        queue.happen(3)
        first, *others = await asyncio.gather(*followers)
        assert numbers(first) == [last + 1, last + 2, last + 3]
        assert all(other is first for other in others)
        assert first.encoded() is first.encoded(), "it is encoded once"

    lived(life)


def test_one_answer_is_only_for_those_who_see_as_much(tmp_path: Path) -> None:
    with closing(Store(":memory:")) as store:
        queue = Queue(store, tmp_path, visibility="own")

        async def life() -> None:
            last = queue.happen()
            carl = Peer(uid=1003, gid=1003, pid=1, user="carl")
            followers = [
                follower
                for peer in (ANN, ADMIN, BEN, carl)
                for follower in queue.follow(last, 2, peer)
            ]
            await breath()
            (job,) = submit(store)
            start(store, job)
            store.happened.running(job, 1, pid=77, pid_start=1, at=NOW, mono=1.0)
            ann, ann_too, admin, _, ben, _, carls, _ = await asyncio.gather(*followers)
            assert ann is ann_too is admin
            assert ben is carls is not ann
            assert [event["kind"] for event in ann["events"]][-1] == "running"
            assert ann["events"][-1]["detail"] is not None
            assert ben["events"][-1]["detail"] is None

        lived(life)


def test_an_answer_for_many_is_the_same_on_the_wire() -> None:
    told = {"events": [{"seq": 1, "cause": 'é"\n'}], "last": 1}
    for request_id in (7, "seven", None):
        line = protocol.answer(request_id, protocol.Shared(told))
        assert line == protocol.answer(request_id, told)
        assert protocol.decode(line) == {"id": request_id, "ok": told}


def test_a_commit_wakes_nobody_at_once_and_then_a_few_at_a_time(queue: Queue) -> None:
    """The order that starts a job is sent after the commit, in the same breath."""

    async def life() -> None:
        last = queue.happen()
        followers = queue.follow(last)
        await breath()
        queue.happen()
        seen = [0]
        while seen[-1] < MANY:
            await breath()
            seen.append(sum(follower.done() for follower in followers))
        assert seen[1] == 0
        assert {after - before for before, after in pairwise(seen)} == {0, following.AT_ONCE}

    lived(life)


def test_who_tells_takes_a_small_part_of_the_time_while_others_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watchers = Watchers()
    assert watchers.rest_s(0.001) == pytest.approx(0.001)
    monkeypatch.setattr(watching, "BUSY_S", 1e9)
    watchers.publish_commit()
    assert watchers.rest_s(0.001) == pytest.approx(0.02)


@pytest.mark.parametrize("seed", range(3))
def test_each_is_told_all_of_it_once_and_in_order(queue: Queue, seed: int) -> None:
    draw = random.Random(seed)
    events = 60

    async def follow(told: list[int]) -> None:
        since = 0
        while since < events:
            answer = await ask(since)
            told += numbers(answer)
            since = answer["last"]
            for _ in range(draw.randrange(5)):
                await breath()

    async def ask(since: int) -> Any:
        return await queue.ask(since, timeout_s=draw.choice((0.001, 60.0)))

    async def life() -> None:
        everybody: list[list[int]] = [[] for _ in range(20)]
        tasks = [asyncio.ensure_future(follow(told)) for told in everybody]
        while queue.store.told.last_event() < events:
            queue.happen()
            await asyncio.sleep(draw.choice((0.0, 0.0, 0.003)))
        await asyncio.gather(*tasks)
        assert all(told == list(range(1, events + 1)) for told in everybody)

    lived(life)


def test_what_happens_during_a_round_is_told_after_it_though_nobody_asks_again(
    queue: Queue,
) -> None:
    async def life() -> None:
        last = queue.happen()
        followers = queue.follow(last)
        await breath()
        queue.happen()
        while not followers[0].done():
            await breath()
        (late,) = queue.follow(last + 1, 1)
        await breath()
        queue.happen()
        assert not followers[-1].done()
        assert numbers(await late) == [last + 2]
        assert all(follower.done() for follower in followers)

    lived(life)


def test_who_is_far_behind_waits_for_nothing_more_to_happen(queue: Queue) -> None:
    async def life() -> None:
        last, since, told = queue.happen(2 * fields.PAGE + 7), 0, []
        while since < last:
            answer = await queue.ask(since)
            told.append(len(answer["events"]))
            since = answer["last"]
        assert told == [fields.PAGE, fields.PAGE, 7]

    lived(life)


def test_who_waits_in_vain_goes_on_from_where_he_was(queue: Queue) -> None:
    async def life() -> None:
        last = queue.happen()
        assert await queue.ask(last, timeout_s=0.001) == {
            "events": [],
            "last": last,
            "removed_to": 0,
        }
        after = queue.happen()
        assert numbers(await queue.ask(last, timeout_s=0.0)) == [after]

    lived(life)


def test_where_nobody_follows_any_more_nothing_is_left_to_be_done(queue: Queue) -> None:
    async def life() -> None:
        last = queue.happen()
        followers = queue.follow(last)
        await breath()
        queue.happen()
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
        followers_room = queue._handlers._telling._followers
        assert not followers_room._waiting
        assert not followers_room._round
        assert followers_room._timer is None

    lived(life)
