"""What is installed now, beside what this daemon was started from: an upgrade does not reach a daemon
that runs until it is restarted, and people should see so."""

import os
import re

import gpuq

PACKAGE = os.path.dirname(gpuq.__file__)


def version() -> str | None:
    """The version of the package on disk; None where it has been removed."""
    try:
        with open(os.path.join(PACKAGE, "__init__.py"), encoding="utf-8") as file:
            found = re.search(r'^__version__ = "([^"]+)"', file.read(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else found[1]


def is_changed_since(moment: float) -> bool:
    """Has any of the package's files changed since then (s since the epoch)?"""
    for folder, _, names in os.walk(PACKAGE):
        for name in names:
            if name.endswith((".py", ".sql")) and _changed_at(os.path.join(folder, name)) > moment:
                return True
    return False


def _changed_at(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
