"""Dialogs: a box over a screen that asks one thing, and is closed by the answer."""

from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from rich.style import Style
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input

from gpuq.cli.render import printable
from gpuq.tui import keys
from gpuq.tui.data.picture import Change
from gpuq.tui.keymap import name_of, name_while_typing, names_of
from gpuq.tui.looks import DIM, PLAIN_STYLE, RED, Line
from gpuq.tui.widgets.one_line import OneLine
from gpuq.tui.widgets.text_view import Text, TextView

if TYPE_CHECKING:
    from gpuq.tui.app import GpuqApp

Answer = TypeVar("Answer")

WIDEST = 78  # of the box, in cells
FRAME, MARGIN = 2, 2  # cells on both sides together: lines and what is free beside them


class Dialog(ModalScreen[Answer], Generic[Answer]):
    """A subclass gives its `lines` for so many cells and lines, and calls `redraw` when they are
    others. It is shown what changes, as the screens are. It closes once, however many keys are under
    way."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._is_closed = False

    @property
    def gpuq(self) -> "GpuqApp":
        return cast("GpuqApp", self.app)

    # ── for subclasses ──

    def lines(self, room: int, height: int) -> Sequence[Text]:
        """What stands in the box; `height` is what fits without being scrolled."""
        raise NotImplementedError

    def write_foot(self, line: Line) -> None:
        """The line of keys."""

    def compose_more(self) -> ComposeResult:
        """What stands between the lines and the keys."""
        return ()

    def close(self, answer: Answer | None) -> None:
        if not self._is_closed and self.is_current:
            self._is_closed = True
            self.dismiss(answer)

    def retitle(self, title: str) -> None:
        self.query_one("#box").border_title = Content(printable(title))

    def show(self, change: Change) -> None:
        """What the app's picture holds by now."""
        self.redraw()

    def redraw(self) -> None:
        view = next(iter(self.query(TextView)), None)
        if view is None:  # before its first moment, or after its last
            return
        lines = self.lines(self.room, self._height())
        view.styles.height = len(lines)
        view.write(lines)
        self.query_one("#foot").refresh()

    # ── what Textual calls ──

    def compose(self) -> ComposeResult:
        signs = self.gpuq.signs
        with Vertical(id="box") as box:
            box.border_title = Content(printable(self._title))
            yield TextView(signs, id="lines")
            yield from self.compose_more()
            yield OneLine(signs, self.write_foot, id="foot")

    def on_mount(self) -> None:
        self.set_class(not self.gpuq.signs.unicode, "-ascii")
        self.redraw()

    def on_resize(self) -> None:
        self.redraw()

    @property
    def room(self) -> int:
        return max(min(self.app.size.width, WIDEST) - FRAME - MARGIN, 1)

    def _height(self) -> int:
        more = sum(1 for _ in self.query(Input))
        return max(self.app.size.height - FRAME - 1 - more, 1)


def wrapped(text: str, room: int, style: Style = PLAIN_STYLE) -> list[Text]:
    """Further lines are set in by two cells."""
    lines = wrap(text, room, subsequent_indent="  ", break_on_hyphens=False) or [""]
    return [[(line, style)] for line in lines]


class Question(Dialog[bool]):
    """Yes or no; no, unless it is said plainly."""

    BINDINGS = keys.bindings(keys.ASKED)
    takes_typed_ahead = False  # yes to what was not yet to be seen is none

    def __init__(self, title: str, text: Sequence[str], *, yes: str, no: str = "keep") -> None:
        super().__init__(title)
        self._text = text
        self._yes = yes
        self._no = no

    def lines(self, room: int, height: int) -> Sequence[Text]:
        lines = [line for text in self._text for line in wrapped(text, room)]
        why = self.gpuq.why_off()
        return [*lines, *([] if why is None else wrapped(why, room, RED)), []]

    def write_foot(self, line: Line) -> None:
        yes, no = name_of("dialog.yes", self.gpuq), names_of("dialog.no", self.gpuq)
        line.add(f"{yes} {self._yes}", DIM if self.gpuq.why_off() else PLAIN_STYLE)
        line.add(f"   {no} {self._no}")

    def action_yes(self) -> None:
        if self.gpuq.why_off() is None:
            self.close(True)

    def action_no(self) -> None:
        self.close(False)


class Prompt(Dialog[str]):
    """One line of text. `tell` says what would come of what is written there, or raises ValueError
    with why that cannot be; `None` is the answer of who leaves."""

    BINDINGS = keys.bindings(keys.WRITTEN)

    def __init__(
        self,
        title: str,
        text: Sequence[str],
        *,
        does: str,
        tell: Callable[[str], Sequence[str]],
        value: str = "",
        acts: bool = True,
    ) -> None:
        """`acts`: it changes something of the queue, so it is off where that cannot be."""
        super().__init__(title)
        self._text = text
        self._acts = acts
        self._does = does
        self._tell = tell
        self._value = value
        self._is_begun = False  # until then nothing that is written can be wrong

    def compose_more(self) -> ComposeResult:
        yield Input(self._value, compact=True, id="written", select_on_focus=False)

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(Input).focus()

    def lines(self, room: int, height: int) -> Sequence[Text]:
        lines = [line for text in self._text for line in wrapped(text, room)]
        told, style = self._verdict()
        if style is RED and not self._is_begun and self._can_act:
            return lines
        return [*lines, *(line for text in told for line in wrapped(text, room, style))]

    def write_foot(self, line: Line) -> None:
        line.add(f"Enter {self._does}", DIM if self._verdict()[1] is RED else PLAIN_STYLE)
        if leave := name_while_typing("dialog.leave", self.gpuq):
            line.add(f"   {leave} keep")

    def on_input_changed(self) -> None:
        self._is_begun |= self._written() != self._value
        self.redraw()

    def on_input_submitted(self) -> None:
        self._is_begun = True
        self.redraw()
        if self._verdict()[1] is not RED:
            self.close(self._written())

    def action_no(self) -> None:
        self.close(None)

    @property
    def _can_act(self) -> bool:
        return not self._acts or self.gpuq.why_off() is None

    def _verdict(self) -> tuple[Sequence[str], Style]:
        if self._acts and (why := self.gpuq.why_off()) is not None:
            return [why], RED
        try:
            return self._tell(self._written()), PLAIN_STYLE
        except ValueError as error:
            return [str(error)], RED

    def _written(self) -> str:
        return self.query_one(Input).value.strip()
