"""The GPUs, each with a graph of one of its readings."""

from collections.abc import Mapping
from operator import ne
from typing import Any

from gpuq.tui.data.braille import plot
from gpuq.tui.data.gpus.forms import form
from gpuq.tui.data.gpus.graphs import WHAT, What, scale_label, top_of_scale
from gpuq.tui.data.gpus.line import Pieces, gpu_line, tenants_of
from gpuq.tui.data.picture import Gpu, Picture
from gpuq.tui.looks import BY_CODE, Line, Signs
from gpuq.tui.widgets.line_table import LineTable

LEAST_ROWS, MOST_ROWS = 3, 9  # of a GPU, with the line above its graph
LABEL_CELLS = 6


class GpuPlots(LineTable):
    """The cursor goes from GPU to GPU. Heads follow what is told, graphs what is loaded."""

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(signs, id=id)
        self._picture = Picture()
        self._gpus: list[Gpu] = []
        self._history: Mapping[str, Any] | None = None
        self._what = WHAT[0]
        self._rows = LEAST_ROWS
        self._heads: list[Pieces] = []
        self._graphs: list[list[str]] = []

    @property
    def current(self) -> Gpu | None:
        number = self.cursor // self._rows
        return self._gpus[number] if number < len(self._gpus) else None

    @property
    def dots(self) -> int:
        """That a graph has from left to right."""
        return max(self.size.width - LABEL_CELLS, 1) * 2

    # ── what is shown ──

    def show(self, picture: Picture) -> None:
        """What was told of them by now."""
        before, uuid = self._gpus, None if self.current is None else self.current["uuid"]
        self._picture, self._gpus = picture, picture.gpus
        if [gpu["uuid"] for gpu in before] != [gpu["uuid"] for gpu in self._gpus]:
            self._lay_out(uuid)
        else:
            self._draw_heads()

    def load(self, history: Mapping[str, Any]) -> None:
        self._history = history
        self._draw_graphs()

    def plot(self, what: What) -> None:
        self._what = what
        self._draw_graphs()

    def _lay_out(self, uuid: str | None) -> None:
        """As many rows for each as there is room for; the cursor stays on its GPU."""
        count = len(self._gpus)
        self._rows = min(max(self.size.height // max(count, 1), LEAST_ROWS), MOST_ROWS)
        self._heads, self._graphs = self._make_heads(), self._make_graphs()
        at = next((n for n, gpu in enumerate(self._gpus) if gpu["uuid"] == uuid), 0)
        self.set_lines(count * self._rows, at * self._rows)

    def _draw_heads(self) -> None:
        before, self._heads = self._heads, self._make_heads()
        for number, (old, new) in enumerate(zip(before, self._heads, strict=True)):
            if old != new:
                self.redraw(number * self._rows)

    def _draw_graphs(self) -> None:
        before, self._graphs = self._graphs, self._make_graphs()
        for number, (old, new) in enumerate(zip(before, self._graphs, strict=True)):
            for n, is_new in enumerate(map(ne, old, new), number * self._rows + 1):
                if is_new:
                    self.redraw(n)

    def _make_heads(self) -> list[Pieces]:
        columns, now = form(self.size.width, self._gpus, with_history=False), self.signs.now()
        told = ((gpu, columns, tenants_of(gpu, self._picture), (), now) for gpu in self._gpus)
        return [gpu_line(*one) for one in told]

    def _make_graphs(self) -> list[list[str]]:
        return [self._graph(gpu) for gpu in self._gpus]

    def _graph(self, gpu: Gpu) -> list[str]:
        told = {} if self._history is None else self._history["gpus"].get(gpu["uuid"], {})
        values, rows = told.get(self._what.reading, ()), self._rows - 1
        high = top_of_scale(gpu, self._what, values)
        unicode = self.signs.unicode
        lines = plot(values, self.dots // 2, rows, 0.0, high, unicode=unicode)
        labels = [scale_label(self._what, high), *[""] * (rows - 2), "0"]
        wide = LABEL_CELLS - 1
        return [f"{label:>{wide}} {line}" for label, line in zip(labels, lines, strict=True)]

    # ── what Textual calls ──

    def draw(self, number: int, line: Line) -> None:
        gpu, row = divmod(number, self._rows)
        if row:
            line.add(self._graphs[gpu][row - 1])
            return
        for text, code, wide, right in self._heads[gpu]:
            line.add(text, BY_CODE[code], wide=wide, right=right)

    def on_resize(self) -> None:
        super().on_resize()
        self._lay_out(None if self.current is None else self.current["uuid"])

    # ── the cursor ──

    def move_to(self, number: int) -> None:
        """To the head of the GPU that this line is of."""
        number = max(0, min(number, self.lines - 1))
        super().move_to(number - number % self._rows)

    def action_move(self, by: int) -> None:
        self.move_to(self.cursor + by * self._rows)

    def _show_cursor(self) -> None:
        """With all of its graph."""
        height, top, last = self.size.height, int(self.scroll_y), self.cursor + self._rows
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        elif height and last > top + height:
            self.scroll_to(y=last - height, animate=False, force=True)
