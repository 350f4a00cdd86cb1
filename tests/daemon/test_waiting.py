"""Waiting for jobs: for one, for the first of several, for a million."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from gpuq.core.asked.elements import Elements
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests.refs import References
from gpuq.daemon.requests.waiting import Waiting
from gpuq.daemon.store import Store
from gpuq.daemon.watchers import Watchers
from gpuq.errors import NothingMatched
from tests import stored
from tests.desk import until
from tests.stored import ALICE, NOW, start, submit

ANN = Peer(uid=ALICE.uid, gid=ALICE.gid, pid=1, user="alice")
LONG_S = 30.0


class Room:
    """A store, those who wait, and what the loop does: write down, then tell."""

    def __init__(self) -> None:
        self.store = Store(":memory:")
        self.watchers = Watchers()
        self._waiting = Waiting(self.store.found, References(self.store.found), self.watchers)

    def wait(self, *refs: str, **how: Any) -> Awaitable[dict[str, Any]]:
        request = {"refs": list(refs), "timeout_s": LONG_S, **how}
        return asyncio.ensure_future(self._waiting.wait(request, ANN))

    def array(self, count: int) -> range:
        return submit(self.store, elements=Elements(indices=(range(count),)))

    def start(self, job: int) -> None:
        assert start(self.store, job)
        self.watchers.publish(job, "started")

    def end(self, job: int) -> None:
        stored.run(self.store, job)
        stored.end(self.store, job)
        self.watchers.publish(job, "started")
        self.watchers.publish(job, "ended")

    def cancel(self, first: int, last: int) -> None:
        self.store.happened.cancel(first, last=last, actor="alice", now=NOW)
        self.watchers.publish(first, "started", last=last)
        self.watchers.publish(first, "ended", last=last)

    @property
    def watched(self) -> tuple[int, int]:
        """How many single jobs are waited for, and how many waits there are for ranges."""
        return len(self.watchers._singles), len(self.watchers._spans)


@pytest.fixture
def room() -> Iterator[Room]:
    there = Room()
    yield there
    there.store.close()


def run(deed: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(deed(), LONG_S)

    asyncio.run(main())


def test_a_million_elements_are_waited_for_as_one_range(room: Room) -> None:
    jobs = room.array(1_000_000)

    async def deed() -> None:
        waiting = room.wait("g1")
        await until(lambda: room.watched == (0, 1), "somebody to wait")
        room.start(jobs[0])
        room.end(jobs[0])
        room.cancel(jobs[2], jobs[-1])
        await asyncio.sleep(0)
        assert not waiting.done(), "one of them waits still"
        room.cancel(jobs[1], jobs[1])
        assert await waiting == {"timed_out": False, "ended": "1-1000000"}
        assert room.watched == (0, 0)

    run(deed)


@pytest.mark.parametrize("moment", ["started", "ended"])
def test_the_first_of_a_range_is_enough_where_any_is_asked_for(room: Room, moment: str) -> None:
    jobs = room.array(1_000)

    async def deed() -> None:
        waiting = room.wait("g1", any=True, started=moment == "started")
        await until(lambda: room.watched == (0, 1), "somebody to wait")
        room.start(jobs[7])
        if moment == "ended":
            await asyncio.sleep(0)
            assert not waiting.done()
            room.end(jobs[7])
        assert await waiting == {"timed_out": False, "ended": "8"}

    run(deed)


def test_who_has_waited_long_enough_is_told_what_ended_by_then(room: Room) -> None:
    jobs = room.array(10)
    single = submit(room.store).start
    room.cancel(jobs[2], jobs[4])

    async def deed() -> None:
        answer = await room.wait("1-4,6", str(single), timeout_s=0.0)
        assert answer == {"timed_out": True, "ended": "3-4"}
        with pytest.raises(NothingMatched):
            await room.wait("g77")
        assert room.watched == (0, 0), "nobody waits any more"

    run(deed)


def test_a_job_that_ended_and_is_back_in_the_queue_is_waited_for_again(room: Room) -> None:
    """To be told of its end twice is no end of another one."""
    one, other = submit(room.store, 2)

    async def deed() -> None:
        waiting = room.wait(str(one), str(other))
        await until(lambda: room.watched == (0, 1), "somebody to wait")
        room.start(one)
        room.watchers.publish(one, "ended")
        room.watchers.publish(one, "ended")
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
        room.end(one)
        room.cancel(other, other)
        assert (await waiting)["ended"] == "1-2"

    run(deed)


def test_single_jobs_and_ranges_are_told_apart_from_others(room: Room) -> None:
    async def deed() -> None:
        watchers = room.watchers
        single = watchers.watch([range(3, 4)], "ended")
        both = watchers.watch([range(3, 4), range(10, 20)], "ended", 2)
        watchers.publish(4, "ended", last=9)
        watchers.publish(3, "started")
        assert room.watched == (1, 1)
        watchers.publish(3, "ended")
        assert (single.done(), both.done()) == (True, False)
        watchers.publish(19, "ended", last=25)
        assert both.done()
        await asyncio.sleep(0)
        assert room.watched == (0, 0)

    run(deed)
