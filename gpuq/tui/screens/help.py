"""All keys, from the tables that they are bound by."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from rich.style import Style
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen

from gpuq.cli.render import width
from gpuq.tui import keys
from gpuq.tui.data.wrapping import wrapped
from gpuq.tui.keymap import keys_of, name_of, shown
from gpuq.tui.keys import Key
from gpuq.tui.looks import BOLD, DIM, PLAIN_STYLE
from gpuq.tui.widgets.text_view import Text, TextView

if TYPE_CHECKING:
    from gpuq.tui.app import GpuqApp

ROOMY = 60
MOST_WIDE_KEYS, FEW_WIDE_KEYS = 20, 12  # from the margin to what they do
SCROLL_BAR = 2  # it takes the room of some of the lines
GAP = "  "
SETTABLE = "for any of them, by the name behind what it does:"


class HelpScreen(ModalScreen[None]):
    BINDINGS = keys.bindings(keys.HELP)
    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (ROOMY, "-roomy")]  # noqa: RUF012

    def compose(self) -> ComposeResult:
        with Vertical(id="help"):
            yield TextView(cast("GpuqApp", self.app).signs, id="help-text")

    def on_mount(self) -> None:
        self.query_one(TextView).focus()

    @on(events.Resize)
    def _write(self) -> None:
        """When it is known how wide it is."""
        self.call_after_refresh(self._write_for, self.query_one(TextView))

    def _write_for(self, view: TextView) -> None:
        view.write(list(self._lines(view.size.width - SCROLL_BAR)))

    def action_close(self) -> None:
        self.dismiss()

    def _lines(self, room: int) -> Iterator[Text]:
        app = cast("GpuqApp", self.app)
        close, down, up = (name_of(id, app) for id in ("help.close", "text.down", "text.up"))
        yield from _heading("All keys", f"{close} goes back, {down} {up} scroll", room)
        for panel, places in by_panel().items():
            for place, found in places.items():
                yield []
                yield from _heading(panel, place, room)
                for key in found:
                    yield from _lines_of(key, shown(keys_of(key, app.keymap), app), room)
        yield []
        yield from _heading("Other keys", SETTABLE, room)
        for line in ("~/.config/gpuq/gpuq.toml", "  [top.keys]", '  kill = "X"', '  log = "l,f3"'):
            yield [(f"  {line}", DIM)]


def _heading(words: str, rest: str, room: int) -> Iterator[Text]:
    first, *more = wrapped(f"{words} · {rest}", room)
    yield [(first[: len(words)], BOLD), (first[len(words) :], DIM)]
    yield from ([(line, DIM)] for line in more)


def _lines_of(key: Key, names: str, room: int) -> Iterator[Text]:
    """The keys, what they do, and behind that, where there is room, what the settings call it."""
    wide = MOST_WIDE_KEYS if room >= ROOMY else FEW_WIDE_KEYS
    about = wrapped(key.about, room - wide)
    texts: list[list[tuple[str, Style]]] = [[(line, PLAIN_STYLE)] for line in about]
    if width(about[-1]) + len(GAP + key.id) <= room - wide:
        texts[-1].append((GAP + key.id, DIM))
    else:
        texts += [[(line, DIM)] for line in wrapped(key.id, room - wide)]
    if width(names) > wide - 2:
        yield [(f" {names}", BOLD)]
        names = ""
    for number, text in enumerate(texts):
        shown_names = "" if number else f" {names}"
        yield [(shown_names + " " * (wide - width(shown_names)), BOLD), *text]


def by_panel() -> dict[str, dict[str, list[Key]]]:
    """Of each panel its keys by where they can be pressed, each once."""
    places: dict[str, list[str]] = {}
    for name, table in keys.tables().items():
        for key in table:
            if keys.PLACES[name] not in (there := places.setdefault(key.id, [])):
                there.append(keys.PLACES[name])
    panels: dict[str, dict[str, list[Key]]] = {}
    for id, there in places.items():
        panel = panels.setdefault(keys.BY_ID[id].panel, {})
        panel.setdefault(", ".join(there), []).append(keys.BY_ID[id])
    return panels
