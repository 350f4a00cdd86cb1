"""The bytes of a log as lines, rows and text, in whatever chunks they come."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gpuq.cli.render import width
from gpuq.tui.data.log.lines import LONGEST, Splitter
from gpuq.tui.data.log.rows import Rows, breaks
from gpuq.tui.data.log.search import Search
from gpuq.tui.data.log.text import PLAIN, Paint, painted
from gpuq.tui.data.log.window import LogWindow, Moved

PIECES = st.sampled_from(
    [
        *(b"a", b"loss 0.1", b"\n", b"\r", b"\r\n", b"\n\r", b"\x1b[A", b"\x1b[31m"),
        *("é".encode(), "計".encode(), b"\x00\x00\x00\x00\x00", b"\xff", b"x" * (LONGEST - 3)),
    ]
)
LOGS = st.lists(PIECES, max_size=12).map(b"".join)


def lines_of(log: bytes, *cuts: int) -> list[tuple[bytes, int]]:
    """With the one that is not complete, when the log comes cut at these places."""
    splitter, lines = Splitter(), []
    places = sorted({0, len(log), *(min(cut, len(log)) for cut in cuts)})
    for begin, end in pairwise(places):
        lines += splitter.feed(log[begin:end], end)
    if splitter.open is not None:
        lines.append(splitter.open)
    return [tuple(line) for line in lines]


@given(LOGS, st.lists(st.integers(0, 3 * LONGEST)))
def test_chunks_cut_anywhere_give_the_same_lines(log: bytes, cuts: list[int]) -> None:
    assert lines_of(log, *cuts) == lines_of(log)


@given(LOGS)
def test_byte_by_byte_it_is_the_same(log: bytes) -> None:
    log = log[:200]
    assert lines_of(log, *range(len(log))) == lines_of(log)


@given(st.lists(st.sampled_from([b"a", b"bc", b"\n", "é".encode()])).map(b"".join))
def test_plain_lines_are_what_a_text_has(log: bytes) -> None:
    whole = log.split(b"\n")
    assert [raw for raw, _ in lines_of(log)] == (whole if whole[-1] else whole[:-1])


def test_each_line_knows_where_it_ends() -> None:
    assert lines_of(b"one\ntwo\r\n\nrest") == [(b"one", 4), (b"two", 9), (b"", 10), (b"rest", 14)]


def test_a_bar_is_its_last_state() -> None:
    assert lines_of(b" 10%\r 20%\r 30%") == [(b" 30%", 14)]
    assert lines_of(b" 10%\r 20%\r") == [(b" 20%", 10)]
    assert lines_of(b" 10%\r100%\ndone\n") == [(b"100%", 10), (b"done", 15)]


def test_a_bar_inside_another_one_is_one_line() -> None:
    log = b"outer 0%\n\rinner 10%\x1b[A\n\rinner 20%\x1b[A\router 50%\nend\n"
    assert [raw for raw, _ in lines_of(log)] == [b"outer 0%", b"outer 50%", b"end"]


def test_what_never_ends_is_shown_in_pieces_that_cut_no_sign() -> None:
    log = b"x" + "é".encode() * LONGEST
    pieces = [raw for raw, _ in lines_of(log)]
    assert b"".join(pieces) == log
    assert max(map(len, pieces)) <= LONGEST
    for piece in pieces:
        piece.decode()


# ── text ──


def test_colours_are_kept_as_spans_and_nothing_else_of_a_sequence() -> None:
    text, spans = painted(b"a\x1b[1;31mred\x1b[0m \x1b]0;title\x07b\x1b[2Kc\x1b(Bd")
    assert text == "ared bcd"
    assert spans == ((1, 4, Paint(colour=1, bold=True)),)


def test_many_colours_become_the_nearest_of_sixteen() -> None:
    for code, number in (("38;5;196", 9), ("38;2;250;5;5", 9), ("38;5;3", 3), ("92", 10)):
        assert painted(f"\x1b[{code}mx".encode()).spans[0][2].colour == number
    assert painted(b"\x1b[48;5;232mx").spans[0][2].background == 0
    assert painted(b"\x1b[38;5mx").spans == ()


def test_what_is_switched_off_is_off() -> None:
    raw = b"\x1b[1;4;33ma\x1b[22;24;39mb"
    assert painted(raw).spans == ((0, 1, PLAIN._replace(colour=3, bold=True, underline=True)),)


@given(st.binary(max_size=60))
def test_nothing_of_a_log_reaches_the_terminal_that_it_could_act_on(raw: bytes) -> None:
    text, spans = painted(raw)
    assert text.isprintable()
    assert all(0 <= begin < end <= len(text) for begin, end, _ in spans)


def test_bytes_that_are_no_text_are_written_out() -> None:
    assert painted(b"caf\xe9 \x07").text == "caf\\xe9 \\x07"
    assert painted(b"a\x00\x00\x00\x00\x00b\x00").text == "a[5 NUL bytes]b\\x00"
    assert painted(b"a\tb\x1b[1m\tc").text == "a       b       c"


# ── the window ──


def lines(first: int, last: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(first, last))


def shown(window: LogWindow) -> list[bytes]:
    return [window[number].raw for number in range(len(window))]


def test_what_is_beyond_the_bounds_is_let_go_at_the_head() -> None:
    window = LogWindow(most_lines=3)
    log = lines(0, 5)
    assert window.append([(log + b"rest", len(log) + 4)]) == Moved(2, 0, 0, 4)
    assert shown(window) == [b"line 2", b"line 3", b"line 4", b"rest"]
    assert window.begin == len(lines(0, 2))


def test_bytes_are_bounded_as_lines_are() -> None:
    window = LogWindow(most_bytes=10_000)
    for number in range(1, 30):
        window.append([(b"x" * 999 + b"\n", number * 1000)])
    assert 8 <= len(window) <= 10
    assert window.end == 29_000


def test_older_lines_push_out_the_newest_and_it_can_be_read_on_from_there() -> None:
    log = lines(0, 10)
    window = LogWindow(most_lines=5)
    begin, behind = len(lines(0, 6)), len(lines(0, 7))
    window.restart(begin)
    window.append([(log[begin:] + b"rest", len(log) + 4)])
    first = len(lines(0, 2))
    assert window.prepend([(log[first:begin], begin)], first) == Moved(0, 4, 5, 5)
    assert shown(window) == [b"line %d" % number for number in range(2, 7)]
    assert (window.begin, window.end) == (first, behind)
    window.append([(log[behind:], len(log))])
    assert shown(window)[-1] == b"line 9"


CHUNKS = st.lists(
    st.lists(st.sampled_from([b"a\n", b"bb\n", b"c", b"d\r"])).map(b"".join), max_size=8
)


@given(CHUNKS, st.integers(2, 5))
def test_rows_and_hits_follow_the_lines(chunks: list[bytes], most: int) -> None:
    window, rows, search, end = LogWindow(most_lines=most), None, Search("b"), 0

    def text(line: int) -> str:
        return window[line].raw.decode()

    rows = Rows(text, 1)
    for chunk in chunks:
        end += len(chunk)
        moved = window.append([(chunk, end)])
        rows.change(moved)
        search.change(moved, text)
        expected = [(n, part) for n in range(len(window)) for part in range(max(len(text(n)), 1))]
        assert [rows.at(row) for row in range(len(rows))] == expected
        assert all(expected[rows.first_of(line)] == (line, 0) for line in range(len(window)))
        assert search.lines == [n for n in range(len(window)) if b"b" in window[n].raw]


def test_hits_of_older_lines_come_before_the_others() -> None:
    search = Search("x")
    search.change(Moved(0, 0, 0, 2), ["x", ""].__getitem__)
    search.change(Moved(0, 2, 4, 4), ["", "x", "x", ""].__getitem__)
    assert search.lines == [1, 2]
    assert (search.next(1, 1), search.next(2, 1), search.next(1, -1)) == (2, 1, 2)


def test_small_letters_find_capitals_and_not_the_other_way_round() -> None:
    assert Search("loss").spans("Loss and loss") == [(0, 4), (9, 13)]
    assert Search("Loss").spans("Loss and loss") == [(0, 4)]
    assert Search("a.b").spans("axb a.b") == [(4, 7)]


@given(st.text(st.sampled_from("aé計\u0301"), max_size=30), st.integers(2, 7))
def test_no_row_is_wider_than_the_room(text: str, room: int) -> None:
    starts = [*breaks(text, room), len(text)]
    assert starts[0] == 0
    assert all(width(text[a:b]) <= room for a, b in pairwise(starts))


@given(
    st.lists(st.text(st.sampled_from("aé計\u0301"), max_size=30), min_size=1, max_size=6),
    st.integers(1, 12),
)
def test_the_rows_of_a_log_have_all_of_its_text_in_any_room(texts: list[str], room: int) -> None:
    rows = Rows(texts.__getitem__, room)
    rows.change(Moved(0, 0, 0, len(texts)))
    seen = [""] * len(texts)
    for row in range(len(rows)):
        line, part = rows.at(row)
        begin, end = rows.stretch(texts[line], part)
        seen[line] += texts[line][begin:end]
    assert seen == texts


def test_a_colour_with_more_digits_than_any_has_is_none() -> None:
    assert painted(b"\x1b[" + b"1" * 5000 + b"mhi") == ("hi", ())
    assert painted(b"\x1b[31;" + b"1" * 5000 + b"mhi").spans == ((0, 2, Paint(colour=1)),)


@given(st.text("a漢e\u0301\udc80字", max_size=60), st.integers(2, 12))
def test_a_row_of_wide_signs_is_as_full_as_it_can_be(text: str, room: int) -> None:
    starts = breaks(text, room)
    ends = [*starts[1:], len(text)]
    for start, end in zip(starts, ends, strict=True):
        assert width(text[start:end]) <= room
    for start, end in pairwise(starts):
        assert width(text[start : end + 1]) > room
