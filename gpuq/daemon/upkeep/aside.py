"""Blocking work beside the loop, in a thread that nobody waits for at exit.

It may be in the middle of a large directory then, and a disk may hang; whatever is done here must do
no harm when it is cut short.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

Done = TypeVar("Done")


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
