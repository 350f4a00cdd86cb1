"""The GPUs, a line for each, above the jobs."""

from collections.abc import Mapping
from typing import Any

from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from gpuq.core.gpus.ring import Ring
from gpuq.tui.data.gpus.forms import Form, form, strip_rows
from gpuq.tui.data.gpus.line import Pieces, folded_of, gpu_line, head, hidden, tenants_of
from gpuq.tui.data.gpus.past import GpuPast
from gpuq.tui.data.picture import Gpu, Picture
from gpuq.tui.looks import BY_CODE, Line, Signs
from gpuq.tui.widgets.line_table import otherwise


class GpuStrip(Widget):
    """As high as there are GPUs and there is room; in a low window it is one line that counts them,
    in a very low one none. Only what says something else than before is drawn."""

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._signs = signs
        self._picture = Picture()
        self._past = GpuPast()
        self._lines: list[Pieces] = []
        self._made_of: list[Any] = []  # what each of the lines was made of

    def load(self, rings: Mapping[str, Ring]) -> None:
        """How busy they were until now."""
        self._past.load(rings)
        self._past.take(self._picture.gpus, self._signs.now())
        self.lay_out()

    def show(self, picture: Picture, *, is_told: bool = True) -> None:
        """`is_told`: the daemon has just said so; else it is what it said last."""
        self._picture = picture
        if is_told:
            self._past.take(picture.gpus, self._signs.now())
        else:
            self._past.forget_last()
        self.lay_out()

    def forget_last(self) -> None:
        """It is not told any more for a while."""
        self._past.forget_last()

    def lay_out(self) -> None:
        """For the window as it is now."""
        width, height = self.app.size
        gpus = self._picture.gpus
        rows = strip_rows(len(gpus), width, height)
        if len(self._lines) != rows:
            self._lines, self._made_of = [[] for _ in range(rows)], []
        self.styles.height = rows
        if rows == 1:
            self._put(0, folded_of(self._picture))
        elif rows:
            self._lay_out_lines(gpus, form(width, gpus), rows)

    def _lay_out_lines(self, gpus: list[Gpu], form: Form, rows: int) -> None:
        fit = rows - 1 if len(gpus) < rows else rows - 2
        now = self._signs.now()
        if len(self._made_of) != fit:
            self._made_of = [None] * fit
        self._put(0, head(form))
        for number, gpu in enumerate(gpus[:fit]):
            past = self._past.means(gpu["uuid"], form.window_s, form.history, now)
            made_of = (gpu, form, tenants_of(gpu, self._picture), past, int(now // 60))
            if made_of != self._made_of[number]:
                self._made_of[number] = made_of
                self._put(number + 1, gpu_line(*made_of[:4], now))
        if gpus[fit:]:
            self._put(rows - 1, hidden(gpus[fit:]))

    def _put(self, number: int, pieces: Pieces) -> None:
        if pieces == self._lines[number]:
            return
        before = self.render_line(number)
        self._lines[number] = pieces
        first, last = otherwise(before, self.render_line(number))
        if last > first:
            self.refresh(Region(first, number, last - first, 1))

    def render_line(self, y: int) -> Strip:
        line = Line(self.size.width, self._signs, self.rich_style)
        for text, code, wide, right in self._lines[y] if y < len(self._lines) else ():
            line.add(text, BY_CODE[code], wide=wide, right=right)
        return line.strip()
