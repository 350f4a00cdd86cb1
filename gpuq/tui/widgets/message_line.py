"""What was last done and what came of it; an error gets the room to be read whole."""

from collections.abc import Callable
from textwrap import wrap
from typing import TYPE_CHECKING, cast

from textual.strip import Strip
from textual.widget import Widget

from gpuq.cli.render import printable
from gpuq.core.units import format_seconds
from gpuq.tui.data.messages import Message
from gpuq.tui.looks import BOLD, PLAIN_STYLE, RED, YELLOW, Line, Signs

if TYPE_CHECKING:
    from gpuq.tui.saying import SayingApp

MOST_LINES = 4
A_WHILE_S = 100
CUT = " … (M)"  # the key that shows all
GAP = " … "


class MessageLine(Widget):
    """One line, unless an error wants more. While there is no message it shows what `write` adds."""

    DEFAULT_CSS = "MessageLine { height: 1; }"

    def __init__(
        self, signs: Signs, write: Callable[[Line], None], *, id: str | None = None
    ) -> None:
        super().__init__(id=id)
        self._signs = signs
        self._write = write
        self._message: Message | None = None
        self._lines: list[str] = []
        self._undo_left_s = 0

    def on_mount(self) -> None:
        cast("SayingApp", self.app).show_message()

    def show(self, message: Message | None) -> None:
        """It changes only where it says something else than before."""
        left_s = 0 if message is None else message.undo_left_s(self._signs.now())
        if (message, left_s) != (self._message, self._undo_left_s):
            self._message, self._undo_left_s = message, left_s
            self._lay_out()

    def on_resize(self) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        """Words that are wider than they have letters only make the last line be cut a bit sooner."""
        message, room = self._message, max(self.size.width - 1, 1)
        self._lines = []
        if message is not None:
            most = min(MOST_LINES, max(self.screen.size.height // 6, 1)) if message.is_error else 1
            text, toast = printable(message.text), self._toast()
            lines = wrap(text, room, break_on_hyphens=False) if most > 1 else [text]
            if most == 1 and len(text) > room - len(toast):
                lines = [without_its_middle(text, room - len(toast))]
            elif len(lines) > most or len(lines[-1]) > room - len(toast):
                lines = [*lines[: most - 1], lines[most - 1][: room - len(CUT) - len(toast)] + CUT]
            self._lines = lines
        height = max(len(self._lines), 1)
        if self.size.height != height:
            self.styles.height = height
        self.refresh()

    def _toast(self) -> str:
        if not (left_s := self._undo_left_s):
            return ""
        left = f"{left_s} s" if left_s < A_WHILE_S else format_seconds(left_s)
        return f" · u undoes it ({left})"

    def render_line(self, y: int) -> Strip:
        line = Line(self.size.width, self._signs, self.rich_style)
        if self._message is not None and y < len(self._lines):
            style = RED if self._message.is_error else PLAIN_STYLE
            line.add(f" {self._lines[y]}", style)
            if y == len(self._lines) - 1:
                line.add(self._toast(), YELLOW + BOLD)
        elif self._message is None and y == 0:
            self._write(line)
        return line.strip()


def without_its_middle(text: str, room: int) -> str:
    """What was done stands at the beginning, what came of it at the end."""
    whole = CUT.removeprefix(" …")
    left = max(room - len(whole) - len(GAP), 2)
    return f"{text[: left // 2]}{GAP}{text[len(text) - (left - left // 2) :]}{whole}"
