"""Pieces of a line and their styles, laid over each other."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

from rich.style import Style

from gpuq.tui.data.log.text import NAMES, Paint
from gpuq.tui.looks import CURSOR

Layer = tuple[int, int, Style]


def runs(begin: int, end: int, layers: list[Layer]) -> Iterator[tuple[int, int, list[Style]]]:
    """From `begin` to `end`, cut wherever another style begins or ends."""
    inside = [layer for layer in layers if layer[1] > begin and layer[0] < end]
    cuts = {begin, end, *(at for layer in inside for at in layer[:2] if begin < at < end)}
    places = sorted(cuts)
    for a, b in pairwise(places):
        yield a, b, [style for start, stop, style in inside if start <= a and stop >= b]


def in_piece(span: tuple[int, int], at: int) -> Layer:
    """A span of a row in the piece of it that begins there."""
    start, stop = span
    return start - at, 2**31 if stop == -1 else stop - at, CURSOR


@lru_cache(256)
def style_of(paint: Paint) -> Style:
    return Style(
        color=_name(paint.colour),
        bgcolor=_name(paint.background),
        bold=paint.bold or None,
        dim=paint.dim or None,
        italic=paint.italic or None,
        underline=paint.underline or None,
        reverse=paint.reverse or None,
    )


def _name(colour: int | None) -> str | None:
    if colour is None:
        return None
    return NAMES[colour] if colour < 8 else f"bright_{NAMES[colour - 8]}"
