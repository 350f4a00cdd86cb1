"""Its memory and how busy its GPUs were, over its life."""

from collections.abc import Sequence
from typing import Any

from gpuq.tui.data.detail.graph import graph_lines, graph_rows
from gpuq.tui.data.pieces import Pieces
from gpuq.tui.widgets.detail.view import DetailView


class GraphView(DetailView):
    def make(self, room: int, height: int) -> Sequence[Pieces]:
        now, unicode = self.signs.now(), self.signs.unicode
        return self.of_one(
            "series", room, lambda found: graph_lines(found, now, room, height, unicode=unicode)
        )

    def graph_rows(self) -> list[dict[str, Any]]:
        """What is plotted, a row for each stretch of time; empty where there is nothing."""
        found = self.known.answer("series")
        return [] if found is None or self.known.is_folded else graph_rows(found)
