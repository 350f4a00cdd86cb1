"""The mark of a notice: a file that is there from the moment on at which it may have been delivered.

Whoever makes the file delivers, and nobody else: it appears at once, whole and locked by its maker, who
holds the lock for as long as it lives. Its first line names the maker, its second what came of it.

Each daemon has a folder of its own for the marks of those that it starts, and the next one removes that
folder. So who was started and has not begun by then, however long it was stopped, never begins: in a
directory that has been removed nothing can be made. Who its parent is would tell almost as well; but a
daemon that dies lets go of its locks a moment before it lets go of its children.

Standard library only.
"""

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

MOST_BYTES = 2**20


class Unreadable(Exception):
    """There is a mark, and it does not say whose it is, or what came of it."""


class Mark(NamedTuple):
    """`result` is None where nobody told what came of it, or not all of that."""

    pid: int
    start: int
    is_held: bool
    result: Mapping[str, Any] | None


def folder_in(folder: str) -> str:
    """Where a daemon has the marks of those that it starts."""
    return f"{folder}/{os.urandom(8).hex()}"


def path_of(folder: str, notice: int, tries: int) -> str:
    return f"{folder}/{notice}.{tries}"


def make(path: str, pid: int, start: int) -> int | None:
    """A descriptor that holds the lock; None where somebody made that mark before, or where another
    daemon has come since that was ordered."""
    draft = f"{path}.{os.urandom(4).hex()}"
    try:
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(fd, json.dumps({"pid": pid, "start": start}).encode() + b"\n")
        os.fsync(fd)
        os.link(draft, path)
    except (FileExistsError, FileNotFoundError):
        os.close(fd)
        return None
    finally:
        remove(draft)
    _sync(os.path.dirname(path))  # after a power cut, too, it is not done twice
    return fd


def finish(fd: int, result: Mapping[str, Any]) -> None:
    """What came of it."""
    os.write(fd, json.dumps(result).encode() + b"\n")
    os.fsync(fd)


def read(path: str) -> Mark | None:
    """None where nobody has begun. Raises Unreadable."""
    try:
        # NONBLOCK: what lies there may be anything.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unreadable(str(error)) from None
    try:
        is_held = _is_held(fd)  # first: what is free has been written to the end
        lines = os.read(fd, MOST_BYTES).split(b"\n")
        who = json.loads(lines[0])
        return Mark(_whole(who["pid"]), _whole(who["start"]), is_held, _result(lines))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from None
    finally:
        os.close(fd)


def remove(path: str) -> None:
    """One that nobody can remove does no harm: no other is ever made by its name."""
    with suppress(OSError):
        os.unlink(path)


def take_over(folder: str, own: str) -> None:
    """Moves the marks of earlier daemons into the folder of our own, and removes theirs. Once that is
    done nobody whom they have started can begin any more."""
    if not os.path.isdir(folder):
        return
    others = [one.path for one in os.scandir(folder) if one.is_dir(follow_symlinks=False)]
    for other in others:
        if other != own:
            os.makedirs(own, mode=0o700, exist_ok=True)
            while not _is_emptied(other, own):
                pass  # somebody has begun in between
    if others:
        _sync(own)


def _is_emptied(other: str, own: str) -> bool:
    for name in os.listdir(other):
        with suppress(FileNotFoundError):
            if name.count(".") == 1:
                os.rename(f"{other}/{name}", f"{own}/{name}")
            else:
                os.unlink(f"{other}/{name}")
    try:
        os.rmdir(other)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def _is_held(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _result(lines: list[bytes]) -> Mapping[str, Any] | None:
    if len(lines) < 3:  # the second is not closed
        return None
    found = json.loads(lines[1])
    trouble, output = found["trouble"], found["output"]
    if not (isinstance(trouble, str | None) and isinstance(output, str)):
        raise ValueError("what came of it is no text")
    f"{trouble}{output}".encode()  # JSON can write half a character, which no database takes
    return {"trouble": trouble, "output": output}


def _whole(number: Any) -> int:
    if not isinstance(number, int) or not 0 <= number < 2**62:
        raise ValueError("it names no process")
    return number


def _sync(folder: str) -> None:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return  # another daemon has come, and sees to what it has moved
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
