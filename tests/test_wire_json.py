"""JSON on the wire is that of the `json` module, what it refuses included."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuq import wire_json

TEXTS = st.text(st.characters()) | st.text(
    st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def test_the_interpreters_own_parts_do_it() -> None:
    if sys.implementation.name == "cpython":
        assert wire_json._write is not None
        assert wire_json._read is not None


@settings(deadline=None)
@given(VALUES)
def test_a_value_is_written_and_read_as_json_does_it(value: Any) -> None:
    written = json.dumps(value, separators=(",", ":"))
    assert wire_json.dumps(value) == written
    assert repr(wire_json.loads(written.encode())) == repr(json.loads(written))


@pytest.mark.parametrize("value", [{1, 2}, {"a": b"x"}, {("a",): 1}, object])
def test_what_is_no_json_is_refused_in_the_words_of_json(value: Any) -> None:
    with pytest.raises(TypeError) as ours:
        wire_json.dumps(value)
    with pytest.raises(TypeError) as theirs:
        json.dumps(value)
    assert str(ours.value) == str(theirs.value)


def test_a_ring_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(ValueError, match="Circular reference"):
        wire_json.dumps(ring)


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b" ", b"{", b"{}x", b"[1,]", b"nul", b'{"a" 1}', b'"\x01"', b"'a'", b"\xff", b"01"),
        *(b'"\\ud800', b"{1:2}", b"-", b"[" * 100_000, b'{"a":1}{}'),
    ],
)
def test_what_json_does_not_read_is_refused_in_its_words(line: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)) as theirs:
        json.loads(line)
    with pytest.raises(theirs.type) as ours:
        wire_json.loads(line)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("line", [b"NaN", b"[Infinity]", b'{"a":-Infinity}'])
def test_a_number_that_json_does_not_know_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="is no number"):
        wire_json.loads(line)


@pytest.mark.parametrize("line", [b' {"a": 1} ', b'\xef\xbb\xbf{"a": 1}', b'"\\udcff"', b"1e400"])
def test_what_is_spelled_otherwise_is_read_all_the_same(line: bytes) -> None:
    try:
        expected = json.loads(line)
    except ValueError:
        expected = None
    assert expected is None or wire_json.loads(line) == expected
