"""The line at the foot of each screen: its keys, the most wanted where there is no room for all."""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from textual.strip import Strip
from textual.widget import Widget

from gpuq.cli.render import width
from gpuq.tui import keys
from gpuq.tui.keymap import shown
from gpuq.tui.looks import BOLD, CURSOR, DIM, PLAIN_STYLE, Line, Signs

if TYPE_CHECKING:
    from gpuq.tui.app import GpuqApp
    from gpuq.tui.screens.base import GpuqScreen

# Who is new finds the rest from these.
FIRST = ("help", "detail", "log", "kill", "hold", "filter", "requeue", "new", "palette")


class Entry(NamedTuple):
    key: str
    label: str
    id: str
    is_off: bool = False
    is_of_pane: bool = False  # of what has the focus, and not of all of the screen

    @property
    def wide(self) -> int:
        return width(self.key) + 1 + width(self.label)


class KeyLine(Widget):
    """Of each action the first of its keys; those that change something are dim while that is off."""

    DEFAULT_CSS = "KeyLine { height: 1; }"

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._signs = signs
        self._entries: Sequence[Entry] = ()

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.show_again())

    def show_again(self) -> None:
        """Draws it where it says something else now."""
        if self.is_mounted and self.screen.is_current:
            entries = list(self._find())
            if entries != self._entries:
                self._entries = entries
                self.refresh()

    def render_line(self, y: int) -> Strip:
        line = Line(self.size.width, self._signs, self.rich_style)
        self._entries = self._entries or list(self._find())
        if y == 0:
            self._write(line)
        return line.strip()

    def _write(self, line: Line) -> None:
        line.add(" ")
        if goes_to := cast("GpuqScreen", self.screen).keys_go_to():
            line.add(f" {goes_to} ", BOLD + CURSOR).add(" ")
        gap = 1 if line.room < 120 else 2
        for number, entry in enumerate(fitting(self._entries, line.left, gap)):
            line.add(" " * gap if number else "")
            line.add(entry.key, DIM if entry.is_off else BOLD)
            line.add(f" {entry.label}", DIM if entry.is_off else PLAIN_STYLE)

    def _find(self) -> Iterator[Entry]:
        """What can be pressed where the focus is: first what only goes there, then in the order of
        the tables."""
        app = cast("GpuqApp", self.app)
        bound = self.screen.active_bindings
        active: dict[str | None, list[str]] = {one.binding.id: [] for one in bound.values()}
        for name, one in bound.items():
            active[one.binding.id].append(name)
        off = {one.binding.id for one in bound.values() if not one.enabled}
        around = (self.screen, self.app)
        of_pane = {one.binding.id for one in bound.values() if one.node not in around}
        said = set()
        for key in sorted(keys.all_keys(), key=lambda key: _place(key.id, of_pane)):
            if key.label and key.id in active and key.action not in said:
                said.add(key.action)
                names = shown(active[key.id][:1], app)
                yield Entry(names, key.label, key.id, key.id in off, key.id in of_pane)


def _place(id: str, of_pane: Collection[str | None]) -> int:
    return 2 if id in ("help", "palette") else id not in of_pane


def fitting(entries: Sequence[Entry], room: int, gap: int) -> list[Entry]:
    """The first of them by want, then by order; shown in their order."""
    wanted = sorted(range(len(entries)), key=lambda n: (_want(entries[n]), n))
    chosen, left = set(), room + gap
    for number in wanted:
        if (wide := entries[number].wide + gap) <= left:
            chosen.add(number)
            left -= wide
    return [entry for number, entry in enumerate(entries) if number in chosen]


def _want(entry: Entry) -> int:
    """The help first, from where all are found; then what only goes where the focus is."""
    if entry.is_of_pane:
        return 1
    return 2 * FIRST.index(entry.id) if entry.id in FIRST else 2 * len(FIRST)
