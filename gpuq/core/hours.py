"""Times that come every week, "mon-fri 09:00-18:00, sat 10:00-14:00" ⇄ values."""

import re

from gpuq.core.policy import WeekSpan

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN = re.compile(
    r"(?:(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))?\s+)?(?P<begin>\d\d?:\d\d)-(?P<end>\d\d?:\d\d)"
)
DAY_MINUTES = 24 * 60


def parse_hours(text: str) -> tuple[WeekSpan, ...]:
    """The spans meant by a text; without days they come every day. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no time like mon-fri 09:00-18:00")
    return tuple(_parse_span(part.strip().lower()) for part in text.split(","))


def _parse_span(text: str) -> WeekSpan:
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time like mon-fri 09:00-18:00")
    begin, end = _minutes(match["begin"]), _minutes(match["end"])
    if begin - end in (0, DAY_MINUTES):
        raise ValueError(f"{text!r} begins when it ends; a whole day is 00:00-24:00")
    return WeekSpan(days=_days(match["first"], match["last"]), begin=begin, end=end)


def _minutes(text: str) -> int:
    hours, minutes = map(int, text.split(":"))
    if minutes > 59 or hours * 60 + minutes > DAY_MINUTES:
        raise ValueError(f"{text!r} is no time of day")
    return hours * 60 + minutes


def _days(first: str | None, last: str | None) -> frozenset[int]:
    if first is None:
        return frozenset(range(7))
    for name in (first, last or first):
        if name not in DAYS:
            raise ValueError(f"{name!r} is none of {', '.join(DAYS)}")
    begin, end = DAYS.index(first), DAYS.index(last or first)
    return frozenset((begin + step) % 7 for step in range((end - begin) % 7 + 1))


def format_hours(spans: tuple[WeekSpan, ...]) -> str:
    return ", ".join(map(_format_span, spans)) or "–"


def _format_span(span: WeekSpan) -> str:
    days = _format_days(span.days)
    begin, end = (f"{minute // 60:02}:{minute % 60:02}" for minute in (span.begin, span.end))
    return f"{days} {begin}-{end}".strip()


def _format_days(days: frozenset[int]) -> str:
    if len(days) == 7:
        return ""
    first = next(day for day in sorted(days) if (day - 1) % 7 not in days)
    last = (first + len(days) - 1) % 7
    return DAYS[first] if first == last else f"{DAYS[first]}-{DAYS[last]}"


def is_within(spans: tuple[WeekSpan, ...], weekday: int, minute: int) -> bool:
    """Is this minute of the day (Monday being day 0) in one of the spans?"""
    return any(_holds(span, weekday, minute) for span in spans)


def _holds(span: WeekSpan, weekday: int, minute: int) -> bool:
    if span.begin < span.end:
        return weekday in span.days and span.begin <= minute < span.end
    began_today = weekday in span.days and minute >= span.begin
    return began_today or ((weekday - 1) % 7 in span.days and minute < span.end)
