"""The app's voice: what is said stands in the message line of whatever screen is up, and fades."""

from typing import TYPE_CHECKING

from textual.app import App

from gpuq.tui.data.messages import Message, Messages
from gpuq.tui.looks import Signs
from gpuq.tui.widgets.message_line import MessageLine

if TYPE_CHECKING:
    from textual.timer import Timer

COUNTED_S = 1.0


class SayingApp(App[None]):
    """`messages` are all that were said, up to a number."""

    signs: Signs

    def __init__(self, *, ansi_color: bool | None = None) -> None:
        super().__init__(ansi_color=ansi_color)
        self.messages = Messages()
        self._fading: Timer | None = None

    def say(
        self,
        text: str,
        *,
        is_error: bool = False,
        undo_for_s: float = 0.0,
        is_passing: bool = False,
    ) -> None:
        """`undo_for_s`: what it tells of can be taken back for so long. `is_passing`: the next one
        takes its place."""
        now = self.signs.now()
        self.messages.add(
            Message(
                text=text,
                at=now,
                is_error=is_error,
                undo_until=now + undo_for_s if undo_for_s else None,
                is_passing=is_passing,
            )
        )
        if self.is_running:
            self.show_message()

    def show_message(self) -> None:
        """In each message line; again and again while it is fresh."""
        message = self.messages.shown(self.signs.now())
        for screen in self.screen_stack:
            for line in screen.query(MessageLine):
                line.show(message)
        if message is not None and self._fading is None:
            self._fading = self.set_interval(COUNTED_S, self.show_message)
        elif message is None and self._fading is not None:
            self._fading.stop()
            self._fading = None
