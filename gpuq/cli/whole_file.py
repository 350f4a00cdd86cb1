"""Files for people, written whole or not at all."""

import os
from contextlib import suppress


def write_whole(path: str, data: bytes, mode: int = 0o666) -> None:
    """Whoever looks at the file finds all of its old content or all of the new. In a folder where
    others may write, too, nothing that lies there is followed or written into. The umask cuts `mode`.
    Raises OSError; then nothing was changed."""
    partial = f"{path}.{os.urandom(8).hex()}.partial"
    new = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(new, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        with suppress(OSError):
            os.unlink(partial)
        raise
