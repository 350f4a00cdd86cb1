"""Looks that may hang, each with a time limit: in a thread, or in a process of its own.

A thread that waits for a dead disk cannot be ended, and a process that waits for a driver does not
hear KILL: both are left alone, and go when what they wait for answers.
"""

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from subprocess import Popen

REAP_S = 0.2

Found = TypeVar("Found")


class Ran(NamedTuple):
    """How a program ended. `code` is None where it did not within its time, or cannot be run."""

    code: int | None
    out: str = ""
    err: str = ""

    @property
    def last_words(self) -> str:
        """Its last line, of the error output where that says something."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1].strip().rstrip(".") if lines else f"it left with code {self.code}"


class Look(Generic[Found]):
    """Something that is looked at in a thread from now on."""

    def __init__(self, find: Callable[[], Found]) -> None:
        self.found: Found | None = None
        self.fault: Exception | None = None
        self._find = find
        self._over = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def is_over(self, within_s: float) -> bool:
        """Waits so long at the most."""
        return self._over.wait(max(within_s, 0.0))

    def _run(self) -> None:
        try:
            self.found = self._find()
        except Exception as error:  # whatever is wrong with one look, the others are made
            self.fault = error
        finally:
            self._over.set()


def run(
    words: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None
) -> Ran:
    """Runs a program, for `timeout_s` at the most; whatever it started goes with it."""
    import subprocess

    try:
        process = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return Ran(None, err=f"{words[0]}: {error.strerror}")
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        _leave(process)
        return Ran(None, err=f"no answer within {timeout_s:g} s")
    return Ran(process.returncode, out, err)


def _leave(process: "Popen[str]") -> None:
    """One that hears KILL is reaped; for one that does not, nobody waits."""
    from subprocess import TimeoutExpired

    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    with suppress(TimeoutExpired):
        process.wait(REAP_S)
