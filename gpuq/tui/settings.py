"""The screen's own settings: the table `[top]` of the user's config file, over that of the machine's.

They are a person's and not the daemon's, so neither the environment nor the daemon has a say in them:
an option of `gpuq top`, then the user's file, then the machine's, then the default.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpuq import paths
from gpuq.errors import UsageError
from gpuq.toml_file import is_there, read_table


class Setting(NamedTuple):
    """What may be set: `form` is what kind of value it takes, in a word."""

    name: str
    form: str
    default: str | bool | None
    help: str

    @property
    def shown_default(self) -> str:
        return "–" if self.default is None else str(self.default).lower()

    def checked(self, value: Any, where: str) -> str | bool:
        """The value that was written at this place; UsageError names the place and what is wrong."""
        if self.form == TEXT:
            if isinstance(value, str):
                return value
            raise UsageError(f"{where}: {value!r} is not text")
        flag = _FLAGS.get(value.lower()) if isinstance(value, str) else value
        if isinstance(flag, bool):
            return flag
        raise UsageError(f"{where}: {value!r} is neither true nor false")


TEXT, FLAG = "TEXT", "BOOL"
_FLAGS = {"true": True, "false": False, "yes": True, "no": False}
TOP = (
    Setting("theme", TEXT, None, "its colours; ansi-dark or ansi-light, unless said"),
    Setting("ascii", FLAG, False, "draw with plain signs"),
    Setting("mouse", FLAG, True, "the mouse moves the cursor and scrolls"),
    Setting("readonly", FLAG, False, "only look: what changes something is off"),
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
