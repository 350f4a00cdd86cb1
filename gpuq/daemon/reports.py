"""Takes in what jobs report, about once a second while any runs, and once more as each ends.

Part of the loop and on its thread, but for the reading. How far a file has been read is stored together
with what was in it, so nothing counts twice and nothing is missing, whenever a daemon dies.

Who reads holds Python's lock, and whoever writes a report decides how much there is to read. So one
reader serves all, a slice of time after the other, and pauses for several times as long. An end waits
until the last part of its report has been read, the shortest first, so that little is left to its
commit. It waits for some seconds at the most; then the rest is skipped and named.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from gpuq.core.results.reported import LONGEST_LINE, Told
from gpuq.daemon.clock import Clock
from gpuq.daemon.report_files import Look, Place
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.daemon.store.reported import CannotBeStored, Reporter
from gpuq.daemon.upkeep.aside import aside

EVERY_S = 1.0  # between two looks at all that runs
FLOOD_STORED_EVERY_S = 5.0  # of an attempt of which more stands there than is read
SLICE_S = 0.01  # of processor time: for what ends, and again for what runs
SHARE_AT_END, SHARE = 1 / 4, 1 / 10  # of a processor, while an end waits and while none does
AT_ONCE = 32 * 2**10  # bytes of one attempt: some milliseconds
LAST = LONGEST_LINE  # bytes, read within the commit of its end; what is more is read before
WAITS_S = 5.0  # an end for its last part
WAITS_KILLED_S = 1.0  # the same, where gpuq itself ends it and somebody waits for that
WAITS_AFTER_ABSENCE_S = 30.0  # and where no daemon was there to read before

log = structlog.get_logger()

Key = tuple[int, int]  # job and attempt


@dataclass(slots=True, kw_only=True)
class _Reading:
    """How far one attempt's report has been read. Changed on the loop's thread alone."""

    place: Place
    stored: Told
    read: Told
    stored_at: float  # CLOCK_MONOTONIC
    seen: object = None  # how its files looked when all of them had been read
    unread_bytes: int = 0
    until: int | None = None  # the byte where its last part ends, once its end has been heard
    then: Callable[[], None] | None = None  # what is held back until that has been read
    alarm: asyncio.TimerHandle | None = None


class Reports:
    """`owner_of` gives the uid that a submitter's jobs run as."""

    def __init__(
        self, store: Store, clock: Clock, state_dir: str, owner_of: Callable[[int], int]
    ) -> None:
        self._store = store
        self._clock = clock
        self._state_dir = state_dir
        self._owner_of = owner_of
        self._news = asyncio.Event()
        self._has_begun = True
        self._readings: dict[Key, _Reading] = {}
        self._due: list[Key] = []  # of what runs, not yet looked at in this round
        self._next_round_at: float | None = None  # CLOCK_MONOTONIC; None: nothing runs
        # They may have reported for as long as no daemon was there.
        self._inherited = {one.key for one in store.reported.reporters()}

    def begun(self) -> None:
        """Something runs."""
        self._has_begun = True
        if self._next_round_at is None:
            self._news.set()

    async def run(self) -> None:
        while True:
            self._news.clear()
            self._begin_round()
            if self._due or self._ending():
                spent_s = await self._read_slice()
                await asyncio.sleep(_pause_s(spent_s, SHARE_AT_END))
                if not self._ending():
                    longer_s = _pause_s(spent_s, SHARE) - _pause_s(spent_s, SHARE_AT_END)
                    await self._rest(longer_s)
            elif self._next_round_at is None:
                await self._news.wait()
            else:
                await self._rest(self._next_round_at - self._clock.monotonic())

    def close(self) -> None:
        """Ends that are held back are found again by the next daemon."""
        for reading in self._readings.values():
            reading.then = None
            _disarm(reading)

    async def _rest(self, longest_s: float) -> None:
        """Until there is news, or so long."""
        try:
            async with asyncio.timeout(max(longest_s, 0.0)):
                await self._news.wait()
        except TimeoutError:
            pass

    # ── while it runs ──

    def _begin_round(self) -> None:
        """Once it is time: all that runs is due, first that of which nothing is left unread."""
        now = self._clock.monotonic()
        if not (self._has_begun if self._next_round_at is None else now >= self._next_round_at):
            return
        has_begun, self._has_begun = self._has_begun, False
        self._store_news()
        running = self._store.reported.reporters()
        self._forget_all_but({one.key for one in running})
        known = {one.key: self._reading(one) for one in running}
        late = dict.fromkeys(key for key in self._due if key in known)
        due = [key for key in late | known if known[key].until is None]
        self._due = sorted(due, key=lambda key: known[key].unread_bytes > 0)
        # Where jobs come and go, each is over before a round: there is none for each of them.
        self._next_round_at = now + EVERY_S if running or has_begun else None

    def _forget_all_but(self, running: set[Key]) -> None:
        for key in self._readings.keys() - running:
            _let_go(self._readings.pop(key))
        self._inherited &= running

    def _reading(self, one: Reporter) -> _Reading:
        reading = self._readings.get(one.key)
        if reading is None:
            told = self._store.reported.told(*one.key)
            reading = _Reading(
                place=self._place(one), stored=told, read=told, stored_at=self._clock.monotonic()
            )
            self._readings[one.key] = reading
        return reading

    def _place(self, one: Reporter) -> Place:
        return Place(
            jobs_dir=f"{self._state_dir}/jobs",
            attempt_dir=f"{self._state_dir}/attempts/{one.job}.{one.attempt}",
            reporter=one,
            owner=self._owner_of(one.uid),
        )

    async def _read_slice(self) -> float:
        """Reads on for a slice of time; returns the processor time that it took, in s."""
        ending = [_Work(reading) for reading in self._ending()]
        running = [_Work(self._readings[key]) for key in self._due if key in self._readings]
        now = self._clock.wall()
        found, spent_s = await aside(lambda: _look_around((ending, running), now))
        for work, look in found:
            self._take(work, look)
        if found and not self._due:
            self._store_news()
        return spent_s

    def _take(self, work: "_Work", look: Look | None) -> None:
        """What was found; where its end was heard meanwhile, its last part is read by itself."""
        reading = work.reading
        key = reading.place.reporter.key
        if key in self._due:
            self._due.remove(key)
        if look is None or work.until != reading.until:
            return
        reading.read, reading.unread_bytes = look.told, look.unread_bytes
        reading.seen = None if look.unread_bytes else work.seen
        if reading.until is None and look.unread_bytes:
            self._due.append(key)
        elif reading.until is None:
            self._inherited.discard(key)
        elif not look.unread_bytes:
            _let_go(reading)

    def _store_news(self) -> None:
        """In one commit. Of an attempt that ends it is a part of that commit."""
        now = self._clock.monotonic()
        news = [
            (key, reading)
            for key, reading in self._readings.items()
            if reading.until is None
            and reading.read != reading.stored
            and (not reading.unread_bytes or now - reading.stored_at >= FLOOD_STORED_EVERY_S)
        ]
        if not news:
            return
        try:
            with self._store.transaction():
                for key, reading in news:
                    self._write(key, reading.read, reading.stored)
        except DiskTrouble as trouble:
            log.error("what jobs report could not be stored", why=str(trouble))
            return
        for _, reading in news:
            reading.stored, reading.stored_at = reading.read, now

    def _write(self, key: Key, told: Told, before: Told) -> None:
        """What cannot be stored costs the attempt that says it its report, and never the daemon."""
        try:
            self._store.reported.write(*key, told, after=before)
        except CannotBeStored as why:
            log.error("what a job reports cannot be stored", job=key[0], why=str(why))

    # ── as it ends ──

    def holds_back(self, job: int, attempt: int, then: Callable[[], None]) -> bool:
        """Where more is unread than is read within the commit, the end waits for that; `then` is called
        once it has been read, or was waited for long enough. False: there is no more."""
        one = self._store.reported.reporter(job, attempt)
        if one is None:
            return False
        reading = self._reading(one)
        reading.read, reading.until = reading.place.last_part(reading.read)
        reading.unread_bytes = reading.until - reading.read.read_bytes
        if reading.unread_bytes <= LAST:
            return False
        reading.then = then
        waits_s = self._waits_s(one)
        reading.alarm = asyncio.get_running_loop().call_later(waits_s, _let_go, reading)
        self._news.set()
        return True

    def _waits_s(self, one: Reporter) -> float:
        if one.is_being_ended:
            return WAITS_KILLED_S
        return WAITS_AFTER_ABSENCE_S if one.key in self._inherited else WAITS_S

    def _ending(self) -> list[_Reading]:
        """Those that are waited for, the shortest first: no flood is in the way of an ordinary end."""
        waiting = [one for one in self._readings.values() if one.then is not None]
        return sorted(waiting, key=lambda one: one.unread_bytes)

    def take_last(self, job: int, attempt: int) -> None:
        """Within the transaction that ends it: outcome and reports are one commit. What has not been
        read by now is skipped but for its end."""
        one = self._store.reported.reporter(job, attempt)
        if one is None:
            return
        before = self._store.reported.told(*one.key)
        read, until = before, None
        reading = self._readings.get(one.key)
        if reading is not None and reading.stored == before:
            read, until = reading.read, reading.until
        place, now = self._place(one), self._clock.wall()
        told = place.look(read, LAST, now=now, until=until, is_last=True).told
        told = replace(told, writers={})  # nobody reads on
        if told != before:
            self._write(one.key, told, before)


def _let_go(reading: _Reading) -> None:
    """Its end is told, once."""
    _disarm(reading)
    if reading.then is not None:
        then, reading.then = reading.then, None
        then()


def _disarm(reading: _Reading) -> None:
    if reading.alarm is not None:
        reading.alarm.cancel()
        reading.alarm = None


def _pause_s(spent_s: float, share: float) -> float:
    return spent_s * (1 / share - 1)


class _Work:
    """One attempt's report, as it is to be read in a thread."""

    def __init__(self, reading: _Reading) -> None:
        self.reading = reading
        self.told, self.until = reading.read, reading.until
        self.seen = reading.seen
        self._place = reading.place

    def has_changed(self) -> bool:
        """False where it looks as it did when all of it had been read."""
        seen, self.seen = self.seen, self._place.measure()
        return seen != self.seen

    def look(self, told: Told, now: float) -> Look:
        return self._place.look(told, AT_ONCE, now=now, until=self.until)


def _look_around(
    queues: Sequence[Sequence[_Work]], now: float
) -> tuple[list[tuple[_Work, Look | None]], float]:
    """In a thread: reads the first of each queue, and the next, for a slice of time each. Processor
    time, as how long others keep it from working says nothing of what it costs them."""
    began = time.thread_time()
    found: list[tuple[_Work, Look | None]] = []
    for queue in queues:
        until = time.thread_time() + SLICE_S
        for work in queue:
            found.append((work, _look_until(work, until, now)))
            if time.thread_time() >= until:
                break
    return found, time.thread_time() - began


def _look_until(work: _Work, until: float, now: float) -> Look | None:
    if work.until is None and not work.has_changed():
        return None
    look = work.look(work.told, now)
    while look.unread_bytes and time.thread_time() < until:
        look = work.look(look.told, now)
    return look
