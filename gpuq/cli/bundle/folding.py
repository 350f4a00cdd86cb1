"""What of a text may leave this machine: the words that gpuq itself says, and short numbers.

To look for what seems to be a secret would miss the one that nobody thought of. So it is the other way
round: a word is kept where it stands in gpuq's own files or is one of the system's, and all else, as
names of people, jobs, files and machines, becomes "…".
"""

import builtins
import errno
import os
import re
import signal
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import gpuq
from gpuq import paths

LEFT_OUT = "…"
LONGEST_NUMBER = 11  # digits: sizes, moments and pids have no more
SHORTEST_SECRET = 6  # signs: to look for shorter values would leave nothing
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?")
_ADDRESS = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]+")
_LONG_NUMBER = re.compile(r"\d(?:[ .:/_-]?\d){11,}")
_GPU = re.compile(r"\b(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_PATH = re.compile(r"(?<![\w.~])~?(?:/[\w.+@%=~-]+){2,}/?")
# Paths that tell of the system and not of who uses it.
_OF_ALL = (
    *("/usr/", "/lib", "/bin/", "/sbin/", "/etc/", "/proc/", "/sys/", "/dev/"),
    *("/run/gpuq", "/run/systemd/", paths.SYSTEM_STATE_DIR),
)
_WORD = re.compile(r"\w+")
_AMOUNT = re.compile(
    r"\d{1,11}(?:[KMGTB]|[KMGT]i?B|ms|us|s|m|min|h|d|W|C|g)?|(?:\d{1,4}[smhd])+|[gx]\d{1,9}"
    r"|\d{1,3}x\d{1,4}[GM]"
)
# What systemd, the kernel and the driver say besides.
_OF_SYSTEM = """
Started Stopped Starting Stopping Stop Reloaded Reloading Failed failed Main process exited code
killed dumped status FAILURE SUCCESS Deactivated successfully Consumed CPU time Scheduled restart job
counter is at Unit entered state start request repeated too quickly systemd kernel NVRM Xid PCI pid
name channel GPU has fallen off the bus uncorrectable ECC error memory page fault MMU timeout reset
required preemptive removal row remapper remapping double bit single exception graphics engine
firmware GSP RPC NVLink driver video processor stopped illegal instruction address intr ESR Ch service
socket timer scope slice user system fs cgroup unified lib bin sbin usr etc run proc sys dev local
share Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec most recent call last Traceback File line in
"""


class Folding:
    """`environ` is what must not be told in any form; `names` are words that would be kept and are
    somebody's: of the user, of this machine."""

    def __init__(self, environ: Mapping[str, str], names: Iterable[str] = ()) -> None:
        self._known = _vocabulary() - {name.lower() for name in names if len(name) > 1}
        secrets = {value for value in environ.values() if self._is_told_by(value)}
        longest_first = sorted(secrets, key=len, reverse=True)
        self._secret = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def text(self, text: str) -> str:
        """The same with what is not gpuq's own left out."""
        kept: list[str] = []

        def keep(found: re.Match[str]) -> str:
            kept.append(found[0])
            return f"\0{len(kept) - 1}\0"

        text = text.replace("\0", "")
        text = _ADDRESS.sub(LEFT_OUT, self._secret.sub(LEFT_OUT, text))
        text = _GPU.sub(keep, _MOMENT.sub(keep, text))
        text = _PATH.sub(_without_place, _LONG_NUMBER.sub(LEFT_OUT, text))
        parts = re.split(r"\0(\d+)\0", text)
        parts[0::2] = [_WORD.sub(self._word, part) for part in parts[0::2]]
        parts[1::2] = [kept[int(number)] for number in parts[1::2]]
        return re.sub(f"{LEFT_OUT}(?:[-.@]?{LEFT_OUT})+", LEFT_OUT, "".join(parts))

    def value(self, value: Any) -> Any:
        """The same for whatever JSON can say; the names of its fields are ours."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list | tuple):
            return [self.value(one) for one in value]
        if isinstance(value, dict):
            return {name: self.value(one) for name, one in value.items()}
        return value

    def _is_told_by(self, value: str) -> bool:
        """One word that gpuq says anyway, as "default", tells nothing where it stands."""
        return len(value) >= SHORTEST_SECRET and value.lower() not in self._known

    def _word(self, found: re.Match[str]) -> str:
        word = found[0]
        if word.lower() in self._known or _AMOUNT.fullmatch(word):
            return word
        return LEFT_OUT


def _without_place(found: re.Match[str]) -> str:
    """Where somebody keeps their things is left out, of what is not everybody's."""
    path = found[0]
    return path if path.startswith(_OF_ALL) else f"/{LEFT_OUT}/{_file_of(path)}"


def _file_of(path: str) -> str:
    name = path.rstrip("/").rpartition("/")[2]
    ours = (paths.SOCKET_NAME, paths.DATABASE_NAME, paths.LOG_NAME, "gpuq.toml", "gpuq")
    return name if name in ours else LEFT_OUT


@cache
def _vocabulary() -> frozenset[str]:
    """Every word of gpuq's own files and of the system's messages, in lower case."""
    texts = [_OF_SYSTEM, *map(os.strerror, errno.errorcode), *dir(builtins)]
    texts += [*errno.errorcode.values(), *dir(signal), *sys.stdlib_module_names]
    texts += _own_texts()
    found = {word.lower() for text in texts for word in _WORD.findall(text)}
    return frozenset(word for word in found if not word.isdecimal())


def _own_texts() -> Iterable[str]:
    for folder, _, names in os.walk(os.path.dirname(gpuq.__file__), followlinks=True):
        for name in names:
            if name.endswith((".py", ".sql", ".service", ".socket", ".toml", ".conf")):
                path = os.path.join(folder, name)
                yield path.removeprefix(os.path.dirname(gpuq.__file__))
                with open(path, encoding="utf-8", errors="replace") as file:
                    yield file.read()
