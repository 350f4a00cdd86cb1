"""What people write for many jobs means what it says, or is refused with the reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.asked.arrays import (
    MOST_ELEMENTS,
    escape,
    fill,
    parse_array,
    parse_axis,
    parse_table,
    places,
    rows_of,
    to_wire,
    write_axis,
)
from gpuq.core.asked.elements import Elements

names = st.sampled_from(["i", "lr", "seed"])
pieces = st.sampled_from(["{i}", "{lr}", "{{i}}", "${i}", "{x}", "{", "}", "a", "{}", "$"])


@pytest.mark.parametrize(
    ("text", "indices", "most"),
    [
        ("0-99%4", [range(100)], 4),
        ("5", [range(5, 6)], None),
        ("1-5:2", [range(1, 6, 2)], None),
        ("1,3,7-9", [range(1, 2), range(3, 4), range(7, 10)], None),
        ("1,2,3,9", [range(1, 4), range(9, 10)], None),
        ("%4", [], 4),
    ],
)
def test_indices_are_read_as_slurm_has_them(
    text: str, indices: list[range], most: int | None
) -> None:
    assert parse_array(text) == (indices, most)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' is no index"),
        ("a", "'a' is no index"),
        ("-5", "'-5' is no index"),
        ("5-1", "'5-1' runs backwards"),
        ("1-9:0", "'1-9:0' stands still"),
        ("1-9%", "behind % stands how many"),
        ("1-9%0", "behind % stands how many"),
        ("1-9%x", "behind % stands how many"),
        ("1,1", "index 1 is there twice"),
        ("0-8:2,3-5", "index 4 is there twice"),
        ("0-10000000", "10000001 elements; 10000000 are the most"),
        ("3000000000", "the highest index is 2147483647"),
        ("9" * 5000, "is no index"),
        (",".join(map(str, range(0, 6000, 2))), "2000 are the most. Put them into a column"),
    ],
)
def test_indices_that_cannot_be_read_are_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r".*") as refused:
        parse_array(text)
    assert complaint in str(refused.value)


def test_a_step_leaves_room_for_what_lies_between() -> None:
    assert parse_array("0-8:2,1-9:2")[0] == [range(0, 9, 2), range(1, 10, 2)]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("lr=0.1,0.01", ["0.1", "0.01"]),
        ("lr=1-5", ["1", "2", "3", "4", "5"]),
        ("lr=0-10:5,20", ["0", "5", "10", "20"]),
        ("lr=01-03", ["01", "02", "03"]),
        ("lr=8-10", ["8", "9", "10"]),
        ('lr="a,b",c', ["a,b", "c"]),
        ('lr="1-5"', ["1-5"]),
        ('lr="say ""x""",y', ['say "x"', "y"]),
        ('lr="",b', ["", "b"]),
        ("lr=2026-01-02", ["2026-01-02"]),
        ("lr=1e-3, 5e-4", ["1e-3", "5e-4"]),
        ("lr=a=b", ["a=b"]),
    ],
)
def test_the_values_of_an_axis(text: str, values: list[str]) -> None:
    assert parse_axis(text) == ("lr", values)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("lr", "'lr' is no NAME=VALUES"),
        ("=1", "'' cannot name a parameter"),
        ("learning-rate=1", "cannot name a parameter"),
        ("ä=1", "cannot name a parameter"),
        ("i=1-5", "{i} is the index"),
        ("lr=", 'an empty value is written as ""'),
        ("lr=a,,b", 'an empty value is written as ""'),
        ("lr=a,", 'an empty value is written as ""'),
        ('lr="a', "a value in quotes ends with"),
        ('lr="a"b', "a value in quotes ends with"),
        ("lr=5-1", "the range '5-1' holds nothing"),
        ("lr=1,1", "the value '1' is there twice"),
        ("lr=1-100001", "use --array and {i}"),
        ("lr=1-99999999999", "use --array and {i}"),
    ],
)
def test_an_axis_that_cannot_be_read_is_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r".*") as refused:
        parse_axis(text)
    assert complaint in str(refused.value)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_value_can_be_written_as_an_axis(value: str) -> None:
    assert parse_axis(write_axis("lr", value)) == ("lr", [value])


def test_a_table_has_names_and_rows() -> None:
    text = '\ufefflr, seed\r\n0.1,1\r\n\r\n"a,b","two\nlines"\n'
    assert parse_table(text) == (["lr", "seed"], [["0.1", "1"], ["a,b", "two\nlines"]])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "there is no row of values"),
        ("lr,seed\n", "there is no row of values"),
        ("lr,seed\n1,2\n3\n", "line 3: 1 values for 2 names"),
        ("lr,seed\n1,2\n\n3,4,5\n", "line 4: 3 values for 2 names"),
        ("lr,l r\n1,2\n", "line 1: 'l r' cannot name a parameter"),
        ("lr,LR\n1,2\n", "line 1: 'lr' and 'LR' would both be GPUQ_PARAM_LR"),
        ("lr,lr\n1,2\n", "line 1: the parameter 'lr' is there twice"),
        ('lr\n"open\n', "line 2:"),
    ],
)
def test_a_table_that_cannot_be_read_names_the_line(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r".*") as refused:
        parse_table(text)
    assert str(refused.value).startswith(complaint)


# ── what is sent ──


def test_a_grid_counts_from_0_unless_indices_are_given() -> None:
    grid = {"lr": ["0.1", "0.01"], "seed": ["1", "2", "3"]}
    made = to_wire(None, grid)
    assert made == {
        "indices": [[0, 6, 1]],
        "axes": [["lr", ["0.1", "0.01"]], ["seed", ["1", "2", "3"]]],
    }
    assert (to_wire("10-15%2", grid) or {})["indices"] == [[10, 16, 1]]
    assert (to_wire("%2", grid) or {})["max_running"] == 2


def test_the_last_axis_varies_first() -> None:
    elements = Elements(indices=(range(4),), axes=(("lr", ("a", "b")), ("seed", ("1", "2"))))
    chosen = ["".join(elements.at(number).parameters.values()) for number in range(4)]
    assert chosen == ["a1", "a2", "b1", "b2"]


@pytest.mark.parametrize(
    ("first", "stop", "words"),
    [(0, 8, "0-6:2,10,20-22"), (1, 3, "2-4:2"), (3, 6, "6,10,20"), (4, 5, "10"), (2, 2, "")],
)
def test_the_indices_of_some_are_written_as_those_of_all(first: int, stop: int, words: str) -> None:
    elements = Elements(indices=(range(0, 8, 2), range(10, 11), range(20, 23)))
    assert elements.words_between(first, stop) == words


def test_a_million_elements_are_one_range() -> None:
    assert to_wire("0-999999") == {"indices": [[0, 1_000_000, 1]]}


def test_a_table_is_sent_row_by_row() -> None:
    made = to_wire(None, None, (["lr"], [["0.1"], ["0.2"]]))
    assert made == {"indices": [[0, 2, 1]], "columns": ["lr"], "rows": [["0.1"], ["0.2"]]}


def test_where_nothing_is_asked_for_there_is_no_array() -> None:
    assert to_wire(None, {}, None) is None


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="--grid gives 2 elements, and --array 3 indices"):
        to_wire("1-3", {"lr": ["1", "2"]})
    with pytest.raises(ValueError, match="--params gives 1 elements, and --array 3 indices"):
        to_wire("1-3", None, (["lr"], [["1"]]))
    with pytest.raises(ValueError, match="choose one"):
        to_wire(None, {"lr": ["1"]}, (["seed"], [["1"]]))
    with pytest.raises(ValueError, match="gives no indices"):
        to_wire("%4")
    with pytest.raises(ValueError, match="would both be GPUQ_PARAM_LR"):
        to_wire(None, {"lr": ["1"], "LR": ["2"]})
    values = list(map(str, range(100_000)))
    with pytest.raises(ValueError, match=f"{MOST_ELEMENTS} are the most"):
        to_wire(None, {"a": values, "b": values})


def test_rows_by_name_have_the_same_names_each() -> None:
    assert rows_of([{"lr": 0.1, "n": 1}, {"n": 2, "lr": 0.2}]) == (
        ["lr", "n"],
        [["0.1", "1"], ["0.2", "2"]],
    )
    with pytest.raises(ValueError, match="element 1 has other names"):
        rows_of([{"lr": 1}, {"seed": 1}])
    with pytest.raises(ValueError, match="no elements"):
        rows_of([])


# ── what stands in braces ──


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{i}", "7"),
        ("--lr={lr}", "--lr=0.1"),
        ("{i}{lr}", "70.1"),
        ("{seed} {} {0} {I} { i }", "{seed} {} {0} {I} { i }"),
        ("{{i}}", "{i}"),
        ("{{ i }} {{seed}}", "{{ i }} {{seed}}"),
        ("${i} $i ${lr:-1}", "${i} $i ${lr:-1}"),
        ('{"a":{i}}', '{"a":7}'),
        ("find . -exec rm {} ;", "find . -exec rm {} ;"),
    ],
)
def test_only_names_that_there_are_are_replaced(text: str, filled: str) -> None:
    assert fill(text, {"i": "7", "lr": "0.1"}) == filled


def test_a_value_is_not_looked_at_again() -> None:
    assert fill("{lr}", {"i": "7", "lr": "{i}"}) == "{i}"


@given(st.lists(pieces).map("".join))
def test_what_is_escaped_comes_back_as_it_was(text: str) -> None:
    values = {"i": "7", "lr": "0.1"}
    assert fill(escape(text, values), values) == text


def test_it_is_known_which_values_go_into_a_text() -> None:
    assert places("a {i} {{lr}} ${lr} {x}", ["i", "lr"]) == ["i"]
