"""What a look finds: that something is well, that it may hurt, or that it is broken."""

from typing import NamedTuple


class Finding(NamedTuple):
    """`level` is ok, warning or failure; what is not ok has a remedy: a command as a rule."""

    level: str
    what: str
    remedy: str = ""


def ok(what: str) -> Finding:
    return Finding("ok", what)


def warning(what: str, remedy: str) -> Finding:
    """It works, and something may go wrong or is not as good as it could be."""
    return Finding("warning", what, remedy)


def failure(what: str, remedy: str) -> Finding:
    """Something does not work."""
    return Finding("failure", what, remedy)
