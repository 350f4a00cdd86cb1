"""What a job waits for: that others have ended, and how. `judging` says whether that has come."""

from dataclasses import dataclass
from enum import StrEnum


class When(StrEnum):
    """Which end of another job is waited for."""

    OK = "ok"  # it succeeded
    ANY = "any"  # whatever became of it
    FAIL = "fail"  # it ran, or was to run, and did not succeed


class NeedState(StrEnum):
    OPEN = "open"
    MET = "met"
    BROKEN = "broken"  # it cannot come true any more, unless a job is run once more


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """All of these jobs are to end like that; with `each` only the one at the same place, the first for
    the first element and so on. `entry` stands in place of `jobs` where they are submitted with it:
    the number of an earlier entry of the same submission."""

    jobs: range = range(0)
    entry: int | None = None
    when: When = When.OK
    each: bool = False
