"""Moments as people write them, and as they are told them again."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from gpuq.core.asked.moments import parse_moment, read_begin, words_for
from gpuq.errors import UsageError

THURSDAY = datetime(2026, 7, 30, 17, 30, 5, 250_000)
TODAY, TOMORROW = datetime(2026, 7, 30), datetime(2026, 7, 31)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("18:00", TODAY.replace(hour=18)),
        ("9:05", TOMORROW.replace(hour=9, minute=5)),
        ("17:30", TOMORROW.replace(hour=17, minute=30)),
        ("17:30:05", TODAY.replace(hour=17, minute=30, second=5)),
        ("00:00", TOMORROW),
        ("today 18:00", TODAY.replace(hour=18)),
        ("today 08:00", TODAY.replace(hour=8)),
        ("tomorrow", TOMORROW),
        ("Tomorrow  08:00", TOMORROW.replace(hour=8)),
        ("thu 18:00", TODAY.replace(hour=18)),
        ("thu 08:00", TODAY.replace(day=30, hour=8) + timedelta(days=7)),
        ("Friday 9:00", TOMORROW.replace(hour=9)),
        ("wed", datetime(2026, 8, 5)),
        ("2026-07-31T18:00", TOMORROW.replace(hour=18)),
        ("2026-07-31 18:00:30", TOMORROW.replace(hour=18, second=30)),
        ("2026-07-31", TOMORROW),
        ("2020-01-01", datetime(2020, 1, 1)),
    ],
)
def test_a_moment_is_read_by_the_clock_of_who_wrote_it(text: str, moment: datetime) -> None:
    assert parse_moment(text, THURSDAY) == moment


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("now", 0.0),
        ("+2h", 7200.0),
        ("+ 1h30m", 5400.0),
        ("+90s", 90.0),
        ("+1-00:00:00", 86400.0),
        ("now+1hour", 3600.0),
        ("now+2days", 172_800.0),
        ("now+60", 60.0),
    ],
)
def test_a_length_of_time_is_one(text: str, seconds: float) -> None:
    assert parse_moment(text, THURSDAY) == timedelta(seconds=seconds)


def test_a_text_may_say_its_own_offset() -> None:
    at_six = datetime(2026, 7, 31, 18, 0)
    assert parse_moment("2026-07-31T18:00Z", THURSDAY) == at_six.replace(tzinfo=UTC)
    summer = timezone(timedelta(hours=2))
    assert parse_moment("2026-07-31T18:00+02:00", THURSDAY) == at_six.replace(tzinfo=summer)


@pytest.mark.parametrize(
    "text",
    [
        *("", "  ", "2h", "12", "+", "+h", "-2h", "foo", "18", "18.00", "tomorrow at 8", "th 8:00"),
        *("thunder 08:00", "yesterday 08:00", "2026-13-01", "2026-07-31T25:00", "18:00 tomorrow"),
        *("mon tue 08:00", "1:2:3:4", "now-1h", "18:00Z", "٣:٠٠x"),
    ],
)
def test_what_is_no_moment_says_how_one_is_written(text: str) -> None:
    with pytest.raises(ValueError, match=r"write it like 18:00, tomorrow 08:00"):
        parse_moment(text, THURSDAY)


def test_a_time_that_no_clock_shows_is_named() -> None:
    with pytest.raises(ValueError, match="'24:00': 24:00 is no time of day"):
        parse_moment("24:00", THURSDAY)
    with pytest.raises(ValueError, match="'tomorrow 08:60': 08:60 is no time of day"):
        parse_moment("tomorrow 08:60", THURSDAY)
    with pytest.raises(ValueError, match="more than ten years away"):
        parse_moment("+99999d", THURSDAY)


def test_tomorrow_is_the_next_day_at_the_end_of_a_month_and_of_a_year() -> None:
    eve = datetime(2026, 12, 31, 23, 59)
    assert parse_moment("tomorrow 08:00", eve) == datetime(2027, 1, 1, 8)
    assert parse_moment("23:58", eve) == datetime(2027, 1, 1, 23, 58)


def test_a_day_in_which_the_clock_is_put_forward_keeps_its_times() -> None:
    """02:30 is left out there; the same moment by another name is half past three."""
    saturday = datetime(2026, 3, 28, 20, 0, tzinfo=BERLIN)
    gap = parse_moment("02:30", saturday)
    assert isinstance(gap, datetime)
    assert gap.astimezone(UTC).astimezone(BERLIN) == datetime(2026, 3, 29, 3, 30, tzinfo=BERLIN)
    evening = parse_moment("tomorrow 18:00", saturday)
    assert isinstance(evening, datetime)
    assert (evening.astimezone(UTC) - saturday.astimezone(UTC)) == timedelta(hours=21)


def test_of_two_hours_with_one_name_neither_is_over_before_both_are() -> None:
    first = datetime(2026, 10, 25, 2, 45, tzinfo=BERLIN)
    again = first.replace(fold=1)
    for now in (first, again):
        to_come = parse_moment("02:50", now)
        assert isinstance(to_come, datetime)
        assert to_come.date() == now.date()
    assert parse_moment("02:40", again) == datetime(2026, 10, 26, 2, 40, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        (TODAY.replace(hour=18), "18:00"),
        (TODAY.replace(hour=18, second=5), "18:00"),
        (TODAY.replace(hour=17, minute=38, second=5), "17:38:05"),
        (TOMORROW.replace(hour=8), "08:00 (tomorrow)"),
        (datetime(2026, 8, 1, 8), "2026-08-01 08:00"),
        (datetime(2026, 7, 29, 8), "2026-07-29 08:00"),
    ],
)
def test_a_moment_is_told_with_its_day_where_that_is_another(moment: datetime, words: str) -> None:
    assert words_for(moment, THURSDAY) == words


# ── on the wire ──


def test_a_submit_says_one_of_two() -> None:
    assert read_begin({}) == (None, None)
    assert read_begin({"begin_at": 5}) == (5.0, None)
    assert read_begin({"begin_in_s": 0.5}) == (None, 0.5)


@pytest.mark.parametrize(
    ("wire", "complaint"),
    [
        ({"begin_at": "18:00"}, "begin_at: '18:00' is no number of seconds from 0 to"),
        ({"begin_at": True}, "begin_at: True is no number"),
        ({"begin_at": -1}, "begin_at: -1 is no number"),
        ({"begin_at": float("nan")}, "begin_at: nan is no number"),
        ({"begin_at": 1e300}, "begin_at: 1e"),
        ({"begin_in_s": float("inf")}, "begin_in_s: inf is no number"),
        ({"begin_in_s": -0.1}, "begin_in_s: -0.1 is no number"),
        ({"begin_at": 1, "begin_in_s": 1}, "leave one out"),
    ],
)
def test_what_is_neither_is_refused(wire: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        read_begin(wire)
