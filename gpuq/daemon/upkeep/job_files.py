"""What jobs have left on disk: measured, and removed. Blocking, so it is called in a thread.

A job's folder is its submitter's, who may put links and pipes into it or swap folders while this
looks: all is done by descriptors of folders, opened without following a link, and of a job's folder
only files of known names are removed. What lies in an output directory is the user's: where this is
root, a process of that user removes it, which can do there what the user can and no more.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from gpuq.daemon.attempt.mounts import has_mounts_below

LOGS = ("log", "log.index", "report", "script")  # in jobs/ID/ATTEMPT, beside the directory `output`
OUTPUT = "output"
LINKS = (OUTPUT, "output.new")  # in jobs/ID, to the directory of the latest attempt
RM = "/bin/rm"
# All others wait meanwhile. A user may stop the process that removes what is theirs, and may make
# directories faster than anybody looks at them.
RM_S, COUNTING_S = 30.0, 5.0
TOOK_LONG = "there is so much that it takes long. Prune it again to go on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What lies there. `files_bytes` is what gpuq removes by itself, `output_bytes` what it does not;
    that is None where something lies in an output directory and nobody has counted how much."""

    files_bytes: int = 0
    output_bytes: int | None = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """`freed_bytes` as the disk counts them. `trouble`: what is still there against our will."""

    freed_bytes: int = 0
    trouble: str | None = None


def measure(state_dir: str, job: int, attempts: int, *, count_outputs: bool = False) -> Found:
    files, outputs, has_outputs = 0, 0, False
    with _folder(f"{state_dir}/jobs/{job}") as mine:
        for attempt in _attempts(mine):
            with _folder_of_same_owner(attempt, mine) as folder:
                files += sum(_size(name, folder) for name in LOGS)
                has_outputs |= _holds_something(folder)
                outputs += _tree_size(OUTPUT, folder) if count_outputs else 0
    for record in _records(job, attempts):
        with _folder(f"{state_dir}/attempts/{record}") as folder:
            files += sum(_size(name, folder) for name in _names(folder))
            files += folder is not None  # an empty one is something to remove, too
    uncounted = has_outputs and not count_outputs
    return Found(files_bytes=files, output_bytes=None if uncounted else outputs)


class Patience:
    """How long one removes what is one user's, in seconds, before others have their turn."""

    def __init__(self) -> None:
        self._left_s: dict[int, float] = {}

    def left_s(self, uid: int) -> float:
        return self._left_s.get(uid, RM_S)

    def spend(self, uid: int, seconds: float) -> None:
        self._left_s[uid] = self.left_s(uid) - seconds


def remove(
    state_dir: str,
    job: int,
    attempts: int,
    *,
    outputs: bool = False,
    patience: Patience | None = None,
) -> Removed:
    """Removes logs and records, and the folders that are empty then; with `outputs` all of it. Done
    again after it was cut short it does the rest."""
    removal = _Removal(patience or Patience())
    with _folder(f"{state_dir}/jobs") as jobs, _folder(str(job), jobs) as mine:
        for attempt in _attempts(mine):
            if int(attempt) > attempts:  # it is run once more meanwhile
                continue
            with _folder_of_same_owner(attempt, mine) as folder:
                shown = f"jobs/{job}/{attempt}"
                for name in LOGS:
                    removal.unlink(name, folder, shown)
                _remove_if_empty(OUTPUT, folder)
                if outputs:
                    removal.remove_tree(OUTPUT, folder, shown, owner=mine)
            _remove_if_empty(attempt, mine)
        _remove_links(mine)
        _remove_if_empty(str(job), jobs)
    with _folder(f"{state_dir}/attempts") as attempts_folder:
        for record in _records(job, attempts):
            with _folder(record, attempts_folder) as folder:
                for name in _names(folder):
                    removal.unlink(name, folder, f"attempts/{record}")
            _remove_if_empty(record, attempts_folder)
    return Removed(freed_bytes=removal.freed_bytes, trouble=removal.trouble)


def highest_id(state_dir: str) -> int:
    """Of all jobs that have a folder; 0 where none has."""
    with _folder(f"{state_dir}/jobs") as jobs:
        ids = [int(name) for name in _names(jobs) if re.fullmatch("[0-9]{1,12}", name)]
    return max(ids, default=0)


def remove_folder_of(path: str, uid: int, patience: Patience | None = None) -> int | None:
    """Removes a folder, such as a job's private temporary directory where its runner could not, if
    what lies there is that user's; returns how many bytes it held, None where there is none. The
    folder around it may be reached through links."""
    parent, name = os.path.split(path)
    with _folder(parent, follow=True) as folder, _folder(name, folder) as own:
        if own is None or os.fstat(own).st_uid != uid:
            return None
        removal = _Removal(patience or Patience())
        removal.remove_tree(name, folder, parent, owner=own)
        return removal.freed_bytes


class _Removal:
    """Removes one thing after the other and keeps the first trouble with any of them."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self.freed_bytes = 0
        self.trouble: str | None = None

    def unlink(self, name: str, folder: int | None, shown: str) -> None:
        if folder is None:
            return
        size = _size(name, folder)
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return
        except OSError as error:
            self._note(f"{shown}/{name}: {(error.strerror or str(error)).lower()}")
            return
        self.freed_bytes += size

    def remove_tree(self, name: str, folder: int | None, shown: str, *, owner: int | None) -> None:
        """By rm, which knows no limit of depth, follows no link and waits for no pipe. It is run by
        whom `owner`, a descriptor, belongs to."""
        if folder is None or owner is None:
            return
        if not _is_there(name, folder):
            return
        size, uid, began_at = _tree_size(name, folder), os.fstat(owner).st_uid, time.monotonic()
        trouble = _run_rm(name, folder, owner, self._patience.left_s(uid))
        self._patience.spend(uid, time.monotonic() - began_at)
        if trouble is not None:
            self._note(f"{shown}/{name}: {trouble}")
        self.freed_bytes += size - _tree_size(name, folder)

    def _note(self, trouble: str) -> None:
        self.trouble = self.trouble or trouble


def _run_rm(name: str, folder: int, owner: int, within_s: float) -> str | None:
    if within_s <= 0:
        return TOOK_LONG
    if has_mounts_below(f"/proc/self/fd/{folder}/{name}"):
        return "something is mounted in it. Unmount it first"
    command = [RM, "-rf", "--", f"./{name}"]
    try:
        rm = subprocess.run(
            command,
            timeout=within_s,
            cwd=f"/proc/self/fd/{folder}",
            env={"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
            **_as_owner(owner),
        )
    except subprocess.TimeoutExpired:
        return TOOK_LONG
    except OSError as error:  # no room for another process
        return str(error)
    said = rm.stderr.decode("utf-8", "replace").partition("\n")[0].strip()
    return (said.removeprefix(f"{RM}: ") or "rm failed") if rm.returncode else None


def _as_owner(owner: int) -> dict[str, Any]:
    """For subprocess: nothing to change where that is us."""
    found = os.fstat(owner)
    if found.st_uid == os.geteuid():
        return {}
    return {"user": found.st_uid, "group": found.st_gid, "extra_groups": []}


@contextmanager
def _folder(name: str, parent: int | None = None, *, follow: bool = False) -> Iterator[int | None]:
    """A descriptor of a folder; None where there is none, or something else, or a link. A relative
    name is one in `parent`."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    fd = None
    if parent is not None or name.startswith("/"):
        with suppress(OSError):
            fd = os.open(name, flags, dir_fd=parent)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


@contextmanager
def _folder_of_same_owner(name: str, parent: int | None) -> Iterator[int | None]:
    """Users cannot give folders away, but they may have moved one of somebody else's in here."""
    with _folder(name, parent) as folder:
        if folder is None or parent is None:
            yield None
        else:
            yield folder if os.fstat(folder).st_uid == os.fstat(parent).st_uid else None


def _names(folder: int | None) -> list[str]:
    with suppress(OSError):
        return [] if folder is None else os.listdir(folder)
    return []


def _attempts(job: int | None) -> list[str]:
    return [name for name in _names(job) if name.isascii() and name.isdecimal()]


def _records(job: int, attempts: int) -> list[str]:
    return [f"{job}.{number}" for number in range(1, attempts + 1)]


def _size(name: str, folder: int | None) -> int:
    """What is free without it: a hole costs nothing, and neither does one of several names."""
    if folder is None:
        return 0
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return 0
    return found.st_blocks * 512 if found.st_nlink == 1 else 0


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def _tree_size(name: str, folder: int | None) -> int:
    """Of the files in it, however deep, as far as they can be counted in a while; what is reached by a
    link that is swapped in meanwhile does not count."""
    total, unseen, until = 0, [name], time.monotonic() + COUNTING_S
    while unseen and time.monotonic() < until:
        path = unseen.pop()
        with _folder(path, folder) as here:
            for entry in _entries(here if _is_at(here, path, folder) else None):
                if entry.is_dir(follow_symlinks=False):
                    unseen.append(f"{path}/{entry.name}")
                else:
                    total += _size(entry.name, here)
    return total


def _is_at(fd: int | None, path: str, folder: int | None) -> bool:
    """Is what was opened by a path of several parts where that path says?"""
    if fd is None or folder is None:
        return False
    return os.readlink(f"/proc/self/fd/{fd}") == os.readlink(f"/proc/self/fd/{folder}") + f"/{path}"


def _entries(folder: int | None) -> "list[os.DirEntry[str]]":
    with suppress(OSError):
        return [] if folder is None else list(os.scandir(folder))
    return []


def _holds_something(attempt: int | None) -> bool:
    with _folder(OUTPUT, attempt) as output:
        return bool(_names(output))


def _remove_links(job: int | None) -> None:
    """To the output of an attempt of which nothing is left. Others are the user's own."""
    for name in LINKS if job is not None else ():
        with suppress(OSError):
            attempt = os.readlink(name, dir_fd=job).partition("/")[0]
            if attempt.isdecimal() and attempt not in _attempts(job):
                os.unlink(name, dir_fd=job)


def _remove_if_empty(name: str, folder: int | None) -> None:
    if folder is not None:
        with suppress(OSError):
            os.rmdir(name, dir_fd=folder)
