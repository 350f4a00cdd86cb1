"""docs/screen.md: its tables are those of the code."""

import os
from pathlib import Path

from gpuq.client import Client
from gpuq.tui.app import GpuqApp
from gpuq.tui.data.listing.filters import HINTS
from gpuq.tui.keymap import keys_of, shown
from gpuq.tui.screens.help import by_panel
from tests.tui.golden import WRITE

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = DOCS / "screen.md"


def between(text: str, name: str) -> str:
    return text.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- end of {name} -->")[0]


def keys_table() -> str:
    app = GpuqApp(Client(socket="/nowhere"), user="alice", host="box7")
    lines = ["| key | what it does | name |", "|---|---|---|"]
    for panel, places in by_panel().items():
        for place, found in places.items():
            lines.append(f"| **{panel}**: {place} | | |")
            for key in found:
                names = shown(keys_of(key, app.keymap), app).replace("|", "\\|")
                lines.append(f"| `{names}` | {key.about} | `{key.id}` |")
    return "\n".join(lines) + "\n"


def test_the_page_has_every_key() -> None:
    text, table = PAGE.read_text(), keys_table()
    if os.environ.get(WRITE):
        PAGE.write_text(text.replace(between(text, "keys"), table))
    assert between(PAGE.read_text(), "keys") == table


def test_the_page_has_every_field_of_the_filter() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.endswith("` |")]
    for field, example in HINTS.items():
        assert f"| `{field}` | `{example}` |" in rows


def test_the_pictures_of_the_page_are_there() -> None:
    for picture in (
        line.partition("](")[2].rstrip(")")
        for line in PAGE.read_text().splitlines()
        if "![" in line
    ):
        assert "</svg>" in (DOCS / picture).read_text(), picture
