"""When a group of jobs will have ended, by how long its own jobs ran, and how sure that is.

Jobs of a group are taken to run alike. Those that wait go one after the other into the places that its
running jobs have now.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import hypot, pi, sqrt
from statistics import fmean, stdev

# Student's t, one-sided 90 %, by degrees of freedom from 1: of ten ends eight lie between the bounds.
_T_90 = (3.078, 1.886, 1.638, 1.533, 1.476, 1.440, 1.415, 1.397, 1.383, 1.372)
_NORMAL_90 = 1.282
# What is left on average of a normally distributed time once its mean has passed, in standard
# deviations: the mean of a half-normal distribution.
_LEFT_AFTER_MEAN = sqrt(2 / pi)


class Sureness(StrEnum):
    ROUGH = "rough"
    FAIR = "fair"
    GOOD = "good"


# How far off the bounds may be, as a part of what is left, and how many runs it takes.
_FAIR, _FAIR_RUNS = 0.3, 3
_GOOD, _GOOD_RUNS = 0.1, 5
# Jobs that ran side by side shared whatever made them quick or slow, and so differ less from each other
# than from those that come after them. The bounds are off then by this part of what is left at least:
# with twelve real trials of torch, four at a time on two cores, an estimate was off by 7 s of 30.
_ONE_WAVE = 0.25
# However alike those were that ran: what waits has other parameters, and may take another time or fail.
_LEAST = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTimes:
    """How long those took that ran to an end of their own, the shortest first. `deviation_s` is the
    standard deviation, None of a single run."""

    seconds: tuple[float, ...]
    mean_s: float
    deviation_s: float | None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "RunTimes | None":
        """None of no run."""
        if not seconds:
            return None
        single = len(seconds) == 1
        return cls(
            seconds=tuple(sorted(seconds)),
            mean_s=fmean(seconds),
            deviation_s=None if single else stdev(seconds),
        )

    @property
    def runs(self) -> int:
        return len(self.seconds)

    def left_s(self, ran_s: float) -> float:
        """Of one that has run so long: what those that took longer had before them then. What quick
        failures took says nothing of it. One that has run longer than all has still something left."""
        longer = self.seconds[bisect_right(self.seconds, ran_s) :]
        if longer:
            return fmean(longer) - max(ran_s, 0.0)
        return _LEFT_AFTER_MEAN * (self.deviation_s or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Seconds from now to the end of the last one. The bounds are None where a single run says nothing
    of how much runs differ."""

    left_s: float
    earliest_s: float | None
    latest_s: float | None
    sureness: Sureness
    runs: int
    mean_s: float
    at_once: int


def estimate(times: RunTimes | None, running_s: Sequence[float], waiting: int) -> Estimate | None:
    """`running_s` is how long each of those that run has run so far, `waiting` how many will start
    after them. None where nothing has ended yet, nothing runs, or nothing is left."""
    if times is None or not running_s:
        return None
    left_s = _last_end_s([times.left_s(ran_s) for ran_s in running_s], times.mean_s, waiting)
    is_one_wave = bool(waiting) and times.runs <= len(running_s)
    off_s = _off_s(left_s, times)
    if off_s is not None:
        off_s = max(off_s, (_ONE_WAVE if is_one_wave else _LEAST) * left_s)
    return Estimate(
        left_s=left_s,
        earliest_s=None if off_s is None else max(left_s - off_s, 0.0),
        latest_s=None if off_s is None else left_s + off_s,
        sureness=Sureness.ROUGH if is_one_wave else _sureness(left_s, off_s, times.runs),
        runs=times.runs,
        mean_s=times.mean_s,
        at_once=len(running_s),
    )


def _last_end_s(left_s: Sequence[float], mean_s: float, waiting: int) -> float:
    """Of equal jobs that take the places one after the other, each the first that is free: at first as
    many as fit before the longest of those that run has ended, and then round by round."""
    last_s = max(left_s)
    if not mean_s:
        return last_s
    fitting = [int((last_s - one_s) // mean_s) for one_s in left_s]
    behind = waiting - sum(fitting)
    if behind <= 0:
        return last_s
    filled = zip(left_s, fitting, strict=True)
    places = sorted(one_s + number * mean_s for one_s, number in filled)
    rounds, rest = divmod(behind, len(places))
    last_s = places[-1] + rounds * mean_s
    return max(last_s, places[rest - 1] + (rounds + 1) * mean_s) if rest else last_s


def _off_s(left_s: float, times: RunTimes) -> float | None:
    """Runs differ, one after the other in a place, and their mean is not known better than so many of
    them tell it, which adds up."""
    if times.deviation_s is None:
        return None
    rounds = left_s / times.mean_s if times.mean_s else 0.0
    deviation_s = times.deviation_s * hypot(sqrt(rounds), rounds / sqrt(times.runs))
    free = times.runs - 1
    return deviation_s * (_T_90[free - 1] if free <= len(_T_90) else _NORMAL_90)


def _sureness(left_s: float, off_s: float | None, runs: int) -> Sureness:
    if off_s is not None and off_s <= _GOOD * left_s and runs >= _GOOD_RUNS:
        return Sureness.GOOD
    if off_s is not None and off_s <= _FAIR * left_s and runs >= _FAIR_RUNS:
        return Sureness.FAIR
    return Sureness.ROUGH
