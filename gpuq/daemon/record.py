"""What a runner leaves on disk, and what a later daemon reads from it.

    no `began`            the job never ran: the order never came, or came to a runner that died
    `began`, no `record`  it ran, and nobody knows how it ended
    `record`              it ended like that

Standard library only.
"""

import json
import os
from typing import Any

BEGAN, RECORD = "began", "record"
LONGEST_RECORD = 64 * 1024

Message = dict[str, Any]


def begin(attempt_dir: str, nonce: str) -> int:
    """Makes `began`, open for the main process to be noted in: from here on the job has run."""
    os.makedirs(attempt_dir, mode=0o700, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    return os.open(_began(attempt_dir, nonce), flags, 0o600)


def note_main_process(began: int, pid: int, start: int | None) -> None:
    """For a daemon that adopts the attempt; the job does not depend on it."""
    try:
        os.write(began, f"{pid} {start or 0}\n".encode())
        os.close(began)
    except OSError:
        pass


def write(attempt_dir: str, record: Message) -> int | None:
    """Puts the record in its place whole, or not at all; returns it open for `sync`, None where the
    disk refuses.

    A rename without fsync survives everything but a power cut, so the daemon, whose commit is the
    durable copy, is told before anybody waits for the disk.
    """
    path = os.path.join(attempt_dir, RECORD)
    try:
        fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.write(fd, json.dumps(record).encode())
        os.rename(path + ".new", path)
    except OSError:
        return None
    return fd


def sync(attempt_dir: str, fd: int) -> None:
    try:
        os.fsync(fd)
        os.fsync(os.open(attempt_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError:
        pass


def read(attempt_dir: str, nonce: str) -> Message | None:
    """The record of that attempt; None where there is none, or an empty, cut or foreign one."""
    try:
        with open(os.path.join(attempt_dir, RECORD), "rb") as file:
            record = json.loads(file.read(LONGEST_RECORD))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("nonce") != nonce:
        return None
    return record if _is_sound(record) else None


def _is_sound(record: Message) -> bool:
    """Does it say how the attempt ended, in values that can be stored? A job that runs as this
    daemon's own user can write there."""
    if (record.get("exit_code") is None) == (record.get("signal") is None):
        return False
    whole = ("exit_code", "signal", "leftovers", "peak_rss_bytes")
    numbers = ("ended_at", "user_s", "system_s")
    texts = ("stage", "error")
    return (
        all(_is_number(record.get(name), int) for name in whole)
        and all(_is_number(record.get(name), (int, float)) for name in numbers)
        and all(isinstance(record.get(name), str | None) for name in texts)
    )


def _is_number(value: Any, kind: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, kind) and not isinstance(value, bool) and abs(value) < 2**62


def _began(attempt_dir: str, nonce: str) -> str:
    return os.path.join(attempt_dir, f"{BEGAN}-{nonce}")


def has_begun(attempt_dir: str, nonce: str) -> bool:
    return os.path.exists(_began(attempt_dir, nonce))


def main_process(attempt_dir: str, nonce: str) -> tuple[int, int] | None:
    """(pid, start) of the job, as `note_main_process` left it."""
    try:
        with open(_began(attempt_dir, nonce)) as file:
            pid, start = map(int, file.read(100).split())
    except (OSError, ValueError):
        return None
    return (pid, start) if 0 < pid < 2**31 and 0 <= start < 2**62 else None


def began_at(attempt_dir: str, nonce: str) -> float:
    """When it began (s since the epoch), by the file."""
    return os.stat(_began(attempt_dir, nonce)).st_mtime
