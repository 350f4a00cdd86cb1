"""Which driver a process that starts now would find, as far as that shows without loading it.

Who has loaded a driver goes on with it when it is upgraded under a running machine, and each process
that starts later fails until the kernel has the new one too. So what an old process reads says
nothing about what a new job will find.
"""

import os

VERSION_FILE = "/proc/driver/nvidia/version"  # of the part in the kernel, while it is loaded
LIBRARY = "libnvidia-ml.so.1"

_Library = tuple[int, int, int, str]  # device, inode, mtime in ns, and where the link leads


class InstalledDriver:
    """The driver as it was when a process (`pid`) had just loaded it, and whether it still is.

    Where that process found the library, the next one will: no search for it is made here.
    """

    def __init__(self, pid: int, version_file: str = VERSION_FILE) -> None:
        folder = _folder_of_library(pid)
        self._version_file = version_file
        self._link = None if folder is None else os.path.join(folder, LIBRARY)
        self._at_first = self._look()

    def has_changed(self) -> bool:
        """A look takes some microseconds."""
        return self._look() != self._at_first

    def _look(self) -> tuple[bytes | None, _Library | None]:
        return _content(self._version_file), None if self._link is None else _library(self._link)


def _folder_of_library(pid: int) -> str | None:
    """None where the process has no such library mapped, or is gone."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                path = line.rstrip("\n").split(maxsplit=5)[5:]
                if path and os.path.basename(path[0]).startswith("libnvidia-ml.so"):
                    return os.path.dirname(path[0])
    except OSError:
        pass
    return None


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def _library(link: str) -> _Library | None:
    try:
        file = os.stat(link)
        leads_to = os.readlink(link) if os.path.islink(link) else ""
    except OSError:
        return None
    return file.st_dev, file.st_ino, file.st_mtime_ns, leads_to
