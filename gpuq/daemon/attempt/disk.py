"""Whether a disk has room for a job to begin. Standard library only."""

import errno
import os

# Of a disk that is full, over its quota, read-only or failing: no fault of the job.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
# On a full disk there may be room for a commit and none for what a job needs to begin: all that wait
# would fail, one after the other.
LEAST_ROOM_BYTES, LEAST_FILES = 2**20, 64


def has_room(folder: str) -> bool:
    """On the disk of this folder, for who is not root. OSError where it cannot be asked."""
    disk = os.statvfs(folder)
    is_full = disk.f_bavail * disk.f_frsize < LEAST_ROOM_BYTES
    return not is_full and not (disk.f_files and disk.f_favail < LEAST_FILES)


def is_to_blame(folder: str) -> bool:
    """Is it this folder's own disk that refuses? It is full, read-only, or cannot even be asked."""
    try:
        return not has_room(folder) or bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return True
