"""Its processes, as a tree."""

from collections.abc import Sequence

from gpuq.tui.data.detail.process_tree import process_lines
from gpuq.tui.data.pieces import Pieces
from gpuq.tui.widgets.detail.view import DetailView


class ProcsView(DetailView):
    is_tree = True

    def make(self, room: int, height: int) -> Sequence[Pieces]:
        before = self.known.answer("processes before")
        return self.of_one(
            "processes",
            room,
            lambda found: process_lines(found, before, room, is_tree=self.is_tree),
        )
