"""Moments as people write them: "18:00", "tomorrow 08:00", "2026-07-31T18:00", "+2h".

A time of day means the clock on the wall of whoever wrote it, so that whoever asks gives the local
time and gets a local time back. What that is in seconds since the epoch depends on summer time, which
is not known here: a time that is left out in spring, or comes twice in autumn, is kept as written.
"""

import re
from collections.abc import Mapping
from datetime import datetime, time, timedelta
from typing import Any

from gpuq.core.units import parse_seconds
from gpuq.errors import UsageError

# The farthest that a delay is written for; more is a slip of the pen.
LONGEST_DELAY = timedelta(days=3660)
NEAR = timedelta(minutes=10)
LATEST_AT = 253402300799.0  # the last second of the year 9999

_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[t ]\d\d:\d\d.*)?")
# As sbatch takes them beside our own, https://slurm.schedmd.com/sbatch.html#OPT_begin
_SLURM_DELAY = re.compile(r"(\d+)\s*(second|minute|hour|day|week)?s?")
_SLURM_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400}


def parse_moment(text: str, now_local: datetime) -> datetime | timedelta:
    """What is meant at `now_local`: a moment on its clock, or how long after now. A time of day alone
    is the next one to come; one with a day may be past. Where the text says its own UTC offset the
    moment has that. Raises ValueError."""
    plain = " ".join(text.strip().lower().split())
    if plain == "now":
        return timedelta(0)
    if plain.startswith(("+", "now+")):
        return _delay(text, plain.removeprefix("now")[1:].strip())
    if _DATE.fullmatch(plain):
        return _dated(text, plain, now_local)
    day, _, clock = plain.rpartition(" ")
    if plain and not day and _CLOCK.fullmatch(clock) is None:
        day, clock = clock, "00:00"
    at = _clock(text, clock)
    if day:
        return datetime.combine(_day(text, day, at, now_local), at, now_local.tzinfo)
    moment = datetime.combine(now_local.date(), at, now_local.tzinfo)
    # Compared as written: of two hours with one name in autumn neither is past before both are.
    is_past = moment.replace(tzinfo=None) < now_local.replace(tzinfo=None, microsecond=0)
    return moment + timedelta(days=1) if is_past else moment


def _no_moment(text: str) -> ValueError:
    return ValueError(
        f"{text!r} is no moment: write it like 18:00, tomorrow 08:00, mon 08:00, "
        "2026-07-31T18:00 or +2h"
    )


def _delay(text: str, length: str) -> timedelta:
    if match := _SLURM_DELAY.fullmatch(length):
        seconds = float(int(match[1]) * _SLURM_SECONDS[match[2] or "second"])
    else:
        try:
            seconds = parse_seconds(length)
        except ValueError:
            raise _no_moment(text) from None
    if seconds > LONGEST_DELAY.total_seconds():
        raise ValueError(f"{text!r} is more than ten years away")
    return timedelta(seconds=seconds)


def _dated(text: str, plain: str, now_local: datetime) -> datetime:
    try:
        moment = datetime.fromisoformat(plain.upper())
    except ValueError:
        raise _no_moment(text) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=now_local.tzinfo)


def _clock(text: str, clock: str) -> time:
    match = _CLOCK.fullmatch(clock)
    if match is None:
        raise _no_moment(text)
    try:
        return time(int(match[1]), int(match[2]), int(match[3] or 0))
    except ValueError:
        raise ValueError(f"{text!r}: {clock} is no time of day") from None


def _day(text: str, day: str, at: time, now_local: datetime) -> datetime:
    """A weekday is the next one to come, today while that time of it is still to come."""
    if day == "today":
        return now_local
    if day == "tomorrow":
        return now_local + timedelta(days=1)
    weekday = next((n for n, name in enumerate(_WEEKDAYS) if _is_short_for(day, name)), None)
    if weekday is None:
        raise _no_moment(text)
    ahead = (weekday - now_local.weekday()) % 7
    if not ahead and at < now_local.time().replace(microsecond=0):
        ahead = 7
    return now_local + timedelta(days=ahead)


_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def _is_short_for(day: str, name: str) -> bool:
    return len(day) > 2 and name.startswith(day)


def words_for(moment: datetime, now_local: datetime) -> str:
    """As it is said on the same clock: "18:00", "18:00 (tomorrow)", "2026-07-31 18:00"; to the second
    where it is near."""
    is_near = abs(moment - now_local) < NEAR and moment.second
    clock = f"{moment:%H:%M:%S}" if is_near else f"{moment:%H:%M}"
    days = (moment.date() - now_local.date()).days
    if days == 0:
        return clock
    return f"{clock} (tomorrow)" if days == 1 else f"{moment:%Y-%m-%d} {clock}"


# ── on the wire ──


def read_begin(wire: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Before when a job is not to start: at a moment of the wall clock (s since the epoch), or after so
    many seconds, or neither."""
    begin_at = _number(wire, "begin_at", LATEST_AT)
    begin_in_s = _number(wire, "begin_in_s", LONGEST_DELAY.total_seconds())
    if begin_at is not None and begin_in_s is not None:
        raise UsageError("begin_at is a moment and begin_in_s a length of time: leave one out")
    return begin_at, begin_in_s


def _number(wire: Mapping[str, Any], field: str, most: float) -> float | None:
    value = wire.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise UsageError(f"{field}: {value!r} is no number of seconds from 0 to {most:.0f}")
    return float(value)
