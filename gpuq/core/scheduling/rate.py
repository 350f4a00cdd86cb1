"""How fast jobs may be started: "5/s" is at most five starts in whatever second one looks at.

Who waits for that keeps his place: nobody else under the same rate starts meanwhile.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from gpuq.core.model import RecentStart, WaitingJob
from gpuq.core.policy import Policy, Rate
from gpuq.core.units import count

MOST_STARTS = 10_000  # each of them is remembered until its time is over
_RATE = re.compile(r"(\d{1,6})/(\d{0,5})(s|m|h|d)")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WORDS = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
_EACH = {"s": "a second", "m": "a minute", "h": "an hour", "d": "a day"}


def parse_rate(text: str) -> Rate:
    """The Rate of "5/s", "30/m" or "2/10s"; ValueError says how one is written."""
    match = _RATE.fullmatch(text.strip().lower())
    number, many = (int(match[1]), int(match[2] or 1)) if match else (0, 0)
    if match is None or not 0 < number <= MOST_STARTS or not many:
        raise ValueError(
            f"{text!r} is no rate: write it like 5/s, 30/m or 2/10s, with up to {MOST_STARTS} starts"
        )
    return Rate(count=number, per_s=many * _UNITS[match[3]])


def format_rate(rate: Rate) -> str:
    many, unit = _in_units(rate)
    return f"{rate.count}/{'' if many == 1 else f'{many:g}'}{unit}"


def _in_units(rate: Rate) -> tuple[float, str]:
    """(10, "s"): in the largest unit of which it is a whole number."""
    whole = [unit for unit, length in _UNITS.items() if rate.per_s % length == 0]
    unit = whole[-1] if whole else "s"
    return rate.per_s / _UNITS[unit], unit


def rate_words(rate: Rate) -> str:
    """ "5 starts a second", "2 starts in 10 seconds"."""
    many, unit = _in_units(rate)
    span = _EACH[unit] if many == 1 else f"in {many:g} {_WORDS[unit]}s"
    return f"{count(rate.count, 'start')} {span}"


def longest_memory_s(policy: Policy) -> float:
    """How long a start has to be remembered; 0 where there is no rate."""
    rates = [policy.start_rate, *(queue.start_rate for queue in policy.queues)]
    return max((rate.per_s for rate in rates if rate is not None), default=0.0)


class StartRates:
    """What has started lately, held against the rates; `take` notes what this turn starts. `wake_at` is
    when the next of those may start that were refused (CLOCK_MONOTONIC, s)."""

    def __init__(self, recent: Iterable[RecentStart], policy: Policy, now: float) -> None:
        self._now = now
        self._rate = policy.start_rate
        self._of_queue = {
            queue.name: queue.start_rate for queue in policy.queues if queue.start_rate is not None
        }
        self._starts: list[float] = []  # in order of time
        self._in_queue: defaultdict[str, list[float]] = defaultdict(list)
        self.wake_at: float | None = None
        for one in sorted(recent, key=lambda one: one.at):
            self._add(one)

    def _add(self, start: RecentStart) -> None:
        self._starts.append(start.at)
        self._in_queue[start.queue].append(start.at)

    def take(self, job: WaitingJob) -> None:
        self._add(RecentStart(at=self._now, queue=job.queue))

    def refusal(self, job: WaitingJob) -> str | None:
        """Why it may not start just now; None where it may."""
        if self._rate is None and not self._of_queue:
            return None
        opens = [
            (at, f"no more than {rate_words(rate)} ({setting})")
            for rate, starts, setting in self._that_hold(job)
            if (at := _opens_at(rate, starts)) is not None and at > self._now
        ]
        if not opens:
            return None
        at, words = max(opens)
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)
        return words

    def _that_hold(self, job: WaitingJob) -> Iterator[tuple[Rate, Sequence[float], str]]:
        """Each with what has started under it."""
        if self._rate is not None:
            yield self._rate, self._starts, "start_rate"
        if (rate := self._of_queue.get(job.queue)) is not None:
            yield rate, self._in_queue[job.queue], f"start_rate of queue {job.queue}"


def _opens_at(rate: Rate, starts: Sequence[float]) -> float | None:
    """When the first of the last so many starts is long enough ago; None where there were fewer."""
    return None if len(starts) < rate.count else starts[-rate.count] + rate.per_s
