"""The clocks, in one place, so that a test can set one back, forward or to sleep.

CLOCK_MONOTONIC measures what is done (limits, heartbeats, graces): no setting of the wall clock moves
it, and it stands still while the machine is suspended. CLOCK_BOOTTIME, which goes on then, measures
waits between attempts. The wall clock is for people.
"""

import time


class Clock:
    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def local(self) -> tuple[int, int]:
        """The day of the week, Monday being 0, and the minute of that day, where this machine is."""
        time.tzset()  # somebody may have moved it to another time zone meanwhile
        now = time.localtime(self.wall())
        return now.tm_wday, now.tm_hour * 60 + now.tm_min

    def monotonic(self) -> float:
        """Seconds of this boot in which the machine was awake."""
        return time.monotonic()

    def told(self, moment: float) -> float:
        """A moment that a runner read from this machine's CLOCK_MONOTONIC, on this one."""
        return moment

    def boottime(self) -> float:
        """Seconds of this boot."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
