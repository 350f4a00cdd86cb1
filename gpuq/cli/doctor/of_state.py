"""Looks at the state directory: its disk, its rights, and the database in it.

Only the head of the database is read here; all of it is for `gpuq daemon check`, which --deep calls.
"""

import os
import stat
import sys
from collections.abc import Iterator

from gpuq import database_file, paths
from gpuq.cli.doctor.bounded import run
from gpuq.cli.doctor.finding import Finding, failure, ok, warning
from gpuq.cli.doctor.scene import Scene, nearest_folder
from gpuq.core.units import format_bytes, parse_bytes

LITTLE_DISK = 2 * 2**30
FULL_DISK = 16 * 2**20
FEW_FILES = 1000  # that can still be made
LONG_LOG = 256 * 2**20
CHECK_S = 600.0


def state_dir(scene: Scene) -> Iterator[Finding]:
    """Where the state is, on what kind of file system, and whether it can be written there."""
    path = scene.state_dir
    if path is None:
        what = "where the state is only its daemon could say, so it was not looked at"
        yield warning(what, "Name it: gpuq --state-dir DIR doctor")
        return
    yield _kind_of_file_system(path)
    folder = nearest_folder(path)
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        yield failure(
            f"{folder} is mounted read-only",
            f"sudo mount -o remount,rw $(findmnt -nT {folder} -o TARGET)",
        )
    elif not scene.is_system:
        yield from _rights(path, folder)


def _kind_of_file_system(path: str) -> Finding:
    kind = paths.file_system_of(path)
    what = f"state in {path}, on {kind or 'a file system that does not say what it is'}"
    if kind in paths.NETWORK_FILE_SYSTEMS:
        remedy = (
            f"A database does not live on a network: gpuq --state-dir /var/tmp/gpuq-{os.geteuid()}"
        )
        return failure(what, remedy)
    if kind in ("tmpfs", "ramfs"):
        return warning(what, "Gone after a reboot: choose a --state-dir on a disk")
    return ok(what)


def _rights(path: str, folder: str) -> Iterator[Finding]:
    if folder != path:
        if not os.access(folder, os.W_OK | os.X_OK):
            yield failure(f"{path} cannot be made in {folder}", f"See: ls -ld {folder}")
        return
    found = os.stat(path)
    what = f"{path} has mode {stat.S_IMODE(found.st_mode):04o} and belongs to uid {found.st_uid}"
    if found.st_uid != os.geteuid():
        yield failure(f"{what}, not to you", f"sudo chown -R {os.geteuid()} {path}")
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield failure(f"{what}: you may not write there", f"chmod u+rwx {path}")
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield warning(f"{what}: others may write there", f"chmod go-w {path}")


def disk(scene: Scene) -> Iterator[Finding]:
    """How much room is left, in bytes and in files."""
    if scene.state_dir is None:
        return
    folder = nearest_folder(scene.state_dir)
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    what = f"{format_bytes(free)} free there"
    make_room = f"du -xh {folder} | sort -h | tail; gpuq prune --older-than 7d -n"
    if free < FULL_DISK:
        yield failure(f"{what}: new jobs are refused", make_room)
    elif free < max(LITTLE_DISK, _keep_free(scene)):
        yield warning(f"{what}. Logs need room; old ones are in jobs/ below it", make_room)
    else:
        yield ok(what)
    if room.f_files and room.f_favail < FEW_FILES:
        files = f"{room.f_favail} more files can be made there (df -i)"
        yield warning(files, f"du --inodes -x {folder} | sort -n | tail")


def _keep_free(scene: Scene) -> int:
    said = scene.told().setting("keep_free")
    return 0 if said is None else parse_bytes(said)


# ── the database ──


def database(scene: Scene) -> Iterator[Finding]:
    """Its head: is it ours, of a version that we know, and whole as far as that shows?"""
    if scene.state_dir is None:
        return
    path = os.path.join(scene.state_dir, paths.DATABASE_NAME)
    try:
        header = database_file.read_header(path)
    except FileNotFoundError:
        yield from _missing(scene, path)
    except PermissionError:
        yield from _unreadable(scene, path)
    except ValueError as error:
        yield failure(f"{path}: {error}", _RESTORE)
    else:
        yield _judged(path, header)
        yield from _beside(path, header)
    if scene.deep:
        yield from _whole(scene)


_RESTORE = "Restore a backup there: gpuq daemon stop; cp BACKUP FILE; gpuq daemon start"


def _missing(scene: Scene, path: str) -> Iterator[Finding]:
    if os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal"):
        yield failure(f"{path} is missing, and {path}-wal is there", _RESTORE)
    elif scene.told().ping is not None:
        yield failure(f"{path} was removed under the daemon", _RESTORE)
    else:
        yield ok("no database yet: the first daemon makes it")


def _unreadable(scene: Scene, path: str) -> Iterator[Finding]:
    if scene.is_system:
        yield ok(f"{path} is for root to look at: sudo gpuq doctor")
    else:
        yield failure(
            f"{path} cannot be read by you", f"chmod u+rwx {os.path.dirname(path)}; ls -l {path}"
        )


def _judged(path: str, header: database_file.Header) -> Finding:
    newest = database_file.newest_version()
    what = f"database of version {header.version}, {format_bytes(header.size_bytes)}"
    if not header.is_ours:
        return failure(f"{path}: a database of another program", "Give another: --state-dir DIR")
    if header.version > newest:
        what += f", written by a newer gpuq: this one knows {newest}"
        return failure(what, "Start that version, or upgrade this one: pip install -U gpuqd")
    if header.is_cut_short and not header.wal_bytes:
        what += f", and its head says {format_bytes(header.told_bytes)}: it was cut short"
        return failure(what, _RESTORE)
    return ok(what)


def _beside(path: str, header: database_file.Header) -> Iterator[Finding]:
    """What lies beside it: the write-ahead log, and the mark of a damage that was met."""
    if os.path.exists(f"{path}{database_file.DAMAGE_MARK}"):
        yield failure(
            "a damaged page of the database was met", "gpuq daemon check; then " + _RESTORE
        )
    if header.wal_bytes > LONG_LOG:
        what = (
            f"its write-ahead log has {format_bytes(header.wal_bytes)}: somebody reads it for long"
        )
        yield warning(what, f"fuser -v {path}; then: gpuq daemon restart")
    elif header.wal_bytes:
        yield ok(f"its write-ahead log has {format_bytes(header.wal_bytes)}")
    if os.stat(path).st_mode & 0o077:
        yield warning(f"{path} can be read by others", f"chmod 600 {path}")


def _whole(scene: Scene) -> Iterator[Finding]:
    """Every page of it, and every promise: `gpuqd check`, which changes nothing."""
    where = ["--state-dir", str(scene.state_dir), "--socket", scene.address.socket]
    command = [sys.executable, "-P", "-m", "gpuq.daemon.main", *where, "check"]
    ran = run(command, CHECK_S)
    if ran.code == 0:
        yield ok(ran.out.strip() or "gpuq daemon check finds nothing broken")
    elif ran.code == 1 and ran.out.strip():
        for breach in ran.out.strip().splitlines():
            yield failure(
                breach, "gpuq bundle, and report it; what is told first: gpuq daemon check"
            )
    elif "there is no database" not in ran.err:
        yield warning(f"it was not checked: {ran.last_words}", "gpuq daemon check")
