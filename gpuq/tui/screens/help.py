"""All keys, from the tables that they are bound by."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen

from gpuq.cli.render import width
from gpuq.tui import keys
from gpuq.tui.keymap import keys_of, shown
from gpuq.tui.keys import Key
from gpuq.tui.looks import BOLD, DIM, PLAIN_STYLE
from gpuq.tui.widgets.text_view import Text, TextView

if TYPE_CHECKING:
    from gpuq.tui.app import GpuqApp

MOST_WIDE_KEYS = 22


class HelpScreen(ModalScreen[None]):
    BINDINGS = keys.bindings(keys.HELP)

    def compose(self) -> ComposeResult:
        with Vertical(id="help"):
            yield TextView(cast("GpuqApp", self.app).signs, id="help-text")

    def on_mount(self) -> None:
        view = self.query_one(TextView)
        view.write(list(self._lines()))
        view.focus()

    def action_close(self) -> None:
        self.dismiss()

    def _lines(self) -> Iterator[Text]:
        app = cast("GpuqApp", self.app)
        yield [("All keys", BOLD), ("   esc goes back, arrows scroll", DIM)]
        for panel, found in by_panel().items():
            yield []
            yield [(panel, BOLD)]
            for key in found:
                names = shown(keys_of(key, app.keymap), app)
                room = " " * max(MOST_WIDE_KEYS - width(names), 1)
                yield [("  " + names + room, BOLD), (key.about, PLAIN_STYLE), (f"  {key.id}", DIM)]
        yield []
        yield [("Other keys", BOLD), (" for any of them, by the name at the end of its line:", DIM)]
        for line in ("~/.config/gpuq/gpuq.toml", "  [top.keys]", '  kill = "X"', '  log = "l,f3"'):
            yield [(f"  {line}", DIM)]


def by_panel() -> dict[str, list[Key]]:
    """Each once: keys that two tables share, as those of lists and texts, do the same in both."""
    panels: dict[str, list[Key]] = {}
    said: set[tuple[str, str]] = set()
    for key in keys.all_keys():
        if (key.keys, key.about) not in said:
            said.add((key.keys, key.about))
            panels.setdefault(key.panel, []).append(key)
    return panels
