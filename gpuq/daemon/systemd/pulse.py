"""What systemd hears after each turn of the loop: that the loop lives, and how the daemon is.

It is the loop that calls, and no timer: a daemon whose loop stands still falls silent, though it may
answer its clients, and systemd starts it again.
"""

import asyncio
from collections.abc import Callable

from gpuq.daemon.systemd.notify import Notifier

STATUS_APART_S = 1.0
# A status counts the queue, which takes the longer the longer that is: a hundredth of the time at most.
STATUS_SHARE = 100
# Fed at half the interval at the latest, as sd_watchdog_enabled(3) advises.
SLEEPS, FEEDS = 3, 6  # in one interval


class Pulse:
    """`describe` says how the daemon is; `now` is CLOCK_MONOTONIC in s."""

    def __init__(
        self, notifier: Notifier, describe: Callable[[], str], now: Callable[[], float]
    ) -> None:
        self._notifier = notifier
        self._describe = describe
        self._now = now
        self._fed_at: float | None = None
        self._status: str | None = None
        self._status_at = now()  # when the next one may be said
        self._timer: asyncio.TimerHandle | None = None

    @property
    def longest_sleep_s(self) -> float | None:
        """How long the loop may sleep; None: as long as it likes."""
        watchdog_s = self._notifier.watchdog_s
        return None if watchdog_s is None else watchdog_s / SLEEPS

    def turned(self) -> None:
        """A turn of the loop went through."""
        self._feed()
        if self._notifier.is_heard and self._timer is None:
            if (wait_s := self._status_at - self._now()) <= 0:
                self._tell()
            else:
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._tell)

    def stop(self) -> None:
        """Nothing is said any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _feed(self) -> None:
        watchdog_s, now = self._notifier.watchdog_s, self._now()
        if watchdog_s is None:
            return
        if self._fed_at is None or now >= self._fed_at + watchdog_s / FEEDS:
            self._fed_at = now if self._notifier.alive() else self._fed_at

    def _tell(self) -> None:
        self._timer = None
        before = self._now()
        status = self._describe()
        after = self._now()
        self._status_at = after + max(STATUS_APART_S, STATUS_SHARE * (after - before))
        if status != self._status and self._notifier.status(status):
            self._status = status
