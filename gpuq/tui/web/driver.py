"""The terminal of a screen behind a page: what Textual has for it, and an end."""

from textual.drivers.web_driver import WebDriver
from textual.events import Resize
from textual.message import Message
from textual.messages import ExitApp


class PageDriver(WebDriver):
    """Leaves when nobody is at the other end any more, however the server died."""

    def run_input_thread(self) -> None:
        super().run_input_thread()
        self._app.post_message(ExitApp())

    def process_message(self, message: Message) -> None:
        """What was typed. A terminal can tell its size among it, of any figure; a page tells its own
        to the server, which has a limit, and that size does not come by here."""
        if not isinstance(message, Resize):
            super().process_message(message)
