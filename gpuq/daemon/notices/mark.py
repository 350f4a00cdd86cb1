"""The mark of a notice: a file that is there from the moment on at which it may have been delivered.

Whoever makes the file delivers, and nobody else: it appears at once, whole and locked by its maker, who
holds the lock for as long as it lives. Its first line names the maker, its second what came of it.
Standard library only.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

MOST_BYTES = 2**20


class Mark(NamedTuple):
    """`result` is None where nobody told what came of it, or not all of that."""

    pid: int
    start: int
    is_held: bool
    result: Mapping[str, Any] | None


def path_of(folder: str, notice: int, tries: int) -> str:
    return f"{folder}/{notice}.{tries}"


def make(path: str, pid: int, start: int) -> int | None:
    """A descriptor that holds the lock; None where somebody made that mark before."""
    draft = f"{path}.{os.urandom(4).hex()}"
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(fd, json.dumps({"pid": pid, "start": start}).encode() + b"\n")
        os.fsync(fd)
        os.link(draft, path)
    except FileExistsError:
        os.close(fd)
        return None
    finally:
        os.unlink(draft)
    _sync_folder(path)  # after a power cut, too, it is not done twice
    return fd


def finish(fd: int, result: Mapping[str, Any]) -> None:
    """What came of it."""
    os.write(fd, json.dumps(result).encode() + b"\n")
    os.fsync(fd)


def read(path: str) -> Mark | None:
    """None where nobody has begun."""
    try:
        with open(path, "rb") as file:
            is_held = _is_held(file.fileno())  # first: what is free has been written to the end
            lines = file.read(MOST_BYTES).split(b"\n")
    except FileNotFoundError:
        return None
    who = json.loads(lines[0])
    return Mark(who["pid"], who["start"], is_held, _result(lines))


def remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _is_held(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _result(lines: list[bytes]) -> Mapping[str, Any] | None:
    if len(lines) < 3:  # the second is not closed
        return None
    found: Mapping[str, Any] = json.loads(lines[1])
    return found


def _sync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
