"""Following a log: reading a file as it grows, until its job has ended."""

import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

from gpuq.errors import GpuqError, NothingMatched

CHUNK = 256 * 1024
QUIET_S = 0.1  # between two looks at the file
QUEUED_S = 0.5

Job = dict[str, Any]


class Follow:
    """Iterates over a log as it grows; `job` is the job as it was when the log ended.

    The file is looked at ten times a second, with the reader's own rights: no inotify, so it works
    on any file system. Between two looks the daemon is asked whether the job has ended.
    """

    def __init__(
        self, call: Callable[..., Job], ref: int | str, attempt: int | None, tail: int | None
    ) -> None:
        self._call = call
        self._attempt = attempt
        self._tail = tail
        self.job = self._show(ref)

    def __iter__(self) -> Iterator[bytes]:
        """Chunks until the job has ended; an empty one says that nothing came for a while."""
        number = self.job["id"]
        while self.job["state"] == "queued":
            yield b""
            self._call("wait", refs=[str(number)], timeout_s=QUEUED_S, started=True)
            self.job = self._show(number)
        with _Tail(self._log_path(), self._tail) as log:
            while self.job["state"] != "ended":
                yield from log.read()
                yield b""
                if self._call("wait", refs=[str(number)], timeout_s=QUIET_S)["timed_out"]:
                    continue
                self.job = self._show(number)
            yield from log.read()

    def _show(self, ref: int | str) -> Job:
        job: Job = self._call("show", ref=str(ref))["job"]
        return job

    def _log_path(self) -> str | None:
        if self._attempt is None:
            path: str | None = self.job["log"]
            return path
        for attempt in self.job["attempts"]:
            if attempt["attempt"] == self._attempt:
                found: str | None = attempt["log"]
                return found
        raise NothingMatched(f"job {self.job['id']} has no attempt {self._attempt}")


class _Tail:
    """A file that may not be there yet, read as it grows."""

    def __init__(self, path: str | None, lines: int | None) -> None:
        self._path = path
        self._lines = lines
        self._fd: int | None = None

    def __enter__(self) -> "_Tail":
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def read(self) -> Iterator[bytes]:
        if self._fd is None and not self._open():
            return
        assert self._fd is not None
        while chunk := os.read(self._fd, CHUNK):
            yield chunk

    def _open(self) -> bool:
        if self._path is None:
            return False
        try:
            self._fd = open_log(self._path)
        except FileNotFoundError:
            return False
        if self._lines is not None:
            os.lseek(self._fd, start_of_last_lines(self._fd, self._lines), os.SEEK_SET)
        return True


def open_log(path: str) -> int:
    """A descriptor of a log. A pipe would keep its reader waiting, and holds nothing of the past."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise GpuqError(f"{path} is a pipe: what went through it cannot be read again")


def start_of_last_lines(fd: int, lines: int) -> int:
    """The offset at which the last `lines` lines of a file begin, found from its end."""
    end = position = os.lseek(fd, 0, os.SEEK_END)
    if lines <= 0:
        return end
    seen = 0
    while position > 0:
        start = max(position - CHUNK, 0)
        block = os.pread(fd, position - start, start)
        cut = len(block)
        while (cut := block.rfind(b"\n", 0, cut)) >= 0:
            if start + cut + 1 == end:
                continue  # the newline that closes the last line opens no other
            seen += 1
            if seen == lines:
                return start + cut + 1
        position = start
    return 0
