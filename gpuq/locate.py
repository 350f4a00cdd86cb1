"""Which daemon is meant, in the order that every gpuq command keeps to.

What is given on the command line or in the environment, then a config file where there is one, then
the machine's daemon where one is installed, then your own. On the start-up path: standard library.
"""

from __future__ import annotations

import os

from gpuq import paths


class Address:
    """Where the daemon is looked for, how that was decided, and whether it may be started there."""

    __slots__ = ("may_start", "origin", "socket", "state_dir")

    def __init__(self, socket: str, origin: str, state_dir: str | None, may_start: bool) -> None:
        self.socket = socket
        self.origin = origin
        self.state_dir = state_dir
        self.may_start = may_start


def locate(socket: str | None = None, state_dir: str | None = None) -> Address:
    """Which daemon is meant: what is given, then the machine's, then your own."""
    environ = os.environ
    given = (
        (socket, state_dir, "--socket", "--state-dir"),
        (
            environ.get("GPUQ_SOCKET"),
            environ.get("GPUQ_STATE_DIR"),
            "GPUQ_SOCKET",
            "GPUQ_STATE_DIR",
        ),
    )
    for its_socket, its_state_dir, socket_origin, state_dir_origin in given:
        if its_socket:
            return Address(os.path.abspath(its_socket), socket_origin, state_dir, may_start=False)
        if its_state_dir:
            return _in_state_dir(os.path.abspath(its_state_dir), state_dir_origin)
    if configured := _from_config_file():
        return configured
    if paths.has_system_daemon():
        return Address(paths.SYSTEM_SOCKET, "the machine's daemon", None, may_start=False)
    default = paths.default_state_dir(environ, os.geteuid())
    return _in_state_dir(default, "your own daemon's default place")


def _in_state_dir(state_dir: str, origin: str) -> Address:
    allowed = os.environ.get("GPUQ_AUTOSTART", "1") != "0" and "GPUQ_JOB_ID" not in os.environ
    return Address(os.path.join(state_dir, paths.SOCKET_NAME), origin, state_dir, allowed)


def _from_config_file() -> Address | None:
    """A config file may move the state directory. Read only where there is one: it costs time."""
    path = os.environ.get("GPUQ_CONFIG") or paths.default_config(os.environ)
    if not os.path.exists(path):
        return None
    from gpuq.config import peek

    values = peek(path)
    if values.get("socket"):
        return Address(values["socket"], path, values.get("state_dir"), may_start=False)
    if values.get("state_dir"):
        return _in_state_dir(values["state_dir"], path)
    return None
