"""The files in a spool folder: each is read, submitted, and moved on.

Runs as the user whose folder it is, so that a link, a pipe or a folder that is swapped gets nobody more
than that user has anyway. What is here bounds what one look takes: files, bytes, time.
"""

import errno
import fcntl
import hashlib
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from gpuq.client import Client
from gpuq.errors import GpuqError, NeverFits, NothingMatched, NotPermitted, UsageError
from gpuq.protocol import SPOOL_LATER, SPOOL_MORE

ACCEPTED, REJECTED, REASON = "accepted", "rejected", ".reason"
UNFINISHED = (".tmp", ".part", "~")  # the ends of names that are not meant yet
MOST_BYTES = 4 * 2**20  # of one file
MOST_FILES, MOST_SEEN = 500, 20_000  # taken, and looked at, in one go
LONGEST_S = 40.0
LONGEST_NAME = 255  # bytes
# An empty file may be about to be written, and a second name of a file to be removed.
YOUNG_S = 10.0
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
FOLDER = READ | os.O_DIRECTORY
# What stays as it is, however often it is tried. All else passes: a full disk, a full queue.
LASTING = (UsageError, NeverFits, NotPermitted, NothingMatched)


class NotYet(Exception):
    """The file is not whole, or not ours to take yet."""


class Rejected(Exception):
    """The file is no job, in words."""


# The jobs that a file of that name and content asks for; UsageError.
Reader = Callable[[str, bytes], list[dict[str, Any]]]


class Taking:
    """One look at a folder. `run` gives the exit code; what it raises passes, too."""

    def __init__(self, client: Client, path: str, read: Reader) -> None:
        self._client = client
        self._path = path
        self._read = read
        self._until = time.monotonic() + LONGEST_S
        self._folder = self._accepted = self._rejected = -1

    def run(self) -> int:
        with suppress(OSError, ValueError):
            signal.signal(signal.SIGIO, signal.SIG_IGN)  # who breaks a lease sends it
        try:
            self._open()
            return self._take_all()
        except BlockingIOError:
            raise GpuqError(f"{self._path}: another process is taking its files") from None
        except OSError as error:  # a full disk, a folder that may not be written
            raise GpuqError(f"{self._path}: {error.strerror}") from None
        finally:
            for fd in (self._folder, self._accepted, self._rejected):
                if fd >= 0:
                    os.close(fd)

    def _open(self) -> None:
        self._folder = os.open(self._path, FOLDER)
        found = os.fstat(self._folder)
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise GpuqError(f"{self._path}: not a folder of mine alone; nothing is taken from it")
        fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._accepted = self._open_inner(ACCEPTED)
        self._rejected = self._open_inner(REJECTED)

    def _open_inner(self, name: str) -> int:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self._folder)
        fd = os.open(name, FOLDER, dir_fd=self._folder)
        # Before anything is submitted: what cannot be moved on would be submitted again some day.
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=fd):
            raise PermissionError(errno.EACCES, f"nothing can be put into {name}")
        return fd

    def _take_all(self) -> int:
        names, is_all = self._names()
        code, faults = (0 if is_all else SPOOL_MORE), []
        for name in names:
            if time.monotonic() > self._until:
                return SPOOL_MORE
            try:
                self._take(name)
            except NotYet:
                code = code or SPOOL_LATER
            except Rejected as rejected:
                self._reject(name, str(rejected))
            except (OSError, GpuqError):
                raise
            except Exception as fault:  # of ours: it keeps no other file from being taken
                faults.append(fault)
        if faults:
            raise faults[0]
        return code

    def _names(self) -> tuple[list[str], bool]:
        """Who came first comes first, and whether these are all."""
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if not _is_meant(entry.name) or entry.is_dir(follow_symlinks=False):
                    continue
                with suppress(OSError):
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
                if len(found) >= MOST_SEEN:
                    break
        names = [name for _, name in sorted(found)]
        return names[:MOST_FILES], len(names) <= MOST_FILES

    def _take(self, name: str) -> None:
        with self._opened(name) as (fd, found):
            data = _read(fd, found)
        ids = self._submit(name, data, found)
        here = self._look(name)
        if here is not None and _mark(here) == _mark(found):  # not another of that name meanwhile
            self._move(name, self._accepted, _shortened(f"{ids.start}-{name}"))

    def _submit(self, name: str, data: bytes, found: os.stat_result) -> range:
        try:
            return self._client.submit_many(self._read(name, data), token=_token(name, found))
        except LASTING as error:
            raise Rejected(str(error)) from None
        except RecursionError:
            raise Rejected("what it says is nested too deep") from None

    # ── one file ──

    @contextmanager
    def _opened(self, name: str) -> "Iterator[tuple[int, os.stat_result]]":
        """The file of that name, if it is one that may be taken."""
        before = self._look(name)
        if before is None:
            raise NotYet  # somebody has taken it away
        _check(before)
        try:
            fd = os.open(name, READ | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=self._folder)
        except FileNotFoundError:
            raise NotYet from None
        except OSError as error:
            raise Rejected(f"it cannot be read: {error.strerror}") from None
        try:
            found = os.fstat(fd)
            _check(found)
            with _nobody_writes(fd, found):
                yield fd, found
        finally:
            os.close(fd)

    def _look(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _reject(self, name: str, reason: str) -> None:
        kept = self._free_name(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(kept + REASON, flags, 0o600, dir_fd=self._rejected)
        with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(" ".join(reason.split()) + "\n")
        self._move(name, self._rejected, kept)

    def _free_name(self, name: str) -> str:
        """An earlier file of that name keeps it."""
        room = LONGEST_NAME - len(REASON)
        kept, number = _shortened(name, room), 1
        while _is_there(kept, self._rejected):
            number += 1
            kept = f"{_shortened(name, room - 8)}-{number}"
        return kept

    def _move(self, name: str, folder: int, new_name: str) -> None:
        with suppress(FileNotFoundError):
            os.rename(name, new_name, src_dir_fd=self._folder, dst_dir_fd=folder)


def _is_meant(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(UNFINISHED)


def _check(found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise Rejected("it is a link: put the file itself there")
    if not stat.S_ISREG(found.st_mode):
        raise Rejected("it is no regular file")
    if found.st_uid != os.geteuid():
        raise Rejected(f"it belongs to uid {found.st_uid}: copy it, so that the copy is yours")
    is_young = time.time() - found.st_ctime < YOUNG_S
    if found.st_nlink != 1:
        _wait_if(is_young)
        raise Rejected("it has another name elsewhere (a hard link): copy it there")
    if found.st_size == 0:
        _wait_if(is_young)
        raise Rejected("it is empty")


def _wait_if(may_change: bool) -> None:
    if may_change:
        raise NotYet


@contextmanager
def _nobody_writes(fd: int, found: os.stat_result) -> Iterator[None]:
    """NotYet where somebody has it open for writing, which a lease tells (fcntl(2), F_SETLEASE); where
    the file system has no leases, where it was written to just now."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise NotYet from None
        _wait_if(time.time() - found.st_mtime < 1.0)
        yield
        return
    try:
        yield
    finally:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _read(fd: int, found: os.stat_result) -> bytes:
    if found.st_size > MOST_BYTES:
        raise Rejected(f"it is larger than {MOST_BYTES // 2**20} MiB")
    with os.fdopen(os.dup(fd), "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if _mark(os.fstat(fd)) != _mark(found) or len(data) > MOST_BYTES:
        raise NotYet
    return data


def _mark(found: os.stat_result) -> tuple[int, ...]:
    """Another one once it is another file, or its content has changed."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _token(name: str, found: os.stat_result) -> str:
    """The same for the same file: one that was submitted, and not moved on any more, is no second
    job."""
    said = ":".join(map(str, _mark(found))).encode() + b":" + os.fsencode(name)
    return hashlib.sha256(said).hexdigest()


def _shortened(name: str, most: int = LONGEST_NAME) -> str:
    return os.fsdecode(os.fsencode(name)[:most])


def _is_there(name: str, folder: int) -> bool:
    return any(_exists(one, folder) for one in (name, name + REASON))


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


# ── looked at ──


def contents(path: str) -> dict[str, Any]:
    """What waits, and what was rejected and why, in a folder of one's own."""
    waiting = [entry.name for entry in _entries(path) if _is_meant(entry.name)]
    refused = f"{path}/{REJECTED}"
    names = (entry.name for entry in _entries(refused) if entry.name.endswith(REASON))
    return {
        "waiting": sorted(set(waiting) - {ACCEPTED, REJECTED}),
        "rejected": [
            {"name": name.removesuffix(REASON), "reason": _reason(f"{refused}/{name}")}
            for name in sorted(names)
        ],
    }


def _entries(path: str) -> "list[os.DirEntry[str]]":
    try:
        return list(os.scandir(path))
    except FileNotFoundError:
        return []


def _reason(path: str) -> str:
    try:
        fd = os.open(path, READ | os.O_NONBLOCK)
    except OSError as error:
        return f"its reason cannot be read: {error.strerror}"
    with os.fdopen(fd, encoding="utf-8", errors="replace") as file:
        return file.read(2000).strip()
