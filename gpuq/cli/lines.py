"""A line that stands for a job: a command as a shell would split it, or an object of JSON."""

import json
import re
import shlex
from difflib import get_close_matches
from typing import Any

from gpuq.capture import OPTIONS
from gpuq.errors import UsageError

# What a shell would take as more than letters, outside of quotes; and what it would put a value for.
_QUOTED = re.compile(r"'[^']*'|\\.")
_IN_DOUBLE_QUOTES = re.compile(r'"(?:\\.|[^"\\])*"')
_FOR_A_SHELL = re.compile(r"[|&;<>]|(?:^|\s)~")
_EXPANDED = re.compile(r"`|\$(?:\w+|\{\w*\}?|\()")

Job = dict[str, Any]


def read_line(line: str) -> Job | None:
    """The fields of `Client.submit` that the line gives; None for an empty one and for a comment. What
    would need a shell is refused: passed on as it stands it would mean something else."""
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    return _entry(text) if text.startswith("{") else {"argv": _words(text)}


def _words(text: str) -> list[str]:
    _check_needs_no_shell(text)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(str(error).lower()) from None
    if not words[0]:
        raise UsageError("its first word is empty")
    return words


def _check_needs_no_shell(text: str) -> None:
    bare = _QUOTED.sub("", text)
    found = _EXPANDED.search(bare) or _FOR_A_SHELL.search(_IN_DOUBLE_QUOTES.sub("", bare))
    if found is not None:
        raise UsageError(
            f"{found[0].strip()!r} is for a shell, and none reads this line: put it in quotes, "
            'or write {"shell": "..."}'
        )


def _entry(text: str) -> Job:
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"it begins like JSON and is none: {error}") from None
    if unknown := sorted(entry.keys() - OPTIONS - {"shell"}):
        near = get_close_matches(unknown[0], [*OPTIONS, "shell"], n=1)
        hint = f" (is it {near[0]!r}?)" if near else ""
        raise UsageError(f"a job has no field {unknown[0]!r}{hint}")
    if ("argv" in entry) == ("shell" in entry):
        raise UsageError('it wants either "argv", a list of words, or "shell", a text')
    if "shell" in entry:
        entry["argv"] = ["/bin/sh", "-c", entry.pop("shell")]
    argv = entry["argv"]
    if not isinstance(argv, list) or not argv or not all(isinstance(w, str) for w in argv):
        raise UsageError('"argv" is a list of words and "shell" a text')
    if not isinstance(entry.get("env") or {}, dict):
        raise UsageError('"env" is an object, with a text for each name')
    return {name: value for name, value in entry.items() if value is not None}
