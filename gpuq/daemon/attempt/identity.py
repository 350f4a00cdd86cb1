"""Becoming another user, for good. Standard library only."""

from __future__ import annotations

import os
import pwd
import stat

from gpuq.daemon.linux import syscalls as linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Identity:
    """What the kernel goes by, and what a login would put into the environment."""

    def __init__(
        self, uid: int, gid: int, groups: Sequence[int], login: dict[bytes, bytes]
    ) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.login = login


def look_up(uid: int, gid: int) -> Identity:
    """As the user database has it now: exactly the groups of a login. `gid` is the group that the
    submitter had, used where it is one of those still. ValueError where there is no such user.

    This may ask a directory service and take its time, so no daemon should do it.
    """
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise ValueError(
            f"uid {uid} is no user of this machine any more. See: getent passwd {uid}"
        ) from None
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    login = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
    login["SHELL"] = entry.pw_shell or "/bin/sh"  # as passwd(5) has it
    return Identity(
        uid=uid,
        gid=gid if gid in groups else entry.pw_gid,
        groups=groups,
        login={os.fsencode(name): os.fsencode(value) for name, value in login.items()},
    )


def bare(uid: int, gid: int) -> Identity:
    """Enough to remove what belongs to that user, who may be in no database any more."""
    return Identity(uid, gid, (), {})


def become(identity: Identity) -> None:
    """Turns this process into one of that user; needs root, and gives it up. PermissionError where
    there would be a way back."""
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    if identity.uid != 0 and _could_be_root_again():
        raise PermissionError("the rights of root could not be given up")
    linux.join_new_session_keyring()  # or jobs of several users would share that of the daemon


def _could_be_root_again() -> bool:
    """Tried, and not only read: capabilities may let a process back that looks like the user's."""
    try:
        os.setresuid(0, 0, 0)
    except PermissionError:
        return False
    return True


def complete(environment: dict[bytes, bytes], identity: Identity) -> None:
    """Fills in what a login has and the submitter's environment lacks, and drops the runtime
    directory of a login that is over or was another user's."""
    for name, value in identity.login.items():
        environment.setdefault(name, value)
    runtime_dir = environment.get(b"XDG_RUNTIME_DIR")
    if runtime_dir is not None and not _is_directory_of(runtime_dir, identity.uid):
        del environment[b"XDG_RUNTIME_DIR"]


def _is_directory_of(path: bytes, uid: int) -> bool:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid
