"""The units as they are shipped, filled in for one installation. Where they go stands in `places`."""

import os
import re
from collections.abc import Mapping, Sequence

from gpuq.errors import UsageError

FOLDER = os.path.join(os.path.dirname(__file__), "units")
_BLANK = re.compile(r"@([A-Z_]+)@")


def system_units(python: str, state_dir: str) -> dict[str, str]:
    """Name → content of all that the daemon of the machine needs."""
    words = {"PYTHON": _word(python), "STATE_DIR": _word(state_dir)}
    names = ("gpuqd.service", "gpuqd.socket", "gpuq.sysusers.conf", "gpuq.tmpfiles.conf")
    return {name: _filled_in(name, words) for name in names}


def user_units(python: str, socket: str, flags: Sequence[str]) -> dict[str, str]:
    """The same for one's own, which is started with these flags."""
    words = {
        "PYTHON": _word(python),
        "SOCKET": _whole_line(socket),
        "FLAGS": " ".join(map(_word, flags)),
    }
    return {name: _filled_in(f"user/{name}", words) for name in ("gpuqd.service", "gpuqd.socket")}


def _filled_in(name: str, words: Mapping[str, str]) -> str:
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return _BLANK.sub(lambda blank: words[blank[1]], file.read())


def _word(word: str) -> str:
    """One word of a command line, such that systemd reads it back: systemd.syntax(7), quoting, and
    systemd.service(5), command lines."""
    if re.fullmatch(r"[\w@+=:,./-]+", word, re.ASCII):
        return word
    escaped = _whole_line(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"'


def _whole_line(value: str) -> str:
    """What goes to the end of its line is taken as it is, but for specifiers."""
    if not value.isprintable() or value.strip() != value:
        raise UsageError(f"a unit cannot name the path {value!r}: choose one that can be printed")
    return value.replace("%", "%%")
