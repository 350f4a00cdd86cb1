"""A disk that is full."""

import errno
from pathlib import Path


def fill(file: Path) -> None:
    """Takes all the room there is."""
    with file.open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017, it must come
