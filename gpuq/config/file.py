"""The file with the settings, read and checked.

It is only read here: people write it.
"""

import os
from collections.abc import Mapping
from typing import Any

from gpuq.config import table
from gpuq.config.queues import read_queues
from gpuq.config.setting import Setting
from gpuq.errors import UsageError
from gpuq.toml_file import parse


def read_file(path: str) -> dict[str, Any]:
    """The settings in a TOML file, read and checked, and under "queues" its named queues. The screen's
    `[top]` table is left to it."""
    written = parse(path)
    written.pop("top", None)
    queues = {name: read_queues(written.pop(name), path) for name in {"queues"} & written.keys()}
    known = {setting.name: setting for setting in table.SETTINGS}
    return queues | {name: _checked(known, name, value, path) for name, value in written.items()}


def peek(path: str) -> dict[str, str]:
    """Where the file puts the daemon. A mistake elsewhere in it must not keep a client from asking
    a daemon that runs; what cannot be read is taken for empty, and the daemon or doctor says why."""
    try:
        written = parse(path)
        known = {setting.name: setting for setting in table.SETTINGS}
        names = [name for name in ("socket", "state_dir") if name in written]
        return {name: _checked(known, name, written[name], path) for name in names}
    except UsageError:
        return {}


def _checked(known: Mapping[str, Setting], name: str, value: Any, path: str) -> Any:
    """A path in a file means the same from wherever it is read: it starts where the file is."""
    if name not in known or name == "config":
        from difflib import get_close_matches  # a client that only peeks does not pay for it

        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
        raise UsageError(f"{path}: there is no setting {name!r}{hint}")
    if isinstance(value, str) and value:
        value = known[name].meant_from(os.path.dirname(path), value)
    return known[name].checked(value, f"{path}: {name}")
