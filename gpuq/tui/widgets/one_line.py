"""Widgets of one line: what stands at the top, messages, keys."""

from collections.abc import Callable

from textual.strip import Strip
from textual.widget import Widget

from gpuq.tui.looks import Line, Signs


class OneLine(Widget):
    """`write` adds what it says, whenever it is drawn."""

    DEFAULT_CSS = "OneLine { height: 1; }"

    def __init__(
        self, signs: Signs, write: Callable[[Line], None], *, id: str | None = None
    ) -> None:
        super().__init__(id=id)
        self._signs = signs
        self._write = write

    def render_line(self, y: int) -> Strip:
        line = Line(self.size.width, self._signs, self.rich_style)
        if y == 0:
            self._write(line)
        return line.strip()
