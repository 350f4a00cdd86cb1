"""The app's voice: what is said stands in the message line of whatever screen is up, and fades."""

from typing import TYPE_CHECKING

from textual import on

from gpuq.errors import DaemonUnreachable, GpuqError
from gpuq.tui.data.messages import TOAST_S, Message, Messages
from gpuq.tui.keymap import KeyedApp
from gpuq.tui.looks import Signs
from gpuq.tui.widgets.message_line import MessageLine

if TYPE_CHECKING:
    from textual.timer import Timer

COUNTED_S = 1.0


class SayingApp(KeyedApp):
    """`messages` are all that were said, up to a number."""

    signs: Signs

    def __init__(self, *, ansi_color: bool | None = None) -> None:
        super().__init__(ansi_color=ansi_color)
        self.messages = Messages()
        self.lost: GpuqError | None = None
        self._fading: Timer | None = None

    def say(
        self,
        text: str,
        *,
        command: str = "",
        is_error: bool = False,
        undo_for_s: float = 0.0,
        is_passing: bool = False,
        is_of_loss: bool = False,
    ) -> None:
        """`command` is the line that it came of. `undo_for_s`: it can be taken back for so long; that
        is offered for a moment only, though the key goes on. `is_passing`: the next one takes its
        place. `is_of_loss`: it holds only as long as no daemon answers, as does each error
        while none does."""
        now = self.signs.now()
        self.messages.add(
            Message(
                text=text,
                command=command,
                at=now,
                is_error=is_error,
                undo_until=now + min(undo_for_s, TOAST_S) if undo_for_s else None,
                is_passing=is_passing,
                is_of_loss=is_of_loss or (is_error and self.lost is not None),
            )
        )
        if self.is_running:
            self.show_message()

    def say_error(self, error: GpuqError, *, command: str = "") -> None:
        is_of_loss = isinstance(error, DaemonUnreachable)
        self.say(str(error), command=command, is_error=True, is_of_loss=is_of_loss)

    def hush(self) -> None:
        """What was said gives way to what the reader turns to now; it stays among the others."""
        self.messages.hush()
        self.show_message()

    def forget_loss(self) -> None:
        """The daemon answers again."""
        self.messages.forget_loss()
        self.show_message()

    @on(MessageLine.Opened)
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
