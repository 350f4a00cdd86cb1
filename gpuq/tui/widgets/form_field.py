"""A line of a form: what it asks for, and a place to write it."""

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Input

from gpuq.tui.data.form.draft import Field
from gpuq.tui.looks import DIM, RED, Line, Signs
from gpuq.tui.widgets.one_line import OneLine

MARK = "!"


class FieldLabel(OneLine):
    """With a mark before it where what is written is wrong."""

    def __init__(self, signs: Signs, label: str) -> None:
        super().__init__(signs, self._write_label)
        self._label = label
        self._is_wrong = False

    def mark(self, is_wrong: bool) -> None:
        if is_wrong != self._is_wrong:
            self._is_wrong = is_wrong
            self.refresh()

    def _write_label(self, line: Line) -> None:
        style = RED if self._is_wrong else DIM
        line.add(f"{MARK if self._is_wrong else ' '}{self._label}", style)


class FormField(Horizontal):
    def __init__(self, signs: Signs, field: Field, text: str) -> None:
        super().__init__(classes="field")
        self.field = field
        self.label = FieldLabel(signs, field.label)
        self.input = Input(text, field.hint, compact=True, select_on_focus=False, id=field.name)

    def compose(self) -> ComposeResult:
        yield self.label
        yield self.input
