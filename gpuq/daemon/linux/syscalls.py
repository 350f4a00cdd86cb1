"""System calls that Python does not have: the only ctypes in gpuq beside the test of a GPU."""

import ctypes
import os

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_CLOCK_BOOTTIME = 7  # clock_gettime(2)
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 0x01, 0x02  # fallocate(2)

_libc = ctypes.CDLL(None, use_errno=True)


def become_child_subreaper() -> None:
    """Orphaned descendants come to this process, which can then wait for them."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Gives that part of a file back to the disk; its size stays, and the part reads as zeros."""
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    _check(_libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Timerspec(ctypes.Structure):
    _fields_ = (("every", ctypes.c_long * 2), ("in_", ctypes.c_long * 2))  # s, ns


class BoottimeAlarm:
    """A descriptor that is readable at a moment of CLOCK_BOOTTIME (timerfd_create(2)): one that came
    while the machine was suspended rings when it wakes, where a sleep would last that much longer."""

    def __init__(self) -> None:
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self.fd = int(_libc.timerfd_create(_CLOCK_BOOTTIME, flags))
        _check(0 if self.fd >= 0 else -1)

    def set(self, in_s: float | None) -> None:
        """Rings in so many seconds, at once where they are past; None: not at all."""
        wait_ns = 0 if in_s is None else max(int(in_s * 1e9), 1)  # 0 would disarm it
        spec = _Timerspec(in_=(wait_ns // 10**9, wait_ns % 10**9))
        _check(_libc.timerfd_settime(self.fd, 0, ctypes.byref(spec), None))

    def acknowledge(self) -> None:
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            pass  # it has been set anew meanwhile

    def close(self) -> None:
        os.close(self.fd)
