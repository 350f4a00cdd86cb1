"""What `install` and `uninstall` do to the machine, one step at a time, as values: what is to be done
is known before any of it is. A file that gpuq puts somewhere says so in itself; no other is touched.
"""

import os
import re
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from gpuq import service
from gpuq.errors import GpuqError

MARK = "Put here by `gpuq daemon install`"
_FROM = re.compile(rf"{re.escape(MARK)} from (?P<commands>/.*); `gpuq daemon uninstall` removes it")


def marked(commands: str) -> str:
    """The line by which a file is known again; `commands` is the folder of the installation's."""
    return f"{MARK} from {commands}; `gpuq daemon uninstall` removes it"


@dataclass(frozen=True, slots=True)
class Write:
    path: str
    text: str

    @property
    def doing(self) -> str:
        return f"write {self.path}"

    @property
    def done(self) -> str:
        return f"wrote {self.path}"

    def carry_out(self) -> None:
        """The file is the old one or the new one, whole, whatever happens."""
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        fd, beside = tempfile.mkstemp(prefix=".gpuq-", dir=os.path.dirname(self.path))
        try:
            with open(fd, "w", encoding="utf-8") as file:
                file.write(self.text)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            os.replace(beside, self.path)
        except BaseException:
            os.unlink(beside)
            raise


@dataclass(frozen=True, slots=True)
class Link:
    path: str
    target: str

    @property
    def doing(self) -> str:
        return f"link {self.path} to {self.target}"

    @property
    def done(self) -> str:
        return f"linked {self.path} to {self.target}"

    def carry_out(self) -> None:
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        os.symlink(self.target, self.path)


@dataclass(frozen=True, slots=True)
class Remove:
    path: str

    @property
    def doing(self) -> str:
        return f"remove {self.path}"

    @property
    def done(self) -> str:
        return f"removed {self.path}"

    def carry_out(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.path)


@dataclass(frozen=True, slots=True)
class Run:
    """A program of systemd's, and what it is run for."""

    words: tuple[str, ...]
    purpose: str

    @property
    def doing(self) -> str:
        return f"run {' '.join(self.words)}: {self.purpose}"

    @property
    def done(self) -> str:
        return f"ran {' '.join(self.words)}: {self.purpose}"

    def carry_out(self) -> None:
        ran = service.run_tool(self.words)
        if ran.returncode != 0:
            raise GpuqError(service.last_words(ran))


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """What is more than one program."""

    doing: str
    done: str
    deed: Callable[[], None]

    def carry_out(self) -> None:
        self.deed()


Step = Write | Link | Remove | Run | Deed


def carry_out(step: Step, again: str) -> None:
    """GpuqError names the step, why it failed, and `again`, the command that goes on from there."""
    try:
        step.carry_out()
    except (GpuqError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise GpuqError(
            f"could not {step.doing}: {why}. What was done before stays; once that is put right, "
            f"go on with: {again}"
        ) from None


def is_ours(path: str) -> bool:
    """A file with our mark; a link is none, wherever it leads."""
    return MARK in (read(path) or "")


def came_from(path: str) -> str | None:
    """The folder of commands of the installation that put the file there; None: none of ours did."""
    found = _FROM.search(read(path) or "")
    return None if found is None else found["commands"]


def read(path: str) -> str | None:
    """The text of a regular file; None where none is, or none that can be read."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None
