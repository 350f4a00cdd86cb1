"""Takes in what jobs report, about once a second while any runs, and once more as each ends.

Part of the loop and on its thread, but for the reading. How far a file has been read is stored together
with what was in it, so nothing counts twice and nothing is missing, whenever a daemon dies.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from gpuq.core.results.reported import Told
from gpuq.daemon.clock import Clock
from gpuq.daemon.report_files import Look, Place
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.daemon.store.reported import Reporter
from gpuq.daemon.upkeep.aside import aside

EVERY_S = 1.0
# While more stands there than is read at once: a flood gets no more of this machine than that.
BEHIND_S = 0.25
AT_ONCE = 128 * 2**10  # bytes of one attempt
ALTOGETHER = 4 * AT_ONCE
LAST = 2 * AT_ONCE  # as it ends, within that commit; what is more is read before
DISK_AGAIN_S = 5.0

log = structlog.get_logger()

Key = tuple[int, int]  # job and attempt


class Reports:
    """`owner_of` gives the uid that a submitter's jobs run as."""

    def __init__(
        self, store: Store, clock: Clock, state_dir: str, owner_of: Callable[[int], int]
    ) -> None:
        self._store = store
        self._clock = clock
        self._state_dir = state_dir
        self._owner_of = owner_of
        self._has_begun = asyncio.Event()
        self._told: dict[Key, Told] = {}  # of what runs, as it is stored
        self._seen: dict[Key, object] = {}  # how its files looked when they were read
        self._served = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def begun(self) -> None:
        """Something runs."""
        self._has_begun.set()

    async def run(self) -> None:
        while True:
            self._has_begun.clear()
            pause_s = await self._round()
            if pause_s is None:
                await self._has_begun.wait()
            else:
                await asyncio.sleep(pause_s)

    async def close(self) -> None:
        for task in self._tasks.copy():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # ── while it runs ──

    async def _round(self) -> float | None:
        """One look at all that runs; how long until the next. None: there is nothing to look at."""
        running = self._store.reported.reporters()
        self._forget_all_but({one.key for one in running})
        if not running:
            return None
        for one in running:
            if one.key not in self._told:
                self._told[one.key] = self._store.reported.told(*one.key)
        # Another one is the first each time: there may be more than is read at once.
        turn = self._served % len(running)
        places = [self._place(one) for one in running[turn:] + running[:turn]]
        told, seen, now = self._told.copy(), self._seen.copy(), self._clock.wall()
        found = await aside(lambda: _look_around(places, told, seen, now))
        self._served += max(len(found), 1)
        self._take(found, told)
        return BEHIND_S if any(look.unread_bytes for _, _, look in found) else EVERY_S

    def _take(self, found: Sequence[tuple[Key, object, Look]], before: dict[Key, Told]) -> None:
        """In one commit. Where somebody else has read on meanwhile, what was found is no news."""
        news = [(key, look.told) for key, _, look in found if look.told != before[key]]
        try:
            if news:
                with self._store.transaction():
                    for key, told in news:
                        self._store.reported.write(*key, told, after=before[key])
        except DiskTrouble as trouble:
            log.error("what jobs report could not be stored", why=str(trouble))
            return
        for key, seen, look in found:
            self._seen[key] = None if look.unread_bytes else seen
        for key, _ in news:
            self._told[key] = self._store.reported.told(*key)

    def _forget_all_but(self, running: set[Key]) -> None:
        for key in self._told.keys() - running:
            self._told.pop(key)
            self._seen.pop(key, None)

    def _place(self, one: Reporter) -> Place:
        return Place(
            jobs_dir=f"{self._state_dir}/jobs",
            attempt_dir=f"{self._state_dir}/attempts/{one.job}.{one.attempt}",
            reporter=one,
            owner=self._owner_of(one.uid),
        )

    # ── as it ends ──

    def take_last(self, job: int, attempt: int) -> None:
        """Within the transaction that ends it: outcome and reports are one commit."""
        one = self._store.reported.reporter(job, attempt)
        if one is None:
            return
        before = self._store.reported.told(*one.key)
        look = self._place(one).look(before, LAST, now=self._clock.wall(), is_last=True)
        if look.told != before:
            self._store.reported.write(*one.key, look.told, after=before)

    def holds_back(self, job: int, attempt: int, then: Callable[[], None]) -> bool:
        """Where more is unread than is read at once, as after a time without a daemon, the end waits
        until that has been read; `then` is called with the rest. False: there is no more."""
        one = self._store.reported.reporter(job, attempt)
        if one is None:
            return False
        told = self._store.reported.told(*one.key)
        if self._place(one).unread_bytes(told) <= LAST:
            return False
        task = asyncio.ensure_future(self._catch_up(one, then))
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return True

    async def _catch_up(self, one: Reporter, then: Callable[[], None]) -> None:
        place = self._place(one)
        while self._store.reported.reporter(*one.key) is not None:
            before, now = self._store.reported.told(*one.key), self._clock.wall()
            began = self._clock.monotonic()
            look = await aside(lambda: place.look(before, AT_ONCE, now=now))  # noqa: B023
            # Half of the time is everybody else's: who looks holds Python's lock.
            await asyncio.sleep(min(self._clock.monotonic() - began, BEHIND_S))
            try:
                is_written = self._store.reported.write(*one.key, look.told, after=before)
            except DiskTrouble as trouble:
                log.error("what a job reported could not be stored", why=str(trouble), job=one.job)
                await asyncio.sleep(DISK_AGAIN_S)
                continue
            if is_written and (look.unread_bytes <= LAST or look.told == before):
                break
        then()

    def _finished(self, task: asyncio.Task[None]) -> None:
        """A fault in here must end the daemon: the end that it holds back would never be told."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "reading reports failed", "exception": error, "fatal": True}
            )


def _look_around(
    places: Sequence[Place], told: dict[Key, Told], seen: dict[Key, object], now: float
) -> list[tuple[Key, object, Look]]:
    """In a thread: where a file looks otherwise than it did, it is read on, until enough was read."""
    found, left = [], ALTOGETHER
    for place in places:
        key = place.reporter.key
        measure = place.measure()
        if measure == seen.get(key):
            continue
        look = place.look(told[key], min(AT_ONCE, left), now=now)
        found.append((key, measure, look))
        left -= max(look.told.read_bytes - told[key].read_bytes, 0)
        if left <= 0:
            break
    return found
