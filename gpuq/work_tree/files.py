"""What belongs to a git work tree: the files that git knows and those it does not ignore."""

import os
import stat
import subprocess
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple

from gpuq.errors import GpuqError, UsageError

GIT = "git"
CHUNK = 1 << 20
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # what git calls a tree without files


class File(NamedTuple):
    """One of them: its path in the tree, what it is, and a hash of what it holds. A link is what it
    leads to; `size` is in bytes."""

    path: str
    kind: str  # file, program or link
    digest: str
    size: int


class Changed(Exception):
    """A file was written while it was read."""


def run_git(directory: str, *words: str, index: str | None = None, may_fail: bool = False) -> bytes:
    """What git prints; GpuqError with what it complains of. No pager, no colour, no question asked."""
    environment = dict(os.environ, GIT_OPTIONAL_LOCKS="0", GIT_TERMINAL_PROMPT="0", LC_ALL="C")
    if index is not None:
        environment["GIT_INDEX_FILE"] = index
    command = [GIT, "-C", directory, "-c", "core.quotePath=false", *words]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise GpuqError(
            f"--snapshot needs git, which cannot be run ({error.strerror}). Install it, or submit "
            "without --snapshot. Nothing was queued."
        ) from None
    if done.returncode and not may_fail:
        said = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
        raise GpuqError(f"--snapshot: git {words[0]} failed: {said}. Nothing was queued.")
    return done.stdout


def top_of(directory: str) -> str:
    """The directory that holds the whole work tree; UsageError outside of one."""
    try:
        top = os.fsdecode(run_git(directory, "rev-parse", "--show-toplevel")).rstrip("\n")
    except GpuqError as error:
        if "not a git repository" not in str(error):
            raise
        top = ""
    if not top:  # the same in a repository that has no work tree
        raise UsageError(
            f"--snapshot copies a git work tree, and {directory} is in none. Nothing was queued."
        )
    return top


def names_in(top: str) -> Iterator[str]:
    """Paths of what git tracks there and of what it neither tracks nor ignores. Those of a work tree
    inside, a submodule or one that git knows nothing of, come with it."""
    listed = run_git(top, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in map(os.fsdecode, listed.split(b"\0")[:-1]):
        path = os.path.join(top, name)
        if os.path.isdir(path) and not os.path.islink(path):
            inside = name.rstrip("/")
            if os.path.lexists(os.path.join(path, ".git")):
                yield from (f"{inside}/{below}" for below in names_in(path))
        else:
            yield name


def look_at(top: str, name: str) -> File | None:
    """None where it is gone, or nothing that a copy can be made of. Raises Changed."""
    path = os.path.join(top, name)
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            target = os.fsencode(link_target(top, name))
            return File(name, "link", sha256(target).hexdigest(), len(target))
        if not stat.S_ISREG(found.st_mode):
            return None
        kind = "program" if found.st_mode & 0o111 else "file"
        digest, size = read_into(path, None)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GpuqError(f"--snapshot: {path}: {error.strerror}. Nothing was queued.") from None
    return File(name, kind, digest, size)


def link_target(top: str, name: str) -> str:
    """What a link leads to, as it has to be written in a copy: to the copy where it leads into the
    work tree, to the same place as before where it leads out of it."""
    path = os.path.join(top, name)
    written = os.readlink(path)
    meant = os.path.normpath(os.path.join(os.path.dirname(path), written))
    if meant != top and not meant.startswith(top + os.sep):
        return meant
    return os.path.relpath(meant, os.path.dirname(path)) if os.path.isabs(written) else written


def read_into(path: str, target: int | None) -> tuple[str, int]:
    """Reads a file, into a descriptor where there is one; returns the SHA-256 and bytes of what it
    held. Raises Changed where it was written meanwhile."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        before, size, digest = os.fstat(fd), 0, sha256()
        while chunk := os.read(fd, CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if target is not None:
                _write_all(target, chunk)
        after = os.fstat(fd)
    finally:
        os.close(fd)
    if size != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
        raise Changed(path)
    return digest.hexdigest(), size


def _write_all(target: int, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[os.write(target, left) :]


def difference(top: str, index: str) -> bytes:
    """From the commit to the tree as it is, with new files in it. `index` is a file for git to work
    with, so that the user's own index stays as it is."""
    head = "HEAD" if _has_commit(top) else EMPTY_TREE
    run_git(top, "read-tree", head, index=index)
    # Both fail for what is no file, a pipe in place of one, and have told of all the rest then.
    add = ("add", "--intent-to-add", "--all", "--ignore-errors")
    run_git(top, *add, index=index, may_fail=True)
    diff = ("diff", "--no-color", "--no-ext-diff", "--no-textconv", "--submodule=short", head)
    return run_git(top, *diff, index=index, may_fail=True)


def _has_commit(top: str) -> bool:
    try:
        run_git(top, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    except GpuqError:
        return False
    return True


def total(files: Mapping[str, File]) -> int:
    return sum(file.size for file in files.values())
