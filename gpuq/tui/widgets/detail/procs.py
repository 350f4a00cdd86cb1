"""Its processes, as a tree."""

from collections.abc import Sequence

from gpuq.tui.data.detail.process_tree import process_lines
from gpuq.tui.data.detail.summary import waiting_for_answer
from gpuq.tui.data.pieces import Pieces, sentences
from gpuq.tui.widgets.detail.view import DetailView

OF_ONE = "Of one job: unfold the group, and choose one."


class ProcsView(DetailView):
    is_tree = True

    def make(self, room: int, height: int) -> Sequence[Pieces]:
        known = self.known
        if known.is_folded:
            return sentences([OF_ONE], room)
        found = known.answer("processes")
        if found is None:
            return waiting_for_answer(known.trouble("processes"), room)
        return process_lines(found, known.answer("processes before"), room, is_tree=self.is_tree)
