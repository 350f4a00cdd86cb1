"""The socket that systemd holds for the daemon: whoever connects while no daemon runs waits in it, and
it outlives each of them. sd_listen_fds(3), without the library.
"""

import fcntl
import os
import socket
from collections.abc import Mapping

from gpuq.errors import UsageError

FIRST_FD = 3

_TELL = "Let ListenStream= of the socket unit and the setting socket name the same path"


def given_socket(environ: Mapping[str, str], path: str) -> socket.socket | None:
    """The listening socket that this process was started with, None where there is none.

    UsageError where what was given is not a socket that listens on `path`. No child inherits it.
    """
    fds = _given_fds(environ)
    if not fds:
        return None
    if len(fds) > 1:
        names = environ.get("LISTEN_FDNAMES") or "unnamed"
        raise UsageError(f"systemd gave {len(fds)} sockets ({names}), and gpuqd takes one. {_TELL}")
    try:
        sock = socket.socket(fileno=fds[0])
    except OSError as error:
        what = f"what systemd gave cannot be used as a socket: {error.strerror}"
        raise UsageError(f"{what}. {_TELL}") from None
    if (trouble := _trouble(sock, path)) is not None:
        sock.close()
        raise UsageError(f"{trouble}. {_TELL}")
    sock.setblocking(False)
    return sock


def _given_fds(environ: Mapping[str, str]) -> list[int]:
    """Empty where another process is meant, which may have started this one."""
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return []
    fds = list(range(FIRST_FD, FIRST_FD + int(count)))
    for fd in fds:
        try:
            fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        except OSError as error:
            raise UsageError(f"systemd named descriptor {fd}: {error.strerror}. {_TELL}") from None
    return fds


def _trouble(sock: socket.socket, path: str) -> str | None:
    """What keeps it from being the socket that clients of `path` come to."""
    kind = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    if sock.family != socket.AF_UNIX or kind != socket.SOCK_STREAM:
        return "the socket that systemd gave is no Unix stream socket"
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "the socket that systemd gave does not listen"
    bound = os.fsdecode(sock.getsockname())
    if os.path.realpath(bound) != os.path.realpath(path):
        shown = bound.replace("\0", "@") or "no path"
        return f"systemd listens on {shown}, and gpuqd is to serve {path}"
    return None
