"""What was last said, whole, the newest first."""

from collections.abc import Sequence

from gpuq.cli.render import moment, printable
from gpuq.tui import keys
from gpuq.tui.keymap import name_of
from gpuq.tui.looks import DIM, PLAIN_STYLE, RED, Line
from gpuq.tui.screens.dialogs.dialog import Dialog, wrapped
from gpuq.tui.widgets.text_view import Text


class MessagesDialog(Dialog[None]):
    BINDINGS = keys.bindings(keys.TOLD)

    def __init__(self) -> None:
        super().__init__("Messages")

    def lines(self, room: int, height: int) -> Sequence[Text]:
        now = self.gpuq.signs.now()
        lines: list[Text] = []
        for message in self.gpuq.messages.newest_first():
            style = RED if message.is_error else PLAIN_STYLE
            text = f"{moment(message.at, now)} {printable(message.whole)}"
            lines += wrapped(text, room, style)
        return lines or [[("nothing was said yet", DIM)]]

    def write_foot(self, line: Line) -> None:
        line.add(f"{name_of('dialog.close', self.gpuq)} close", DIM)

    def action_no(self) -> None:
        self.close(None)
