"""Pictures of the screen that are written down in goldens/, and what is otherwise than they say.

A text golden holds where things stand; an SVG golden holds the colours and styles, too.
"""

import difflib
import os
import re
from pathlib import Path

GOLDENS = Path(__file__).parent / "goldens"
WRITE = "GPUQ_WRITE_GOLDENS"  # set: what is seen is taken for right

FONT_FACE = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
ORIGIN = re.compile(r"\s*<!-- Generated with .*?-->")
# Rich numbers its ids and classes by a sum over the whole picture: with one cell, all would change.
NUMBERED = re.compile(r"terminal-\d+-")


def hold(seen: str, name: str) -> None:
    """`name` has the ending, too. With GPUQ_WRITE_GOLDENS=1 it is written down."""
    path = GOLDENS / name
    if os.environ.get(WRITE):
        path.write_text(seen)
    written = path.read_text() if path.exists() else ""
    assert seen == written, f"{name} is otherwise than written down:\n{difference(written, seen)}"


def difference(written: str, seen: str) -> str:
    """Line by line, as a patch of the golden."""
    lines = difflib.unified_diff(
        written.splitlines(), seen.splitlines(), "written down", "seen", lineterm=""
    )
    return "\n".join(lines)


def normal_svg(svg: str) -> str:
    """Without what says nothing about the picture: where a viewer may load a font from, who made it,
    and numbers that change with every cell."""
    svg = NUMBERED.sub("", ORIGIN.sub("", FONT_FACE.sub("", svg)))
    return "\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n"
