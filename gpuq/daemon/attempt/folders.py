"""Folders that root makes in its own, and gives away. Standard library only.

Everything goes by descriptors of folders that were opened without following a link.
"""

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
