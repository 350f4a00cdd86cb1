"""Whose connection it is, as the kernel tells it: proc_pid_net(5)."""

import socket
import sys
from collections.abc import Mapping
from pathlib import Path

Address = tuple[str, int]

UID = 7  # the column
MAPPED = f"{int.from_bytes(bytes([0, 0, 255, 255]), sys.byteorder):08X}"
# A socket for IPv6 can reach 127.0.0.1 too, and is then ::ffff:127.0.0.1 in the other table.
TABLES = {
    Path("/proc/net/tcp"): "",
    Path("/proc/net/tcp6"): "0" * 16 + MAPPED,
}


def uid_of(peer: Address, ours: Address, tables: Mapping[Path, str] = TABLES) -> int | None:
    """Whose end `peer` is, of the connection to our end; None where that is not told. For one that
    has closed its end already the kernel says 0."""
    for table, mapped in tables.items():
        ends = f" {mapped}{_hex(peer)} {mapped}{_hex(ours)} "
        try:
            with table.open() as lines:
                for line in lines:
                    if ends in line:
                        return int(line.split()[UID])
        except OSError:  # no IPv6 here, or no /proc
            continue
    return None


def _hex(address: Address) -> str:
    host, port = address
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
