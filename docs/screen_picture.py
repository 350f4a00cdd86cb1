"""A terminal as an SVG: what pyte has of it, drawn with any font whose letters are all as wide."""

import re
from html import escape
from itertools import groupby
from typing import Any

CELL_W, CELL_H, SIZE = 8.4, 18, 14
FONTS = "DejaVu Sans Mono, Menlo, Consolas, monospace"
WORDS = re.compile(r"\S+(?: \S+)*")  # further spaces are places that nothing is drawn at
GROUND, LETTERS = "#11151c", "#d5dae2"
COLOURS = {
    "default": LETTERS,
    "black": "#3b4252",
    "red": "#e5534b",
    "green": "#57ab5a",
    "brown": "#c69026",
    "blue": "#539bf5",
    "magenta": "#b083f0",
    "cyan": "#39c5cf",
    "white": "#adbac7",
    "brightblack": "#768390",
    "brightred": "#ff938a",
    "brightgreen": "#8ddb8c",
    "brightbrown": "#eac55f",
    "brightyellow": "#eac55f",
    "brightblue": "#96d0ff",
    "brightmagenta": "#dcbdfb",
    "brightcyan": "#b3f0ff",
    "brightwhite": "#ffffff",
}
Cell = Any  # pyte's Char


def draw(screen: Any, title: str) -> str:
    width, height = screen.columns * CELL_W + 24, screen.lines * CELL_H + 44
    rows = [_row(screen.buffer[y], y, screen.columns) for y in range(screen.lines)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}" role="img" aria-label="{escape(title)}">',
            f"<title>{escape(title)}</title>",
            f'<rect width="100%" height="100%" rx="8" fill="{GROUND}"/>',
            f'<text x="{width / 2:g}" y="20" text-anchor="middle" fill="#768390" '
            f'font-family="sans-serif" font-size="12">{escape(title)}</text>',
            f'<g transform="translate(12 32)" font-family="{FONTS}" font-size="{SIZE}">',
            *[row for row in rows if row],
            "</g></svg>",
            "",
        ]
    )


def _row(cells: Any, y: int, columns: int) -> str:
    parts, x = [], 0
    for look, run in groupby((cells[x] for x in range(columns)), key=_look):
        text = "".join(cell.data for cell in run)
        parts.append(_run(text, look, x, y))
        x += len(text)
    return "".join(parts)


def _look(cell: Cell) -> tuple[str, str, bool]:
    letters, ground = _colour(cell.fg, LETTERS), _colour(cell.bg, GROUND)
    if cell.reverse:
        letters, ground = ground, letters
    return letters, ground, cell.bold


def _colour(name: str, default: str) -> str:
    if name == "default":
        return default
    return COLOURS.get(name, f"#{name}")


def _run(text: str, look: tuple[str, str, bool], x: int, y: int) -> str:
    letters, ground, is_bold = look
    drawn = ""
    if ground != GROUND:
        drawn += _place("rect", x, y * CELL_H, len(text), f'height="{CELL_H}" fill="{ground}"/>')
    how = f'fill="{letters}"' + (' font-weight="bold"' if is_bold else "")
    for word in WORDS.finditer(text):
        drawn += _place("text", x + word.start(), y * CELL_H + 14, len(word[0]), f"{how}>")
        drawn += f"{escape(word[0])}</text>"
    return drawn


def _place(what: str, x: int, top: int, cells: int, rest: str) -> str:
    """As wide as its cells, whatever the font at hand has."""
    width = f"{cells * CELL_W:.1f}"
    size = f'width="{width}"' if what == "rect" else f'textLength="{width}" lengthAdjust="spacing"'
    return f'<{what} x="{x * CELL_W:.1f}" y="{top}" {size} {rest}'
