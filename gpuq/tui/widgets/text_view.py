"""Lines of text to be read: scrolled, cut at the right or moved sideways, never wrapped."""

from collections.abc import Sequence

from rich.style import Style
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from gpuq.tui import keys
from gpuq.tui.looks import Line, Signs

# Pieces of text, each with its style.
Text = Sequence[tuple[str, Style]]


class TextView(ScrollView, can_focus=True):
    BINDINGS = keys.bindings(keys.TEXT)

    class Resized(Message):
        """What it says may be broken into other lines now."""

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.signs = signs
        self._lines: Sequence[Text] = ()

    @property
    def room(self) -> int:
        """Cells of a line, beside the scroll bar where there is one."""
        return self.scrollable_content_region.width

    def write(self, lines: Sequence[Text]) -> None:
        """What it says from now on; where it says that already, nothing is drawn."""
        if lines == self._lines:
            return
        self._lines = lines
        self.virtual_size = Size(self.room, len(lines))
        self.refresh()

    def on_resize(self) -> None:
        self.virtual_size = Size(self.room, len(self._lines))
        self.post_message(self.Resized())

    def render_line(self, y: int) -> Strip:
        number = self.scroll_offset.y + y
        line = Line(self.room, self.signs, self.rich_style)
        for text, style in self._lines[number] if number < len(self._lines) else ():
            line.add(text, style)
        return line.strip()
