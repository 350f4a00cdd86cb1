"""Log lines for systemd's journal, with a field for each thing that is known, by the native protocol
(systemd.io/JOURNAL_NATIVE_PROTOCOL): `journalctl GPUQ_JOB=12` finds what happened to job 12.

A journal that is gone costs a line its fields and not more: it goes to stderr then. One that does not
take what is sent costs the line, and the daemon next to no time.
"""

import json
import os
import re
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

SOCKET = "/run/systemd/journal/socket"
MOST_WAIT_S = 0.2
# A datagram has to fit into the send buffer, 208 KiB by default. No line of ours needs as much: what
# a fault of ours or a strange driver makes longer is cut, so that no second way to send is needed.
MOST_BYTES = 16 * 1024
MOST_FIELDS = 64
LONGEST_NAME = 64

PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}  # syslog(3)
_NOT_IN_NAMES = re.compile("[^A-Z0-9_]")

Fields = Mapping[str, Any]


def is_connected(environ: Mapping[str, str], fd: int) -> bool:
    """Does what is written to this descriptor go to the journal?"""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class Journal:
    """`otherwise` gets level, sentence and fields of what the journal is not there to take."""

    def __init__(self, otherwise: Callable[[str, str, Fields], None], path: str = SOCKET) -> None:
        self._otherwise = otherwise
        self._path = path
        self._lost = 0

    def tell(self, level: str, sentence: str, fields: Fields) -> None:
        """One line. A list among the fields is several values; None is left out."""
        try:
            self._send(_encode(level, sentence, fields))
        except (BlockingIOError, TimeoutError):
            self._lost += 1
        except OSError:
            self._otherwise(level, sentence, fields)
        else:
            self._tell_of_lost()

    def _send(self, data: bytes) -> None:
        """Waits a moment for a journal that is slow, and not again until it has caught up."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(0.0 if self._lost else MOST_WAIT_S)
            sock.sendto(data, self._path)

    def _tell_of_lost(self) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            sentence = f"lines are missing here: the journal did not take {lost} of them in time"
            self.tell("warning", sentence, {"lost": lost})


def _encode(level: str, sentence: str, fields: Fields) -> bytes:
    known = {
        "MESSAGE": sentence,
        "PRIORITY": PRIORITIES.get(level, PRIORITIES["info"]),
        "SYSLOG_IDENTIFIER": "gpuqd",
    }
    named = [(f"GPUQ_{_NOT_IN_NAMES.sub('_', key.upper())}", fields[key]) for key in fields]
    pairs = [*known.items(), *_single(named)]
    return b"".join(_field(name[:LONGEST_NAME], value) for name, value in pairs[:MOST_FIELDS])


def _single(named: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, Any]]:
    for name, value in named:
        for one in value if isinstance(value, list | tuple) else (value,):
            if one is not None:
                yield name, one


def _field(name: str, value: Any) -> bytes:
    """A value with a newline in it is told with its length, in the binary form."""
    if isinstance(value, dict | bool):
        value = json.dumps(value, default=str)
    data = str(value).encode("utf-8", "backslashreplace")[:MOST_BYTES]
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
