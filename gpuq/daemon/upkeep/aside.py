"""Blocking work beside the loop, in a thread that nobody waits for at exit.

It may be in the middle of a large directory then, and a disk may hang; whatever is done here must do
no harm when it is cut short.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

Done = TypeVar("Done")
MOST_AT_ONCE = 16


async def aside(work: Callable[[], Done]) -> Done:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Done] = loop.create_future()

    def tell(deed: Callable[[Any], None], value: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: the daemon has left meanwhile
            loop.call_soon_threadsafe(lambda: None if future.done() else deed(value))

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            tell(future.set_exception, error)
        else:
            tell(future.set_result, result)

    threading.Thread(target=run, daemon=True).start()
    return await future


class OneByOne:
    """Work beside the loop that people ask for: of each user one piece at a time, and of all users no
    more than some, or one of them could have a thousand threads keep the loop from its turn."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(MOST_AT_ONCE)
        self._of_users: dict[int, asyncio.Lock] = {}
        self._asked: Counter[int] = Counter()

    async def do(
        self, uid: int, work: Callable[[], Done], *, leave: Callable[[], None] = lambda: None
    ) -> Done:
        """Whoever asked may hang up; the work goes on then until it ends by itself or `leave` ends it,
        and counts as long."""
        self._asked[uid] += 1
        lock = self._of_users.setdefault(uid, asyncio.Lock())
        try:
            await self._enter(lock)
        except BaseException:
            self._forget(uid)
            raise
        doing = asyncio.ensure_future(aside(work))
        doing.add_done_callback(lambda done: self._leave(uid, lock, done))
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            leave()
            raise

    async def _enter(self, lock: asyncio.Lock) -> None:
        await lock.acquire()
        try:
            await self._all.acquire()
        except BaseException:
            lock.release()
            raise

    def _leave(self, uid: int, lock: asyncio.Lock, done: asyncio.Future[Any]) -> None:
        self._all.release()
        lock.release()
        self._forget(uid)
        if not done.cancelled():
            done.exception()  # there may be nobody left who looks at it

    def _forget(self, uid: int) -> None:
        self._asked[uid] -= 1
        if not self._asked[uid]:
            del self._asked[uid], self._of_users[uid]
