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
    GpuqError; `said` tells in a few words what came of it."""

    words: Sequence[str]
    ask: Callable[[Client], Any]
    said: Callable[[Any], str]

    @property
    def line(self) -> str:
        return command_line(["gpuq", *self.words])
