"""Looks at the home: is it on a network, and are the directories that programs agree on usable?"""

import os
from collections.abc import Iterator

from gpuq import paths, service
from gpuq.cli.doctor.finding import Finding, failure, ok, warning
from gpuq.cli.doctor.scene import Scene, nearest_folder

BASES = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")


def home(scene: Scene) -> Iterator[Finding]:
    """A home on a network is no place for a database, and need not be there at boot."""
    path = scene.environ.get("HOME") or os.path.expanduser("~")
    if not os.path.isdir(path):
        yield warning(
            f"there is no home {path}", "HOME=DIR, or have it made: sudo mkhomedir_helper USER"
        )
        return
    kind = paths.file_system_of(path)
    if kind not in paths.NETWORK_FILE_SYSTEMS:
        yield ok(f"the home is on {kind or 'a file system that does not say what it is'}")
        return
    where = paths.default_state_dir(scene.environ, os.geteuid())
    yield ok(f"the home is on {kind}; your own daemon keeps its state on this machine, in {where}")
    if scene.is_system:
        what = f"root may not see a home on {kind} (root_squash), and needs no more than to pass"
        yield ok(f"{what}: jobs open their files as you")


def directories(scene: Scene) -> Iterator[Finding]:
    """XDG_CONFIG_HOME and its like (XDG Base Directory Specification)."""
    for name in BASES:
        path = scene.environ.get(name)
        if path and not path.startswith("/"):
            yield warning(f"{name}={path} is no whole path, and so is ignored", f"unset {name}")
    config = nearest_folder(paths.config_home(scene.environ))
    if not os.access(config, os.R_OK | os.X_OK):
        yield failure(
            f"you may not read {config}, where settings are looked for", f"ls -ld {config}"
        )
    yield from _runtime(scene)


def _runtime(scene: Scene) -> Iterator[Finding]:
    path = scene.environ.get("XDG_RUNTIME_DIR")
    if not path:
        if os.path.isdir(service.BOOTED) and not service.is_root():
            what = "XDG_RUNTIME_DIR is not set: systemctl --user finds no manager"
            yield warning(what, f"export XDG_RUNTIME_DIR=/run/user/{os.geteuid()}")
        return
    try:
        owner = os.stat(path).st_uid
    except OSError as error:
        yield warning(
            f"XDG_RUNTIME_DIR={path}: {error.strerror}", "Log in anew, or: unset XDG_RUNTIME_DIR"
        )
        return
    if owner != os.geteuid():
        what = f"XDG_RUNTIME_DIR={path} belongs to uid {owner}, as after su or sudo -E"
        yield warning(what, f"export XDG_RUNTIME_DIR=/run/user/{os.geteuid()}")
    else:
        yield ok(f"XDG_RUNTIME_DIR is {path}")
