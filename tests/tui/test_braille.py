"""Graphs made of characters."""

from unicodedata import name

from hypothesis import given
from hypothesis import strategies as st

from gpuq.tui.data.braille import plot, sparkline, stretched
from gpuq.tui.looks import Signs

values = st.lists(st.none() | st.floats(-50.0, 250.0), max_size=40)


def dots(char: str) -> list[int]:
    """How many dots from below are set in the two columns of a cell, by the name of the character."""
    if char == " ":
        return [0, 0]
    set_ = name(char).removeprefix("BRAILLE PATTERN DOTS-")
    columns = ["7321", "8654"]  # numbers of dots from below (Unicode, chapter 21.1)
    heights = [sum(dot in set_ for dot in column) for column in columns]
    for column, height in zip(columns, heights, strict=True):
        assert all((dot in set_) == (n < height) for n, dot in enumerate(column)), "from below"
    return heights


def heights(lines: list[str]) -> list[int]:
    """Of each column of dots, all lines together."""
    cells = [[dots(char) for char in line] for line in lines]
    return [sum(row[at // 2][at % 2] for row in cells) for at in range(2 * len(lines[0]))]


def test_a_sparkline_has_a_block_for_each_value() -> None:
    assert sparkline([0, 14, 50, 86, 100]) == "▁▂▅▇█"
    assert sparkline([None, 0, None]) == " ▁ ", "a gap is not 0"
    assert sparkline([-5, 300]) == "▁█", "beyond the scale is its end"
    assert sparkline([5.0, 5.0], 5.0, 5.0) == "▁▁"


def test_in_ascii_a_sparkline_keeps_its_cells() -> None:
    plain = Signs(unicode=False).plain(sparkline([0, 14, 28, 42, 57, 71, 86, 100, None]))
    assert plain == "_..:-=+# "


def test_a_plot_shows_two_values_a_cell_filled_from_below() -> None:
    assert plot([0, 25, 50, 100], 2, 1) == ["⣀⣼"]
    assert heights(plot([0, 25, 50, 100], 2, 2)) == [1, 2, 4, 8]
    assert heights(plot([None, None, 50, None], 2, 1)) == [0, 0, 2, 0]
    assert plot([], 3, 2) == ["   ", "   "]


def test_a_plot_in_ascii_has_the_higher_of_the_two() -> None:
    assert plot([0, 25, 50, 100, None, 75], 3, 1, unicode=False) == [".#+"]
    assert plot([100, 100], 1, 3, unicode=False) == ["#", "#", "#"]


def test_the_scale_may_be_another() -> None:
    assert heights(plot([20.0, 40.0], 1, 1, 0.0, 40.0)) == [2, 4]
    assert heights(plot([3.0, None], 1, 1, 0.0, 0.0)) == [1, 0]


def test_few_values_are_stretched_and_many_made_means_of() -> None:
    assert stretched([1.0, 2.0], 4) == [1.0, 1.0, 2.0, 2.0]
    assert stretched([1.0, None, 3.0, 5.0], 2) == [1.0, 4.0]
    assert stretched([None, None, 3.0, 5.0], 2) == [None, 4.0]


@given(values, st.integers(1, 20), st.integers(1, 6), st.booleans())
def test_whatever_the_values_it_fills_its_box(
    values: list[float | None], cells: int, rows: int, unicode: bool
) -> None:
    lines = plot(values, cells, rows, unicode=unicode)
    assert [len(line) for line in lines] == [cells] * rows
    assert all(line.isascii() for line in lines) or unicode


@given(values, st.integers(1, 20), st.integers(1, 6))
def test_only_what_is_absent_is_empty(values: list[float | None], cells: int, rows: int) -> None:
    seen = heights(plot(values, cells, rows))
    told = stretched(values, 2 * cells)
    assert [height == 0 for height in seen] == [value is None for value in told]
