"""Who ended and had how much: beside the list, or in one line above it."""

from typing import Any

from gpuq.cli.render import Look, moment
from gpuq.client import Client
from gpuq.errors import GpuqError
from gpuq.tui.data.history.past import window_start
from gpuq.tui.data.history.totals import Totals, as_line, as_table, totals_of
from gpuq.tui.data.wrapping import wrapped
from gpuq.tui.looks import BOLD, DIM, PLAIN_STYLE, Line
from gpuq.tui.screens.history.base import HistoryBase
from gpuq.tui.widgets.text_view import TextView

OLD_S = 60.0
ROOM = 40  # cells of the pane beside the list


class ShowsTotals(HistoryBase):
    def __init__(self) -> None:
        super().__init__()
        self._totals: Totals | None = None
        self._totals_of: tuple[str, float] | None = None  # the window, and when they were asked for

    def ask_totals(self) -> None:
        """Of a long history they cost the daemon a while: asked for once a minute at the most."""
        now, window = self.gpuq.signs.now(), self.wanted.window
        last = self._totals_of
        if last is not None and last[0] == window and now - last[1] < OLD_S:
            return
        if last is not None and last[0] != window:
            self._totals = None
        if self.gpuq.lost is not None:
            self._totals_of = None
            self._show_totals()
            return
        asked = self._totals_of = (window, now)
        self._totals = None
        self._show_totals()
        since = window_start(window, now)

        def ask(client: Client) -> Totals | GpuqError:
            try:
                stats: Any = client.stats("user", since=since) if since else client.stats("user")
                usage: Any = client.usage(since=since or 0.0)
            except GpuqError as error:
                return error
            return totals_of(stats, usage, now)

        def take(totals: Totals | GpuqError) -> None:
            if self._totals_of != asked:
                return
            if isinstance(totals, GpuqError):
                self._totals_of = None
                self.gpuq.say_error(totals)
            else:
                self._totals = totals
            self._show_totals()

        self.gpuq.ask(ask, take, group="totals")

    def _show_totals(self) -> None:
        self.query_one("#totals-line").refresh()
        view = self.query_one("#totals", TextView)
        lines = [[(f" Of all who ended: {self.wanted.window}", BOLD)]]
        totals = self._totals
        if totals is None:
            view.write([*lines, [(f" {self._absent_words()}", DIM)]])
            return
        table = as_table(totals, Look(width=ROOM))
        lines += [[(f" {line}", PLAIN_STYLE if n else DIM)] for n, line in enumerate(table)]
        at = moment(totals.at, self.gpuq.signs.now())
        for said in (totals.simulated, f"as of {at}"):
            lines += [[(f" {part}", DIM)] for part in wrapped(said, ROOM) if part]
        view.write(lines)

    def write_totals(self, line: Line) -> None:
        totals = self._totals
        said = self._absent_words() if totals is None else as_line(totals, line.left - 2)
        line.add(f" {said}", DIM)

    def _absent_words(self) -> str:
        return "no totals were told" if self._totals_of is None else "reckoning ..."
