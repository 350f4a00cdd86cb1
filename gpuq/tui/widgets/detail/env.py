"""The names of the variables that were set for it."""

from collections.abc import Sequence

from gpuq.tui.data.detail.env_lines import env_lines
from gpuq.tui.data.detail.summary import waiting_for_answer
from gpuq.tui.data.pieces import Pieces, sentences
from gpuq.tui.widgets.detail.procs import OF_ONE
from gpuq.tui.widgets.detail.view import DetailView


class EnvView(DetailView):
    def make(self, room: int, height: int) -> Sequence[Pieces]:
        known = self.known
        if known.is_folded:
            return sentences([OF_ONE], room)
        if known.answer("show") is None:
            return waiting_for_answer(known.trouble("show"), room)
        return env_lines(known.job, known.user, room)
