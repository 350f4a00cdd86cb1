"""The commands that are asked most, read without Typer, whose import takes longer than all they do.

What options they have stands in `quick_table`, which is written from what Typer makes of the commands.
Whatever is not read here to its end (`--help`, a slip, a value that is no number) is left to Typer from
the beginning: only Typer refuses anything, so there is one text for each refusal.
"""

from __future__ import annotations

import sys

from gpuq.cli.console import COLORS, Chosen
from gpuq.cli.quick_table import COMMANDS, NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gpuq.cli.quick_table import Row

FLAGS = {"yes": True, "no": False}


class NeedsTyper(Exception):
    """This command line is for Typer to read, and nothing of it was done yet."""


class Context:
    """What a command is told of its call. Whoever wants to know more, as a script with options in it
    does, starts the call over with Typer."""

    def __init__(self, chosen: Chosen) -> None:
        self.obj = chosen
        self.meta: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        raise NeedsTyper(name)


def carry_out(words: Sequence[str]) -> int | None:
    """The exit code; None where nothing was done, and Typer is to read it."""
    try:
        place, chosen, values = read(words)
        module, name = place.split(":")
        command = getattr(__import__(f"gpuq.cli.{module}", fromlist=[name]), name)
        return command(Context(chosen), **values) or 0
    except NeedsTyper:
        return None


def is_alone() -> bool:
    """Whether nothing was loaded that may have something to do at the end: a thread to wait for, a file
    of its own to remove. Typer is loaded by whatever goes beyond this."""
    return sys.modules.keys().isdisjoint(("typer", "threading"))


def read(words: Sequence[str]) -> tuple[str, Chosen, dict[str, Any]]:
    """Where the command is, by whom it is answered, and the values of its parameters."""
    before, rest = _options(COMMANDS[""][2], words, ends_at_word=True)
    if before["color"] not in COLORS:
        raise NeedsTyper("color")
    name = NAMES.get(rest[0]) if rest else "status"
    if name is None:
        raise NeedsTyper(rest[0])
    place, takes_words, rows = COMMANDS[name]
    values, rest = _options(rows, rest[1:], ends_at_word=takes_words)
    _take_arguments(rows, rest, values)
    return place, Chosen(**before), values


def _options(
    rows: Sequence[Row], words: Sequence[str], *, ends_at_word: bool
) -> tuple[dict[str, Any], list[str]]:
    """The values of the options, and the words that are none of theirs. As getopt_long(3) has it: -n4,
    -n 4, --lines=4, --lines 4, -tf for -t -f; and behind -- nothing is an option."""
    values: dict[str, Any] = {name: default for name, _, default, _ in rows}
    spelled = {word: (name, kind) for name, kind, _, spellings in rows for word in spellings}
    left, others = list(reversed(words)), []
    while left:
        word = left.pop()
        if word == "--":
            break
        if len(word) < 2 or word[0] != "-":
            others.append(word)
            if ends_at_word:
                break
            continue
        for option in _apart(word, spelled, left):
            name, kind = spelled[option]
            values[name] = FLAGS[kind] if kind in FLAGS else _value(kind, left, values[name])
    for name, kind, _, _ in rows:  # of several it is the last that counts
        if kind == "number" and values[name] is not None:
            values[name] = _number(values[name])
    return values, [*others, *reversed(left)]


def _apart(word: str, spelled: dict[str, tuple[str, str]], left: list[str]) -> list[str]:
    """The options that a word is; a value that it holds is put back among those that are left."""
    if word.startswith("--"):
        option, equals, value = word.partition("=")
        if option not in spelled or (equals and spelled[option][1] in FLAGS):
            raise NeedsTyper(word)
        if equals:
            left.append(value)
        return [option]
    options = []
    for at, letter in enumerate(word[1:], 2):
        options.append(f"-{letter}")
        if options[-1] not in spelled:
            raise NeedsTyper(word)
        if spelled[options[-1]][1] not in FLAGS:
            if word[at:]:
                left.append(word[at:])
            break
    return options


def _value(kind: str, left: list[str], before: Any) -> Any:
    if not left:
        raise NeedsTyper(kind)
    value = left.pop()
    return [*(before or ()), value] if kind == "texts" else value


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise NeedsTyper(text) from None


def _take_arguments(rows: Sequence[Row], words: list[str], values: dict[str, Any]) -> None:
    """A command has no argument, one that is one word, or one of `some` words or of any number."""
    name, kind = next(((row[0], row[1]) for row in rows if not row[3]), ("", "none"))
    if (kind == "one" and len(words) != 1) or (kind == "some" and not words):
        raise NeedsTyper(name)
    if kind == "none":
        if words:
            raise NeedsTyper(words[0])
    elif words:
        values[name] = words[0] if kind == "one" else words
