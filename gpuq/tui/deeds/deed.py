"""Deeds: what a key does to the queue, as values. The app carries them out and says how it went.

Each is also a command line, and is shown as one: what is done on the screen can be done in a script.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gpuq.cli.render import command_line
from gpuq.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """`words` are those of the command line behind `gpuq`. `ask` does it, in a thread, and raises
    GpuqError; `said` tells in a few words what came of it, `failed` whether some of it did not come
    about, and `can_undo` whether the daemon can take some of it back for a while."""

    words: Sequence[str]
    ask: Callable[[Client], Any]
    said: Callable[[Any], str]
    failed: Callable[[Any], bool] = lambda answer: False
    can_undo: Callable[[Any], bool] = lambda answer: False

    @property
    def line(self) -> str:
        return self.line_for(())

    def line_for(self, daemon: Sequence[str]) -> str:
        """With the options before the command that tell which daemon is meant."""
        return command_line(["gpuq", *daemon, *self.words])
