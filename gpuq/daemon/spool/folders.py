"""Where the spool folders are: STATE/spool/UID, each its user's own and nobody else's to look into."""

import os
import stat

from gpuq.daemon.attempt.folders import make_job_dir
from gpuq.errors import GpuqError

FOLDER = "spool"
# What the process that empties a folder makes in there; the rest that is no file of a job either has
# a name that `is_job_file` knows.
ACCEPTED, REJECTED = "accepted", "rejected"
MOST_LOOKED_AT = 10_000


def folder_of(state_dir: str, uid: int) -> str:
    return f"{state_dir}/{FOLDER}/{uid}"


def make_folder(state_dir: str, uid: int, gid: int) -> str:
    """A user's own folder, made where it is not there. All on the way to it is the daemon's."""
    path = folder_of(state_dir, uid)
    try:
        make_job_dir(path, uid, gid)
    except OSError as error:
        raise GpuqError(f"cannot make the spool folder {path}: {error.strerror}") from None
    if (trouble := trouble_with(path, uid)) is not None:
        raise GpuqError(trouble)
    return path


def known_users(state_dir: str) -> list[int]:
    """Those who have a folder, by uid."""
    try:
        names = os.listdir(f"{state_dir}/{FOLDER}")
    except OSError:
        return []
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal())


def trouble_with(path: str, uid: int) -> str | None:
    """Why nothing is taken from this folder; None where it is as it should be."""
    try:
        found = os.lstat(path)
    except OSError as error:
        return f"the spool folder {path} cannot be looked at: {error.strerror}"
    if not stat.S_ISDIR(found.st_mode):
        return f"{path} is to be a spool folder, and is none. Remove it: rm {path}"
    if found.st_uid != uid:
        owner = f"belongs to uid {found.st_uid}, not to {uid}"
        return f"the spool folder {path} {owner}; nothing is taken from it. chown {uid} {path}"
    if found.st_mode & 0o077:
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        return (
            f"the spool folder {path} has mode {mode}, so that others may put jobs of that user into "
            f"it; nothing is taken from it. chmod 0700 {path}"
        )
    return None


def has_files(path: str) -> bool:
    """Might there be a file of a job?"""
    try:
        with os.scandir(path) as entries:
            for number, entry in enumerate(entries):
                if entry.name not in (ACCEPTED, REJECTED) and not entry.name.startswith("."):
                    return True
                if number > MOST_LOOKED_AT:
                    return True
    except OSError:
        pass
    return False
