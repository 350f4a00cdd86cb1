"""Numbers as graphs made of characters: sparklines of eighths of a cell, plots of braille dots.

Made by hand, since libraries that plot take a hundred times as long. A cell of braille has 2 by 4 dots
(U+2800 and up, one bit a dot), so that a plot shows two values a cell. What is absent stays empty;
what is there has at least its lowest dot, so that 0 is not taken for absent.
"""

from collections.abc import Sequence
from itertools import pairwise

Values = Sequence[float | None]

_BLOCKS = "▁▂▃▄▅▆▇█"
# The bits of the left and the right column of a cell, for 0 to 4 dots from below.
_LEFT = (0x00, 0x40, 0x44, 0x46, 0x47)
_RIGHT = (0x00, 0x80, 0xA0, 0xB0, 0xB8)
_DOTS = tuple(
    tuple(chr(0x2800 | left | right) if left | right else " " for right in _RIGHT) for left in _LEFT
)
# The same in ASCII, by the higher of the two.
_LEVELS = " .:+#"
_IN_ASCII = tuple(tuple(_LEVELS[max(left, right)] for right in range(5)) for left in range(5))


def sparkline(values: Values, low: float = 0.0, high: float = 100.0) -> str:
    """One cell a value. Signs beyond ASCII: the line that shows them knows what to put instead."""
    steps = len(_BLOCKS) - 1
    scale = steps / (high - low) if high > low else 0.0
    return "".join(
        " " if value is None else _BLOCKS[min(max(round((value - low) * scale), 0), steps)]
        for value in values
    )


def plot(
    values: Values,
    cells: int,
    rows: int,
    low: float = 0.0,
    high: float = 100.0,
    *,
    unicode: bool = True,
) -> list[str]:
    """`rows` lines of `cells` characters, filled from below; the oldest value is at the left."""
    table = _DOTS if unicode else _IN_ASCII
    dots = [_height(value, rows * 4, low, high) for value in stretched(values, cells * 2)]
    pairs = list(zip(dots[::2], dots[1::2], strict=True))
    return [
        "".join(table[min(max(a - under, 0), 4)][min(max(b - under, 0), 4)] for a, b in pairs)
        for under in range((rows - 1) * 4, -1, -4)
    ]


def _height(value: float | None, most: int, low: float, high: float) -> int:
    if value is None:
        return 0
    share = (value - low) / (high - low) if high > low else 0.0
    return min(max(round(share * most), 1), most)


def stretched(values: Values, number: int) -> list[float | None]:
    """So many values of them: each several times, or the mean of several."""
    have = len(values)
    if have == number or not have:
        return list(values) or [None] * number
    if have < number:
        return [values[at * have // number] for at in range(number)]
    bounds = [at * have // number for at in range(number + 1)]
    return [mean(values[a:b]) for a, b in pairwise(bounds)]


def mean(values: Values) -> float | None:
    """Of those that are there; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
