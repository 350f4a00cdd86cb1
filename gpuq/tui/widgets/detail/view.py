"""A tab of text about one job, as wide as its pane."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from textual.geometry import Region, Size
from textual.widget import Widget

from gpuq.tui.data.detail.known import Known
from gpuq.tui.data.detail.summary import waiting_for_answer
from gpuq.tui.data.pieces import Pieces, sentences
from gpuq.tui.looks import BY_CODE, Line
from gpuq.tui.widgets.text_view import TextView

if TYPE_CHECKING:
    from gpuq.tui.asking_app import AskingApp

OF_ONE = "Of one job: unfold the group, and choose one."


class DetailView(TextView):
    """A subclass says what there is to read: `make`. Lines that say the same are not drawn again."""

    known = Known()

    def show(self, known: Known) -> None:
        """Of another job it begins at the first line."""
        is_other = _id(known) != _id(self.known)
        self.known = known
        if is_other:
            self.scroll_to(y=0, animate=False)
        with forgetting(self.forget):
            self.lay_out()

    def forget(self) -> None:
        self.known = Known()

    def make(self, room: int, height: int) -> Sequence[Pieces]:
        """The lines for a pane of so many cells."""
        raise NotImplementedError

    def answered(
        self, kind: str, room: int, then: Callable[[Any], Sequence[Pieces]]
    ) -> Sequence[Pieces]:
        """What `then` makes of the answer to that; until it is there, or why it is not."""
        found = self.known.answer(kind)
        return waiting_for_answer(self.known.trouble(kind), room) if found is None else then(found)

    def of_one(
        self, kind: str, room: int, then: Callable[[Any], Sequence[Pieces]]
    ) -> Sequence[Pieces]:
        """The same, where a group as one line has none."""
        return (
            sentences([OF_ONE], room) if self.known.is_folded else self.answered(kind, room, then)
        )

    def lay_out(self) -> None:
        if self.size.width <= 0:
            return  # it is not seen yet, and told again when it is
        made = self.make(self.size.width - 1, self.size.height) if self.known.row else ()
        lines = [[(text, BY_CODE[code]) for text, code in line] for line in made]
        before, self._lines = self._lines, lines
        if len(before) != len(lines):
            self.virtual_size = Size(self.room, len(lines))
            self.refresh()
            return
        for number, line in enumerate(lines):
            if line != before[number]:
                self._redraw(number)

    def _redraw(self, number: int) -> None:
        y = number - self.scroll_offset.y
        if 0 <= y < self.size.height:
            self.refresh(Region(0, y, self.room, 1))

    def on_resize(self) -> None:
        understand(self, self.lay_out, self.forget)


def _id(known: Known) -> object:
    return None if known.row is None else (known.row["id"], known.is_folded)


@contextmanager
def forgetting(forget: Callable[[], None]) -> Iterator[None]:
    """What cannot be shown now is not tried again at each change of the window."""
    try:
        yield
    except Exception:
        forget()
        raise


def understand(widget: Widget, lay_out: Callable[[], None], forget: Callable[[], None]) -> None:
    """Lays out what came before there was room for it."""
    if not cast("AskingApp", widget.app).understand(lay_out):
        forget()


def draw(line: Line, pieces: Pieces) -> None:
    for text, code in pieces:
        line.add(text, BY_CODE[code])
