"""Looks at the daemon: which one is meant, whether it answers, what it says of itself, its socket."""

import os
import re
import socket
import stat
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gpuq
from gpuq import paths, service
from gpuq.cli.doctor.finding import Finding, failure, ok, warning
from gpuq.cli.doctor.scene import Scene
from gpuq.errors import DaemonUnreachable, GpuqError

if TYPE_CHECKING:
    from gpuq.config import Config

CONNECT_S = 0.5


def daemon(scene: Scene) -> Iterator[Finding]:
    """Which daemon is meant, where its path came from, and whether it answers."""
    told, address = scene.told(), scene.address
    if told.ping is not None:
        yield ok(f"daemon with pid {told.ping['pid']} at {address.socket} (from {address.origin})")
        yield from _what_it_says(scene, told.ping)
    elif told.is_silent:
        yield _hung(scene)
    else:
        assert told.error is not None
        yield _no_daemon(scene, told.error)


def version(scene: Scene) -> Iterator[Finding]:
    """Whether the daemon that runs is the one that is installed."""
    there = scene.told().ping
    yield ok(f"gpuq {gpuq.__version__}, in {os.path.dirname(gpuq.__file__)}")
    if there is None:
        return
    restart = "Running jobs outlive it: gpuq daemon restart"
    installed = there.get("installed_version")
    if there["version"] != gpuq.__version__:
        of = f"the daemon is of version {there['version']}, this command of {gpuq.__version__}"
        yield warning(of, restart)
    elif installed not in (None, there["version"]):
        of = (
            f"the daemon is of version {there['version']}, and {installed} is installed where it is"
        )
        yield warning(of, restart)
    elif there.get("is_stale"):
        yield warning("the daemon is older than its own files: they have changed since", restart)
    else:
        yield ok(f"the daemon is of this version, {gpuq.__version__}")


def settings(scene: Scene) -> Iterator[Finding]:
    """The settings in force, and whether a daemon that is started now would take the file."""
    told = scene.told()
    if told.settings is not None:
        yield _settings(told.setting("config"), "flags, the environment and the defaults")
    if (fault := _fault_of_file(scene)) is not None:
        yield failure(fault, "A daemon started now would refuse it. Mend the file: gpuq config")
    elif told.ping is None:
        yield _settings(_configured(scene).config, "the environment and the defaults")


def socket_file(scene: Scene) -> Iterator[Finding]:
    """Who may use the socket."""
    path = scene.address.socket
    folder = os.path.dirname(path)
    if os.path.isdir(folder) and not os.access(folder, os.X_OK):
        yield failure(f"you may not pass through {folder} to the socket", f"See: ls -ld {folder}")
        return
    try:
        found = os.stat(path)
    except OSError:
        return  # nobody listens there: that is told of the daemon
    if not stat.S_ISSOCK(found.st_mode):
        yield failure(f"{path} is no socket", f"Remove it, then: gpuq daemon start; ls -l {path}")
        return
    mode = stat.S_IMODE(found.st_mode)
    what = f"socket {path} with mode {mode:04o}, of uid {found.st_uid}"
    if not os.access(path, os.W_OK):
        yield failure(f"{what}: you may not write to it", "Its daemon sets it: gpuq daemon restart")
    elif not scene.is_system and mode & 0o077:
        yield warning(f"{what}: others reach it", f"chmod 600 {path}")
    elif scene.is_system and mode & 0o666 != 0o666:
        yield warning(f"{what}: not every user reaches it", "sudo systemctl restart gpuqd.socket")
    else:
        yield ok(what)


# ── what it says ──


def _what_it_says(scene: Scene, there: dict[str, Any]) -> Iterator[Finding]:
    if drained := there.get("drained"):
        what = f"nothing is started: drained by {drained['actor']}: {drained['reason']}"
        yield warning(what, "End it: gpuq drain --off")
    fault = _fault_of_file(scene)
    for note in there.get("config_notes", ()):
        if fault is None or fault not in note:  # that is told as a failure of the settings
            yield warning(note, "See: gpuq config")


def _fault_of_file(scene: Scene) -> str | None:
    """Why a daemon that is started now would not take the file as it is found from here; None where it
    would, and where it is another's to start."""
    if scene.told().ping is not None and scene.is_system:
        return None
    try:
        _configured(scene)
    except GpuqError as error:
        return str(error)
    return None


def _configured(scene: Scene) -> "Config":
    from gpuq.config import load

    mode = "system" if scene.address.socket == paths.SYSTEM_SOCKET else "user"
    return load({"state_dir": scene.address.state_dir}, scene.environ, mode=mode)


def _settings(file: str | None, others: str) -> Finding:
    if file is not None and os.path.exists(file):
        return ok(f"settings of {file}, {others}")
    return ok(f"settings of {others}{f'; there is no {file}' if file else ''}")


# ── who does not answer ──


def _no_daemon(scene: Scene, error: GpuqError) -> Finding:
    address = scene.address
    where = f"{address.socket} (from {address.origin})"
    if not isinstance(error, DaemonUnreachable) or _is_kept_out(address.socket):
        return failure(str(error), "Who may use it is decided there. See: gpuq config")
    if (holder := _holder(scene)) is not None:
        what = f"a daemon (pid {holder}) holds the state directory, and nobody listens at {where}"
        return failure(what, f"kill {holder}; then: gpuq daemon start. Running jobs outlive it")
    if address.may_start:
        return ok(f"no daemon at {where}; `gpuq submit` starts one there")
    nobody = f"no daemon answers at {where}"
    what = nobody if str(error).startswith(nobody) else str(error)  # which says what to do as well
    return failure(what, _how_to_start(scene))


def _is_kept_out(path: str) -> bool:
    return os.path.exists(path) and not os.access(path, os.W_OK)


def _how_to_start(scene: Scene) -> str:
    kept = service.serving(scene.address.socket)
    if kept is not None and kept.is_system:
        return "sudo systemctl start gpuqd.socket gpuqd.service"
    if scene.address.state_dir is not None:
        return "gpuq daemon start"
    return "Start it as it was started, or use your own: gpuq --state-dir DIR daemon start"


def _hung(scene: Scene) -> Finding:
    """A daemon that takes connections and says nothing."""
    path = scene.address.socket
    pid = _listener(path)
    if pid is None:
        what = f"nothing answers at {path} (from {scene.address.origin}) within its time"
        return failure(what, _how_to_start(scene))
    who = f"the daemon at {path} (pid {pid}) takes connections and does not answer"
    if pid == 1:
        return failure(f"{who}: systemd listens for it", "journalctl -u gpuqd -n 20")
    state = _process_state(scene, pid)
    if state == "T":
        return failure(f"{who}: it was stopped by a signal", f"kill -CONT {pid}")
    if state == "D":
        return failure(f"{who}: it waits in the kernel, for a disk or the driver", "dmesg | tail")
    if service.keeps(pid):
        user = "" if scene.is_system else "--user "
        return failure(who, f"systemctl {user}restart gpuqd.service")
    return failure(who, f"kill -KILL {pid}; then: gpuq daemon start. Running jobs outlive it")


def _listener(path: str) -> int | None:
    """The pid of who listens there, as the kernel tells it; nothing is asked of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(CONNECT_S)
        try:
            paths.connect(line, path)
            told = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except OSError:
            return None
    pid, _, _ = struct.unpack("3i", told)
    return pid or None


def _process_state(scene: Scene, pid: int) -> str | None:
    """Its letter, the third field of /proc/PID/stat (proc(5))."""
    text = scene.read(f"/proc/{pid}/stat")
    return None if text is None else text.rpartition(")")[2].split()[0]


def _holder(scene: Scene) -> int | None:
    """The pid of who has locked the state directory: read, since to try the lock is to take it."""
    if scene.state_dir is None:
        return None
    try:
        inode = os.stat(os.path.join(scene.state_dir, paths.LOCK_NAME)).st_ino
    except OSError:
        return None
    held = re.findall(r"FLOCK +ADVISORY +WRITE +(\d+) +\S+:(\d+) ", scene.read("/proc/locks") or "")
    return next((int(pid) for pid, found in held if int(found) == inode), None)
