"""Work in a child process that is bounded in time and output, with all that it starts.

Whoever calls this becomes the subreaper of its descendants, so that none of them gets away. Standard
library only.
"""

import os
import select
import signal as signals
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from gpuq.daemon.linux import processes, syscalls

CHUNK_BYTES = 65536
LEAVE_S = 5.0  # how long what was killed may take to be gone


class Ran(NamedTuple):
    """`code` as Popen has it, below zero for a signal; None where the time was up."""

    code: int | None
    output: str


def run(work: Callable[[], int], *, stdin: bytes, within_s: float, most_bytes: int) -> Ran:
    """Does the work in a child, whose exit code it returns unless it becomes another program. Both of
    its outputs are kept, up to so many bytes. What it leaves behind is killed."""
    syscalls.become_child_subreaper()
    given = _file_of(stdin)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be(work, given, writer)
    os.close(given)
    os.close(writer)
    output = bytearray()
    code = _follow(pid, reader, output, most_bytes, time.monotonic() + within_s)
    if code is None:
        with suppress(ProcessLookupError):  # it has not got so far as to lead a group
            os.killpg(pid, signals.SIGKILL)
    _end_descendants()
    os.close(reader)
    return Ran(code, bytes(output).decode("utf-8", "replace"))


def _be(work: Callable[[], int], given: int, writer: int) -> None:
    """The child. Never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        for number in (signals.SIGPIPE, signals.SIGINT, signals.SIGTERM):
            signals.signal(number, signals.SIG_DFL)
        os.dup2(given, 0)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        code = work()
        sys.stdout.flush()
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="replace"))
    finally:
        os._exit(code)


def _follow(pid: int, reader: int, output: bytearray, most_bytes: int, until: float) -> int | None:
    """Takes its output until it ends; more than is kept is read all the same, so that it goes on."""
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(reader, select.POLLIN)
    os.set_blocking(reader, False)
    code = None
    while (left := until - time.monotonic()) > 0:
        ready = dict(poll.poll(left * 1000))
        if reader in ready and not _take(reader, output, most_bytes):
            poll.unregister(reader)
        if pidfd in ready:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            _take(reader, output, most_bytes)
            break
    os.close(pidfd)
    return code


def _take(reader: int, output: bytearray, most_bytes: int) -> bool:
    """What is there to be read; False where nobody can write any more."""
    try:
        while chunk := os.read(reader, CHUNK_BYTES):
            output += chunk[: most_bytes - len(output)]
            if len(chunk) < CHUNK_BYTES:
                return True
    except BlockingIOError:
        return True
    return False


def _end_descendants() -> None:
    """KILL, again and again, since they may have children meanwhile."""
    until = time.monotonic() + LEAVE_S
    while time.monotonic() < until:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        found = processes.descendants(os.getpid())
        if not found:
            return
        for pid, start in found.items():
            processes.send(pid, signals.SIGKILL, start=start)
        time.sleep(0.01)


def _file_of(content: bytes) -> int:
    """A file in memory with that content, which a program may read or leave."""
    fd = os.memfd_create("notice")
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
