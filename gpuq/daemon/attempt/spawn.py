"""From a runner to the process that is its job. Standard library only, single-threaded."""

from __future__ import annotations

import errno
import os

from gpuq.daemon.attempt.disk import DISK_ERRORS, is_to_blame
from gpuq.daemon.attempt.other_user import SpawnAsOther
from gpuq.daemon.attempt.stages import Once
from gpuq.daemon.attempt.steps import (
    MAKING_DIRECTORIES,
    OPENING_REPORT,
    RESET_SIGNALS,
    WRITING_SCRIPT,
    Files,
    Steps,
    remove_tmp_dir,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]


def spawn_for(order: Message) -> Spawn | SpawnAsOther:
    """Only a root daemon's order says whom the job is to run as."""
    return Spawn(order) if order.get("uid") is None else SpawnAsOther(order)


def passing_errors(order: Message, stage: str) -> tuple[int, ...]:
    """The disk's troubles at this stage that are no fault of the job: it goes back to the queue, and
    nothing is started for a while. A quota, or a disk that was another user's choice, holds up nobody
    else: there only the daemon's own directories count, and since a user may have put a link to
    another disk into theirs, only while their disk really is without room."""
    if order.get("uid") is None:
        return DISK_ERRORS if stage == MAKING_DIRECTORIES else (errno.ENOSPC, errno.EDQUOT)
    if stage not in (MAKING_DIRECTORIES, WRITING_SCRIPT, OPENING_REPORT):
        return ()
    is_ours = is_to_blame(os.path.dirname(order["job_dir"]))
    return tuple(number for number in DISK_ERRORS if is_ours and number != errno.EDQUOT)


class Spawn:
    """A job of the runner's own user.

    The runner takes the steps itself and then spawns: a third faster than a forked child that takes
    them, because nothing of Python is copied. What a step changes in the runner is put back where
    the runner itself would suffer from it.
    """

    def __init__(self, order: Message) -> None:
        self._steps = Steps(order)
        self.prepare = Once(self._steps.prepare)  # all that comes before the job's own process

    @property
    def files(self) -> Files:
        return self._steps.files

    @property
    def tmp_dir(self) -> bytes:
        """The private one, once it has been made."""
        return self._steps.tmp_dir

    def start(self) -> int:
        """The pid of the job's main process; StageFailed where it could not be executed."""
        files = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, self.files.log, 1),
            (os.POSIX_SPAWN_DUP2, self.files.errors, 2),
        ]

        def spawn(path: bytes, argv: list[bytes], environment: dict[bytes, bytes]) -> int:
            return os.posix_spawn(
                path,
                argv,
                environment,
                file_actions=files,
                setpgroup=0,
                setsigmask=(),
                setsigdef=RESET_SIGNALS,
            )

        self._steps.set_umask()  # since the runner has its own while it waits
        self._steps.make_tmp_dir()
        try:
            self._steps.set_limits()
            return self._steps.execute(spawn)
        finally:
            self._steps.restore_limits()
            self.files.close_logs()  # a pipe's reader waits for its last writer, the job

    def clean_up(self) -> None:
        """Closes what it opened for the job, and removes the private temporary directory, if it is
        ours."""
        self.files.close()
        if self._steps.tmp_dir:
            remove_tmp_dir(self._steps.tmp_dir)
