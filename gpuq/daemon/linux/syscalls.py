"""System calls that Python does not have: the only ctypes in gpuq beside the test of a GPU."""

import ctypes
import errno
import os
import struct
import time
from _socket import SOL_SOCKET  # socket would bring enum and selectors into each runner

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_CLOCK_REALTIME, _CLOCK_BOOTTIME = 0, 7  # clock_gettime(2)
_TFD_TIMER_ABSTIME, _TFD_TIMER_CANCEL_ON_SET = 1, 2  # timerfd_create(2)
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 0x01, 0x02  # fallocate(2)
# inotify(7): written and closed, moved in, made; of a folder that is there itself and no link to one
_IN_NEWS = 0x8 | 0x80 | 0x100
_IN_ONLYDIR, _IN_DONT_FOLLOW = 0x01000000, 0x02000000
_IN_Q_OVERFLOW, _IN_IGNORED, _IN_ISDIR = 0x4000, 0x8000, 0x40000000
_SO_PEERGROUPS = 59  # include/uapi/asm-generic/socket.h
_KEYCTL = {"x86_64": 250}.get(os.uname().machine, 219)  # its number; 219 where numbers are generic
_KEYCTL_JOIN_SESSION_KEYRING = 1  # keyctl(2)
_IOPRIO_GET = {"x86_64": 252}.get(os.uname().machine, 31)  # the same
_IOPRIO_WHO_PROCESS = 1  # ioprio_get(2)

_libc = ctypes.CDLL(None, use_errno=True)


def become_child_subreaper() -> None:
    """Orphaned descendants come to this process, which can then wait for them."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def give_back_memory() -> None:
    """To the kernel, what is free again: where Python keeps no bytecode of what it has imported, that
    was compiled just now, and left holes all over."""
    try:
        _libc.malloc_trim(0)
    except AttributeError:
        pass  # a C library other than that of GNU


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Gives that part of a file back to the disk; its size stays, and the part reads as zeros."""
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    _check(_libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def join_new_session_keyring() -> None:
    """Kernel keys of this process and its children, such as tickets, are theirs alone from here on. A
    kernel without keys, or a container that may not use them, is none to keep them from anybody."""
    if _libc.syscall(_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, None) < 0:
        number = ctypes.get_errno()
        if number not in (errno.ENOSYS, errno.EPERM):
            raise OSError(number, os.strerror(number))


def io_priority() -> int:
    """How urgent the reads and writes of this process are to the disk, as the kernel has it."""
    return int(_libc.syscall(_IOPRIO_GET, _IOPRIO_WHO_PROCESS, 0))


def peer_groups(fd: int) -> list[int]:
    """The supplementary group ids of the process at the other end of a Unix socket, as they were when
    it connected. socket.getsockopt takes 1 KiB at most, and a process may have 65536 groups."""
    room = 64
    while True:
        gids, size = (ctypes.c_uint32 * room)(), ctypes.c_uint32(4 * room)
        try:
            _check(_libc.getsockopt(fd, SOL_SOCKET, _SO_PEERGROUPS, gids, ctypes.byref(size)))
        except OSError as error:
            if error.errno != errno.ERANGE:
                raise
            room = size.value // 4  # the kernel says how much it takes
        else:
            return gids[: size.value // 4]


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


class WallAlarm:
    """A descriptor that is readable at a moment of the clock on the wall, and whenever somebody has
    set that clock (TFD_TIMER_CANCEL_ON_SET of timerfd_create(2)): the moment may have been jumped
    over, or lie further away than it did."""

    def __init__(self) -> None:
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self.fd = int(_libc.timerfd_create(_CLOCK_REALTIME, flags))
        _check(0 if self.fd >= 0 else -1)

    def set(self, in_s: float | None) -> None:
        """Rings when that clock shows so many seconds more than now, at once where that is past;
        None: only when the clock is set."""
        at = None if in_s is None else time.time() + in_s
        try:
            self._arm(at)
        except OSError as error:
            # The clock was set since the last look: whoever chose this moment went by the old time.
            if error.errno != errno.ECANCELED:
                raise
            self._arm(0.0)

    def _arm(self, at: float | None) -> None:
        at_ns = 0 if at is None else max(int(at * 1e9), 1)  # 0 would disarm it
        spec = _Timerspec(in_=(at_ns // 10**9, at_ns % 10**9))
        kinds = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        _check(_libc.timerfd_settime(self.fd, kinds, ctypes.byref(spec), None))

    def acknowledge(self) -> None:
        try:
            os.read(self.fd, 8)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECANCELED):
                raise

    def close(self) -> None:
        os.close(self.fd)


class ClockJumps:
    """A descriptor that is readable once somebody has set the clock on the wall, or the machine has
    woken, which sets it too (TFD_TIMER_CANCEL_ON_SET of timerfd_create(2))."""

    def __init__(self) -> None:
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self.fd = int(_libc.timerfd_create(_CLOCK_REALTIME, flags))
        _check(0 if self.fd >= 0 else -1)
        never = _Timerspec(in_=(2**40, 0))
        kinds = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        _check(_libc.timerfd_settime(self.fd, kinds, ctypes.byref(never), None))

    def acknowledge(self) -> None:
        try:
            os.read(self.fd, 8)
        except OSError:
            pass  # ECANCELED is how it tells, and EAGAIN that it was told already

    def close(self) -> None:
        os.close(self.fd)


class FolderNews:
    """A descriptor that is readable when a file in one of some folders was made, closed by who wrote
    it, or moved there (inotify(7)). OSError where a user or this process has too many of them."""

    def __init__(self) -> None:
        self.fd = int(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        _check(0 if self.fd >= 0 else -1)

    def watch(self, folder: str) -> int:
        """The number by which `read` names it; OSError where it is no folder, or a link to one."""
        kinds = _IN_NEWS | _IN_ONLYDIR | _IN_DONT_FOLLOW
        number = int(_libc.inotify_add_watch(self.fd, os.fsencode(folder), kinds))
        _check(0 if number >= 0 else -1)
        return number

    def read(self) -> set[int] | None:
        """The folders in which something happened; None where the kernel lost count."""
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return set()
        folders, at = set(), 0
        while at < len(data):
            number, what, _, name_bytes = struct.unpack_from("iIII", data, at)
            at += 16 + name_bytes
            if what & _IN_Q_OVERFLOW:
                return None
            if not what & (_IN_IGNORED | _IN_ISDIR):
                folders.add(number)
        return folders

    def close(self) -> None:
        os.close(self.fd)
