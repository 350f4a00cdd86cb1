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

    def monotonic(self) -> float:
        """Seconds of this boot in which the machine was awake."""
        return time.monotonic()

    def told(self, moment: float) -> float:
        """A moment that a runner read from this machine's CLOCK_MONOTONIC, on this one."""
        return moment

    def boottime(self) -> float:
        """Seconds of this boot."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
