"""Who a process on a GPU is, as /proc tells it. A process may leave between two lines."""

import os
import pwd
import threading

COMMAND_LENGTH = 80
NAME_PATIENCE_S = 0.2


def command_of(pid: int) -> str | None:
    """The name of the program, in printable characters; None where there is no such process."""
    argv = _read(f"/proc/{pid}/cmdline")
    program = os.path.basename(argv.split("\0", 1)[0]) if argv else None
    name = program or _read(f"/proc/{pid}/comm")
    if name is None:
        return None
    # A process chooses its name itself: no escape sequence of it reaches a terminal.
    return "".join(sign for sign in name if sign.isprintable())[:COMMAND_LENGTH] or None


def _read(path: str) -> str | None:
    try:
        with open(path, errors="replace") as file:
            return file.read(4096)
    except OSError:
        return None


class UserNames:
    """Names of uids, each asked for once.

    A name service may hang for longer than the driver is given, so a thread asks it, and until that
    has an answer the user is called by number.
    """

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def owner_of(self, pid: int) -> str | None:
        try:
            uid = os.stat(f"/proc/{pid}").st_uid
        except OSError:
            return None
        if uid not in self._names:
            self._names[uid] = str(uid)
            asking = threading.Thread(target=self._ask, args=(uid,), daemon=True)
            asking.start()
            asking.join(NAME_PATIENCE_S)
        return self._names[uid]

    def _ask(self, uid: int) -> None:
        try:
            self._names[uid] = pwd.getpwuid(uid).pw_name
        except KeyError:
            pass  # a uid without a name, as containers have them
