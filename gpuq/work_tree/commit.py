"""Which commit a directory's git work tree stands at, read from its files: starting git would take
longer than all the rest of a submit. What cannot be read so is nobody's trouble: there is none then.

On the start-up path of `submit` and `run`: standard library only. The files are those that
gitrepository-layout(5) describes; a tree that keeps its references in another format has no answer.
"""

import os

LONGEST = 4096  # of a file with one line
LONGEST_PACKED = 16 * 2**20
MOST_LINKS = 5  # of references that only name another one
HEX = frozenset("0123456789abcdef")


def commit_of(directory: str) -> str | None:
    """The id that HEAD stands for there; None outside of a work tree, and before the first commit."""
    found = _git_dir(directory)
    if found is None:
        return None
    common = os.path.join(found, _read(os.path.join(found, "commondir")) or ".")
    reference = _read(os.path.join(found, "HEAD"))
    for _ in range(MOST_LINKS):
        if reference is None or not reference.startswith("ref: "):
            return reference if _is_id(reference) else None
        name = reference[len("ref: ") :].strip()
        if not name.startswith("refs/") or ".." in name.split("/"):
            return None
        reference = (
            _read(os.path.join(found, name)) or _read(os.path.join(common, name))
        ) or _packed(common, name)
    return None


def _git_dir(directory: str) -> str | None:
    """Of the nearest work tree around it. A linked work tree and a submodule have a file there that
    tells where it is."""
    while True:
        path = os.path.join(directory, ".git")
        if os.path.isdir(path):
            return path
        pointer = _read(path)
        if pointer is not None and pointer.startswith("gitdir: "):
            return os.path.join(directory, pointer[len("gitdir: ") :])
        parent = os.path.dirname(directory)
        if parent == directory:
            return None
        directory = parent


def _packed(common: str, name: str) -> str | None:
    for line in (_read(os.path.join(common, "packed-refs"), LONGEST_PACKED) or "").splitlines():
        found, _, rest = line.partition(" ")
        if rest == name:
            return found
    return None


def _is_id(text: str | None) -> bool:
    """SHA-1 or SHA-256, in hexadecimal digits."""
    return text is not None and len(text) in (40, 64) and HEX.issuperset(text)


def _read(path: str, longest: int = LONGEST) -> str | None:
    """A regular file's text without its last line feed; a pipe of that name keeps nobody waiting."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(fd).st_mode & 0o170000 != 0o100000:
            return None
        return os.read(fd, longest).decode("utf-8", "surrogateescape").rstrip("\n")
    except OSError:
        return None
    finally:
        os.close(fd)
