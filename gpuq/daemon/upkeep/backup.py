"""gpuqd backup FILE: asks the store for a copy of its database, and tells how it gets on."""

import os
import sys
import time
from collections.abc import Callable

from gpuq import paths
from gpuq.core.units import count, format_bytes
from gpuq.daemon.store.backup import back_up
from gpuq.daemon.store.connection import StoreRefused
from gpuq.errors import GpuqError

TELL_AFTER_S, TELL_EVERY_S = 0.5, 0.1


def run(state_dir: str, file: str, *, force: bool) -> int:
    """The command; returns its exit code."""
    database = os.path.join(state_dir, paths.DATABASE_NAME)
    progress = _Progress() if sys.stderr.isatty() else None
    try:
        copied = back_up(database, file, force=force, progress=progress or _say_nothing)
    except StoreRefused as refusal:
        raise GpuqError(str(refusal)) from refusal
    finally:
        if progress is not None:
            progress.end()
    what = f"{count(copied.jobs, 'job')}, {format_bytes(copied.size_bytes)}, the copy is whole"
    print(f"backed up {database} to {file}: {what}. Logs and outputs of jobs are not in it")
    return 0


def _say_nothing(done: int, total: int) -> None:
    pass


class _Progress:
    """One line on a terminal, drawn over and over, where it takes long enough to be read."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._next_at = now() + TELL_AFTER_S
        self._has_told = False

    def __call__(self, done: int, total: int) -> None:
        if self._now() < self._next_at:
            return
        self._next_at = self._now() + TELL_EVERY_S
        self._has_told = True
        percent = 100 * done // max(total, 1)
        words = f"{percent} % of {format_bytes(total)}" if done < total else "reading the copy"
        sys.stderr.write(f"\r{words}\x1b[K")
        sys.stderr.flush()

    def end(self) -> None:
        if self._has_told:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
