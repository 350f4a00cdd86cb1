"""What people write is understood or refused, never guessed; what they read is short."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.units import (
    count,
    format_bytes,
    format_energy,
    format_ranges,
    format_seconds,
    format_spans,
    parse_bytes,
    parse_ranges,
    parse_seconds,
    without,
)
from tests.builders import STEADY

GIB = 2**30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24G", 24 * GIB),
        ("1.5g", 3 * GIB // 2),
        ("500M", 500 * 2**20),
        ("24GiB", 24 * GIB),
        ("24GB", 24 * GIB),
        (" 1T ", 2**40),
        ("0K", 0),
    ],
)
def test_a_size_has_a_binary_unit(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["24", "G", "", "-1G", "1e3G", "24 G", "24Gb24", "9" * 400 + "G"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 24G or 500M"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "–"),
        (0, "0B"),
        (1000, "1K"),
        (512 * 2**20, "512M"),
        (1000 * 2**20, "1G"),
        (24564 * 2**20, "24G"),
        (int(23.9 * GIB), "23.9G"),
        (80 * GIB, "80G"),
        (141 * GIB, "141G"),
        (2**40, "1T"),
    ],
)
def test_a_size_is_shown_short(size: int | None, text: str) -> None:
    assert format_bytes(size) == text


@STEADY
@given(st.integers(0, 999 * 2**40))
def test_a_shown_size_has_three_digits_at_most_and_is_nearly_the_size(size: int) -> None:
    text = format_bytes(size)
    assert sum(sign.isdigit() for sign in text) <= 3
    if size >= 1000:
        assert parse_bytes(text) == pytest.approx(size, rel=0.06)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0.5", 0.5),
        ("10s", 10),
        ("250ms", 0.25),
        ("2h30m", 9000),
        ("1d12h", 129600),
        ("1:30", 90),
        ("1:30:00", 5400),
        ("2-00:00:00", 172800),
        ("1-12:00", 129600),
        (" 5M ", 300),
    ],
)
def test_a_length_of_time_is_read_as_written(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "h", "2h30", "-5", "1:2", "5 m", "2h!30m", "10sec"])
def test_what_is_no_length_of_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 90s, 2h30m or 1:30:00"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-3, "0.0s"),
        (4.25, "4.2s"),
        (59.9, "0:59"),
        (600, "10:00"),
        (7984, "2:13:04"),
        (47.9 * 3600, "47:54:00"),
        (74.5 * 3600, "3d02h"),
    ],
)
def test_a_length_of_time_is_shown_as_a_clock(seconds: float | None, text: str) -> None:
    assert format_seconds(seconds) == text


@STEADY
@given(st.integers(10, 2 * 86400 - 1))
def test_a_shown_length_of_time_can_be_typed_again(seconds: int) -> None:
    assert parse_seconds(format_seconds(seconds)) == seconds


def test_ranges_keep_their_order_and_are_not_unrolled() -> None:
    assert parse_ranges("12-18, 20") == [range(12, 19), range(20, 21)]
    assert parse_ranges("1-999999999999") == [range(1, 10**12)]


@pytest.mark.parametrize(
    ("text", "why"),
    [("5-3", "backwards"), ("1,,2", "neither"), ("-1", "neither"), ("a", "neither")],
)
def test_what_is_no_range_is_refused_by_its_part(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_ranges(text)


@STEADY
@given(st.sets(st.integers(0, 99), min_size=1))
def test_numbers_shown_as_ranges_are_the_same_numbers(numbers: set[int]) -> None:
    spans = parse_ranges(format_ranges(list(numbers)))
    assert {number for span in spans for number in span} == numbers
    assert all(one.stop < other.start for one, other in pairwise(spans))


@given(ids=st.sets(st.integers(0, 60)), taken=st.sets(st.integers(0, 60)))
@STEADY
def test_what_is_taken_out_of_spans_is_gone_and_the_rest_is_there(
    ids: set[int], taken: set[int]
) -> None:
    spans, gone = ([range(n, n + 1) for n in sorted(some)] for some in (ids, ids & taken))
    joined = [parse_ranges(format_spans(some)) if some else [] for some in (spans, gone)]
    assert [n for span in without(*joined) for n in span] == sorted(ids - taken)


def test_one_is_no_plural() -> None:
    assert [count(number, "GPU") for number in (0, 1, 2)] == ["0 GPUs", "1 GPU", "2 GPUs"]


@pytest.mark.parametrize(
    ("joules", "text"),
    [
        (None, "–"),
        (0.0, "0.0 Wh"),
        (3600 * 3.14, "3.1 Wh"),
        (3600 * 9.96, "10 Wh"),
        (3600 * 85, "85 Wh"),
        (3600 * 99.6, "0.10 kWh"),
        (3600 * 420, "0.42 kWh"),
        (3.6e6 * 9.996, "10.0 kWh"),
        (3.6e6 * 12.34, "12.3 kWh"),
        (3.6e6 * 120, "120 kWh"),
    ],
)
def test_energy_is_shown_as_the_meter_in_the_cellar_counts_it(
    joules: float | None, text: str
) -> None:
    assert format_energy(joules) == text
