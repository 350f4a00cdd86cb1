"""In which order jobs stand in the list. What has ended stands below what has not, always."""

from collections.abc import Callable
from typing import Any

from gpuq.tui.data.spans import Row

Key = tuple[Any, ...]

# The most alive first, and of those that have ended what went wrong.
LIVELY = ("running", "starting", "queued")
TELLING = ("failed", "out_of_memory", "timed_out", "lost", "skipped", "cancelled", "succeeded")
WORDS = (*LIVELY, *TELLING)
_RANK = {word: number for number, word in enumerate(WORDS)}


def word_of(row: Row) -> str:
    """What a group counts a job as."""
    return str(row["outcome"] or row["state"])


def rank(row: Row) -> int:
    return _RANK.get(row["outcome"] or row["state"], len(WORDS))


def _start(row: Row) -> Any:
    started = row["started_at"]
    return row["expected_start"] if started is None else started


def _time(row: Row) -> Any:
    """In the order of how long they have run, without a clock: of two that run, who began earlier."""
    if row["started_at"] is None:
        return None
    if row["ended_at"] is None:
        return -row["started_at"]
    return row["ended_at"] - row["started_at"]


ORDERS: dict[str, Callable[[Row], Any]] = {
    "id": lambda row: 0,
    "start": _start,
    "priority": lambda row: row["priority"],
    "time": _time,
    "user": lambda row: row["user"],
    "name": lambda row: row["name"],
    "state": lambda row: (rank(row), row["substate"] or ""),
}
# What one wants to see first of these is the most.
FROM_THE_END = ("priority", "time")


def next_order(order: str) -> str:
    words = list(ORDERS)
    return words[(words.index(order) + 1) % len(words)]


def key_of(row: Row, order: str, *, is_descending: bool, first: int) -> Key:
    """To sort by. `first` is the first job of what `row` stands for; equals stand in its order, and
    those without a value are the last. By id, of those that have ended the newest is the first."""
    has_ended = row["state"] == "ended"
    if order == "id":
        return (has_ended, False, 0, -first if is_descending or has_ended else first)
    value = ORDERS[order](row)
    if value is None:
        return (has_ended, True, 0, first)
    return (has_ended, False, _backwards(value) if is_descending else value, first)


def _backwards(value: Any) -> Any:
    """A value that sorts the other way round."""
    if isinstance(value, str):
        return (*(-ord(sign) for sign in value), 1)
    if isinstance(value, tuple):
        return tuple(map(_backwards, value))
    return -value
