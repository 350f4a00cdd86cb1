"""Which result is the best, and in which order they stand: numbers by their value, and behind them what
is no number. Neither "nan" nor a text ever wins, whatever is wanted."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple, TypeVar

from gpuq.core.units import LONGEST_QUOTED, quoted

DIRECTIONS = {"max": True, "min": False}

Row = TypeVar("Row", bound=Mapping[str, Any])


class Goal(NamedTuple):
    """The metric to be compared, and whether more of it is better."""

    metric: str
    highest: bool

    def __str__(self) -> str:
        return f"{self.metric}:{'max' if self.highest else 'min'}"


def parse_goal(text: str) -> Goal:
    """ "acc:max"; ValueError says what is missing."""
    metric, _, direction = text.rpartition(":")
    if not metric or direction not in DIRECTIONS:
        name = metric or text.rstrip(":") or "acc"
        name = name if len(name) <= LONGEST_QUOTED else "acc"
        raise ValueError(f"{quoted(text)}: more or less of it? Write {name}:max or {name}:min")
    return Goal(metric, DIRECTIONS[direction])


def parse_order(text: str) -> Goal:
    """ "loss": the least first; "-loss": the most first."""
    metric = text.removeprefix("-")
    if not metric:
        raise ValueError(f"{quoted(text)}: by what? Write the name of a metric or a parameter")
    return Goal(metric, text != metric)


def is_number(value: Any) -> bool:
    """As a metric; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def as_number(text: str) -> float | None:
    """What a parameter's value is as a number; None where it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None


def in_order(rows: Sequence[Row], goal: Goal) -> list[Row]:
    """Rows with `metrics`, `parameters` and `id`: by the metric of that name where one of them has it,
    otherwise by the parameter. Numbers come first, then texts, then those that have none; of equal
    ones the lower id first."""
    is_metric = any(goal.metric in row["metrics"] for row in rows)

    def place(row: Row) -> tuple[int, float, str, int]:
        value = row["metrics" if is_metric else "parameters"].get(goal.metric)
        number = value if is_metric and is_number(value) else None
        if not is_metric and isinstance(value, str):
            number = as_number(value)
        if number is not None:
            return 0, -number if goal.highest else number, "", row["id"]
        if isinstance(value, str):
            return 1, 0.0, value, row["id"]
        return 2, 0.0, "", row["id"]

    return sorted(rows, key=place)
