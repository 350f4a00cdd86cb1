"""The stages on the way from a runner to its job, and what is told of one that failed. Standard
library only."""

from __future__ import annotations

import errno
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Message = dict[str, Any]

NOT_FOUND, NOT_EXECUTABLE, NOT_STARTED = 127, 126, 125
LONGEST_SHOWN = 4096  # signs


class StageFailed(Exception):
    """The job could not be started; says at which step."""

    def __init__(self, stage: str, error: OSError | ValueError) -> None:
        super().__init__(stage)
        self.stage = stage
        self.error = error

    def facts(self) -> Message:
        return not_started(self.stage, self.error)


class Once:
    """Steps that are taken once, ahead or when they are due: asked for again they are not taken again,
    and what failed then fails again. Raises StageFailed."""

    def __init__(self, steps: Callable[[], None]) -> None:
        self._steps = steps
        self._are_taken = False
        self._failure: StageFailed | None = None

    def __call__(self) -> None:
        if not self._are_taken:
            self._are_taken = True
            try:
                self._steps()
            except StageFailed as failed:
                self._failure = failed
        if self._failure is not None:
            raise self._failure


def take(stage: str, step: Callable[[], None]) -> None:
    try:
        step()
    except (OSError, ValueError) as error:
        raise StageFailed(stage, error) from error


def not_started(stage: str, error: OSError | ValueError) -> Message:
    code = NOT_STARTED
    if stage.startswith("executing"):
        missing = isinstance(error, FileNotFoundError)
        code = NOT_FOUND if missing else NOT_EXECUTABLE
    return {
        "ended_at": time.time(),
        "exit_code": code,
        "stage": stage,
        "error": _sentence(stage, error),
    }


def _sentence(stage: str, error: OSError | ValueError) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOENT:
        return "no such directory" if stage.startswith("changing") else "no such file"
    if number == errno.ENOEXEC:
        return "not a program, and its first line names none (#!)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return str(error)


def raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def shown(text: str) -> str:
    """For a sentence, which has to find room in a record: bytes that are not text as \\x.., no control
    characters, and no more of it than a path may be long."""
    readable = raw(text).decode("utf-8", "backslashreplace")
    shown = readable if len(readable) <= LONGEST_SHOWN else readable[:LONGEST_SHOWN] + "…"
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)


# ── a failure on its way from one process to another ──


def pack(failed: StageFailed) -> Message:
    error = failed.error
    number = error.errno if isinstance(error, OSError) else None
    words = error.strerror if isinstance(error, OSError) else str(error)
    return {"stage": failed.stage, "errno": number, "words": words or str(error)}


def unpack(message: Message) -> StageFailed:
    number, words = message["errno"], message["words"]
    error = ValueError(words) if number is None else OSError(number, words)
    return StageFailed(message["stage"], error)
