"""What the history screen asks for: pages, as the cursor nears the end of them, and who ends now."""

from typing import Any

from textual import on
from textual.timer import Timer

from gpuq.client import Client
from gpuq.errors import GpuqError
from gpuq.past import ANSWER_S
from gpuq.tui.data.history.past import Past, Wanted
from gpuq.tui.screens.history.base import HistoryBase
from gpuq.tui.widgets.line_table import LineTable

PAGE = 200
NEAR = 50  # lines from the end, where the next page is asked for
MOST_LOOKED_THROUGH = 2000  # rows, for so many as fill the window, before somebody moves on
TYPED_S = 0.3  # without a letter, before the daemon is asked
NEWS_S = 1.0  # of ends, gathered before it is asked for them


class AsksForPages(HistoryBase):
    def __init__(self) -> None:
        super().__init__()
        self.is_asking = False
        self._typing: Timer | None = None
        self._news: Timer | None = None
        self._looked_through = 0

    def want(self, wanted: Wanted) -> None:
        if wanted != self.wanted:
            self.wanted = wanted
            self.ask_anew()

    def want_soon(self, wanted: Wanted) -> None:
        """When nobody types any more."""
        if wanted != self.wanted:
            self.wanted = wanted
            self._stop_typing()
            self._typing = self.set_timer(TYPED_S, self.ask_anew)

    def _stop_typing(self) -> None:
        if self._typing is not None:
            self._typing.stop()
            self._typing = None

    def ask_anew(self) -> None:
        """From the first page, for what is wanted now."""
        self._stop_typing()
        past = Past(self.wanted.holds, self.past.order)
        self.past, self._looked_through, self.is_asking = past, 0, False
        if self.wanted.is_none:
            past.add_page([], None)
            self.show_rows(is_other=True)
        else:
            self._ask_page(past, is_first=True)

    def _ask_page(self, past: Past, *, is_first: bool = False) -> None:
        """The next one, unless it is being asked for, or nobody would answer."""
        if self.is_asking or past.is_all or self.gpuq.lost is not None:
            self.show_window()
            return
        self.is_asking = True
        asked, after = self.wanted.request(self.gpuq.signs.now()), past.after

        def ask(client: Client) -> dict[str, Any] | GpuqError:
            try:
                return client.call("history", answer_s=ANSWER_S, after=after, limit=PAGE, **asked)
            except GpuqError as error:
                return error

        def take(page: dict[str, Any] | GpuqError) -> None:
            if past is not self.past:
                return
            self.is_asking = False
            if isinstance(page, GpuqError):
                self.gpuq.say_error(page)
                self.show_window()
                return
            past.add_page(page["jobs"], page["after"])
            self._looked_through += len(page["jobs"])
            self.show_rows(is_other=is_first)
            self._ask_if_near_end()

        self.show_window()
        self.gpuq.ask(ask, take, group="history")

    def ask_newest(self) -> None:
        """The first page anew, since somebody ended."""
        self._news = None
        if self.wanted.is_none or self.is_asking or self.gpuq.lost is not None:
            return
        past, asked = self.past, self.wanted.request(self.gpuq.signs.now())

        def take(page: dict[str, Any]) -> None:
            if past is self.past:
                past.put_newest(page["jobs"], page["after"])
                self.show_rows()

        self.gpuq.ask(
            lambda client: client.call("history", answer_s=ANSWER_S, limit=PAGE, **asked),
            take,
            group="newest",
        )

    def ask_newest_soon(self) -> None:
        self._news = self._news or self.set_timer(NEWS_S, self.ask_newest)

    def _ask_if_near_end(self) -> None:
        """Where a filter lets few through it goes on by itself only for so long."""
        past = self.past
        is_near = self.table.cursor + max(NEAR, self.table.size.height) >= len(past.rows)
        if is_near and self._looked_through < MOST_LOOKED_THROUGH:
            self._ask_page(past)

    @on(LineTable.Moved, "#past")
    def _moved(self) -> None:
        self._looked_through = 0
        self._ask_if_near_end()
