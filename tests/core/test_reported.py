"""What a job reports is taken as it was said, once; what makes no sense costs its own line alone."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.results.reported import (
    EXACT,
    LONGEST_LINE,
    MOST_GAPS,
    MOST_LINES,
    MOST_METRICS,
    MOST_NAMES,
    MOST_WRITERS,
    Told,
    complain,
    few_lines,
    read_on,
    skip,
    trouble_words,
    with_bar,
)

BEGAN, NOW = 1000.0, 2000.0


def line(number: int = 1, by: str = "a", at: float = 1500.0, **values: Any) -> bytes:
    said = {"by": by, "n": number, "pid": 7, "at": at, "v": values}
    return json.dumps(said).encode() + b"\n"


def take(
    *data: bytes, after: Told | None = None, is_last: bool = False, inside: bool = False
) -> Told:
    return read_on(
        after or Told(),
        b"".join(data),
        inside=inside,
        is_last=is_last,
        now=NOW,
        earliest=BEGAN,
    )


def words(told: Told) -> str | None:
    return trouble_words(
        told.troubles,
        refused=told.refused,
        refused_values=told.refused_values,
        missed=told.missed,
        skipped_bytes=told.skipped_bytes,
    )


# ─── what is taken ───────────────────────────────────────────────────────────────────────────────


def test_the_last_value_of_each_name_counts() -> None:
    told = take(line(1, loss=2.5, stage="warmup"), line(2, loss=1.25, ok=True, none=None))
    assert told.metrics == {"loss": 1.25, "stage": "warmup", "ok": True, "none": None}
    assert (told.lines, told.reported_at, words(told)) == (2, 1500.0, None)


def test_progress_is_no_metric() -> None:
    told = take(line(1, progress=0.25, loss=1), line(2, loss=2))
    assert (told.progress, told.progress_from, told.metrics) == (0.25, "report", {"loss": 2})
    assert take(line(1, progress=1.0000001)).progress == 1.0, "a sum of fractions"


@pytest.mark.parametrize("said", [40, -0.1, "half", True, [0.5], 10**400, {"float": "nan"}])
def test_a_progress_that_is_none_is_named_and_the_last_one_stays(said: Any) -> None:
    told = take(line(1, progress=0.5), line(2, progress=said, loss=1.0))
    assert (told.progress, told.metrics, told.lines) == (0.5, {"loss": 1.0}, 2)
    assert "progress is a number from 0 to 1" in told.troubles["progress"]
    assert "float" not in told.troubles["progress"]
    assert str(words(told)).endswith("; 1 value not taken")


def test_what_is_not_finite_is_a_text() -> None:
    encoded = [{"float": "nan"}, {"float": "inf"}, {"float": "-inf"}, math.nan, -math.inf, 1e308]
    told = take(line(1, **{f"m{i}": value for i, value in enumerate(encoded)}))
    assert list(told.metrics.values()) == ["nan", "inf", "-inf", "nan", "-inf", 1e308]
    huge = take(b'{"v": {"a": 1e999, "b": -1%s, "c": 1%s}}\n' % (b"0" * 400, b"0" * 30))
    assert huge.metrics == {"a": "inf", "b": "-inf", "c": 1e30}
    assert json.loads(json.dumps(huge.metrics, allow_nan=False)) == huge.metrics


def test_lines_without_a_number_come_from_any_language() -> None:
    told = take(b'{"v": {"loss": 0.5}}\r\n', b'{"v": {"loss": 0.25}, "new": 1}\n')
    assert (told.metrics, told.lines, told.reported_at) == ({"loss": 0.25}, 2, NOW)


def test_a_heartbeat_and_an_empty_line_say_nothing() -> None:
    assert take(b"{}\n\n{}\n") == Told(read_bytes=7)


def test_that_memory_ran_out_is_a_line_of_its_own() -> None:
    told = take(b'{"by": "a", "n": 1, "at": 1500, "event": "out_of_memory", "message": "no"}\n')
    assert (told.lines, told.metrics, words(told)) == (1, {}, None)


@pytest.mark.parametrize("at", [BEGAN - 1, NOW + 1, 5, 1e300, "x", None, True, math.nan])
def test_a_clock_that_makes_no_sense_is_not_believed(at: Any) -> None:
    assert take(line(1, at=at, loss=1)).reported_at == NOW


# ─── each line once ──────────────────────────────────────────────────────────────────────────────


def test_a_line_that_is_read_twice_counts_once() -> None:
    once = take(line(1, loss=2), line(2, loss=1), line(1, by="b", loss=3))
    twice = take(line(1, loss=2), line(2, loss=1), after=once)
    assert (twice.lines, twice.metrics, words(twice)) == (3, {"loss": 3}, None)


def test_a_line_that_comes_late_counts_and_one_that_never_comes_is_missed() -> None:
    """A signal handler reports while the code that it interrupted is reporting."""
    told = take(line(1), line(3), line(6))
    assert (told.lines, words(told)) == (3, "3 lines never came, as a full disk loses them")
    late = take(line(2, loss=7), line(2, loss=8), after=told)
    assert (late.lines, late.missed, late.metrics) == (4, 2, {"loss": 7})


@given(order=st.permutations(range(1, MOST_GAPS + 2)), again=st.lists(st.integers(1, 17)))
def test_in_whatever_order_they_come_each_counts_once(order: list[int], again: list[int]) -> None:
    told = take(*[line(number) for number in [*order, *again]])
    assert (told.lines, told.missed) == (MOST_GAPS + 1, 0)


def test_the_memory_of_who_wrote_is_bounded() -> None:
    told = Told()
    for some in range(4):
        writers = [line(3, by=f"{some}-{one}") for one in range(MOST_WRITERS)]
        told = take(*writers, after=told)
    assert (len(told.writers), told.lines) == (MOST_WRITERS, 4 * MOST_WRITERS)
    assert told.missed == 2 * MOST_WRITERS, "of those that came later nobody can tell"
    named = take(line(10**15), line(1, by="x" * 5000))
    assert len(str(named.writers)) < 1000, "a number may be of any size"


# ─── what makes no sense ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rubbish", "why"),
    [
        (b"hello", "no JSON"),
        (b"\xff\xfe\x00\x01", "no JSON"),
        (b'{"v": {"loss": 0.', "no JSON"),
        (b"[" * 4000, "no JSON"),
        (b"1" * 4095, "no JSON"),
        (b"[1, 2]", "no JSON object"),
        (b" [1, 2", "no JSON object"),  # which is seen at once, before anything is decoded
        (b'"text"', "no JSON object"),
        (b'{"loss": 1}', 'no values: they stand in "v"'),
        (b'{"v": [1]}', 'no values: they stand in "v"'),
        (b'{"by": "a", "v": {"loss": 9}}', "do not name a writer"),
        (b'{"by": "a", "n": 0, "v": {"loss": 9}}', "do not name a writer"),
        (b'{"by": "a", "n": true, "v": {"loss": 9}}', "do not name a writer"),
        (b'{"by": ["a"], "n": 2, "v": {"loss": 9}}', "do not name a writer"),
        (b'{"v": {"loss": "%s"}}' % (b"x" * LONGEST_LINE), "longer than 4 KiB"),
    ],
)
def test_rubbish_costs_its_own_line_and_is_named(rubbish: bytes, why: str) -> None:
    first = line(1, loss=1)
    told = take(first, rubbish + b"\n", line(2, loss=2))
    assert (told.lines, told.refused, told.metrics) == (2, 1, {"loss": 2})
    trouble = told.troubles["line"]
    assert trouble.startswith(f"at byte {len(first)}: ")
    assert why in trouble
    assert words(told) == f"{trouble}; 1 line not taken"


@given(st.lists(st.binary(max_size=300)))
def test_no_bytes_do_harm(pieces: list[bytes]) -> None:
    told = take(
        *[piece.replace(b"\n", b"") + b"\n" + line(i + 1) for i, piece in enumerate(pieces)]
    )
    assert told.lines >= len(pieces)
    assert told.missed == 0


def test_a_value_that_is_none_costs_only_itself() -> None:
    told = take(line(1, a=[1], b={"x": 1}, c=1.5, **{"": 1, "n" * 81: 1}))
    assert (told.metrics, told.lines, told.refused) == ({"c": 1.5}, 1, 0)
    assert words(told) == "at byte 0: a is a list, and no value; 4 values not taken"


def test_names_and_texts_are_bounded() -> None:
    many = [line(i + 1, **{f"name{i}": i}) for i in range(MOST_NAMES + 5)]
    told = take(*many, line(500, name0="y" * 3000))
    assert len(told.metrics) == MOST_NAMES
    assert told.metrics["name0"] == "y" * 199 + "…"
    assert "one name too many: 100 are kept" in str(words(told))


@pytest.mark.parametrize("text", ["x" * 200, "\U0001f600" * 200, "\x01" * 200, '"' * 200])
def test_all_names_and_values_together_are_bounded_as_they_are_stored(text: str) -> None:
    many = [line(i + 1, **{f"{'n' * 70}{i}": text}) for i in range(MOST_NAMES)]
    told = take(*many)
    size = len(json.dumps(told.metrics, ensure_ascii=False).encode())
    assert MOST_METRICS - 1400 < size <= MOST_METRICS
    assert "is too much: 16 KiB are kept of all names and values" in str(words(told))
    name = next(iter(told.metrics))
    told = take(line(500, **{name: 1.5}), line(501, another=1), after=told)
    assert (told.metrics[name], told.metrics["another"]) == (1.5, 1), "there is room again"
    back = take(line(502, **{name: text, "more": text}), after=told)
    assert len(json.dumps(back.metrics, ensure_ascii=False).encode()) <= MOST_METRICS


def test_texts_in_the_place_of_numbers_are_bounded_as_well() -> None:
    names = [f"{'n' * 70}{i}" for i in range(MOST_NAMES)]
    told = take(*(line(i + 1, **{name: 1}) for i, name in enumerate(names)))
    told = take(*(line(i + 200, **{name: "x" * 200}) for i, name in enumerate(names)), after=told)
    assert len(told.metrics) == MOST_NAMES
    assert len(json.dumps(told.metrics, ensure_ascii=False).encode()) <= MOST_METRICS


@pytest.mark.parametrize("writer", ["x" * 80, "\U0001f600" * 80, "a b", "\udfff", ""])
def test_whatever_a_writer_is_called_it_is_known_again_by_a_short_name(writer: str) -> None:
    told = take(line(1, by=writer), line(2, by="9f2c61d04b7a35e8"))
    assert [len(name) for name in told.writers] == [16, 16]
    assert "9f2c61d04b7a35e8" in told.writers
    assert take(line(1, by=writer), after=told).lines == 2


def test_only_so_many_lines_are_taken_in_at_once() -> None:
    data = b"x\n" * (2 * MOST_LINES + 5) + b"x"
    parts = []
    while part := few_lines(data):
        parts.append(part)
        data = data[len(part) :]
    assert [part.count(b"\n") for part in parts] == [MOST_LINES, MOST_LINES, 5]
    assert parts[-1] == b"x\n" * 5 + b"x"
    assert few_lines(b"x\n" * MOST_LINES) == b"x\n" * MOST_LINES


def test_half_a_character_is_stored_as_none() -> None:
    told = take(b'{"v": {"\\ud800": "\\udfff", "progress": "\\ud800"}}\n')
    assert told.metrics == {"?": "?"}
    assert str(words(told)).encode()


def test_that_a_line_was_cut_is_named() -> None:
    told = take(b'{"cut": true, "v": {"loss": 1}}\n')
    assert told.lines == 1
    assert "left out to keep the line within 4 KiB" in str(words(told))


# ─── piece by piece ──────────────────────────────────────────────────────────────────────────────


def test_a_line_that_is_not_whole_yet_is_left_for_the_next_time() -> None:
    first, second = line(1, loss=1), line(2, loss=2)
    told = take(first + second[:10])
    assert (told.lines, told.read_bytes) == (1, len(first))
    told = take(second, after=told)
    assert (told.lines, told.read_bytes) == (2, len(first + second))


def test_a_last_line_without_its_end_counts_when_no_more_comes() -> None:
    whole = b'{"v": {"loss": 0.5}}'
    assert take(whole).lines == 0
    assert take(whole, is_last=True).metrics == {"loss": 0.5}
    broken = take(line(1), b'{"v": {"lo', is_last=True)
    assert (broken.lines, broken.refused) == (1, 1)


def test_a_line_without_end_is_left_behind_and_counts_once() -> None:
    huge = b"x" * 10_000
    told = take(line(1), huge)
    assert (told.refused, told.read_bytes) == (1, len(line(1)) + 10_000)
    told = take(huge, after=told, inside=True)
    assert (told.refused, told.read_bytes) == (1, len(line(1)) + 20_000)
    told = take(b"the end of it\n", line(2, loss=1), after=told, inside=True)
    assert (told.refused, told.lines, told.metrics) == (1, 2, {"loss": 1})


@given(
    sizes=st.lists(st.integers(1, 9000), max_size=40),
    lines=st.lists(
        st.one_of(
            st.integers(0, 9000).map(lambda size: b"#" * size),
            st.floats(allow_nan=False).map(lambda x: b'{"v": {"loss": %r}}' % x),
        ),
        max_size=12,
    ),
)
def test_however_it_is_cut_into_pieces_the_same_comes_of_it(
    sizes: list[int], lines: list[bytes]
) -> None:
    data = b"".join(one + b"\n" for one in lines)
    told = Told()
    for size in [*(max(size, LONGEST_LINE) for size in sizes), *[LONGEST_LINE] * 40]:
        begin = told.read_bytes
        inside = begin > 0 and data[begin - 1 : begin] != b"\n"
        told = take(data[begin : begin + size], after=told, inside=inside)
    assert told == take(data)


def test_what_is_skipped_is_named_and_is_nobodys_loss() -> None:
    told = skip(take(line(1)), 3 * 2**30)
    told = take(b"half a line\n", line(900, loss=1), after=told, inside=True)
    assert (told.lines, told.metrics) == (2, {"loss": 1})
    assert words(told) == "3G not looked at, there was too much"


def test_the_first_trouble_of_each_kind_stays() -> None:
    told = complain(complain(Told(), "it is no file"), "it belongs to uid 5")
    assert words(take(b"x\n", after=told)) == (
        "it is no file; at byte 0: no JSON; 1 line not taken"
    )
    told = take(b"x\n", line(1, a=[1]), line(2, progress="half"), line(3, progress=80, b={}))
    assert words(take(b"y\n", after=told)) == (
        "at byte 0: no JSON; at byte 2: a is a list, and no value; "
        f"at byte {2 + len(line(1, a=[1]))}: progress is a number from 0 to 1, and not half; "
        "2 lines not taken; 4 values not taken"
    )


def test_a_bar_counts_where_the_job_itself_says_nothing() -> None:
    told = with_bar(Told(), 0.5)
    assert (told.progress, told.progress_from) == (0.5, "log")
    assert with_bar(told, None) == told
    told = take(line(1, progress=0.1), after=told)
    assert (told.progress, told.progress_from) == (0.1, "report")
    assert with_bar(told, 0.9) == told


def test_no_counter_grows_beyond_what_can_be_stored_and_shown() -> None:
    told = Told(lines=EXACT, refused=EXACT, refused_values=EXACT, missed=EXACT)
    leaps = [line(EXACT - 1, by=f"w{i}", x=[]) for i in range(3)]
    told = take(*leaps, b"x\n", after=told)
    assert (told.lines, told.refused, told.refused_values) == (EXACT, EXACT, EXACT)
    assert told.missed == EXACT
    assert skip(skip(told, 5 * 2**60), 6 * 2**60).skipped_bytes == EXACT
