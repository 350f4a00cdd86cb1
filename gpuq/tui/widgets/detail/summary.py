"""What the job asked for, how it goes, and how its attempts went; or what it waits for."""

from collections.abc import Sequence

from gpuq.tui.data.detail.group_summary import group_lines
from gpuq.tui.data.detail.need_tree import need_lines
from gpuq.tui.data.detail.summary import head, rest, waiting_for_answer
from gpuq.tui.data.pieces import Pieces
from gpuq.tui.widgets.detail.view import DetailView


class SummaryView(DetailView):
    """`shows_tree`: what it waits for and what waits for it. `has_head`: what comes first in it stands
    elsewhere already."""

    shows_tree = False
    has_head = False

    def make(self, room: int, height: int) -> Sequence[Pieces]:
        known = self.known
        if known.is_folded:
            now = self.signs.now()
            return self.answered("group", room, lambda group: group_lines(group, now, room))
        if self.shows_tree:
            return self.answered("needs", room, lambda needs: need_lines(needs, room))
        return self._of_one(room)

    def _of_one(self, room: int) -> list[Pieces]:
        known, now = self.known, self.signs.now()
        first = [] if self.has_head else head(known.job, now, room)
        if (trouble := known.trouble("show")) is not None:
            return [*waiting_for_answer(trouble, room), *first]
        if known.answer("show") is None:
            return [*first, *waiting_for_answer(None, room)]
        return [*first, *rest(known.job, now, room)]
