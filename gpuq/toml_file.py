"""A file in TOML, opened without waiting for anybody, and what it says where it cannot be read.

What it means is for others to say: the daemon's settings are in `gpuq.config`, the screen's in
`gpuq.tui.settings`.
"""

import os
import stat
import tomllib
from typing import Any

from gpuq.errors import UsageError

_NO_FILE = "it is a pipe or a device. Put a regular file there"


def read_table(path: str, name: str) -> dict[str, Any]:
    """One table of the file, as it is written; empty where there is none. What else stands in the
    file is not looked at."""
    found = parse(path).get(name, {})
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


def parse(path: str) -> dict[str, Any]:
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
