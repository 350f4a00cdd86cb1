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

    async def do(self, uid: int, work: Callable[[], Done]) -> Done:
        lock = self._of_users.setdefault(uid, asyncio.Lock())
        self._asked[uid] += 1
        try:
            async with lock, self._all:
                return await aside(work)
        finally:
            self._asked[uid] -= 1
            if not self._asked[uid]:
                del self._asked[uid], self._of_users[uid]
