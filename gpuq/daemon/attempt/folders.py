"""Folders that root makes in its own and gives away, and what is left of those of a job. Standard
library only.

Everything goes by descriptors of folders that were opened without following a link.
"""

from __future__ import annotations

import errno
import os

READ = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
PASSABLE = 0o711  # by everybody, who sees no names in it


def make_job_dir(path: str, uid: int, gid: int) -> None:
    """jobs/ID for a job of that user, in a folder of root's that everybody may pass; so are made all
    folders that are one user's. PermissionError where it belongs to somebody else; one that was made
    and not yet given away is given away now.
    """
    jobs, name = os.path.split(path)
    parent = _open_jobs(jobs)
    try:
        _make(name, 0o700, parent)
        _give_away(name, parent, uid, gid)
    finally:
        os.close(parent)


def remove_tree(path: str | bytes, parent: int | None = None) -> None:
    """As far as its user may. This is `shutil.rmtree` without what that takes along: five modules that
    compress, in every runner; and none may be looked for while a runner lives, as it outlives them."""
    try:
        fd = os.open(path, READ, dir_fd=parent)
        try:
            with os.scandir(fd) as entries:
                found = list(entries)
            for entry in found:
                _remove(entry, fd)
        finally:
            os.close(fd)
        os.rmdir(path, dir_fd=parent)
    except OSError:
        return


def _remove(entry: os.DirEntry[str], parent: int) -> None:
    try:
        if entry.is_dir(follow_symlinks=False):
            remove_tree(entry.name, parent)
        else:
            os.unlink(entry.name, dir_fd=parent)
    except OSError:
        pass  # the rest of them is removed all the same


def _open_jobs(path: str) -> int:
    _make(path, PASSABLE, None)
    fd = os.open(path, READ)
    found = os.fstat(fd)
    if found.st_uid != os.geteuid():
        os.close(fd)
        raise PermissionError(errno.EPERM, f"{path} belongs to uid {found.st_uid}")
    if found.st_mode & 0o777 != PASSABLE:
        os.fchmod(fd, PASSABLE)  # whatever the umask
    return fd


def _make(name: str, mode: int, parent: int | None) -> None:
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        pass


def _give_away(name: str, parent: int, uid: int, gid: int) -> None:
    fd = os.open(name, READ, dir_fd=parent)
    try:
        owner = os.fstat(fd).st_uid
        if owner == uid:
            return
        if owner != os.geteuid() or os.listdir(fd):
            raise PermissionError(errno.EPERM, f"its folder {name} belongs to uid {owner}")
        os.fchown(fd, uid, gid)
    finally:
        os.close(fd)
