"""`gpuq status --watch`: a picture that is drawn over itself, or a line of JSON at each change.

Loaded only where something is watched. It ends with Ctrl-C, or with the daemon.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from gpuq.cli import console
from gpuq.cli.render import Job, unpainted, width
from gpuq.protocol import SCHEMA

PACE_S = 0.5

Answer = TypeVar("Answer")


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
