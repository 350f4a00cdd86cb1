"""A whole copy of the database while its daemon lives, or without one.

All of it is as of one moment: the copying stands in one read transaction, which neither waits for the
daemon nor keeps it from writing. FILE is there whole or not at all.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

import apsw

from gpuq import paths
from gpuq.daemon.store.audit import Audit, Damaged, open_audit
from gpuq.daemon.store.connection import DISK_ERRORS
from gpuq.errors import GpuqError, UsageError

PAGES_PER_STEP = 1024
TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    jobs: int
    size_bytes: int


def back_up(
    database: str, file: str, *, force: bool, progress: Callable[[int, int], None]
) -> Copied:
    """Copies the database to `file`, checks the copy, and says what is in it. `progress` hears how
    many bytes of how many are copied."""
    _check_place(database, file, force)
    for _ in range(TRIES):
        with _partial(file) as partial:
            before = _mark(database)
            with open_audit(database) as audit:
                _copy(audit, partial, file, progress)
            if os.path.exists(f"{database}-shm") or _mark(database) == before:
                copied = _look_at(partial)
                _put_in_place(partial, file, force)
                return copied
        # It was read as one that nobody writes to, and a daemon was started meanwhile.
    raise GpuqError(f"{database} changed again and again while it was copied. Nothing was written")


def _check_place(database: str, file: str, force: bool) -> None:
    """A log that lies beside a file would be taken for its own by whoever opens the copy."""
    if os.path.isdir(file):
        raise UsageError(f"{file} is a directory: name a file in it")
    folder = os.path.dirname(os.path.abspath(file))
    if not os.path.isdir(folder):
        raise UsageError(f"there is no directory {folder}. Make it first")
    if os.path.abspath(file) in _own_files(database):
        raise UsageError(f"{file} belongs to the database in use: name another file")
    if os.path.exists(file):
        if os.path.exists(database) and os.path.samefile(file, database):
            raise UsageError(f"{file} is the database itself: name another file")
        if not force:
            raise UsageError(f"{file} is there already. Name another file, or replace it: --force")
        if not stat.S_ISREG(os.lstat(file).st_mode):
            raise UsageError(f"{file} is no regular file: name another")
    for end in ("-wal", "-shm", "-journal"):
        if os.path.exists(file + end):
            raise UsageError(f"{file}{end} lies there: {file} is a database in use. Name another")


def _own_files(database: str) -> set[str]:
    """What the daemon keeps beside its database, there or not: nothing else may lie in their place."""
    folder, whole = os.path.dirname(os.path.abspath(database)), os.path.abspath(database)
    beside = {os.path.join(folder, name) for name in (paths.LOCK_NAME, paths.SOCKET_NAME)}
    return beside | {whole + end for end in ("", "-wal", "-shm", "-journal", ".damaged")}


def _mark(database: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(database)
    except FileNotFoundError:
        return None  # whoever opens it says so
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def _partial(file: str) -> Iterator[str]:
    """FILE.partial, ours alone, and gone again unless it was put in place."""
    partial = f"{file}.partial"
    fd = _create(partial)
    try:
        yield partial
        # SQLite's locks on a file are gone when any descriptor of it is closed, so ours goes last.
    except OSError as error:
        raise GpuqError(_trouble(file, error)) from error
    finally:
        for end in ("", "-journal", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(partial + end)
        os.close(fd)


def _create(partial: str) -> int:
    """One that was left behind is taken away, one that somebody writes is left alone."""
    for _ in range(TRIES):
        try:
            fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except FileExistsError:
            _remove_left_behind(partial)
        except OSError as error:
            raise GpuqError(f"cannot write {partial}: {error.strerror}") from error
    raise GpuqError(f"{partial} comes back whenever it is removed. Name another file")


def _remove_left_behind(partial: str) -> None:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(partial, flags)
    except FileNotFoundError:
        return
    except OSError as error:
        raise GpuqError(f"{partial} is in the way: {error.strerror}. Remove it") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(partial)
    except BlockingIOError:
        raise GpuqError(f"another backup is writing {partial}") from None
    except OSError as error:
        raise GpuqError(f"{partial} is in the way: {error.strerror}. Remove it") from error
    finally:
        os.close(fd)


def _copy(audit: Audit, partial: str, file: str, progress: Callable[[int, int], None]) -> None:
    audit.value("select count(*) from sqlite_schema")  # from here on it stands still for us
    page_bytes = int(audit.value("pragma page_size"))
    try:
        with closing(apsw.Connection(partial)) as copy:
            # A crash in the middle leaves what nobody takes for a backup, so no journal is kept.
            list(copy.execute("pragma journal_mode = off"))
            list(copy.execute("pragma synchronous = off"))
            with copy.backup("main", audit.db, "main") as backup:
                while not backup.done:
                    backup.step(PAGES_PER_STEP)
                    total = backup.page_count
                    progress((total - backup.remaining) * page_bytes, total * page_bytes)
    except DISK_ERRORS as error:
        raise GpuqError(_trouble(file, error)) from error


def _look_at(partial: str) -> Copied:
    """What was written is read again, from its file, before it is called a backup."""
    with open_audit(partial) as audit:
        if found := audit.damage() or audit.foreign_keys():
            raise Damaged(f"the database is damaged, so its copy is, too: {found[0]}")
        jobs = int(audit.value("select coalesce(sum(last_id - id + 1), 0) from jobs"))
    return Copied(jobs=jobs, size_bytes=os.path.getsize(partial))


def _put_in_place(partial: str, file: str, force: bool) -> None:
    fd = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    if force:
        os.rename(partial, file)
    else:
        _link(partial, file)
    folder = os.open(os.path.dirname(os.path.abspath(file)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _link(partial: str, file: str) -> None:
    """Not over what somebody has put there meanwhile, where the file system can tell."""
    try:
        os.link(partial, file)
    except FileExistsError:
        raise UsageError(f"{file} is there already. Nothing was written") from None
    except OSError:
        os.rename(partial, file)


def _trouble(file: str, error: Exception) -> str:
    folder = os.path.dirname(os.path.abspath(file))
    full = isinstance(error, apsw.FullError) or getattr(error, "errno", None) == errno.ENOSPC
    if full or isinstance(error, apsw.IOError):
        what = f"the disk of {folder} " + ("is full" if full else f"refuses to write ({error})")
        return f"cannot write {file}: {what}. Nothing was left behind"
    return f"cannot write {file}: {error}. Nothing was left behind"
