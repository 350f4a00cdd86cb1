"""Rights of another user for one thread, as root has them to give: a whole process that took them would
let its other threads act as that user, and one of these take the rights back too early.

setresuid(2), setresgid(2) and setgroups(2) act on the calling thread; it is the C library that does
the same in all threads. So they are called as system calls. As with seteuid(3) the kernel takes the
capabilities with the user id, and gives them back with it: the saved one stays root's.
"""

import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

try:
    import ctypes
except ImportError:  # Python can be built without it
    _can_call = False
else:
    _can_call = sys.maxsize > 2**32  # a program of 32 bits has other numbers on the same machine
    _libc = ctypes.CDLL(None, use_errno=True)

_SAME = 2**32 - 1  # -1: that one stays as it is


class Identity(NamedTuple):
    uid: int
    gid: int
    groups: Sequence[int]


class _Numbers(NamedTuple):
    setresuid: int
    setresgid: int
    setgroups: int


# Of the kernel's arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_NUMBERS = {"x86_64": _Numbers(117, 119, 116), "aarch64": _Numbers(147, 149, 159)}
_process = threading.RLock()  # held where the rights are those of the whole process


@contextmanager
def acting_as(user: Identity) -> Iterator[None]:
    """The calling thread, if it is root's, has the rights of that user. Nothing it starts meanwhile may
    outlive that. OSError where the kernel does not allow it."""
    numbers = _NUMBERS.get(platform.machine()) if _can_call else None
    if numbers is None:
        with _process:
            yield from _changed(user, _become_as_process)
    else:
        yield from _changed(user, lambda identity: _become(identity, numbers))


def _changed(user: Identity, become: Callable[[Identity], None]) -> Iterator[None]:
    before = Identity(os.geteuid(), os.getegid(), os.getgroups())
    if before.uid != 0:  # this thread has them already
        yield
        return
    try:
        become(user)
        yield
    finally:
        become(before)


def _become(identity: Identity, numbers: _Numbers) -> None:
    """Groups are for root to set: before the user id is another's, and after it is root's again."""
    groups = (ctypes.c_uint32 * len(identity.groups))(*identity.groups)

    def set_groups() -> None:
        _call(numbers.setgroups, len(identity.groups), ctypes.addressof(groups))
        _call(numbers.setresgid, _SAME, identity.gid, _SAME)

    if identity.uid == 0:
        _call(numbers.setresuid, _SAME, 0, _SAME)
        set_groups()
    else:
        set_groups()
        _call(numbers.setresuid, _SAME, identity.uid, _SAME)


def _become_as_process(identity: Identity) -> None:
    if identity.uid == 0:
        os.seteuid(0)
    os.setgroups(identity.groups)
    os.setegid(identity.gid)
    if identity.uid != 0:
        os.seteuid(identity.uid)


def _call(number: int, *arguments: int) -> None:
    if _libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
