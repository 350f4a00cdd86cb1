"""How a log is read, handed from one view of it to another."""

from textual.scroll_view import ScrollView

from gpuq.tui.data.log.reading import Reading
from gpuq.tui.data.log.search import Search
from gpuq.tui.data.log.window import LogWindow


class ReadsOn(ScrollView):
    window: LogWindow
    follows: bool
    shows_times: bool
    search: Search | None
    here: int | None
    _left: int

    def reading(self) -> Reading:
        row = self.scroll_offset.y
        line = self._line_at(row) if len(self.window) else 0
        return Reading(
            follows=self.follows,
            top=self.window.start_of(line),
            part=row - self._row_of(line),
            left=self._left,
            wraps=self.wraps,
            shows_times=self.shows_times,
            wanted="" if self.search is None else self.search.wanted,
            found=None if self.here is None else self.window.start_of(self.here),
        )

    def read_like(self, reading: Reading) -> None:
        """All but the place, which may not be held yet."""
        self.follows, self.shows_times = reading.follows, reading.shows_times
        if reading.wraps != self.wraps:
            self.set_wrap(reading.wraps)
        self._left = reading.left
        if reading.wanted != ("" if self.search is None else self.search.wanted):
            self.look_for(reading.wanted)
        self.refresh()

    def go_back_to(self, reading: Reading) -> bool:
        """To its place; no where that is not held."""
        if not self.window.begin <= reading.top <= self.window.end:
            return False
        line = self.window.line_at(reading.top)
        rows = self._row_of(line + 1) - self._row_of(line) if line + 1 < len(self.window) else 1
        self._go_to(self._row_of(line) + min(reading.part, rows - 1))
        if reading.found is not None and self.window.begin <= reading.found < self.window.end:
            self.here = self.window.line_at(reading.found)
        self.refresh()
        return True

    # ── of the view ──

    @property
    def wraps(self) -> bool:
        raise NotImplementedError

    def set_wrap(self, on: bool) -> None:
        raise NotImplementedError

    def look_for(self, wanted: str) -> None:
        raise NotImplementedError

    def _go_to(self, row: int) -> None:
        raise NotImplementedError

    def _row_of(self, line: int) -> int:
        raise NotImplementedError

    def _line_at(self, row: int) -> int:
        raise NotImplementedError
