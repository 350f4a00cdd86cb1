"""The file of a bundle: written whole or not at all, and for its owner alone."""

import io
import os
import tarfile
import time
from collections.abc import Iterable

from gpuq.cli.render import printable
from gpuq.cli.whole_file import write_whole
from gpuq.errors import GpuqError

Part = tuple[str, str]


def write(path: str, folder: str, parts: Iterable[Part]) -> None:
    """Writes `parts` below `folder` into a new file at `path`. GpuqError where there is one already or
    none can be made; then nothing is left there."""
    if os.path.lexists(path):
        raise GpuqError(f"{printable(path)} is there already. Name another file: gpuq bundle FILE")
    data = packed(folder, parts)
    try:
        write_whole(path, data, 0o600)
    except OSError as error:
        what = f"{printable(path)}: cannot be written: {error.strerror}. Name another file"
        raise GpuqError(what) from None


def packed(folder: str, parts: Iterable[Part]) -> bytes:
    """A tar.gz; nobody's name is in it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, text in parts:
            content = text.encode("utf-8", "replace")
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
            tar.addfile(member, io.BytesIO(content))
    return data.getvalue()
