"""Writes `quick_table` from the commands as Typer reads them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from gpuq.cli.app import app
from gpuq.cli.commands import ALIASES, COMMANDS, load

QUICK = ("submit", "run", "status", "show", "logs", "wait", "kill")
# What reads its jobs from elsewhere may have read some of it by the time it needs Typer after all.
NOT_QUICK = frozenset(("help", "version", "pipeline", "from_"))
PLACE = Path(__file__).with_name("quick_table.py")

HEAD = '''\
"""What the commands have that are read ahead of Typer. Not written by hand: from their declarations, by
`python -m gpuq.cli.quick_table_writer`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    # The name of a parameter, its kind, what it is where nothing is said, and how it is spelled: an
    # argument in no way.
    Row: TypeAlias = tuple[str, str, str | bool | None, tuple[str, ...]]

'''


def written() -> str:
    names = {name: name for name in QUICK} | {
        alias: name for alias, name in ALIASES.items() if name in QUICK
    }
    lines = ["NAMES = {", *(f"    {_text(one)}: {_text(names[one])}," for one in names), "}"]
    lines.append("COMMANDS: dict[str, tuple[str, bool, tuple[Row, ...]]] = {")
    lines += _command("", "", True, typer.main.get_command(app))
    for name in QUICK:
        entry = COMMANDS[name]
        lines += _command(name, entry.place, entry.takes_words, load(name))
    return HEAD + "\n".join([*lines, "}"]) + "\n"


def _command(name: str, place: str, takes_words: bool, command: Any) -> Iterator[str]:
    yield f"    {_text(name)}: ("
    yield f"        {_text(place)},"
    yield f"        {takes_words},"
    yield "        ("
    for param in command.params:
        if param.name not in NOT_QUICK:
            yield from _rows(param)
    yield "        ),"
    yield "    ),"


def _rows(param: Any) -> Iterator[str]:
    if param.param_type_name == "argument":
        kind = "one" if param.nargs == 1 else "some" if param.required else "any"
        yield _row(param.name, kind, None, ())
        return
    kind = "yes" if param.is_flag else "number" if param.type.name == "int" else "text"
    if not param.is_flag and param.type.name not in ("int", "str"):
        raise TypeError(f"{param.name}: there is no way to read {param.type.name} yet")
    yield _row(param.name, "texts" if param.multiple else kind, param.default, param.opts)
    if param.secondary_opts:
        yield _row(param.name, "no", param.default, param.secondary_opts)


def _row(name: str, kind: str, default: str | bool | None, spellings: Any) -> str:
    said = ", ".join(map(_text, spellings)) + "," * (len(spellings) == 1)
    usual = _text(default) if isinstance(default, str) else default
    return f"            ({_text(name)}, {_text(kind)}, {usual}, ({said})),"


def _text(text: str) -> str:
    return f'"{text}"'


if __name__ == "__main__":
    PLACE.write_text(written())
