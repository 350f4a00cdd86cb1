"""What the loop sleeps by: somebody rings, or a moment comes by one of three clocks."""

import asyncio
import math
import time

from gpuq.daemon.clock import Clock
from gpuq.daemon.linux.syscalls import BoottimeAlarm, WallAlarm

SOON_S = 0.005  # a job that is over by then costs one commit less
SETTLED_S = 1.0

Moments = tuple[float | None, float | None]


class Bell:
    """`has_rung`: since the turn before began, so that the next one follows at once."""

    def __init__(self, clock: Clock) -> None:
        self.has_rung = False
        self._clock = clock
        self._sleep_ends: asyncio.Future[None] | None = None
        self._is_quiet = asyncio.Event()
        self._turned_at = -math.inf  # CLOCK_MONOTONIC
        self._soon: asyncio.TimerHandle | None = None
        self._later: asyncio.TimerHandle | None = None
        self._alarm = BoottimeAlarm()
        self._wall_alarm = WallAlarm()
        self._alarms_for: Moments | None = None  # None: they are not set yet, or one went off

    def open(self) -> None:
        for alarm in (self._alarm, self._wall_alarm):
            asyncio.get_running_loop().add_reader(alarm.fd, self._went_off, alarm)

    def close(self) -> None:
        for alarm in (self._alarm, self._wall_alarm):
            asyncio.get_running_loop().remove_reader(alarm.fd)
            alarm.close()

    # ── waking ──

    def wake(self) -> None:
        """Something was asked or wished. Of many who ask one after the other not each gets a turn of
        its own: that would take longer than to answer them."""
        if time.monotonic() - self._turned_at < SOON_S:
            self.wake_soon()
        else:
            self.ring()

    def ring(self) -> None:
        """At once: somebody, or a GPU, waits for it."""
        self._is_quiet.clear()
        self.has_rung = True
        if self._sleep_ends is not None and not self._sleep_ends.done():
            self._sleep_ends.set_result(None)

    def wake_soon(self) -> None:
        """For what nobody waits for: where more comes meanwhile, it is one turn and one commit."""
        if self._soon is None:
            self._is_quiet.clear()
            self._soon = asyncio.get_running_loop().call_later(SOON_S, self.ring)

    @property
    def has_peace(self) -> bool:
        """The loop sleeps, nothing that is asked waits for a turn, and the last one is a while ago."""
        sleeps = self._sleep_ends is not None and not self._sleep_ends.done()
        rested = time.monotonic() - self._turned_at >= SOON_S
        return sleeps and rested and self._soon is None

    def wake_in(self, seconds: float) -> None:
        """In place of the last such wish: each would lead to another one."""
        if self._later is not None:
            self._later.cancel()
        self._later = asyncio.get_running_loop().call_later(seconds, self.wake)

    def _went_off(self, alarm: BoottimeAlarm | WallAlarm) -> None:
        alarm.acknowledge()
        self._alarms_for = None
        self.wake()

    # ── turning and sleeping ──

    def turn_begins(self) -> None:
        """Whatever is to be heeded soon is heeded by it."""
        self.has_rung = False
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None

    def turn_ends(self) -> None:
        self._turned_at = time.monotonic()

    async def sleep(
        self, longest_s: float | None, *, boottime: float | None, wall: float | None
    ) -> None:
        """Until somebody rings, or one of the moments has come: on CLOCK_BOOTTIME, and by the clock on
        the wall."""
        if self._soon is None:
            self._is_quiet.set()
        self._set_alarms(boottime, wall)
        # Not wait_for, which drops a cancel that comes in the same moment as the bell
        # (CPython before 3.12, gh-86296): the daemon would never leave.
        loop = asyncio.get_running_loop()
        self._sleep_ends = loop.create_future()
        timer = None if longest_s is None else loop.call_later(longest_s, self.ring)
        try:
            await self._sleep_ends
        finally:
            self._sleep_ends = None
            if timer is not None:
                timer.cancel()
        self._is_quiet.clear()

    async def quiet(self) -> None:
        """Until all that was asked so far has been considered, or a second has passed."""
        try:
            async with asyncio.timeout(SETTLED_S):
                await self._is_quiet.wait()
        except TimeoutError:
            pass

    def _set_alarms(self, boottime: float | None, wall: float | None) -> None:
        """Both go off by clocks that others may set, so each is set anew; but not again for nothing."""
        moments = boottime, wall
        if moments == (None, None) and self._alarms_for == moments:
            return
        self._alarms_for = moments
        self._alarm.set(None if boottime is None else boottime - self._clock.boottime())
        self._wall_alarm.set(None if wall is None else wall - self._clock.wall())
