"""May root run this installation, and may everybody use it? Whoever can write to the interpreter, to
what it imports or to a directory above them decides what root does.

Modes and owners are all that is asked: with an access control list, the bits of the group are its mask.
"""

import json
import os
import pwd
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gpuq.errors import GpuqError

MOST_LINKS = 40  # path_resolution(7)

_ASK = """\
import json, sys, sysconfig, gpuq
print(json.dumps({
    "version": gpuq.__version__,
    "package": gpuq.__path__[0],
    "prefixes": sorted({sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}),
    "imports": [path for path in sys.path if path.startswith("/")],
    "commands": sysconfig.get_path("scripts"),
}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """An interpreter and what it runs as `python -I -m gpuq…`; all paths are whole."""

    python: str
    version: str
    package: str
    prefixes: tuple[str, ...]
    imports: tuple[str, ...]
    commands: str  # the folder with gpuq and gpuqd


class Breach(NamedTuple):
    path: str
    why: str


def find_installation(python: str) -> Installation:
    """GpuqError where that interpreter has no gpuq of its own."""
    ran = subprocess.run(
        [python, "-I", "-c", _ASK], cwd="/", capture_output=True, text=True, env={}, check=False
    )
    if ran.returncode != 0:
        raise GpuqError(
            f"{python} finds gpuq only with the help of PYTHONPATH, of the working directory or of "
            "packages of one user, which a service does not have. Install it: "
            f"{python} -m pip install gpuqd"
        )
    found = json.loads(ran.stdout)
    return Installation(
        python=python,
        version=found["version"],
        package=found["package"],
        prefixes=tuple(found["prefixes"]),
        imports=tuple(found["imports"]),
        commands=found["commands"],
    )


def breaches(installation: Installation, owner: int = 0) -> list[Breach]:
    """Each path that somebody but root and `owner` (a uid) can write, or that not everybody can use;
    those first that others follow from."""
    package = installation.package
    passed = {
        path
        for needed in (installation.python, package, *installation.imports)
        for path, _ in resolved(needed)
    }
    found = {}
    for path, entry in _everything(installation):
        # Python writes what it keeps compiled as closed as it pleases, and does without.
        is_ours = _is_in(path, package) and "__pycache__" not in path
        why = _why_writable(entry, owner) or _why_closed(entry, path in passed, is_ours)
        if why is not None:
            found[path] = why
    return [Breach(path, why) for path, why in found.items()]


def _everything(installation: Installation) -> Iterator[tuple[str, os.stat_result]]:
    for path in (installation.python, *installation.prefixes):
        yield from resolved(path)
    for prefix in installation.prefixes:
        yield from resolved(os.path.join(prefix, "pyvenv.cfg"))
    seen: set[str] = set()
    for path in (installation.package, *installation.imports):
        yield from _tree(path, seen)


def resolved(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """What is passed on the way to `path`: each directory, each link and where it leads, up to what is
    absent, which only who may write to the last directory can bring about."""
    here, links = "/", 0
    yield here, os.lstat(here)
    ahead = path.split("/")
    while ahead:
        name = ahead.pop(0)
        if name in ("", "."):
            continue
        there = os.path.dirname(here) if name == ".." else os.path.join(here, name)
        try:
            entry = os.lstat(there)
        except (FileNotFoundError, NotADirectoryError):
            return
        yield there, entry
        if not stat.S_ISLNK(entry.st_mode):
            here = there
            continue
        links += 1
        if links > MOST_LINKS:
            raise GpuqError(f"{path} leads through more than {MOST_LINKS} links")
        target = os.readlink(there)
        here = "/" if target.startswith("/") else here
        ahead = target.split("/") + ahead


def _tree(path: str, seen: set[str]) -> Iterator[tuple[str, os.stat_result]]:
    """The way there and all below it, links followed; each directory once."""
    yield from resolved(path)
    folders = [os.path.realpath(path)]
    while folders:
        folder = folders.pop()
        if folder in seen or not os.path.isdir(folder):
            continue
        seen.add(folder)
        for entry in os.scandir(folder):
            yield entry.path, entry.stat(follow_symlinks=False)
            if entry.is_symlink():
                yield from resolved(entry.path)
                folders.append(os.path.realpath(entry.path))
            elif entry.is_dir():
                folders.append(entry.path)


def _why_writable(entry: os.stat_result, owner: int) -> str | None:
    if entry.st_uid not in (0, owner):
        return f"belongs to {_name(entry.st_uid)}"
    if stat.S_ISLNK(entry.st_mode):
        return None  # it has no mode of its own
    if entry.st_mode & stat.S_IWOTH:
        return "can be written by everybody"
    if entry.st_mode & stat.S_IWGRP:
        return "can be written by its group"
    return None


def _why_closed(entry: os.stat_result, is_passed: bool, is_ours: bool) -> str | None:
    """Users run the same commands, so they have to get there; what lies beside them may be closed."""
    if stat.S_ISDIR(entry.st_mode):
        is_open = entry.st_mode & stat.S_IXOTH or not (is_passed or is_ours)
        return None if is_open else "is closed to users"
    return None if entry.st_mode & stat.S_IROTH or not is_ours else "cannot be read by users"


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _name(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}, who has no name here"
