"""The dialog before the end of jobs. Which jobs is settled when it opens; what becomes of them until it
is answered is shown, and who waits for them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from textual.app import ComposeResult
from textual.widgets import Input

from gpuq.cli.kill import read_signal
from gpuq.cli.render import cut, width
from gpuq.core.units import count
from gpuq.errors import UsageError
from gpuq.tui import keys
from gpuq.tui.data.killing import (
    Target,
    Told,
    number_of,
    others_words,
    rest_words,
    spans_of,
    tell,
)
from gpuq.tui.data.picture import Change
from gpuq.tui.deeds.jobs import named
from gpuq.tui.keymap import name_of, name_while_typing, names_of
from gpuq.tui.looks import BOLD, CYAN, DIM, PLAIN_STYLE, RED, YELLOW, Line
from gpuq.tui.screens.dialogs.dialog import Dialog, wrapped
from gpuq.tui.widgets.text_view import Text

MOST_LISTED = 10
MOST_STRANDED = 4
WIDEST_NAME, WIDEST_STATE = 16, 16
TICK_S = 1.0


class Kill(NamedTuple):
    """These jobs are to end; or get this signal, and go on."""

    spans: Sequence[range]
    signal: int | None = None


class KillDialog(Dialog[Kill]):
    """Answers with what is to be done; None: nothing. `others` are jobs that were meant too and are
    not the reader's to end."""

    BINDINGS = keys.bindings((*keys.ASKED, *keys.ENDING))
    takes_typed_ahead = False  # yes to what was not yet to be seen is none

    def __init__(self, targets: Sequence[Target], others: Sequence[Target]) -> None:
        super().__init__(f"Kill {count(number_of(targets), 'job')}")
        self._targets = targets
        self._others = others
        self._told: dict[Target, Told] = {}
        self._stranded: Sequence[str] = ()
        self._is_signalling = False
        self._trouble = ""

    def compose_more(self) -> ComposeResult:
        yield Input(placeholder="INT, USR1, 10", compact=True, id="signal", disabled=True)

    def on_mount(self) -> None:
        self.query_one(Input).display = False
        super().on_mount()
        self.set_interval(TICK_S, self.redraw)
        self._ask_who_waits()

    def show(self, change: Change) -> None:
        before = self._told
        self.redraw()
        if {t: told.done for t, told in before.items()} != {
            t: told.done for t, told in self._told.items()
        }:
            self._ask_who_waits()

    def _ask_who_waits(self) -> None:
        jobs = named(spans_of(self._targets))
        self.gpuq.ask(
            lambda client: client.consequences([jobs]), self._take_stranded, group="consequences"
        )

    def _take_stranded(self, answer: dict[str, Any]) -> None:
        self._stranded = [str(text) for text in answer["stranded"]]
        self.redraw()

    # ── what it says ──

    def lines(self, room: int, height: int) -> Sequence[Text]:
        beneath = [line for text in self._beneath() for line in wrapped(*text)]
        rows, now = self.gpuq.picture.rows, self.gpuq.signs.now()
        undo_key = name_of("undo", self.gpuq)
        self._told = {
            target: tell(target, rows, now, undo_key) for target in self._targets[:MOST_LISTED]
        }
        drawn = [_drawn(target, told, room, self._rooms) for target, told in self._told.items()]
        listed, left = list[Text](), max(height - len(beneath) - 1, 2)
        for number, lines in enumerate(drawn):
            is_last = number + 1 == len(self._targets)
            if number and len(listed) + len(lines) + (not is_last) > left:
                break
            listed += lines
        else:
            number = len(drawn)
        if rest := self._targets[number:]:
            listed += wrapped(rest_words(rest, rows), room, DIM)
        gap: list[Text] = [[]] if height >= len(listed) + len(beneath) + 2 else []
        return [*listed, *(gap if beneath else []), *beneath, *gap]

    def _beneath(self) -> list[tuple[str, int, Any]]:
        """What is to be known beside the jobs themselves: what stands in the way comes first."""
        room = self.room
        told = [(why, room, RED) for why in (self.gpuq.why_off(), self._trouble) if why]
        if not self._is_signalling:
            told += [(f"{text}.", room, YELLOW) for text in self._stranded[:MOST_STRANDED]]
            if (more := len(self._stranded) - MOST_STRANDED) > 0:
                told.append((f"So do those of {count(more, 'more job')}.", room, YELLOW))
        told += [(f"{text}.", room, DIM) for text in others_words(self._others)]
        return told

    @property
    def _rooms(self) -> tuple[int, int]:
        """For ids and names, so that they stand in columns."""
        shown = self._targets[:MOST_LISTED]
        names = max(width(target.name) for target in shown)
        return max(len(target.ids) for target in shown), min(names, WIDEST_NAME)

    def write_foot(self, line: Line) -> None:
        off = self.gpuq.why_off() is not None
        if self._is_signalling:
            back = name_while_typing("dialog.no", self.gpuq)
            words = "signal: Enter sends it, and ends nothing" + (f"   {back} back" if back else "")
            line.add(words, DIM if off else BOLD)
            return
        yes, signal = (name_of(f"dialog.{id}", self.gpuq) for id in ("yes", "signal"))
        is_narrow = line.room < 50
        gap = " " if is_narrow else "     "
        line.add(f"{yes} kill", DIM if off else BOLD).add(gap)
        line.add(f"{signal} {'' if is_narrow else 'other '}signal", DIM if off else PLAIN_STYLE)
        no = names_of("dialog.no", self.gpuq, "/" if is_narrow else " / ")
        line.add(gap).add(f"{no} keep" if is_narrow else f"{no}  keep")

    # ── keys ──

    def action_yes(self) -> None:
        if self.gpuq.why_off() is None:
            self.close(Kill(spans_of(self._targets)))

    def action_no(self) -> None:
        if self._is_signalling:
            self._set_signalling(False)
        else:
            self.close(None)

    def action_signal(self) -> None:
        if self.gpuq.why_off() is None:
            self._set_signalling(True)

    def on_input_submitted(self) -> None:
        text = self.query_one(Input).value
        try:
            signal = read_signal(text)
        except UsageError as error:
            self._trouble = str(error).removeprefix("--signal: ")
            self.redraw()
            return
        if self.gpuq.why_off() is None:
            self.close(Kill(spans_of(self._targets), signal))

    def _set_signalling(self, is_on: bool) -> None:
        self._is_signalling, self._trouble = is_on, ""
        written = self.query_one(Input)
        written.display, written.disabled = is_on, not is_on
        what = "Send a signal to" if is_on else "Kill"
        self.retitle(f"{what} {count(number_of(self._targets), 'job')}")
        if is_on:
            written.focus()
        else:
            self.query_one("#lines").focus()
        self.redraw()


def _drawn(target: Target, told: Told, room: int, rooms: tuple[int, int]) -> list[Text]:
    """On one line, or on two where it finds no room."""
    head = f"{target.ids.ljust(rooms[0])} {_padded(target.name, rooms[1])}  "
    state = f"{told.state.ljust(WIDEST_STATE)} "
    style = CYAN if target.state != "queued" else PLAIN_STYLE
    said = f"-> {told.done}" if told.done else ""
    change = f" ({told.otherwise})" if told.otherwise else ""
    if width(head + state + said + change) <= room:
        return [[(head, BOLD), (state, style), (said, PLAIN_STYLE), (change, YELLOW)]]
    first: Text = [(f"{target.ids} {target.name}  ", BOLD), (told.state, style)]
    second: Text = [("   ", PLAIN_STYLE), (said, PLAIN_STYLE), (change, YELLOW)]
    return [first, second] if said or change else [first]


def _padded(text: str, room: int) -> str:
    text = cut(text, room)
    return text + " " * (room - width(text))
