"""What is mounted where. Who removes a directory must not remove what somebody else has mounted in it:
a job may have bound its data there, or a network file system. Standard library only."""

import os

from gpuq.daemon.linux.mountinfo import unescaped


def has_mounts_below(path: str | bytes) -> bool:
    """Is anything mounted in this directory, at any depth, or on it? True where nobody can tell."""
    folder = os.path.realpath(os.fsencode(path))
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return True
    points = (unescaped(line.split(b" ")[4]) for line in lines)
    return any(point == folder or point.startswith(folder + b"/") for point in points)
