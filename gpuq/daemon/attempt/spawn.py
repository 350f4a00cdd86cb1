"""The steps from a runner to the job it starts. Standard library only, single-threaded."""

import errno
import os
import resource
import shutil
import signal as signals
import time
from collections.abc import Callable
from typing import Any

from gpuq.daemon.attempt.mounts import has_mounts_below

TMP_DIR = b"/tmp"
NOT_FOUND, NOT_EXECUTABLE, NOT_STARTED = 127, 126, 125
LONGEST_SHOWN = 4096  # signs
# Python and the runner ignore some, and so may whoever started the daemon (`nohup`, a shell's `&`):
# a job must find none ignored.
RESET_SIGNALS = signals.valid_signals() - {signals.SIGKILL, signals.SIGSTOP}

Message = dict[str, Any]


class StageFailed(Exception):
    """The job could not be started; says at which step."""

    def __init__(self, stage: str, error: OSError | ValueError) -> None:
        super().__init__(stage)
        self.stage = stage
        self.error = error

    def facts(self) -> Message:
        return not_started(self.stage, self.error)


def not_started(stage: str, error: OSError | ValueError) -> Message:
    code = NOT_STARTED
    if stage.startswith("executing"):
        missing = isinstance(error, FileNotFoundError)
        code = NOT_FOUND if missing else NOT_EXECUTABLE
    return {
        "ended_at": time.time(),
        "exit_code": code,
        "stage": stage,
        "error": _sentence(stage, error),
    }


def _sentence(stage: str, error: OSError | ValueError) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOENT:
        return "no such directory" if stage.startswith("changing") else "no such file"
    if number == errno.ENOEXEC:
        return "not a program, and its first line names none (#!)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return str(error)


class Files:
    """What was opened as the user, for the job and for the runner that looks after it; -1: not."""

    def __init__(self) -> None:
        self.log = self.log_index = self.stderr = self.report = -1

    @property
    def errors(self) -> int:
        """Where the job's errors go: to the log, unless they have a file of their own."""
        return self.stderr if self.stderr >= 0 else self.log

    def close_logs(self) -> None:
        for fd in {self.log, self.log_index, self.stderr} - {-1}:
            os.close(fd)
        self.log = self.log_index = self.stderr = -1

    def close(self) -> None:
        self.close_logs()
        if self.report >= 0:
            os.close(self.report)
        self.report = -1


class Spawn:
    """The steps from the runner to the job, one ordered list.

    A runner that already is the user takes them itself and then spawns: a third faster than a
    forked child that takes them, because nothing of Python is copied. What a step changes in the
    runner is put back where the runner itself would suffer from it.
    """

    def __init__(self, order: Message) -> None:
        self._order = order
        self.files = Files()
        self._tmp_dir = b""  # once it has been made
        self._limits: dict[int, tuple[int, int]] = {}

    def prepare(self) -> None:
        """All that comes before the job's own process; StageFailed where a step failed."""
        order = self._order
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            ("setting its umask", self._set_umask),
            (f"changing directory to {_shown(order['cwd'])}", self._change_directory),
            (f"opening the log {_shown(order['log'])}", self._open_log),
            (f"opening {_shown(order.get('stderr') or '')}", self._open_stderr),
            ("opening its report", self._open_report),
            (f"making its temporary directory {_shown(order['tmp_dir'])}", self._make_tmp_dir),
        )
        for stage, step in steps:
            _take(stage, step)

    def start(self) -> int:
        """The pid of the job's main process; StageFailed where it could not be executed."""
        try:
            _take("setting its limits", self._set_limits)
            return self._execute()
        finally:
            self._restore_limits()
            self.files.close_logs()  # a pipe's reader waits for its last writer, the job

    def clean_up(self) -> None:
        """Closes what it opened for the job, and removes the private temporary directory, if it is
        ours; its own links are not followed.

        Whatever a job has made in there, how it ended is told all the same. Where it has mounted
        something in there, all of it stays: what is behind a mount is not ours.
        """
        self.files.close()
        if self._tmp_dir and not has_mounts_below(self._tmp_dir):
            try:
                shutil.rmtree(self._tmp_dir, ignore_errors=True)
            except RecursionError:  # a thousand folders deep, which rm does without recursion
                os.spawnv(os.P_WAIT, "/bin/rm", [b"rm", b"-rf", b"--", self._tmp_dir])

    def _set_umask(self) -> None:
        os.umask(self._order["umask"])

    def _change_directory(self) -> None:
        os.chdir(_raw(self._order["cwd"]))

    def _open_log(self) -> None:
        """With an index of times beside it; a job runs as well without one."""
        self.files.log = _open_for_appending(self._order["log"])
        if self._order.get("log_index"):
            try:
                self.files.log_index = _open_for_appending(self._order["log_index"])
            except OSError:
                pass

    def _open_stderr(self) -> None:
        if self._order.get("stderr"):
            self.files.stderr = _open_for_appending(self._order["stderr"])

    def _open_report(self) -> None:
        if self._order.get("report"):
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self.files.report = os.open(_raw(self._order["report"]), flags, 0o600)

    def _make_tmp_dir(self) -> None:
        wanted = _raw(self._order["tmp_dir"])
        if not os.path.isdir(os.path.dirname(wanted)):  # the submitter's is gone by now
            wanted = os.path.join(TMP_DIR, os.path.basename(wanted))
        os.mkdir(wanted, 0o700)
        self._tmp_dir = wanted

    def _set_limits(self) -> None:
        for name, soft in self._order["limits"].items():
            number = getattr(resource, name, None) if name.startswith("RLIMIT_") else None
            if number is None:  # this system does not know it
                continue
            before, hard = resource.getrlimit(number)
            self._limits[number] = (before, hard)
            wanted = soft if hard == resource.RLIM_INFINITY else min(soft % 2**64, hard)
            resource.setrlimit(number, (wanted, hard))

    def _restore_limits(self) -> None:
        for number, before in self._limits.items():
            resource.setrlimit(number, before)

    def _execute(self) -> int:
        argv = [_raw(word) for word in self._order["argv"]]
        environment = dict(_raw(pair).split(b"=", 1) for pair in self._order["environment"])
        if b"TMPDIR" in environment:
            environment[b"TMPDIR"] = self._tmp_dir
        stage = f"executing {_shown(self._order['argv'][0])}"
        files = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, self.files.log, 1),
            (os.POSIX_SPAWN_DUP2, self.files.errors, 2),
        ]
        failure: OSError = FileNotFoundError(errno.ENOENT, "no such file")
        for path in _candidates(argv[0], environment.get(b"PATH", os.defpath.encode())):
            try:
                return os.posix_spawn(
                    path,
                    argv,
                    environment,
                    file_actions=files,
                    setpgroup=0,
                    setsigmask=(),
                    setsigdef=RESET_SIGNALS,
                )
            except ValueError as error:  # a NUL, a variable without a name
                raise StageFailed(stage, error) from error
            except OSError as error:
                # As execvpe does: what is there but may not be run is the better answer.
                if not isinstance(error, FileNotFoundError | NotADirectoryError):
                    failure = error
        raise StageFailed(stage, failure)


def _take(stage: str, step: Callable[[], None]) -> None:
    try:
        step()
    except (OSError, ValueError) as error:
        raise StageFailed(stage, error) from error


def _candidates(program: bytes, path: bytes) -> list[bytes]:
    """Where the job's own PATH finds the program, not the daemon's."""
    if b"/" in program:
        return [program]
    return [os.path.join(folder or b".", program) for folder in path.split(b":")]


def _open_for_appending(path: str) -> int:
    """Not to wait for the reader of a pipe that has none, and not to be given a terminal."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    fd = os.open(_raw(path), flags, 0o666)
    os.set_blocking(fd, True)
    return fd


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _shown(text: str) -> str:
    """For a sentence, which has to find room in a record: bytes that are not text as \\x.., no control
    characters, and no more of it than a path may be long."""
    readable = _raw(text).decode("utf-8", "backslashreplace")
    shown = readable if len(readable) <= LONGEST_SHOWN else readable[:LONGEST_SHOWN] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
