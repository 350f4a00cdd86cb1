"""The steps from a runner to the job that it starts, one ordered list. Standard library only.

Whoever takes them is the user by then: a runner that is the user itself, or a child of a root runner.
"""

from __future__ import annotations

import errno
import os
import resource
import stat

from gpuq.daemon.attempt.folders import remove_tree
from gpuq.daemon.attempt.mounts import has_mounts_below
from gpuq.daemon.attempt.stages import StageFailed, raw, shown, take
from gpuq.daemon.linux import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    Message = dict[str, Any]
    Result = TypeVar("Result")
    Limit = tuple[int, int]  # soft, hard

TMP_DIR = b"/tmp"
NEW_LINK = b".new"  # of the link to the latest output, until it takes the place of the old one
MAKING_DIRECTORIES, OPENING_REPORT = "making its directories", "opening its report"
WRITING_SCRIPT, SETTING_LIMITS = "writing its script", "setting its limits"
# Python and the runner ignore some, and so may whoever started the daemon (`nohup`, a shell's `&`):
# a job must find none ignored.
RESET_SIGNALS = signals.valid_signals() - {signals.SIGKILL, signals.SIGSTOP}


class Files:
    """What was opened as the user, for the job and for the runner that looks after it; -1: not.

    The runner itself opens nothing by a name that the user could turn elsewhere: it reads a log by
    `log_reader`, and looks at the report in the directory `folder`.
    """

    NAMES = ("log", "log_reader", "log_index", "stderr", "stderr_reader", "report", "folder")
    LOGS = NAMES[:5]

    def __init__(self, opened: Mapping[str, int] | None = None) -> None:
        self.log = self.log_reader = self.log_index = -1
        self.stderr = self.stderr_reader = -1
        self.report = self.folder = -1
        for name, fd in (opened or {}).items():
            setattr(self, name, fd)

    @property
    def errors(self) -> int:
        """Where the job's errors go: to the log, unless they have a file of their own."""
        return self.stderr if self.stderr >= 0 else self.log

    def opened(self) -> dict[str, int]:
        return {name: fd for name in self.NAMES if (fd := getattr(self, name)) >= 0}

    def close_logs(self) -> None:
        self._close(self.LOGS)

    def close(self) -> None:
        self._close(self.NAMES)

    def _close(self, names: tuple[str, ...]) -> None:
        for name in names:
            if (fd := getattr(self, name)) >= 0:
                os.close(fd)
            setattr(self, name, -1)


class Steps:
    """The job's order, carried out as far as the process that becomes the job."""

    def __init__(self, order: Message) -> None:
        self._order = order
        self.files = Files()
        self.tmp_dir = b""  # once it has been made
        self.environment = dict(raw(pair).split(b"=", 1) for pair in order["environment"])
        # By number: what they are now, and are to be, of those that are not the same.
        self._limits: dict[int, tuple[Limit, Limit]] | None = None

    def prepare(self) -> None:
        """All that comes before the job's own process; StageFailed where a step failed."""
        order = self._order
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            (MAKING_DIRECTORIES, self._make_directories),
            (WRITING_SCRIPT, self._write_script),
            ("making room for the id of its container", self._forget_container),
            ("setting its umask", self.set_umask),
            (f"changing directory to {shown(order['cwd'])}", self._change_directory),
            (f"opening the log {shown(order['log'])}", self._open_log),
            (f"opening {shown(order.get('stderr') or '')}", self._open_stderr),
            (OPENING_REPORT, self._open_report),
            (SETTING_LIMITS, self._compare_limits),
        )
        for stage, step in steps:
            take(stage, step)

    def make_tmp_dir(self) -> None:
        """Once the attempt is committed: of one that is not, nobody would know where it is."""
        wanted = shown(self._order["tmp_dir"])
        take(f"making its temporary directory {wanted}", self._make_tmp_dir)

    def set_umask(self) -> None:
        os.umask(self._order["umask"])

    def set_limits(self) -> None:
        take(SETTING_LIMITS, self._set_limits)

    def restore_limits(self) -> None:
        """For a runner, which must not suffer from what was meant for its job."""
        for number, (before, _) in (self._limits or {}).items():
            resource.setrlimit(number, before)

    def execute(
        self, program: Callable[[bytes, list[bytes], dict[bytes, bytes]], Result]
    ) -> Result:
        """`program(path, argv, environment)` with the first path that can be executed."""
        argv = [raw(word) for word in self._order["argv"]]
        if b"TMPDIR" in self.environment:
            self.environment[b"TMPDIR"] = self.tmp_dir
        stage = f"executing {shown(self._order['argv'][0])}"
        failure: OSError = FileNotFoundError(errno.ENOENT, "no such file")
        for path in _candidates(argv[0], self.environment.get(b"PATH", os.defpath.encode())):
            try:
                os.stat(path)  # to find out by an attempt that it is not there takes a fork
                return program(path, argv, self.environment)
            except ValueError as error:  # a NUL, a variable without a name
                raise StageFailed(stage, error) from error
            except OSError as error:
                # As execvpe does: what is there but may not be run is the better answer.
                if not isinstance(error, FileNotFoundError | NotADirectoryError):
                    failure = error
        raise StageFailed(stage, failure)

    def _make_directories(self) -> None:
        output_dir = raw(self._order["output_dir"])
        _make_dirs(output_dir)
        if link := self._order.get("output_link"):
            try:
                _link_to(output_dir, raw(link))
            except OSError:  # the user has put something else there: a job runs as well without
                pass

    def _write_script(self) -> None:
        """The text as it was at submit. What an earlier start may have left there is no file of ours:
        it may be a pipe that nobody reads, or a link."""
        if (script := self._order.get("script")) is None:
            return
        path = raw(script["path"])
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(path, flags, 0o700), "wb") as file:
            file.write(raw(script["text"]))

    def _forget_container(self) -> None:
        """Of an earlier start of this attempt: its client refuses to write where a file is."""
        if (container := self._order.get("container")) is None:
            return
        folder = os.path.dirname(raw(self._order["output_dir"]))
        try:
            os.unlink(os.path.join(folder, raw(container["id_file"])))
        except FileNotFoundError:
            pass

    def _change_directory(self) -> None:
        os.chdir(raw(self._order["cwd"]))

    def _open_log(self) -> None:
        """With an index of times beside it; a job runs as well without one."""
        is_named_by_user = self._order.get("log_cap_bytes") is None
        how = 0 if is_named_by_user else os.O_NOFOLLOW
        self.files.log = _open_for_appending(self._order["log"], how)
        self.files.log_reader = _open_for_reading(self.files.log)
        if self._order.get("log_index"):
            try:
                self.files.log_index = _open_for_appending(self._order["log_index"], os.O_NOFOLLOW)
            except OSError:
                pass

    def _open_stderr(self) -> None:
        if self._order.get("stderr"):
            self.files.stderr = _open_for_appending(self._order["stderr"])
            self.files.stderr_reader = _open_for_reading(self.files.stderr)

    def _open_report(self) -> None:
        if self._order.get("report"):
            folder, name = os.path.split(raw(self._order["report"]))
            self.files.folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self.files.report = os.open(name, flags, 0o600, dir_fd=self.files.folder)

    def _make_tmp_dir(self) -> None:
        wanted = raw(self._order["tmp_dir"])
        try:
            os.mkdir(wanted, 0o700)
        except OSError:
            if os.path.isdir(os.path.dirname(wanted)):
                raise
            # The submitter's is gone by now.
            wanted = os.path.join(TMP_DIR, os.path.basename(wanted))
            os.mkdir(wanted, 0o700)
        self.tmp_dir = wanted

    def _set_limits(self) -> None:
        if self._limits is None:
            self._compare_limits()
        for number, (_, wanted) in (self._limits or {}).items():
            resource.setrlimit(number, wanted)

    def _compare_limits(self) -> None:
        """Soft limits as the submitter had them. A hard limit is the least of what this process has
        and what the kernel told of the submitter's, so that no soft one is a claim to more."""
        self._limits = {}
        soft, hard = self._order["limits"], self._order.get("hard_limits") or {}
        for name in soft.keys() | hard.keys():
            number = getattr(resource, name, None) if name.startswith("RLIMIT_") else None
            if number is None:  # this system does not know it
                continue
            before = resource.getrlimit(number)
            most = _least(before[1], hard.get(name, resource.RLIM_INFINITY))
            wanted = _least(soft.get(name, before[0]), most), most
            if wanted != before:
                self._limits[number] = before, wanted


def remove_tmp_dir(tmp_dir: bytes) -> None:
    """Removes a job's private temporary directory; its own links are not followed.

    Whatever a job has made in there, how it ended is told all the same. Where it has mounted
    something in there, all of it stays: what is behind a mount is not ours.
    """
    try:
        os.rmdir(tmp_dir)  # most are empty, and one on which something is mounted is refused
        return
    except OSError:
        pass
    if has_mounts_below(tmp_dir):
        return
    try:
        remove_tree(tmp_dir)
    except RecursionError:  # a thousand folders deep, which rm does without recursion
        os.spawnv(os.P_WAIT, "/bin/rm", [b"rm", b"-rf", b"--", tmp_dir])


def _least(one: int, other: int) -> int:
    """Of two limits; RLIM_INFINITY is -1 in Python and the largest number to the kernel."""
    return min(one, other, key=lambda limit: limit % 2**64)


def _candidates(program: bytes, path: bytes) -> list[bytes]:
    """Where the job's own PATH finds the program, not the daemon's."""
    if b"/" in program:
        return [program]
    return [os.path.join(folder or b".", program) for folder in path.split(b":")]


def _make_dirs(path: bytes) -> None:
    """From the top down only where they are not there: of a job's three all are missing as a rule."""
    try:
        os.mkdir(path)
    except FileNotFoundError:
        _make_dirs(os.path.dirname(path))
        _make_dirs(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def _link_to(folder: bytes, link: bytes) -> None:
    """The link leads there by a relative path. Whoever looks finds the old one or the new one, and
    never none. One that was cut short before this has left its own behind."""
    leads_to, new = os.path.relpath(folder, os.path.dirname(link)), link + NEW_LINK
    try:
        os.symlink(leads_to, link)
        return
    except FileExistsError:  # of an earlier attempt
        pass
    try:
        os.unlink(new)
    except FileNotFoundError:
        pass
    os.symlink(leads_to, new)
    os.rename(new, link)


def _open_for_appending(path: str, how: int = 0) -> int:
    """Not to wait for the reader of a pipe that has none, and not to be given a terminal."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    fd = os.open(raw(path), flags | how, 0o666)
    os.set_blocking(fd, True)
    return fd


def _open_for_reading(log: int) -> int:
    """The same file once more; -1 where it is no file, or the user may write but not read it."""
    if not stat.S_ISREG(os.fstat(log).st_mode):
        return -1
    try:
        return os.open(f"/proc/self/fd/{log}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return -1
