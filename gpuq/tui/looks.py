"""How things look: colours by name and signs, as the terminal has them.

Colours are the sixteen of the terminal's own palette, and stand only for a state, never alone: a
letter or a word says the same. Every piece of text has a style, if an empty one: what has none cannot
be shown where NO_COLOR is set.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from gpuq.cli.render import PLAIN, cut, in_ascii, printable

PLAIN_STYLE = Style()
BOLD = Style(bold=True)
DIM = Style(dim=True)
CURSOR = Style(reverse=True)
# By the codes with which the command line paints the same words.
BY_CODE = {
    "": PLAIN_STYLE,
    "31": Style(color="red"),
    "32": Style(color="green"),
    "33": Style(color="yellow"),
    "36": Style(color="cyan"),
    "2": DIM,
    "1": BOLD,
}
RED, GREEN, YELLOW, CYAN = (BY_CODE[code] for code in ("31", "32", "33", "36"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What can be drawn with, and the clock on the wall that times are reckoned by."""

    unicode: bool = True
    now: Callable[[], float] = time.time

    def plain(self, text: str) -> str:
        """The same in ASCII where there is no more, with no column moved."""
        if self.unicode or text.isascii():
            return text
        return in_ascii(text, _IN_ASCII)


_DRAWN = "─│┬┴┼├┤╭╮╰╯┌┐└┘▶·✗✓‖●○▲▼↵→←↑↓▁▂▃▄▅▆▇━┃╸╺▔▕▐▀"
_IN_ASCII = PLAIN | str.maketrans(_DRAWN, "-|+++++++++++++>.x+=*o^v<><^v_..:-=+=|---|#=")


class Line:
    """Pieces of text put together to a line of cells; what is beyond `room` is cut."""

    def __init__(self, room: int, signs: Signs, base: Style = PLAIN_STYLE) -> None:
        self.room = room
        self._signs = signs
        self._base = base
        self._used = 0
        self._segments: list[Segment] = []

    @property
    def left(self) -> int:
        return self.room - self._used

    def add(
        self, text: str, style: Style = PLAIN_STYLE, *, wide: int | None = None, right: bool = False
    ) -> "Line":
        """`wide`: in so many cells, cut or filled up. No text moves the terminal: what cannot be
        printed is written out."""
        room = self.left if wide is None else min(wide, self.left)
        if room <= 0:
            return self
        text = _cut(printable(text), room)
        used = cell_len(text)
        if wide is not None and used < room:
            gap = " " * (room - used)
            text, used = (gap + text if right else text + gap), room
        self._segments.append(Segment(self._signs.plain(text), self._base + style))
        self._used += used
        return self

    def strip(self) -> Strip:
        """Filled up to the whole width."""
        if self.left > 0:
            self._segments.append(Segment(" " * self.left, self._base))
        return Strip(self._segments, self.room)


def _cut(text: str, room: int) -> str:
    """In as many cells as Textual reckons with, which puts the lines together: it knows more signs than
    a pipe needs that take no cell or two."""
    if text.isascii():
        return cut(text, room)
    return text if cell_len(text) <= room else set_cell_size(text, room - 1) + "…"
