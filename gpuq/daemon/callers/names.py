"""Names of users and groups, asked of a database that may be on the network and may hang.

A question is asked in a thread of its own, and nobody waits for it for longer than PATIENCE_S; what
was answered, "there is none" as well, is kept for KEPT_S. While no answer comes there is none.
"""

import asyncio
import grp
import pwd
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, TypeVar

PATIENCE_S = 3.0
KEPT_S = 60.0
MOST_ASKED_AT_ONCE = 32  # threads that may hang; beyond it nothing is asked
MOST_KEPT = 10_000

Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")


class Lookup(Generic[Key, Found]):
    """What `ask` knows of a key, None where it knows nothing. May be used from every thread."""

    def __init__(self, ask: Callable[[Key], Found | None]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._kept: dict[Key, tuple[float, Found | None]] = {}
        self._asked: dict[Key, Future[Found | None]] = {}

    def begin(self, key: Key) -> "Future[Found | None]":
        """An answer, or the question under way; it is done at once where the answer is kept."""
        with self._lock:
            kept_at, found = self._kept.get(key, (None, None))
            if kept_at is not None and time.monotonic() < kept_at + KEPT_S:
                return _answered(found)
            if key in self._asked:
                return self._asked[key]
            if len(self._asked) >= MOST_ASKED_AT_ONCE:
                return _answered(None)
            future = self._asked[key] = Future()
        threading.Thread(target=self._run, args=(key, future), daemon=True).start()
        return future

    async def get(self, key: Key) -> Found | None:
        future = self.begin(key)
        if not future.done():
            await _done_or_late(future)
        return self._result(key, future)

    def get_blocking(self, key: Key) -> Found | None:
        """The same for a thread that may wait."""
        future = self.begin(key)
        with suppress(TimeoutError):
            future.result(PATIENCE_S)
        return self._result(key, future)

    def _result(self, key: Key, future: "Future[Found | None]") -> Found | None:
        if future.done():
            return future.result()
        self._keep(key, None)  # the next one does not wait for the same thing
        return None

    def _run(self, key: Key, future: "Future[Found | None]") -> None:
        found = None
        with suppress(KeyError, OSError):
            found = self._ask(key)
        self._keep(key, found)
        with self._lock:
            del self._asked[key]
        future.set_result(found)

    def _keep(self, key: Key, found: Found | None) -> None:
        with self._lock:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[key] = time.monotonic(), found


def _answered(found: Found | None) -> "Future[Found | None]":
    future: Future[Found | None] = Future()
    future.set_result(found)
    return future


async def _done_or_late(future: "Future[Found | None]") -> None:
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()

    def tell(_: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: the daemon has left meanwhile
            loop.call_soon_threadsafe(arrived.set)

    future.add_done_callback(tell)
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            await arrived.wait()


uids: Lookup[str, int] = Lookup(lambda name: pwd.getpwnam(name).pw_uid)
users: Lookup[int, str] = Lookup(lambda uid: pwd.getpwuid(uid).pw_name)
groups: Lookup[str, int] = Lookup(lambda name: grp.getgrnam(name).gr_gid)


def user_name(uid: int) -> str:
    """For a thread that may wait; the number where there is no name."""
    return users.get_blocking(uid) or str(uid)
