"""Where a filter is typed: one line in the place of the message line, as long as it is open, and more
below it where what is wrong finds no room beside it."""

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.strip import Strip
from textual.widgets import Input

from gpuq.cli.render import printable, width
from gpuq.tui import keys
from gpuq.tui.data.listing.filters import Recalled
from gpuq.tui.data.wrapping import wrapped
from gpuq.tui.looks import BOLD, RED, Line, Signs
from gpuq.tui.widgets.one_line import OneLine

LOWEST, MOST_LINES = 4, 4  # rows of the screen for each line of what is wrong, and how many at most


class FilterInput(Input):
    BINDINGS = keys.bindings(keys.FILTER)

    class Recall(Message):
        """1: the one used before; -1 back again."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    class Cleared(Message):
        """No filter any more."""

    def action_recall(self, by: int) -> None:
        self.post_message(self.Recall(by))

    def action_clear(self) -> None:
        self.post_message(self.Cleared())


class Wrong(OneLine):
    """What is wrong with it, in as many lines as that takes."""

    def __init__(self, signs: Signs, *, id: str) -> None:
        super().__init__(signs, lambda line: None, id=id)
        self._lines: list[str] = []

    def show(self, text: str) -> None:
        lines = wrapped(printable(text), max(self.app.size.width - 2, 1)) if text else []
        most = min(MOST_LINES, max(self.app.size.height // LOWEST, 1))
        if len(lines) > most:
            lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]  # which is cut where it ends
        self.display, self.styles.height, self._lines = bool(lines), len(lines), lines
        self.refresh()

    def render_line(self, y: int) -> Strip:
        line = Line(self.size.width, self._signs, self.rich_style)
        if y < len(self._lines):
            line.add(f" {self._lines[y]}", RED)
        return line.strip()


class FilterLine(Vertical):
    """Says `Typed` with each letter and `Closed` at the end; `said` is shown beside it."""

    class Typed(Message):
        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Closed(Message):
        """`is_kept`: what was typed last is to stay."""

        def __init__(self, *, is_kept: bool) -> None:
            super().__init__()
            self.is_kept = is_kept

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._signs = signs
        self._recalled = Recalled()
        self._at = -1  # of those that are recalled; -1: what is typed anew
        self._said, self.is_wrong = "", False
        self.display = False

    def compose(self) -> ComposeResult:
        with Horizontal(id="filter-row"):
            yield OneLine(self._signs, lambda line: self._write(line, " /"), id="filter-sign")
            yield FilterInput(compact=True, select_on_focus=False)
            yield OneLine(self._signs, self._write_said, id="filter-said")
        yield Wrong(self._signs, id="filter-wrong")

    @property
    def input(self) -> FilterInput:
        return self.query_one(FilterInput)

    def open(self, text: str) -> None:
        self.display, self._at = True, -1
        with self.prevent(Input.Changed):
            self.input.value = text
        self.input.cursor_position = len(text)
        self.input.focus()

    def close(self, text: str) -> None:
        self._recalled.add(text)
        self.display = False

    def say(self, text: str, *, is_wrong: bool = False) -> None:
        self._said, self.is_wrong = text, is_wrong
        self._lay_out()

    def on_resize(self) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        beside = self.query_one("#filter-said")
        is_below = self.is_wrong and width(printable(self._said)) >= beside.size.width
        beside.visible = not is_below
        self.query_one(Wrong).show(self._said if is_below else "")
        beside.refresh()

    @on(Input.Changed)
    def _tell(self, changed: Input.Changed) -> None:
        changed.stop()
        self.post_message(self.Typed(changed.value))

    @on(Input.Submitted)
    def _keep(self, submitted: Input.Submitted) -> None:
        submitted.stop()
        self.post_message(self.Closed(is_kept=True))

    @on(FilterInput.Cleared)
    def _clear(self) -> None:
        self.post_message(self.Closed(is_kept=False))

    @on(FilterInput.Recall)
    def _recall(self, recall: FilterInput.Recall) -> None:
        """Behind the last there is an empty line."""
        at = max(self._at + recall.by, -1)
        text = "" if at < 0 else self._recalled.at(at)
        if text is not None:
            self._at, self.input.value = at, text
            self.input.cursor_position = len(text)

    def _write(self, line: Line, text: str) -> None:
        line.add(text, BOLD)

    def _write_said(self, line: Line) -> None:
        line.add(f" {self._said}", RED if self.is_wrong else BOLD)
