"""Lines made of pieces of text, each with the code of its colour as the command line has it, broken
into as many as a pane of some width needs."""

from collections.abc import Iterable, Sequence

from gpuq.cli.render import DIM, printable, width
from gpuq.tui.data.wrapping import wrapped

BOLD = "1"
Pieces = Sequence[tuple[str, str]]  # text and code
BETWEEN = " · "


def said(name: str, text: str, room: int, *, label: int = 5, code: str = "") -> list[Pieces]:
    """A value behind its name, and below the first line as far from the edge."""
    first, *rest = wrapped(printable(text), max(room - label, 8))
    named = [(f"{name:<{label}}", DIM), (first, code)]
    return [named, *([(" " * label, ""), (line, code)] for line in rest)]


def sentences(lines: Iterable[str], room: int, code: str = "") -> list[Pieces]:
    return [[(part, code)] for line in lines for part in wrapped(printable(line), room)]


def facts(parts: Iterable[tuple[str, str]], room: int) -> list[Pieces]:
    """Short things to be known, one behind the other as far as there is room. One that is longer than
    a line is broken."""
    lines: list[list[tuple[str, str]]] = []
    used = 0
    for text, code in parts:
        text = printable(text)
        if lines and used + width(BETWEEN) + width(text) <= room:
            lines[-1] += [(BETWEEN, DIM), (text, code)]
            used += width(BETWEEN) + width(text)
            continue
        broken = wrapped(text, room)
        lines += [[(line, code)] for line in broken]
        used = width(broken[-1])
    return list(lines)
