"""Who would go before whom."""

import pytest

from gpuq.tui.data.places import passing_words, swapped, wanted_priority
from tests.tui.screened import row


@pytest.mark.parametrize(
    ("text", "now", "wanted"),
    [("5", [0], 5), ("=-5", [3], -5), ("+10", [3, 3], 13), ("-10", [3], -7), (" 7 ", [1, 2], 7)],
)
def test_a_priority_as_it_is_written(text: str, now: list[int], wanted: int) -> None:
    assert wanted_priority(text, now) == wanted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a whole number is wanted"),
        ("1.5", "a whole number is wanted"),
        ("+-5", "a whole number is wanted"),
        ("²", "a whole number is wanted"),
        ("+1", r"different ones \(0, 5\)"),
        ("1000001", "up to 1000000"),
    ],
)
def test_what_is_no_priority_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        wanted_priority(text, [0, 5])


def test_who_goes_up_passes_those_below_and_beside() -> None:
    rows = [row(1, priority=9), row(2, last=5, priority=4), row(6), row(7), row(8, state="running")]
    assert passing_words(rows, [range(7, 8)], 4) == ["goes before 6"]
    assert passing_words(rows, [range(7, 8)], 5) == ["goes before 2-6"]
    assert passing_words(rows, [range(2, 4)], -1) == ["lets 6-7 go first"]
    assert passing_words(rows, [range(7, 8)], 0) == ["that is what it has"]
    assert passing_words(rows, [range(1, 2)], 10) == ["nobody else that waits is passed by it"]


def placed(number: int, place: int | None, **more: int) -> dict[str, object]:
    last = more.pop("last", number)
    return row(number, last=last, **more) | {"queue_place": place}


def test_neighbours_change_places() -> None:
    waiting = [placed(1, 2), placed(2, 1), placed(3, 3, last=9), placed(10, 10), placed(11, None)]
    assert swapped(waiting, [range(1, 2)], -1) == ([range(1, 2)], 2)
    assert swapped(waiting, [range(2, 3)], -1) is None
    assert swapped(waiting, [range(1, 2)], 1) == ([range(3, 10)], 1)
    assert swapped(waiting, [range(10, 11)], -1) == ([range(10, 11)], 3)
    assert swapped(waiting, [range(11, 12)], -1) is None
    assert swapped(waiting, [range(10, 11)], 1) is None


def test_another_priority_is_no_neighbour() -> None:
    assert swapped([placed(1, 1, priority=5), placed(2, 2)], [range(2, 3)], -1) is None
