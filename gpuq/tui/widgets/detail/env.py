"""The names of the variables that were set for it."""

from collections.abc import Sequence

from gpuq.tui.data.detail.env_lines import env_lines
from gpuq.tui.data.pieces import Pieces
from gpuq.tui.widgets.detail.view import DetailView


class EnvView(DetailView):
    def make(self, room: int, height: int) -> Sequence[Pieces]:
        known = self.known
        return self.of_one("show", room, lambda _: env_lines(known.job, known.user, room))
