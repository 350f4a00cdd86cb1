"""The file with the settings, in TOML: opened without waiting for anybody, read, and checked.

It is only read here: people write it.
"""

import os
import stat
import tomllib
from collections.abc import Mapping
from typing import Any

from gpuq.config import table
from gpuq.config.queues import read_queues
from gpuq.config.setting import Setting
from gpuq.errors import UsageError

_NO_FILE = "it is a pipe or a device. Put a regular file there"


def read_file(path: str) -> dict[str, Any]:
    """The settings in a TOML file, read and checked, and under "queues" its named queues. The screen's
    `[top]` table is left to it."""
    written = _parse(path)
    written.pop("top", None)
    queues = {name: read_queues(written.pop(name), path) for name in {"queues"} & written.keys()}
    known = {setting.name: setting for setting in table.SETTINGS}
    return queues | {name: _checked(known, name, value, path) for name, value in written.items()}


def peek(path: str) -> dict[str, str]:
    """Where the file puts the daemon. A mistake elsewhere in it must not keep a client from asking
    a daemon that runs; what cannot be read is taken for empty, and the daemon or doctor says why."""
    try:
        written = _parse(path)
        known = {setting.name: setting for setting in table.SETTINGS}
        names = [name for name in ("socket", "state_dir") if name in written]
        return {name: _checked(known, name, written[name], path) for name in names}
    except UsageError:
        return {}


def read_table(path: str, name: str) -> dict[str, Any]:
    """One table of the file, as it is written; empty where there is none. What else stands in the
    file is not looked at."""
    found = _parse(path).get(name, {})
    if not isinstance(found, dict):
        raise UsageError(
            f"{path}: {name} = {found!r} is no table. Write [{name}] on a line of its own"
        )
    return found


def is_there(path: str) -> bool:
    """What nobody may read is there, and reading it tells why not."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def _parse(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not _is_file(os.fstat(file.fileno())):
                raise UsageError(f"cannot read the config file {path}: {_NO_FILE}")
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(f"cannot read the config file {path}: {error.strerror}") from None
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply to be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = 'In TOML a text stands in quotes: grace = "3s"'
        raise UsageError(f"{path}: {error}. {hint}") from None
    except ValueError:  # which int() says of over 4300 digits
        raise UsageError(f"{path}: a number in it has thousands of digits. Write less") from None


def _open_at_once(path: str, flags: int) -> int:
    """A FIFO would have us wait for somebody who writes to it, and nobody may ever come."""
    return os.open(path, flags | os.O_NONBLOCK)


def _is_file(found: os.stat_result) -> bool:
    """One with an end, so that reading it does not wait for anybody; so is /dev/null, which says that
    no file is meant."""
    is_null = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev
    return is_null or stat.S_ISREG(found.st_mode)


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
