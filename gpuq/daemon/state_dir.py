"""The directory in which the daemon keeps all that it keeps: made, and held while it serves."""

import fcntl
import os
import stat
import time
from contextlib import suppress
from typing import TextIO

import structlog

import gpuq
from gpuq import config, paths
from gpuq.errors import GpuqError, UsageError

LOCK_TRIES, LOCK_AGAIN_S = 5, 0.02

log = structlog.get_logger()


def make_state_dir(settings: config.Config, *, must_be_empty: bool) -> None:
    path = settings.state_dir
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.stat(path)
        owner = found.st_uid
        if settings.mode == "system" and owner == os.geteuid():
            # Its users pass through, whatever our umask.
            os.chmod(path, stat.S_IMODE(found.st_mode) | 0o711)
    except OSError as error:
        raise GpuqError(f"cannot make the state directory {path}: {error.strerror}") from None
    if owner != os.geteuid():
        raise GpuqError(f"the state directory {path} belongs to uid {owner}, not to you")
    # Anybody may put a link into /var/tmp that leads to a directory of ours.
    if (linked_by := os.lstat(path).st_uid) not in (0, owner):
        raise GpuqError(
            f"the state directory {path} is a link that uid {linked_by} has made. Remove it, or give "
            "another directory: --state-dir"
        )
    if (kind := paths.file_system_of(path)) in paths.NETWORK_FILE_SYSTEMS:
        raise UsageError(
            f"the state directory {path} is on {kind}: a queue needs a disk of this machine. "
            f"Give another: --state-dir /var/tmp/gpuq-{os.geteuid()}"
        )
    if must_be_empty and set(os.listdir(path)) - {paths.LOG_NAME}:
        raise UsageError(f"--throwaway removes the state directory, and {path} is not empty")


class StateLock:
    """Holds the state directory for life. A lock goes with its process, so nothing needs cleaning
    after a crash; what the file says is only who to name to the next one that comes."""

    def __init__(self, settings: config.Config) -> None:
        self._settings = settings
        self._file: TextIO
        self._folder: int

    def __enter__(self) -> None:
        path = os.path.join(self._settings.state_dir, paths.LOCK_NAME)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file = open(fd, "r+", encoding="utf-8", errors="surrogateescape")
        if not _has_lock(fd, fcntl.LOCK_EX):
            holder = self._read_holder()
            self._file.close()
            raise GpuqError(
                f"{self._settings.state_dir} is served already, {holder}. See: gpuq daemon status"
            )
        self._keep_from_ageing()
        who = f"by gpuqd {gpuq.__version__}, pid {os.getpid()}"
        words = f"{who}\n{self._settings.socket}\n".encode(errors="surrogateescape")
        with suppress(OSError):  # on a full disk nobody can read who holds it
            os.ftruncate(fd, 0)
            os.pwrite(fd, words, 0)

    def __exit__(self, *_: object) -> None:
        self._file.close()
        os.close(self._folder)

    def _keep_from_ageing(self) -> None:
        """systemd-tmpfiles removes what lies in /var/tmp for long, but nothing below a directory that
        somebody has locked (tmpfiles.d(5))."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self._folder = os.open(self._settings.state_dir, flags)
        if not _has_lock(self._folder, fcntl.LOCK_SH):
            log.warning("not locked against ageing", folder=self._settings.state_dir)

    def _read_holder(self) -> str:
        """It may have taken the lock a moment ago and not yet have written its name."""
        for _ in range(100):
            self._file.seek(0)
            line = self._file.readline()
            if line.endswith("\n"):
                return line.strip()
            time.sleep(0.01)
        return "by a gpuqd that does not give its name"


def _has_lock(fd: int, kind: int) -> bool:
    """Others take it for a moment: `gpuqd check`, to see whether it can be had, systemd-tmpfiles to
    look at a directory."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_AGAIN_S)
        else:
            return True
    return False
