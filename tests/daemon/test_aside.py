"""Work beside the loop that people ask for."""

import asyncio
import threading

from gpuq.daemon.upkeep.aside import MOST_AT_ONCE, OneByOne

ALICE, BOB = 2001, 2002


def test_one_user_has_one_thread_at_a_time_and_keeps_nobody_else_from_one() -> None:
    asyncio.run(_one_user_keeps_nobody())


async def _one_user_keeps_nobody() -> None:
    one_by_one, go, begun = OneByOne(), threading.Event(), threading.Semaphore(0)

    def work() -> bool:
        begun.release()
        return go.wait(10)

    alices = [asyncio.ensure_future(one_by_one.do(ALICE, work)) for _ in range(50)]
    assert await asyncio.to_thread(begun.acquire, timeout=10)
    assert await one_by_one.do(BOB, lambda: "bob's")
    assert not begun.acquire(blocking=False), "a second one of hers"
    go.set()
    assert all(await asyncio.gather(*alices))


def test_all_users_together_have_no_more_than_some() -> None:
    asyncio.run(_no_more_than_some())


async def _no_more_than_some() -> None:
    one_by_one, go, begun = OneByOne(), threading.Event(), threading.Semaphore(0)

    def work() -> bool:
        begun.release()
        return go.wait(10)

    works = [asyncio.ensure_future(one_by_one.do(uid, work)) for uid in range(3 * MOST_AT_ONCE)]
    for _ in range(MOST_AT_ONCE):
        assert await asyncio.to_thread(begun.acquire, timeout=10)
    assert not begun.acquire(blocking=False), "one more"
    go.set()
    assert all(await asyncio.gather(*works))


def test_who_hangs_up_has_no_second_thread_before_the_first_has_ended() -> None:
    asyncio.run(_no_second_thread())


async def _no_second_thread() -> None:
    one_by_one, go, begun = OneByOne(), threading.Event(), threading.Semaphore(0)

    def work() -> bool:
        begun.release()
        return go.wait(10)

    left: list[str] = []
    first = asyncio.ensure_future(one_by_one.do(ALICE, work, leave=lambda: left.append("first")))
    assert await asyncio.to_thread(begun.acquire, timeout=10)
    impatient = [asyncio.ensure_future(one_by_one.do(ALICE, work)) for _ in range(20)]
    await asyncio.sleep(0)
    for task in (first, *impatient):
        task.cancel()
    await asyncio.wait([first, *impatient])
    assert left == ["first"], "only of what had begun"
    second = asyncio.ensure_future(one_by_one.do(ALICE, lambda: "second"))
    for _ in range(20):  # each would have let hers end as well
        assert await one_by_one.do(BOB, lambda: "bob's")
    assert not second.done()
    assert not begun.acquire(blocking=False)
    go.set()
    assert await second == "second"


def test_work_that_fails_when_nobody_waits_any_more_makes_room_as_well() -> None:
    asyncio.run(_fails_alone())


async def _fails_alone() -> None:
    one_by_one, go, begun = OneByOne(), threading.Event(), threading.Event()

    def fail() -> None:
        begun.set()
        go.wait(10)
        raise ValueError("nobody asked")

    works = [asyncio.ensure_future(one_by_one.do(uid, fail)) for uid in range(MOST_AT_ONCE)]
    assert await asyncio.to_thread(begun.wait, 10)
    for task in works:
        task.cancel()
    await asyncio.wait(works)
    go.set()
    assert await one_by_one.do(BOB, lambda: "bob's") == "bob's"
    assert await one_by_one.do(ALICE, lambda: "alice's") == "alice's"
