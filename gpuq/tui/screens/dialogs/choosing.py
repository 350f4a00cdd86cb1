"""A small menu: one key for each thing, which closes it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gpuq.tui import keys
from gpuq.tui.keymap import keys_of, name_of, shown
from gpuq.tui.keys import Key
from gpuq.tui.looks import BOLD, DIM, PLAIN_STYLE, Line
from gpuq.tui.screens.dialogs.dialog import Dialog
from gpuq.tui.widgets.text_view import Text


class Choice(NamedTuple):
    """`preview` shows in a few words what it is; None: there is none to be had here."""

    key: Key
    preview: str | None


class Menu(Dialog[str]):
    """Answers with the name that the chosen key's action gives; None for who leaves."""

    def __init__(
        self, title: str, table: Sequence[Key], previews: Mapping[str, str | None]
    ) -> None:
        """`previews` by those names; what is not in there is shown as not to be had."""
        super().__init__(title)
        self._choices = [Choice(key, previews.get(_name(key))) for key in table if _name(key)]
        self._leave = next(key for key in table if not _name(key))

    def lines(self, room: int, height: int) -> Sequence[Text]:
        return [self._line(choice) for choice in self._choices]

    def _line(self, choice: Choice) -> Text:
        key, preview = choice
        name = shown(keys_of(key, self.gpuq.keymap), self.gpuq)
        if preview is None:
            return [(f"{name:<3}", DIM), (f"{key.about:<18} ", DIM), ("–", DIM)]
        return [(f"{name:<3}", BOLD), (f"{key.about:<18} ", PLAIN_STYLE), (preview, DIM)]

    def write_foot(self, line: Line) -> None:
        line.add(f"{name_of(self._leave.id, self.gpuq)} leave", DIM)

    def action_take(self, name: str) -> None:
        if any(
            _name(choice.key) == name and choice.preview is not None for choice in self._choices
        ):
            self.close(name)

    def action_no(self) -> None:
        self.close(None)


class CopyMenu(Menu):
    BINDINGS = keys.bindings(keys.COPYING)


class CopyGpuMenu(Menu):
    BINDINGS = keys.bindings(keys.COPYING_GPU)


class ExportMenu(Menu):
    BINDINGS = keys.bindings(keys.EXPORTING)


def _name(key: Key) -> str:
    """ "id" of "take('id')"."""
    return key.action.removeprefix("take('").removesuffix("')") if "'" in key.action else ""
