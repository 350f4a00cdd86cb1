"""The terminal of a screen behind a page: what Textual has for it, and an end."""

from textual.drivers.web_driver import WebDriver
from textual.messages import ExitApp


class PageDriver(WebDriver):
    """Leaves when nobody is at the other end any more, however the server died."""

    def run_input_thread(self) -> None:
        super().run_input_thread()
        self._app.post_message(ExitApp())
