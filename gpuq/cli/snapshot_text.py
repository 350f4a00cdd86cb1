"""The copy of a work tree that a job runs in, as its reader sees it: what it is of, and how it differs
from its commit."""

import os
import stat
from typing import Any

from gpuq.core.units import count
from gpuq.errors import GpuqError, NothingMatched
from gpuq.follow import rights_of_owner
from gpuq.work_tree.snapshot import CHANGES, TREE, read_manifest

Job = dict[str, Any]
BEGINNING = b"diff --git "


def describe(job: Job) -> str:
    """ "of /home/alice/vit at 1a2b3c4, with 3 files changed, in …": what is gone is not told of."""
    folder = job["snapshot"]
    with rights_of_owner(job):
        manifest = read_manifest(*os.path.split(folder))
    if manifest is None:
        return f"{folder} (it is gone, or not yours to read)"
    commit = (manifest.get("commit") or "")[:7]
    at = f" at {commit}" if commit else ", which has no commit yet"
    changed = sum(line.startswith(BEGINNING) for line in _read(job).splitlines())
    how = f", with {count(changed, 'file')} changed" if changed else ", as committed"
    return f"of {manifest.get('top')}{at}{how}, in {folder}"


def taken_in(job: Job) -> str | None:
    """The directory for which the job has its own in the copy; None where the copy is gone."""
    folder = job["snapshot"]
    with rights_of_owner(job):
        manifest = read_manifest(*os.path.split(folder))
    inside = os.path.relpath(job["cwd"], os.path.join(folder, TREE))
    if manifest is None or not manifest.get("top") or inside.split(os.sep)[0] == os.pardir:
        return None
    return os.path.normpath(os.path.join(manifest["top"], inside))


def changes(job: Job) -> bytes:
    """The difference from its commit; NothingMatched where it runs in no copy."""
    if job.get("snapshot") is None:
        raise NothingMatched(
            f"job {job['id']} runs in no copy of a work tree, so nothing was kept of what had changed "
            "there. Submit with --snapshot"
        )
    return _read(job)


def _read(job: Job) -> bytes:
    """A pipe in its place keeps nobody waiting, and a link leads nowhere."""
    path = os.path.join(job["snapshot"], CHANGES)
    try:
        with rights_of_owner(job):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise GpuqError(f"{path} is no regular file")
            return file.read()
    except FileNotFoundError:
        raise GpuqError(f"{path} is gone: the job's files were pruned") from None
    except OSError as error:
        raise GpuqError(f"{path}: {error.strerror}") from None
