"""A copy of a git work tree as it stands, for jobs to run in: what is edited meanwhile does not reach
them.

    FOLDER/NAME/tree           the copy; jobs of the same state share it
    FOLDER/NAME/manifest.json  what it holds, and where it was taken
    FOLDER/NAME/changes.diff   what it has that its commit has not

Files are shared between copies by hard links where they are equal, and never with the work tree. They
are read-only therefore, and of a time of their own: one that was written all the same is not shared
any more. Root writes to read-only files too, so its copies share nothing.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from gpuq.core.units import count, format_bytes
from gpuq.errors import GpuqError, UsageError
from gpuq.work_tree.commit import commit_of
from gpuq.work_tree.files import (
    Changed,
    File,
    difference,
    link_target,
    look_at,
    names_in,
    read_into,
    top_of,
    total,
)

TREE, MANIFEST, CHANGES = "tree", "manifest.json", "changes.diff"
MOST_BYTES = 2 * 2**30  # what is larger is data or checkpoints that are not ignored
LARGEST_NAMED = 3
MOST_TRIES = 3
MOST_LENDERS = 8  # copies whose files are looked at for equal ones
MOST_DIFF_BYTES = 16 * 2**20
UNTOUCHED = 10**9  # s since the epoch: the time of each file of a copy
PATIENCE_S = 1.0  # between two words of progress

Files = dict[str, File]
Say = Callable[[str], None]


class Snapshot(NamedTuple):
    """`cwd` is the directory in the copy for the one that it was taken in, `top` what was copied;
    `commit` the one beneath it, None before the first."""

    name: str
    cwd: str
    top: str
    commit: str | None


def take(cwd: str, folder: str, say: Say = lambda line: None) -> Snapshot:
    """A copy in `folder` of the work tree around `cwd`: a new one, or the one of the same state."""
    cwd = os.path.realpath(cwd)
    top = top_of(cwd)
    for _ in range(MOST_TRIES):
        try:
            name = _take(top, folder, say)
        except Changed as changed:
            last = str(changed)
        else:
            inside = _inside(folder, name, os.path.relpath(cwd, top))
            return Snapshot(name, inside, top, commit_of(top))
    raise GpuqError(
        f"--snapshot: {last} is written again and again while it is copied. Wait until it is "
        "finished, or add it to .gitignore. Nothing was queued."
    )


def _take(top: str, folder: str, say: Say) -> str:
    files = _read_all(top, say)
    state = _state_of(files)
    number = 1
    while True:
        name = state if number == 1 else f"{state}-{number}"
        known = _read_manifest(folder, name)
        if known is None:
            _make(top, folder, name, files, say)
            return name
        if _is_untouched(folder, name, known):
            os.utime(os.path.join(folder, name))  # what was just asked for is not old
            return name
        number += 1


def _read_all(top: str, say: Say) -> Files:
    names = sorted(set(names_in(top)))
    files: Files = {}
    progress = _Progress(say, "reading", len(names))
    for name in names:
        progress.step()
        found = look_at(top, name)
        if found is not None:
            files[name] = found
    if (size := total(files)) > MOST_BYTES:
        raise UsageError(_too_large(files, size))
    return files


def _too_large(files: Files, size: int) -> str:
    largest = sorted(files.values(), key=lambda file: -file.size)[:LARGEST_NAMED]
    named = ", ".join(f"{file.path} ({format_bytes(file.size)})" for file in largest)
    return (
        f"--snapshot: the work tree has {format_bytes(size)}, and {format_bytes(MOST_BYTES)} is the "
        f"most that is copied; the largest are {named}. Add what is no source to .gitignore. "
        "Nothing was queued."
    )


def _state_of(files: Files) -> str:
    told = (f"{file.kind}\0{file.digest}\0{file.path}\0" for file in files.values())
    return sha256("".join(told).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _make(top: str, folder: str, name: str, files: Files, say: Say) -> None:
    """Beside its place and then moved there: a copy that has its name is whole, and on disk."""
    aside = os.path.join(folder, f".new-{os.urandom(8).hex()}")
    try:
        os.mkdir(aside, 0o700)
        _fill(top, folder, os.path.join(aside, TREE), files, say)
        manifest = {"top": top, "commit": commit_of(top), "taken_at": time.time(), "files": files}
        _write(os.path.join(aside, MANIFEST), json.dumps(manifest).encode())
        changes = difference(top, os.path.join(aside, "index"))
        _write(os.path.join(aside, CHANGES), changes[:MOST_DIFF_BYTES])
        os.unlink(os.path.join(aside, "index"))
        _sync(aside)
        try:
            os.rename(aside, os.path.join(folder, name))
        except OSError:  # somebody else has just made the same
            if _read_manifest(folder, name) is None:
                raise
        _sync_one(folder)
    except OSError as error:
        raise GpuqError(f"--snapshot: {folder}: {error.strerror}. Nothing was queued.") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _fill(top: str, folder: str, tree: str, files: Files, say: Say) -> None:
    lenders = {} if os.geteuid() == 0 else _lenders(folder)
    progress = _Progress(say, "copying", len(files))
    os.mkdir(tree)
    for file in files.values():
        progress.step()
        path = os.path.join(tree, file.path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if file.kind == "link":
            os.symlink(link_target(top, file.path), path)
        elif not _link(lenders.get((file.kind, file.digest)), path, file):
            _copy(os.path.join(top, file.path), path, file)


def _copy(source: str, path: str, file: File) -> None:
    mode = 0o555 if file.kind == "program" else 0o444
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            copied = read_into(source, target)
        except FileNotFoundError:
            raise Changed(source) from None
        if copied != (file.digest, file.size):
            raise Changed(source)
        os.fchmod(target, mode)
        os.utime(target, (UNTOUCHED, UNTOUCHED))
        os.fsync(target)
    finally:
        os.close(target)


def _link(lender: str | None, path: str, file: File) -> bool:
    if lender is None or not _is_as_copied(lender, file):
        return False
    try:
        os.link(lender, path, follow_symlinks=False)
    except OSError:  # gone meanwhile, or of too many names
        return False
    return True


def _lenders(folder: str) -> dict[tuple[str, str], str]:
    """Files of the newest copies, by kind and digest."""
    names = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    newest = sorted(names, key=lambda entry: entry.stat(follow_symlinks=False).st_mtime)
    found = {}
    for entry in newest[-MOST_LENDERS:]:
        for file in (_read_manifest(folder, entry.name) or {}).values():
            if file.kind != "link":
                found[file.kind, file.digest] = os.path.join(entry.path, TREE, file.path)
    return found


def _is_untouched(folder: str, name: str, files: Mapping[str, File]) -> bool:
    """No job has written to what was copied; what jobs have added does not count."""
    tree = os.path.join(folder, name, TREE)
    return all(_is_as_copied(os.path.join(tree, file.path), file) for file in files.values())


def _is_as_copied(path: str, file: File) -> bool:
    try:
        found = os.lstat(path)
        if file.kind == "link":
            return sha256(os.fsencode(os.readlink(path))).hexdigest() == file.digest
    except OSError:
        return False
    return found.st_mtime_ns == UNTOUCHED * 10**9 and found.st_size == file.size


def read_manifest(folder: str, name: str) -> dict[str, Any] | None:
    """What a copy holds and where it was taken, as `show` tells it; None where there is none."""
    try:
        with open(os.path.join(folder, name, MANIFEST), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _read_manifest(folder: str, name: str) -> Files | None:
    found = read_manifest(folder, name)
    if found is None:
        return None
    return {path: File(*fields) for path, fields in found["files"].items()}


def _inside(folder: str, name: str, relative: str) -> str:
    """The directory may hold nothing that git knows, and be missing in the copy."""
    path = os.path.normpath(os.path.join(folder, name, TREE, relative))
    os.makedirs(path, exist_ok=True)
    return path


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(top: str) -> None:
    for folder, _, _ in os.walk(top):
        _sync_one(folder)


def _sync_one(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _Progress:
    """A word now and then about what takes long."""

    def __init__(self, say: Say, doing: str, number: int) -> None:
        self._say, self._doing, self._number = say, doing, number
        self._done = 0
        self._next = time.monotonic() + PATIENCE_S

    def step(self) -> None:
        self._done += 1
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PATIENCE_S
            of = count(self._number, "file")
            self._say(f"snapshot: {self._doing} {self._done} of {of}")
