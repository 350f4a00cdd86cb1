"""Where things are by default, and how to reach a socket however deep it lies.

On the client's start-up path: standard library only, and no more of it than this needs.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Mapping

SYSTEM_STATE_DIR = "/var/lib/gpuq"
SYSTEM_SOCKET = "/run/gpuq/gpuq.sock"
SYSTEM_UNITS = (
    "/etc/systemd/system/gpuqd.service",
    "/usr/local/lib/systemd/system/gpuqd.service",
    "/usr/lib/systemd/system/gpuqd.service",
    "/lib/systemd/system/gpuqd.service",
)
SYSTEM_CONFIG = "/etc/gpuq/gpuq.toml"
SOCKET_NAME = "gpuq.sock"
DATABASE_NAME = "gpuq.db"
LOCK_NAME = "lock"
LOG_NAME = "daemon.log"  # the daemon's own output, where it was started detached
# Where root finds programs, whoever started it with whatever environment.
TRUSTED_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
LONGEST_SOCKET_PATH = 107  # sun_path of unix(7) is 108 bytes with its closing NUL

# File systems on which neither locks nor SQLite's shared memory can be trusted.
NETWORK_FILE_SYSTEMS = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "9p"),
        *("lustre", "gpfs", "beegfs", "fuse.sshfs", "fuse.glusterfs"),
    )
)


def default_state_dir(environ: Mapping[str, str], uid: int) -> str:
    """`$XDG_STATE_HOME/gpuq`; on a network home `/var/tmp/gpuq-UID`, which is on this machine."""
    base = environ.get("XDG_STATE_HOME") or ""
    if not base.startswith("/"):  # the XDG specification: a relative path is to be ignored
        base = os.path.join(_home(environ), ".local", "state")
    if file_system_of(base) in NETWORK_FILE_SYSTEMS:
        return f"/var/tmp/gpuq-{uid}"
    return os.path.join(base, "gpuq")


def default_config(environ: Mapping[str, str]) -> str:
    return os.path.join(config_home(environ), "gpuq", "gpuq.toml")


def config_home(environ: Mapping[str, str]) -> str:
    base = environ.get("XDG_CONFIG_HOME") or ""
    if not base.startswith("/"):
        base = os.path.join(_home(environ), ".config")
    return base


def _home(environ: Mapping[str, str]) -> str:
    """Root who has become so by `sudo -E` has another's HOME: what lies there is that user's to
    change, and would decide what root runs."""
    home = environ.get("HOME") or os.path.expanduser("~")
    if os.geteuid() == 0 and _is_of_another(home):
        return os.path.expanduser("~root")
    return home


def _is_of_another(path: str) -> bool:
    try:
        return os.stat(path).st_uid != os.geteuid()
    except OSError:
        return False


def file_system_of(path: str) -> str:
    """The type of the file system that `path` is on or would be made on: "ext4", "nfs4", …"""
    real = os.path.realpath(path)
    best, kind = "", ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                _, point, fstype, *_ = line.split(" ")
                point = point.replace("\\040", " ")
                inside = real == point or real.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, fstype
    except OSError:
        pass
    return kind


def has_system_daemon() -> bool:
    """Is there one for the whole machine, running or at least installed?"""
    return os.path.exists(SYSTEM_SOCKET) or any(map(os.path.exists, SYSTEM_UNITS))


def bind(sock: socket, path: str) -> None:
    _through_folder(sock.bind, path)


def connect(sock: socket, path: str) -> None:
    _through_folder(sock.connect, path)


def _through_folder(deed: Callable[[str], None], path: str) -> None:
    """A path too long for sun_path is reached through a descriptor of its folder."""
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        deed(path)
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deed(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)
