"""What the head of the database file says, read without SQLite: that needs no lock and waits for none.

The layout is that of https://www.sqlite.org/fileformat.html, section 1.3.
"""

import os
from typing import NamedTuple

MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
APPLICATION_ID_AT = 68
APPLICATION_ID = 0x67707571  # "gpuq"
DAMAGE_MARK = (
    ".damaged"  # ends the name of a note beside a database in which a damaged page was met
)
SCRIPTS = os.path.join(os.path.dirname(__file__), "daemon", "store", "migrations")


class Header(NamedTuple):
    """`told_bytes` is how long the file is by its own words; None where they are out of date."""

    is_ours: bool
    version: int
    size_bytes: int
    told_bytes: int | None
    wal_bytes: int

    @property
    def is_cut_short(self) -> bool:
        return self.told_bytes is not None and self.size_bytes < self.told_bytes


def read_header(path: str) -> Header:
    """OSError where it cannot be read; ValueError says why it is no database."""
    with open(path, "rb") as file:
        head = file.read(HEADER_BYTES)
        size = os.fstat(file.fileno()).st_size
    if len(head) < HEADER_BYTES or not head.startswith(MAGIC):
        raise ValueError("no SQLite database, or a damaged one")
    page = _number(head, 16, 2)
    page = 65536 if page == 1 else page
    # The size in the head counts only where the change counter says that it was written with it.
    is_current = _number(head, 24) == _number(head, 92)
    return Header(
        is_ours=_number(head, APPLICATION_ID_AT) == APPLICATION_ID,
        version=_number(head, 60),
        size_bytes=size,
        told_bytes=_number(head, 28) * page if is_current else None,
        wal_bytes=_size(f"{path}-wal"),
    )


def newest_version() -> int:
    """The version that this gpuq writes: that of the last script which brings a database up to date."""
    try:
        names = os.listdir(SCRIPTS)
    except OSError:
        return 1
    return max((int(name.split("_")[0]) for name in names if name.endswith(".sql")), default=1)


def _number(head: bytes, at: int, width: int = 4) -> int:
    return int.from_bytes(head[at : at + width])


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
