"""The place at which clients find the daemon: a socket of our own, or one that systemd holds for us.

Its file may be gone while the daemon lives, as where somebody empties /run: then there is a new one at
the same place, beside what systemd holds.
"""

import os
import socket
import stat

from gpuq import paths
from gpuq.errors import GpuqError

BACKLOG = 1024


class Listener:
    """`given` is a socket that listens at `path` already, and outlives us. `is_open` to every user of
    the machine; what they may do is decided by who they are."""

    def __init__(
        self, path: str, *, is_open: bool = False, given: socket.socket | None = None
    ) -> None:
        self.path = path
        self._is_open = is_open
        self._given = given
        self._file: tuple[int, ...] | None = None  # at which clients reach us
        self._is_ours = False

    @property
    def is_given(self) -> bool:
        return self._given is not None

    def open(self) -> list[socket.socket]:
        """All that is to be listened on. GpuqError where something or somebody else is there."""
        if self._given is None:
            return [self.bind()]
        if not self._is_answered():
            return [self._given, self.bind()]
        self._file = _file_at(self.path)
        return [self._given]

    def bind(self) -> socket.socket:
        """A socket of our own at the path, where nobody serves."""
        try:
            _make_folder(os.path.dirname(self.path), 0o755 if self._is_open else 0o700)
            self._check_folder()
            if os.path.lexists(self.path):
                self._remove_stale()
            sock = self._bind()
            self._file, self._is_ours = _file_at(self.path), True
        except OSError as error:
            raise GpuqError(f"cannot listen on {self.path}: {error.strerror}") from error
        return sock

    def is_cut_off(self) -> bool:
        """Does the path lead to us no longer?"""
        try:
            return _file_at(self.path) != self._file
        except OSError:
            return False  # who cannot look does not know

    def leave(self) -> None:
        """Removes what is ours: not what systemd made, nor what somebody else has put there."""
        try:
            if self._is_ours and _file_at(self.path) == self._file:
                os.unlink(self.path)
        except OSError:
            pass

    def _bind(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        before = os.umask(0o177)  # the socket is born 0600: there is no moment in which it is not
        try:
            paths.bind(sock, self.path)
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
        finally:
            os.umask(before)
        if self._is_open:
            os.chmod(self.path, 0o666)
        return sock

    def _check_folder(self) -> None:
        """Nobody but us may put another socket in the place of one that is for all."""
        folder = os.path.dirname(self.path)
        found = os.stat(folder)
        is_writable = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
        if self._is_open and (found.st_uid != os.geteuid() or is_writable):
            raise GpuqError(
                f"cannot listen in {folder}: others than root can write there, and could put a "
                f"socket of their own in its place. Run: chown root {folder}; chmod go-w {folder}"
            )

    def _remove_stale(self) -> None:
        """What lies there is a socket whose daemon is gone, or is refused."""
        if not stat.S_ISSOCK(os.lstat(self.path).st_mode):
            raise GpuqError(f"cannot listen on {self.path}: something that is no socket is there")
        if self._is_answered():
            raise GpuqError(f"cannot listen on {self.path}: another daemon answers there")
        os.unlink(self.path)

    def _is_answered(self) -> bool:
        """Does somebody listen there, be it on a socket that we were given?"""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # with many waiting in it a connect would wait behind them
            try:
                paths.connect(probe, self.path)
            except (ConnectionRefusedError, FileNotFoundError):
                return False
            except BlockingIOError:
                pass
        return True


def _make_folder(folder: str, mode: int) -> None:
    """With those above it, all of that mode whatever the umask; what is there stays as it is."""
    if os.path.isdir(folder):
        return
    _make_folder(os.path.dirname(folder), mode)
    os.mkdir(folder, mode)
    os.chmod(folder, mode)


def _file_at(path: str) -> tuple[int, ...] | None:
    """By which a file is known again; None where there is none. The number of one that was removed is
    soon another's, so the time at which it was made counts too."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns
