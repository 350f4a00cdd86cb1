"""Copies of work trees that jobs run in: where each user has theirs, and the end of those that nobody
needs any more.

A user's folder is the user's own: they fill it, and what is removed there is removed as they.
"""

import os
import time

from gpuq.daemon.attempt.folders import make_job_dir
from gpuq.daemon.upkeep.job_files import Patience, remove_folder_of
from gpuq.errors import GpuqError

FOLDER = "snapshots"
# A copy that was taken, or asked for again, so lately may be of a job that is being submitted.
FRESH_S = 600.0


def folder_of(state_dir: str, uid: int) -> str:
    return f"{state_dir}/{FOLDER}/{uid}"


def make_folder(state_dir: str, uid: int, gid: int) -> str:
    """A user's own folder, 0700; made where it is not there. All on the way to it is the daemon's."""
    own = folder_of(state_dir, uid)
    try:
        make_job_dir(own, uid, gid)
    except (PermissionError, NotADirectoryError):
        raise GpuqError(f"{own} is no folder of uid {uid}. Remove it, and submit again") from None
    except OSError as error:
        raise GpuqError(f"cannot make the folder {own}: {error.strerror}") from None
    return own


def old_copies(state_dir: str) -> dict[int, list[str]]:
    """By user the names of copies, and of what is left of copies that were never finished, that
    nobody has asked for lately."""
    found: dict[int, list[str]] = {}
    for user in _entries(f"{state_dir}/{FOLDER}"):
        if user.name.isascii() and user.name.isdecimal() and user.is_dir(follow_symlinks=False):
            found[int(user.name)] = [one.name for one in _entries(user.path) if _is_old(one)]
    return found


def remove(state_dir: str, uid: int, name: str, patience: Patience) -> bool:
    """Whether all of it is gone."""
    path = f"{folder_of(state_dir, uid)}/{name}"
    remove_folder_of(path, uid, patience)
    return not os.path.lexists(path)


def _entries(folder: str) -> "list[os.DirEntry[str]]":
    try:
        return list(os.scandir(folder))
    except OSError:
        return []


def _is_old(entry: "os.DirEntry[str]") -> bool:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    return entry.is_dir(follow_symlinks=False) and found.st_mtime < time.time() - FRESH_S
