"""Beside the form: what is wrong with it, what would become of the job, and the line that says it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.style import Style

from gpuq.cli.render import printable
from gpuq.tui.data.wrapping import wrapped
from gpuq.tui.looks import BOLD, DIM, GREEN, PLAIN_STYLE, RED, YELLOW, Signs
from gpuq.tui.widgets.text_view import TextView

ASKING = "asking what would become of it ..."


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """`verdict` is an answer to a dry run, or a sentence that says why there is none; None: none is
    due. `off` says why nothing can be submitted."""

    line: str = ""
    how: str = ""
    wrong: Mapping[str, str] = field(default_factory=dict)
    verdict: Mapping[str, Any] | str | None = None
    is_refused: bool = False
    notes: Sequence[str] = ()
    off: str | None = None


class Preview(TextView):
    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(signs, id=id)
        self._shown = Shown()

    def show(self, shown: Shown) -> None:
        if shown != self._shown:
            self._shown = shown
            self._write()

    def on_resize(self) -> None:
        self._write()
        super().on_resize()

    def _write(self) -> None:
        room = self.size.width - 3  # one at the left, and the bar at the right
        self.write(
            [
                [(f" {line}", style)]
                for text, style in _sentences(self._shown)
                for line in wrapped(text, room)
            ]
        )


def _sentences(shown: Shown) -> Iterable[tuple[str, Style]]:
    if shown.off is not None:
        yield f"! nothing is submitted: {printable(shown.off)}", RED
    for name, why in shown.wrong.items():
        yield f"! {name.replace('_', ' ')}: {printable(why)}", RED
    yield from _verdict(shown)
    if shown.line:
        yield "", PLAIN_STYLE
        yield shown.line, BOLD
    if shown.how:
        yield f"command: {shown.how}" if shown.line else shown.how, DIM
    for note in shown.notes:
        yield note, DIM


def _verdict(shown: Shown) -> Iterable[tuple[str, Style]]:
    verdict = shown.verdict
    if verdict is None:
        return
    if isinstance(verdict, str):
        yield (f"! {printable(verdict)}", RED) if shown.is_refused else (verdict, DIM)
        return
    style = GREEN if verdict["starting"] == verdict["count"] else YELLOW
    yield printable(verdict["words"]), style
    for doubt in verdict["doubts"]:
        yield f"! {printable(doubt)}", YELLOW
