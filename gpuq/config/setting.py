"""What a setting is: its name, how its value is read and shown, and where it may stand."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpuq.config.forms import NOTHING, read_path, read_textfile, whole_gpus, word_of
from gpuq.errors import UsageError


@dataclass(frozen=True, slots=True)
class Setting:
    """What may be set: how a value is read, its default, and where it may stand."""

    name: str
    read: Callable[[Any], Any]
    default: Any
    help: str
    variable: str | None = None
    show: Callable[[Any], str] = str
    at_start: bool = False  # a change takes a restart; all else is in force once the file is saved

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def form(self) -> str:
        """What kind of value it takes, in a word."""
        return word_of(self.read)

    def checked(self, value: Any, where: str) -> Any:
        """The value that was written at this place; UsageError names the place and what is wrong."""
        try:
            return self.read(value)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{where}: {error}") from None

    def shown(self, value: Any) -> str:
        return NOTHING if value is None else self.show(value)

    def meant_from(self, folder: str, value: str) -> str:
        """The same with whole paths, where there are some in it; an empty folder is where we are."""
        if self.read in (read_path, read_textfile):
            return read_path(os.path.join(folder, os.path.expanduser(value)))
        return whole_gpus(value, folder) if self.name == "gpus" else value
