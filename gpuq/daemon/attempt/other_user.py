"""A job of another user than its runner, which is root: a forked child becomes that user, takes the
steps, hands back what it opened, and turns into the job. Standard library only, single-threaded.

Root itself makes one folder, jobs/ID, in a folder of its own, and gives it away. All that lies where
the user has a say is done by a process that is the user, so that no link, pipe or swapped folder there
gets more than the user has. Until execve the child cannot be traced by the user: the kernel takes a
process that changed its uid for one that others may not look into.
"""

from __future__ import annotations

import _socket  # socket would bring enum and selectors into each runner
import os

from gpuq.daemon.attempt import folders, gate, identity, stages
from gpuq.daemon.attempt.stages import Once, StageFailed, shown, take
from gpuq.daemon.attempt.steps import (
    MAKING_DIRECTORIES,
    RESET_SIGNALS,
    Files,
    Steps,
    remove_tmp_dir,
)
from gpuq.daemon.linux import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Message = dict[str, Any]

PREPARING = "preparing its process"
DIED = "its process was killed before it could begin"


class SpawnAsOther:
    """The runner's side."""

    def __init__(self, order: Message) -> None:
        self._order = order
        self._uid, self._gid = int(order["uid"]), int(order["gid"])
        self.files = Files()
        self.tmp_dir = b""
        self.prepare = Once(self._prepare)
        self._child: int | None = None  # until it is the job, or is gone
        self._line: _socket.socket | None = None

    def _prepare(self) -> None:
        """All that comes before the job's own process."""
        take(MAKING_DIRECTORIES, self._make_job_dir)
        take("forking its process", self._fork)
        assert self._line is not None
        told, fds = gate.receive(self._line)
        if told is None:
            raise StageFailed(PREPARING, ValueError(DIED))
        _check(told)
        self.files = Files(dict(zip(told["opened"], fds, strict=True)))

    def start(self) -> int:
        """The pid of the job's main process; StageFailed where it could not be executed."""
        assert self._line is not None
        assert self._child is not None
        pid = self._child
        try:
            gate.send(self._line, {"go": True})
            while (told := gate.receive(self._line)[0]) is not None:
                _check(told)
                self.tmp_dir = stages.raw(told["tmp_dir"])
            self._child = None  # its end of the line closed as it became the job
            return pid
        finally:
            self.files.close_logs()  # a pipe's reader waits for its last writer, the job

    def clean_up(self) -> None:
        """Closes what was opened for the job, and removes the private temporary directory."""
        self._end_child()
        self.files.close()
        if self.tmp_dir:
            take_as(identity.bare(self._uid, self._gid), lambda: remove_tmp_dir(self.tmp_dir))

    def _make_job_dir(self) -> None:
        folders.make_job_dir(self._order["job_dir"], self._uid, self._gid)

    def _fork(self) -> None:
        ours, theirs = _socket.socketpair()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if not pid:
            _Child(self._order, theirs).run()
        theirs.close()
        self._child, self._line = pid, ours

    def _end_child(self) -> None:
        """One that did not become the job: it has told why, or waits for its word and leaves when
        the line closes."""
        if self._line is not None:
            self._line.close()
        if self._child is not None:
            os.waitpid(self._child, 0)
        self._child = self._line = None


def _check(told: Message) -> None:
    if "failed" in told:
        raise stages.unpack(told["failed"])


class _Child:
    """The child's side, up to the job."""

    def __init__(self, order: Message, line: _socket.socket) -> None:
        self._order = order
        self._line = line

    def run(self) -> NoReturn:
        try:
            close_all_but(self._line.fileno())  # what root has open is none of the user's
            self._become_job()
        except StageFailed as failed:
            gate.send(self._line, {"failed": stages.pack(failed)})
        except Exception as error:  # its runner waits for a word
            fault = StageFailed(PREPARING, ValueError(repr(error)))
            gate.send(self._line, {"failed": stages.pack(fault)})
        finally:
            os._exit(stages.NOT_STARTED)

    def _become_job(self) -> None:
        steps = Steps(self._order)
        take(f"becoming {shown(self._order['user'])}", lambda: self._become_user(steps))
        steps.prepare()
        self._hand_back(steps)
        if gate.receive(self._line)[0] is None:  # the runner is gone: nobody would look after it
            os._exit(stages.NOT_STARTED)
        steps.make_tmp_dir()
        gate.send(self._line, {"tmp_dir": steps.tmp_dir.decode("utf-8", "surrogateescape")})
        steps.set_limits()
        take(PREPARING, lambda: self._arrange(steps.files))
        steps.execute(os.execve)

    def _become_user(self, steps: Steps) -> None:
        user = identity.look_up(self._order["uid"], self._order["gid"])
        identity.become(user)
        identity.complete(steps.environment, user)

    def _hand_back(self, steps: Steps) -> None:
        opened = steps.files.opened()
        gate.send(self._line, {"opened": list(opened)}, list(opened.values()))

    def _arrange(self, files: Files) -> None:
        """What is left to do is what posix_spawn does for a job of the runner's own user."""
        os.setpgid(0, 0)
        os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 0)
        os.dup2(files.log, 1)
        os.dup2(files.errors, 2)
        for number in RESET_SIGNALS:
            signals.signal(number, signals.SIG_DFL)
        signals.pthread_sigmask(signals.SIG_SETMASK, ())


def take_as(user: identity.Identity, deed: Callable[[], None]) -> None:
    """Does something in a forked child that is that user, and waits for it."""
    try:
        pid = os.fork()
    except OSError:  # no room for a process: what it was to remove is left
        return
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        close_all_but(-1)
        identity.become(user)
        deed()
    finally:
        os._exit(0)


def close_all_but(kept: int) -> None:
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd != kept:
            try:
                os.close(fd)
            except OSError:  # that of the list itself
                pass
