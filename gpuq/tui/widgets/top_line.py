"""The line at the top of each screen: which machine, how much goes on there, what is shown of it, and
whether it is so now."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from gpuq.cli.render import command_line, printable, width
from gpuq.core.units import count
from gpuq.tui.looks import BOLD, CYAN, DIM, PLAIN_STYLE, RED, YELLOW, Line, Signs

if TYPE_CHECKING:
    from gpuq.tui.app import GpuqApp
    from gpuq.tui.screens.base import GpuqScreen

GAP = 2
CLOCK = "%H:%M:%S"
CLOCK_WIDE = 9  # with the cell behind it
WIDE = 120
GONE_AFTER_S = 5.0  # one that is only restarted is back by then
NOBODY = "no daemon answers"  # as the client begins to say why
FAILURES = ("failed", "timed_out", "out_of_memory", "lost")
MODES = (("jobs", "1 Jobs"), ("gpus", "2 GPUs"), ("history", "3 History"))


class Piece(NamedTuple):
    """In a narrow window the pieces of the least `weight` go first, and one that says `least` is cut
    down to that before any of more weight."""

    text: str
    weight: int
    style: Style = PLAIN_STYLE
    is_right: bool = False
    least: int | None = None


class TopLine(Widget):
    """The clock in it ticks, and redraws no more than itself; where nobody looks it stands."""

    DEFAULT_CSS = "TopLine { height: 1; }"

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._signs = signs

    @property
    def _gpuq(self) -> "GpuqApp":
        return cast("GpuqApp", self.app)

    def on_mount(self) -> None:
        self.set_interval(1.0, self._tick)

    def _tick(self) -> None:
        if not self._gpuq.is_seen or not self.screen.is_current:
            return
        if self._gpuq.lost is not None:  # its age is in the middle
            self.refresh()
        else:
            self.refresh(Region(max(self.size.width - CLOCK_WIDE, 0), 0, CLOCK_WIDE, 1))

    def render_line(self, y: int) -> Strip:
        line = Line(self.size.width, self._signs, self.rich_style)
        if y == 0:
            self._write(line)
        return line.strip()

    def _write(self, line: Line) -> None:
        pieces = fitting(list(self._pieces(line.room)), line.room - 1)
        right = [piece for piece in pieces if piece.is_right]
        line.add(" ")
        for number, piece in enumerate(piece for piece in pieces if not piece.is_right):
            line.add(" " * GAP if number else "").add(piece.text, piece.style)
        behind = sum(width(piece.text) + GAP for piece in right) - GAP + 1
        line.add(" " * max(line.left - behind, 0))
        for number, piece in enumerate(right):
            line.add(" " * GAP if number else "").add(piece.text, piece.style)

    # ── what it says ──

    def _pieces(self, room: int) -> Iterator[Piece]:
        app = self._gpuq
        is_wide = room >= WIDE
        yield Piece("gpuq", 2, BOLD)
        yield Piece(printable(app.host), 5)
        yield from self._numbers(is_wide)
        yield from self._states()
        if is_wide:
            for mode, name in MODES:
                is_here = app.current_mode == mode
                if is_here:  # which of them is open is wanted longer than that there are others
                    yield Piece(f"[{name}]", 3, BOLD)
                else:
                    yield Piece(name, 1)
        yield from self._view(is_wide)
        yield Piece(self._clock(), 9, is_right=True)

    def _numbers(self, is_wide: bool) -> Iterator[Piece]:
        picture = self._gpuq.picture
        counts = picture.counts
        failed = sum(picture.finished.get(outcome, 0) for outcome in FAILURES)
        grey = DIM if self._gpuq.lost is not None else PLAIN_STYLE
        if is_wide and picture.gpus:
            yield Piece(count(len(picture.gpus), "GPU"), 1, grey)
        for number, word, weight in (
            (counts.get("running", 0), "running", 8),
            (counts.get("queued", 0), "queued", 7),
            (counts.get("held", 0), "held", 3),
            (failed, "failed today", 4),
        ):
            if number:
                colour = RED if word == "failed today" else PLAIN_STYLE
                yield Piece(f"{number} {word}", weight, colour + grey)
        if picture.is_whole and not counts.get("running") and not counts.get("queued"):
            yield Piece("nothing runs or waits", 3, DIM)

    def _states(self) -> Iterator[Piece]:
        app = self._gpuq
        picture = app.picture
        if app.lost is not None:
            yield Piece(self._loss(), 10, RED, least=24)
        if drained := picture.drained:
            why = printable(f"drained by {drained['actor']}: {drained['reason']}")
            yield Piece(why, 9, YELLOW if app.lost is None else YELLOW + DIM, least=12)
        if picture.gpus and all(gpu["simulated"] for gpu in picture.gpus):
            yield Piece("simulated", 6, CYAN)
        if app.is_readonly:
            yield Piece("read-only", 6, YELLOW)

    def _loss(self) -> str:
        """How old the picture is, and why there is no newer one."""
        app = self._gpuq
        why = printable(str(app.lost)).partition(". ")[0].rstrip(".")
        age = "" if app.told_at is None else f" for {age_words(app.signs.now() - app.told_at)}"
        if app.signs.now() - app.picture_now() >= GONE_AFTER_S:
            start = command_line(["gpuq", *app.daemon_options, "daemon", "start"])
            return f"no daemon{age}: {printable(start)} starts one"
        if why.startswith(NOBODY):  # which is said already
            why = why.replace(NOBODY, "none answers", 1)
        return f"no daemon{age}: {why}; reconnecting"

    def _view(self, is_wide: bool) -> Iterator[Piece]:
        app, screen = self._gpuq, cast("GpuqScreen", self.screen)
        if words := screen.view_words():
            yield Piece(f"view: {words}" if is_wide else words, 2, is_right=True)
        if app.lost is not None:
            yield Piece("stale", 6, RED, is_right=True)
        elif screen.is_frozen:
            yield Piece("frozen", 9, YELLOW, is_right=True)
        elif is_wide:
            yield Piece("live" if app.picture.is_whole else "…", 1, DIM, is_right=True)

    def _clock(self) -> str:
        from time import localtime, strftime

        return strftime(CLOCK, localtime(self._signs.now()))


def age_words(seconds: float) -> str:
    """ "12 s", "3 min", "2 h": as long as it was at the least."""
    whole = max(int(seconds), 0)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h"


def fitting(pieces: Sequence[Piece], room: int) -> list[Piece]:
    """Those for which there is room, in their order."""
    left = list(pieces)
    while (over := sum(width(piece.text) + GAP for piece in left) - GAP - room) > 0 and left:
        first = min(left, key=lambda piece: piece.weight)
        cuttable = [piece for piece in left if piece.least and width(piece.text) > piece.least]
        rest = [piece for piece in left if piece.weight < 9]
        if not rest and cuttable:
            piece = cuttable[0]
            shorter = piece.text[: max(len(piece.text) - over - 1, piece.least or 0)] + "…"
            left[left.index(piece)] = piece._replace(text=shorter, least=None)
        else:
            left.remove(first)
    return left
