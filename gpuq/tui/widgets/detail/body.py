"""What is between the GPUs and the foot: the jobs, and beside or below them the pane about one."""

from textual.containers import Container

from gpuq.tui.data.gpus.forms import LIST_ROWS, PANE_ROWS
from gpuq.tui.widgets.detail.pane import DetailPane

PANE_SHARE = 0.4


class Body(Container):
    """Where there is no room for both, the pane is shown in the place of the jobs when somebody wants
    to read it: `is_over`."""

    is_over = False

    @property
    def shows_pane(self) -> bool:
        return self.is_over or self._pane_rows() is None or bool(self._pane_rows())

    def open_pane(self) -> None:
        self.is_over = not self.shows_pane or self.is_over
        self.lay_out()

    def close_pane(self) -> None:
        self.is_over = False
        self.lay_out()

    def on_resize(self) -> None:
        self.lay_out()

    def lay_out(self) -> None:
        rows = self._pane_rows()
        if rows is None or rows:
            self.is_over = False
        self.set_class(rows == 0 and not self.is_over, "-alone")
        self.set_class(self.is_over, "-over")
        self.query_one(DetailPane).styles.height = "1fr" if self.is_over or rows is None else rows

    def _pane_rows(self) -> int | None:
        """None: it has all that height, beside the jobs. 0: there is no room for it."""
        if self.screen.has_class("-wide"):
            return None
        height = self.size.height
        rows = min(int(height * PANE_SHARE), height - LIST_ROWS)
        return rows if rows >= PANE_ROWS else 0
