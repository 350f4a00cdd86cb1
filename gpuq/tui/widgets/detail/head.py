"""The first that is to be known of a job: above the tabs, where there is room for it."""

from collections.abc import Sequence

from textual.strip import Strip
from textual.widget import Widget

from gpuq.tui.data.detail.known import Known
from gpuq.tui.data.detail.summary import head, title
from gpuq.tui.data.pieces import Pieces
from gpuq.tui.looks import Line, Signs
from gpuq.tui.widgets.detail.view import draw, forgetting, understand

MOST_LINES = 10


class HeadView(Widget):
    """As high as what it says, up to some lines."""

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._signs = signs
        self._known = Known()
        self._lines: Sequence[Pieces] = ()

    def show(self, known: Known) -> None:
        self._known = known
        with forgetting(self.forget):
            self.lay_out()

    def forget(self) -> None:
        self._known = Known()

    def lay_out(self) -> None:
        room, job = self.size.width - 1, self._known.job
        if room <= 0:
            return
        lines: list[Pieces] = []
        if job and self._known.is_folded:
            lines = [title(job | {"id": job["jobs"]})]
        elif job:
            lines = [title(job), *head(job, self._signs.now(), room)][:MOST_LINES]
        if lines != self._lines:
            self._lines = lines
            self.styles.height = max(len(lines), 1)
            self.refresh()

    def on_resize(self) -> None:
        understand(self, self.lay_out, self.forget)

    def render_line(self, y: int) -> Strip:
        line = Line(self.size.width, self._signs, self.rich_style)
        if y < len(self._lines):
            draw(line, self._lines[y])
        return line.strip()
