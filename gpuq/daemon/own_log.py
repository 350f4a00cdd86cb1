"""Where the daemon's own log goes: fields to the journal under systemd, lines for a person to read
where a person looks, JSON elsewhere. What cannot be written is lost, and harms nobody.
"""

import io
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO, cast

import structlog

from gpuq.daemon.systemd import journal
from gpuq.daemon.systemd.journal import Journal


def set_up(environ: Mapping[str, str]) -> Journal | None:
    """Returns the journal where the log goes there."""
    lines = cast(TextIO, _Lines(sys.stderr.fileno()))
    if journal.is_connected(environ, sys.stderr.fileno()):
        told = Journal(_JsonLines(lines).tell)
        _configure(_ToJournal(told))
        return told
    person = structlog.dev.ConsoleRenderer(colors=False)
    written = person if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    stamp = structlog.processors.TimeStamper(fmt="iso")
    _configure(stamp, written, lines=lines)
    return None


def _configure(*last: Any, lines: TextIO | None = None) -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            *last,
        ],
        logger_factory=structlog.WriteLoggerFactory(lines) if lines else _nothing_more,
        cache_logger_on_first_use=True,
    )


class _Lines(io.TextIOBase):
    """Writes to a descriptor and never fails: what a full disk does not take is lost, and the daemon
    lives on. Nothing is kept back, or it would stand in the way of all that is written later."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_torn = False  # the last line has a beginning alone

    def write(self, text: str) -> int:
        line = text.encode("utf-8", "backslashreplace")
        left = b"\n" + line if self._is_torn else line
        try:
            while left:
                written = os.write(self._fd, left)
                self._is_torn = True
                left = left[written:]
            self._is_torn = False
        except OSError:
            pass  # there is nobody else to tell
        return len(text)


class _JsonLines:
    """Lines of JSON, for what the journal is not there to take."""

    def __init__(self, lines: TextIO) -> None:
        self._lines = lines
        self._stamp = structlog.processors.TimeStamper(fmt="iso")
        self._render = structlog.processors.JSONRenderer(default=str)

    def tell(self, level: str, sentence: str, fields: Mapping[str, Any]) -> None:
        event = self._stamp(None, level, {**fields, "event": sentence, "level": level})
        self._lines.write(f"{self._render(None, level, event)!s}\n")


class _ToJournal:
    """The last step of a line on its way: the journal has it then."""

    def __init__(self, told: Journal) -> None:
        self._journal = told

    def __call__(self, logger: Any, method: str, event: structlog.typing.EventDict) -> str:
        fields = dict(event)
        level, what = fields.pop("level", method), str(fields.pop("event", ""))
        self._journal.tell(level, _sentence(what, fields), fields)
        raise structlog.DropEvent


def _sentence(event: str, fields: Mapping[str, Any]) -> str:
    """All of it in one text: who reads the journal sees no more of a line than that."""
    rest = dict(fields)
    fault = rest.pop("exception", None)
    why = rest.pop("why", None)
    words = event if why is None else f"{event}: {why}"
    known = ", ".join(f"{name} {value}" for name, value in rest.items() if value is not None)
    words += f" ({known})" if known else ""
    return words if fault is None else f"{words}\n{fault}"


def _nothing_more(*_: Any) -> Any:
    """A logger for lines of which none comes as far."""
    return structlog.PrintLogger()
