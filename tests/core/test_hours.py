"""Hours of the week, as people write them and as the clock meets them."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.hours import DAY_MINUTES, DAYS, format_hours, is_within, parse_hours
from gpuq.core.policy import WeekSpan
from tests.builders import STEADY

MON, TUE, WED, THU, FRI, SAT, SUN = range(7)


@st.composite
def spans(draw: st.DrawFn) -> WeekSpan:
    """Any that can be written: days in a row, of which there may be all."""
    first, length = draw(st.integers(0, 6)), draw(st.integers(1, 7))
    minute = st.integers(0, DAY_MINUTES) | st.sampled_from([0, DAY_MINUTES])
    begin = draw(minute)
    end = draw(minute.filter(lambda end: begin - end not in (0, DAY_MINUTES)))
    days = frozenset((first + step) % 7 for step in range(length))
    return WeekSpan(days=days, begin=begin, end=end)


def at(text: str, day: int, clock: str) -> bool:
    hours, minutes = map(int, clock.split(":"))
    return is_within(parse_hours(text), day, hours * 60 + minutes)


# ── as people write them ──


@STEADY
@given(st.lists(spans(), min_size=1, max_size=4).map(tuple))
def test_what_is_shown_means_the_same_when_it_is_read(some: tuple[WeekSpan, ...]) -> None:
    assert parse_hours(format_hours(some)) == some


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("mon-fri 09:00-18:00", "mon-fri 09:00-18:00"),
        ("  MON-Fri   9:00-18:00 ", "mon-fri 09:00-18:00"),
        ("sat 10:00-14:00,sun 10:00-12:00", "sat 10:00-14:00, sun 10:00-12:00"),
        ("22:00-06:00", "22:00-06:00"),
        ("mon-sun 00:00-24:00", "00:00-24:00"),
        ("wed-tue 08:00-09:00", "08:00-09:00"),
        ("sat-mon 08:00-09:00", "sat-mon 08:00-09:00"),
        ("tue-tue 08:00-09:00", "tue 08:00-09:00"),
    ],
)
def test_hours_are_shown_in_one_way_however_they_were_written(written: str, shown: str) -> None:
    assert format_hours(parse_hours(written)) == shown


def test_no_hours_are_shown_as_absent() -> None:
    assert format_hours(()) == "–"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is no time like mon-fri 09:00-18:00"),
        ("always", "'always' is no time like"),
        ("mon-fri", "'mon-fri' is no time like"),
        ("9-18", "'9-18' is no time like"),
        ("mon 09:00", "'mon 09:00' is no time like"),
        ("monday 09:00-18:00", "'monday 09:00-18:00' is no time like"),
        ("mon 09:00-18:00 sat 10:00-14:00", "is no time like"),
        ("mon 09:00-18:00,", "'' is no time like"),
        ("mon-fry 09:00-18:00", "'fry' is none of mon, tue, wed, thu, fri, sat, sun"),
        ("fre 09:00-18:00", "'fre' is none of mon, tue,"),
        ("25:00-26:00", "'25:00' is no time of day"),
        ("09:60-10:00", "'09:60' is no time of day"),
        ("09:00-24:01", "'24:01' is no time of day"),
        ("24:00-00:00", "'24:00-00:00' begins when it ends"),
        ("09:00-09:00", "'09:00-09:00' begins when it ends; a whole day is 00:00-24:00"),
    ],
)
def test_what_is_no_time_is_refused_with_the_part_that_is_wrong(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_hours(text)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="9 is no time like"):
        parse_hours(9)  # type: ignore[arg-type]


# ── as the clock meets them ──


@pytest.mark.parametrize(
    ("text", "day", "clock", "inside"),
    [
        ("mon-fri 09:00-18:00", MON, "09:00", True),
        ("mon-fri 09:00-18:00", MON, "08:59", False),
        ("mon-fri 09:00-18:00", FRI, "17:59", True),
        ("mon-fri 09:00-18:00", FRI, "18:00", False),
        ("mon-fri 09:00-18:00", SAT, "12:00", False),
        # Into the night.
        ("mon-fri 22:00-06:00", FRI, "23:59", True),
        ("mon-fri 22:00-06:00", SAT, "00:00", True),
        ("mon-fri 22:00-06:00", SAT, "05:59", True),
        ("mon-fri 22:00-06:00", SAT, "06:00", False),
        ("mon-fri 22:00-06:00", SAT, "22:00", False),
        ("mon-fri 22:00-06:00", MON, "05:00", False),
        # Over the end of the week.
        ("sun 22:00-06:00", MON, "05:59", True),
        ("sun 22:00-06:00", SUN, "05:59", False),
        ("sat-mon 10:00-12:00", SUN, "11:00", True),
        ("sat-mon 10:00-12:00", TUE, "11:00", False),
        ("fri-mon 10:00-12:00", THU, "11:00", False),
        # Midnight has two names.
        ("tue 00:00-24:00", TUE, "23:59", True),
        ("tue 00:00-24:00", WED, "00:00", False),
        ("tue 20:00-00:00", TUE, "23:59", True),
        ("tue 20:00-00:00", WED, "00:00", False),
        ("tue 24:00-06:00", WED, "05:59", True),
        ("tue 24:00-06:00", TUE, "05:59", False),
    ],
)
def test_an_hour_is_inside_or_not(text: str, day: int, clock: str, inside: bool) -> None:
    assert at(text, day, clock) is inside


def test_one_of_several_spans_is_enough() -> None:
    both = "mon 09:00-10:00, sat 20:00-21:00"
    assert at(both, MON, "09:30")
    assert at(both, SAT, "20:30")
    assert not at(both, SAT, "09:30")


@STEADY
@given(spans())
def test_a_span_lasts_as_long_as_it_says_on_each_of_its_days(span: WeekSpan) -> None:
    lasts = (span.end - span.begin) % DAY_MINUTES or DAY_MINUTES
    minutes = product(range(len(DAYS)), range(DAY_MINUTES))
    found = sum(is_within((span,), day, minute) for day, minute in minutes)
    assert found == lasts * len(span.days)
