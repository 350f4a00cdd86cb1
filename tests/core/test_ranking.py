"""Which result is the best: a number, and never what only looks like one."""

import json
from typing import Any

import pytest

from gpuq.core.results.ranking import (
    Goal,
    as_number,
    in_order,
    is_number,
    parse_goal,
    parse_order,
)


def row(number: int, loss: Any = None, /, **parameters: str) -> dict[str, Any]:
    metrics = {} if loss is None else {"loss": loss}
    return {"id": number, "metrics": metrics, "parameters": parameters}


def ids(rows: list[dict[str, Any]], order: str) -> list[int]:
    return [one["id"] for one in in_order(rows, parse_order(order))]


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("acc:max", Goal("acc", True)),
        ("loss:min", Goal("loss", False)),
        ("val:acc:max", Goal("val:acc", True)),
        ("tok/s:max", Goal("tok/s", True)),
    ],
)
def test_a_goal_names_a_metric_and_a_direction(text: str, goal: Goal) -> None:
    assert parse_goal(text) == goal
    assert str(goal) == text


@pytest.mark.parametrize("text", ["acc", "acc:", ":max", "acc:most", ""])
def test_a_goal_without_a_direction_is_not_guessed_at(text: str) -> None:
    with pytest.raises(ValueError, match=r"Write .*:max or .*:min"):
        parse_goal(text)


def test_an_order_needs_a_name() -> None:
    assert parse_order("-loss") == Goal("loss", True)
    with pytest.raises(ValueError, match="by what"):
        parse_order("-")


def test_what_is_no_number_never_comes_first_in_either_direction() -> None:
    rows = [row(1, "nan"), row(2, 0.5), row(3, "-inf"), row(4), row(5, True), row(6, 3)]
    assert ids(rows, "loss") == [2, 6, 3, 1, 4, 5]
    assert ids(rows, "-loss") == [6, 2, 3, 1, 4, 5]


def test_infinity_that_came_through_anyway_is_no_number() -> None:
    assert not is_number(float("inf"))
    assert not is_number(json.loads("1e999"))
    assert not is_number(float("nan"))
    assert is_number(0)


def test_of_equal_ones_the_lower_id_comes_first() -> None:
    assert ids([row(3, 1.0), row(1, 1), row(2, 1.0)], "loss") == [1, 2, 3]
    assert ids([row(3, 1.0), row(1, 1), row(2, 1.0)], "-loss") == [1, 2, 3]


def test_parameters_that_are_numbers_are_compared_as_numbers() -> None:
    rows = [row(1, lr="0.1"), row(2, lr="1e-3"), row(3, lr="10"), row(4, lr="auto")]
    assert ids(rows, "lr") == [2, 1, 3, 4]
    assert as_number("nan") is None


def test_a_metric_goes_before_a_parameter_of_its_name() -> None:
    rows = [row(1, 2.0, loss="1"), row(2, 1.0, loss="2")]
    assert ids(rows, "loss") == [2, 1]
