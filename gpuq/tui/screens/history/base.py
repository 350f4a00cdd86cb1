"""What the parts of the history screen share."""

from gpuq.tui.data.history.past import Past, Wanted
from gpuq.tui.screens.base import GpuqScreen
from gpuq.tui.widgets.past_table import PastTable


class HistoryBase(GpuqScreen):
    """`wanted` is what is asked for, `past` what is there of it by now."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted = Wanted()
        self.past = Past(self.wanted.holds)

    @property
    def table(self) -> PastTable:
        return self.query_one(PastTable)

    def want(self, wanted: Wanted) -> None:
        """From now on; the daemon is asked where that is something else."""
        raise NotImplementedError

    def show_rows(self, *, is_other: bool = False) -> None:
        """`is_other`: of another question."""
        self.table.show(self.past.rows, is_other=is_other)
        self.show_window()

    def show_window(self) -> None:
        """The line above the list says something else."""
        self.query_one("#window").refresh()
