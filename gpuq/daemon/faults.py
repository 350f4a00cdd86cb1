"""Steps at which a test can have a process of ours killed, as the kernel would.

`here(step)` marks a moment between two deeds, such as the commit of an attempt and its order. It does
nothing unless GPUQ_FAULTS named a folder when gpuqd started. Where a file of the step's name lies in
that folder, whichever process passes the step first takes it away and dies on the spot; where the file
says "stand still", it does nothing any more instead. What a running daemon was not started with cannot
be given to it. Standard library only.
"""

from __future__ import annotations

import os
import time

from gpuq.daemon.linux import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

VARIABLE = "GPUQ_FAULTS"
STAND_STILL = b"stand still"

_folder: str | None = None


def arm(environ: MutableMapping[str, str]) -> None:
    """Takes the folder out of the environment: no job is to find it there."""
    global _folder
    _folder = environ.pop(VARIABLE, None) or None


def handed_down() -> dict[str, str]:
    """The variable by which launcher and runners are armed as this process is."""
    return {} if _folder is None else {VARIABLE: _folder}


def here(step: str) -> None:
    if _folder is None:
        return
    path = os.path.join(_folder, step)
    try:
        with open(path, "rb") as file:
            how = file.read()
        os.unlink(path)
    except OSError:
        return
    while how == STAND_STILL:
        time.sleep(3600)
    os.kill(os.getpid(), signals.SIGKILL)
