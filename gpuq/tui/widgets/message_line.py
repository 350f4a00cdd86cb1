"""What was last done and what came of it; an error gets the room to be read whole."""

from collections.abc import Callable
from typing import cast

from textual.message import Message as Event
from textual.strip import Strip

from gpuq.tui.data.message_lines import message_lines
from gpuq.tui.data.messages import Message
from gpuq.tui.keymap import KeyedApp, name_of
from gpuq.tui.looks import BOLD, PLAIN_STYLE, RED, YELLOW, Line, Signs
from gpuq.tui.widgets.one_line import OneLine

MOST_LINES = 4


class MessageLine(OneLine):
    """One line, unless an error wants more, or what came of a deed. While there is no message it
    shows what `write` adds."""

    class Opened(Event):
        """It is there, and knows of no message yet."""

    def __init__(
        self, signs: Signs, write: Callable[[Line], None], *, id: str | None = None
    ) -> None:
        super().__init__(signs, write, id=id)
        self._message: Message | None = None
        self._lines: list[str] = []
        self._undo_left_s = 0

    def on_mount(self) -> None:
        self.post_message(self.Opened())

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
            most = min(MOST_LINES, max(self.screen.size.height // 6, 1))
            mark = f"({name_of('messages', cast(KeyedApp, self.app))})"
            beside = len(self._toast())
            self._lines = message_lines(message, room, most, beside=beside, mark=mark)
        height = max(len(self._lines), 1)
        if self.size.height != height:
            self.styles.height = height
        self.refresh()

    def _toast(self) -> str:
        if not (left_s := self._undo_left_s):
            return ""
        key = name_of("undo", cast(KeyedApp, self.app))
        return f" · {key} undoes it ({left_s} s)"

    def render_line(self, y: int) -> Strip:
        if self._message is None:
            return super().render_line(y)
        line = Line(self.size.width, self._signs, self.rich_style)
        if y < len(self._lines):
            style = RED if self._message.is_error else PLAIN_STYLE
            line.add(f" {self._lines[y]}", style)
            if y == len(self._lines) - 1:
                line.add(self._toast(), YELLOW + BOLD)
        return line.strip()
