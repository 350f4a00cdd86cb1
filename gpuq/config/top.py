"""The screen's own settings: the table `[top]` of the user's config file, over that of the machine's.

They are a person's and not the daemon's, so neither the environment nor the daemon has a say in them:
an option of `gpuq top`, then the user's file, then the machine's, then the default.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpuq import paths
from gpuq.config.file import is_there, read_table
from gpuq.config.forms import read_bool, read_text, show_bool
from gpuq.config.setting import Setting
from gpuq.errors import UsageError

TOP = (
    Setting("theme", read_text, None, "its colours; ansi-dark or ansi-light, unless said"),
    Setting("ascii", read_bool, False, "draw with plain signs", show=show_bool),
    Setting("mouse", read_bool, True, "the mouse moves the cursor and scrolls", show=show_bool),
    Setting(
        "readonly", read_bool, False, "only look: what changes something is off", show=show_bool
    ),
)
KEYS = "keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A value and where it stands, as an error names it."""

    value: Any
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TopSettings:
    """`keys` are those of each binding's id, several with commas between. `trouble` is why the
    machine's file is not gone by: its mistake is not this user's to mend."""

    values: Mapping[str, Written]
    keys: Mapping[str, Written]
    trouble: str | None = None

    def of(self, name: str, given: Any = None) -> Any:
        """What is in force: what was `given` as an option, else what is written, else the default."""
        if given is not None:
            return given
        if name in self.values:
            return self.values[name].value
        return next(setting.default for setting in TOP if setting.name == name)

    def where(self, name: str, option: str) -> str:
        """What an error about the value in force begins with."""
        return self.values[name].where if name in self.values else option


def read_top(environ: Mapping[str, str], machine: str = paths.SYSTEM_CONFIG) -> TopSettings:
    """UsageError names the file and the name in it that is wrong."""
    user = environ.get("GPUQ_CONFIG") or paths.default_config(environ)
    trouble = None
    try:
        values, keys = _read(machine) if is_there(machine) else ({}, {})
    except UsageError as error:
        values, keys, trouble = {}, {}, str(error)
    if os.path.abspath(user) != machine and (environ.get("GPUQ_CONFIG") or is_there(user)):
        own_values, own_keys = _read(user)
        values, keys = values | own_values, keys | own_keys
    return TopSettings(values=values, keys=keys, trouble=trouble)


def _read(path: str) -> tuple[dict[str, Written], dict[str, Written]]:
    written = read_table(path, "top")
    keys = written.pop(KEYS, {})
    if not isinstance(keys, dict):
        raise UsageError(
            f"{path}: [top] keys: {keys!r} is no table. Write [top.keys] on a line of its own"
        )
    known = {setting.name: setting for setting in TOP}
    values = {}
    for name, value in written.items():
        where = f"{path}: [top] {name}"
        if name not in known:
            raise UsageError(f"{path}: [top] has no {name!r}; {_near(name, [*known, KEYS])}")
        values[name] = Written(value=known[name].checked(value, where), where=where)
    return values, {name: _checked_keys(name, value, path) for name, value in _flat(keys)}


def _flat(keys: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """`move.down = "n"` without quotes is a table in a table."""
    for name, value in keys.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _checked_keys(name: str, value: Any, path: str) -> Written:
    """What the keys are called is for the screen to know."""
    where = f"{path}: [top.keys] {name}"
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f'{where}: {value!r} is no key. Write it like "ctrl+x" or "x,delete"')
    return Written(value=value, where=where)


def _near(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
