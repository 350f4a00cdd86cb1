"""`gpuq status --watch`: a picture that is drawn over itself, or a line at each change.

Loaded only where something is watched. It ends with Ctrl-C, with who reads it, or with the daemon,
but for one that is restarted.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from gpuq.cli import console
from gpuq.cli.render import Job, rfc3339, unpainted, width
from gpuq.protocol import SCHEMA

PACE_S = 0.5

Answer = TypeVar("Answer")


class Told(NamedTuple):
    """A row for a pipe, and what of it makes another line when it is otherwise."""

    row: str
    what: Any


def redraw(picture: Callable[[int, int], Sequence[str]]) -> None:
    """`picture` is told how many columns and rows there are, and keeps to them."""

    def look() -> tuple[Sequence[str], int, int]:
        columns, rows = _size()
        return picture(columns, rows - 1), columns, rows  # the cursor stands below it

    drawn: tuple[Sequence[str], int, int] = [], 0, 0
    for seen in _again_and_again(look):
        lines, columns, rows = seen
        if seen != drawn:
            console.draw_over(lines, up=min(_height(drawn[0], columns), rows - 1))
            drawn = seen


def print_changes(jobs: Callable[[], Sequence[Job]]) -> None:
    print_answers(lambda: {"jobs": jobs()})


def print_answers(ask: Callable[[], dict[str, Any]]) -> None:
    said: dict[str, Any] | None = None
    for found in _again_and_again(ask):
        if found != said:
            console.say(json.dumps({"schema": SCHEMA, **found}))
            sys.stdout.flush()
            said = found


def append_changes(
    ask: Callable[[], Mapping[Any, Told]],
    find_gone: Callable[[Sequence[Any]], Iterable[str]] = lambda gone: (),
) -> None:
    """Each row with the time before it: those that are there, and then whatever is new or otherwise.
    `find_gone` has the last rows of those that are no more among them."""
    known: dict[Any, Any] = {}
    for found in _again_and_again(ask):
        gone = [key for key in known if key not in found]
        changed = [told.row for key, told in found.items() if known.get(key) != told.what]
        rows = [*(find_gone(gone) if gone else ()), *changed]
        if rows:
            now = rfc3339(time.time())
            console.say(*(f"{now}\t{row}" for row in rows))
            sys.stdout.flush()
        known = {key: told.what for key, told in found.items()}


def _again_and_again(ask: Callable[[], Answer]) -> Iterator[Answer]:
    """Without end; the daemon is asked for no more than half of the time, however long the list."""
    answer, spent = ask(), 0.0
    while True:
        yield answer
        time.sleep(max(PACE_S - spent, spent))
        began = time.monotonic()
        answer = ask()
        spent = time.monotonic() - began


def _size() -> tuple[int, int]:
    """The window's own, which changes while we draw; the environment's words for it do not."""
    columns, rows = os.get_terminal_size(sys.stdout.fileno())
    return columns or 80, max(rows or 24, 2)


def _height(lines: Sequence[str], columns: int) -> int:
    """A window that became narrower has wrapped what was drawn when it was wider."""
    return sum(max(-(-width(unpainted(line)) // columns), 1) for line in lines)
