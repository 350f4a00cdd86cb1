"""What is said of a text that is not in a log, or not in the part of it that is held."""

import shlex

from gpuq.cli.render import printable
from gpuq.tui.data.log.window import LogWindow


def not_found(wanted: str, window: LogWindow, *, size: int, path: str | None) -> str:
    """`size`: of the whole log, in bytes."""
    lines = f"{len(window):,} {'line' if len(window) == 1 else 'lines'}"
    if window.begin == 0 and window.end >= size:
        return f"{printable(repr(wanted))} is not in the log ({lines})"
    part = f"the last {lines}" if window.end >= size else f"the {lines} that are held"
    whole = f"; the whole: {_grep(wanted, path)}" if path is not None else ""
    return f"{printable(repr(wanted))} is not in {part}{whole}"


def _grep(wanted: str, path: str) -> str:
    """Which looks as the search does."""
    case = "i" if wanted == wanted.lower() else ""
    return printable(f"grep -{case}nF -- {shlex.quote(wanted)} {shlex.quote(path)}")
