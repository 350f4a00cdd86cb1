"""System calls that Python does not have: the only ctypes in gpuq."""

import ctypes
import os

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)

_libc = ctypes.CDLL(None, use_errno=True)


def become_child_subreaper() -> None:
    """Orphaned descendants come to this process, which can then wait for them."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
