"""One process per attempt: starts the job, waits for all of it to end, and writes the record.

It lives in a session of its own and outlives daemon, launcher, upgrade and crash. It waits at the
gate, a socket to the daemon, for one order; if the gate closes first it leaves and nothing has run.
Standard library only, single-threaded. Order and record carry a version and only gain fields, so
that a runner of an older gpuq and a newer daemon understand each other.

What is on disk tells a later daemon the truth, whatever was killed in between:

    no `began`            the job never ran: the order never came, or came to a runner that died
    `began`, no `record`  it ran, and nobody knows how it ended
    `record`              it ended like that
"""

import errno
import json
import os
import resource
import shutil
import signal as signals
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from gpuq.daemon import linux, processes

VERSION = 1
BEGAN, RECORD = "began", "record"
HEADER = struct.Struct("!I")
MOST_FDS = 64

NOT_FOUND, NOT_EXECUTABLE, NOT_STARTED = 127, 126, 125
# Python and this runner ignore some, and so may whoever started the daemon (`nohup`, a shell's `&`):
# a job must find none ignored.
RESET_SIGNALS = signals.valid_signals() - {signals.SIGKILL, signals.SIGSTOP}

Message = dict[str, Any]


def main(gate_fd: int) -> int:
    """Waits at the gate, runs one order, writes its record."""
    gate = socket.socket(fileno=gate_fd)
    _become_runner()
    pid, start = processes.identity(os.getpid()) or (os.getpid(), 0)
    send(gate, {"version": VERSION, "hello": {"pid": pid, "start": start}})
    order, _locks = receive(gate)  # held until this process ends: GPU locks outlive the daemon
    if order is None:
        return 0
    record = _run(order, gate)
    _hand_in(order, record, gate)
    return 0


def _become_runner() -> None:
    os.setsid()
    linux.become_child_subreaper()
    for number in (signals.SIGTERM, signals.SIGHUP, signals.SIGINT):
        signals.signal(number, signals.SIG_IGN)  # its end is the job's end, never a stray signal
    signals.signal(signals.SIGCHLD, signals.SIG_DFL)
    signals.pthread_sigmask(signals.SIG_BLOCK, {signals.SIGCHLD})  # for sigtimedwait below
    _reset_oom_score()


def _reset_oom_score() -> None:
    """A daemon that the kernel is to spare must not pass that on to its jobs."""
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            if int(file.read()) < 0:
                file.write("0")
    except OSError:
        pass


# ─── the life of one job ─────────────────────────────────────────────────────────────────────────


def _run(order: Message, gate: socket.socket) -> Message:
    record: Message = {
        "version": VERSION,
        "job": order["job"],
        "attempt": order["attempt"],
        "nonce": order["nonce"],
        "boot_id": processes.boot_id(),
    }
    try:
        began = _begin(order)
    except OSError as error:
        return record | _not_started("making its directories", error)
    spawned = _Spawn(order)
    try:
        pid = spawned.start()
    except StageFailed as failed:
        spawned.clean_up()
        return record | failed.facts()
    finally:
        os.umask(0o077)
    _tell_running(gate, began, pid)
    record |= _wait_for_main(pid)
    record |= {"leftovers": _end_leftovers(order["grace_s"])}
    spawned.clean_up()
    return record


def _begin(order: Message) -> int:
    """Makes the directories, and `began`: from here on the job counts as having run."""
    os.umask(0o077)
    os.makedirs(order["attempt_dir"], mode=0o700, exist_ok=True)
    os.makedirs(order["output_dir"], exist_ok=True)
    path = _began(order["attempt_dir"], order["nonce"])
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


def _tell_running(gate: socket.socket, began: int, pid: int) -> None:
    own = processes.identity(pid)  # None where it has ended already
    start = own[1] if own is not None else None
    send(gate, {"running": {"pid": pid, "start": start, "at": time.time()}})
    try:  # for a daemon that adopts this attempt; the job does not depend on it
        os.write(began, f"{pid} {start or 0}\n".encode())
        os.close(began)
    except OSError:
        pass


def _wait_for_main(main_pid: int) -> Message:
    while True:
        pid, status, usage = os.wait4(-1, 0)
        if pid == main_pid:
            break
    code = os.waitstatus_to_exitcode(status)
    return {
        "ended_at": time.time(),
        "exit_code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "user_s": usage.ru_utime,
        "system_s": usage.ru_stime,
        "peak_rss_bytes": usage.ru_maxrss * 1024,
    }


def _end_leftovers(grace_s: float) -> int:
    """Ends what the main process left behind: TERM, the grace, KILL. Returns how many there were.

    Being a subreaper, it has every descendant as a child in the end, so "no children" proves that
    all are gone, however they forked.
    """
    if _no_children():
        return 0
    left = _signal_descendants(signals.SIGTERM)
    deadline = time.monotonic() + grace_s
    while not _no_children():
        if time.monotonic() >= deadline:
            _signal_descendants(signals.SIGKILL)
        signals.sigtimedwait({signals.SIGCHLD}, 0.05)
    return left


def _signal_descendants(number: int) -> int:
    found = processes.descendants(os.getpid())
    return sum(processes.send(pid, number, start=start) for pid, start in found.items())


def _no_children() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


# ─── starting it ─────────────────────────────────────────────────────────────────────────────────


class StageFailed(Exception):
    """The job could not be started; says at which step."""

    def __init__(self, stage: str, error: OSError | ValueError) -> None:
        super().__init__(stage)
        self.stage = stage
        self.error = error

    def facts(self) -> Message:
        return _not_started(self.stage, self.error)


def _not_started(stage: str, error: OSError | ValueError) -> Message:
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


class _Spawn:
    """The steps from the runner to the job, one ordered list.

    A runner that already is the user takes them itself and then spawns: a third faster than a
    forked child that takes them, because nothing of Python is copied. What a step changes in the
    runner is put back where the runner itself would suffer from it.
    """

    def __init__(self, order: Message) -> None:
        self._order = order
        self._log = self._stderr = -1
        self._has_tmp_dir = False
        self._limits: dict[int, tuple[int, int]] = {}

    def start(self) -> int:
        """The pid of the job's main process; StageFailed where a step failed."""
        order = self._order
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            ("setting its umask", self._set_umask),
            (f"changing directory to {_shown(order['cwd'])}", self._change_directory),
            (f"opening the log {_shown(order['log'])}", self._open_log),
            (f"opening {_shown(order.get('stderr') or '')}", self._open_stderr),
            (f"making its temporary directory {_shown(order['tmp_dir'])}", self._make_tmp_dir),
            ("setting its limits", self._set_limits),
        )
        try:
            for stage, step in steps:
                _take(stage, step)
            return self._execute()
        finally:
            self._restore_limits()
            self._close_log()

    def clean_up(self) -> None:
        """Removes the private temporary directory, if it is ours; its own links are not followed."""
        if self._has_tmp_dir:
            shutil.rmtree(_raw(self._order["tmp_dir"]), ignore_errors=True)

    def _set_umask(self) -> None:
        os.umask(self._order["umask"])

    def _change_directory(self) -> None:
        os.chdir(_raw(self._order["cwd"]))

    def _open_log(self) -> None:
        self._log = _open_for_appending(self._order["log"])

    def _open_stderr(self) -> None:
        if self._order.get("stderr"):
            self._stderr = _open_for_appending(self._order["stderr"])

    def _make_tmp_dir(self) -> None:
        os.mkdir(_raw(self._order["tmp_dir"]), 0o700)
        self._has_tmp_dir = True

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

    def _close_log(self) -> None:
        for fd in {self._log, self._stderr} - {-1}:
            os.close(fd)

    def _execute(self) -> int:
        argv = [_raw(word) for word in self._order["argv"]]
        environment = dict(_raw(pair).split(b"=", 1) for pair in self._order["environment"])
        stage = f"executing {_shown(self._order['argv'][0])}"
        files = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, self._log, 1),
            (os.POSIX_SPAWN_DUP2, self._stderr if self._stderr >= 0 else self._log, 2),
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
    """For a sentence: bytes that are not text as \\x.., and no control characters."""
    readable = _raw(text).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in readable)


# ─── record and gate ─────────────────────────────────────────────────────────────────────────────


def _hand_in(order: Message, record: Message, gate: socket.socket) -> None:
    """Writes the record, tells the daemon, and only then waits for the disk.

    The daemon's commit is the durable copy; this file is for a daemon that is away, and a rename
    without fsync survives everything but a power cut.
    """
    path = os.path.join(order["attempt_dir"], RECORD)
    fd = -1
    try:
        fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.write(fd, json.dumps(record).encode())
        os.rename(path + ".new", path)
    except OSError as error:  # the disk is full: the daemon, if it lives, still hears of it
        record["record_error"] = str(error)
    send(gate, {"ended": record})
    if fd >= 0:
        try:
            os.fsync(fd)
            folder = os.open(order["attempt_dir"], os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(folder)
        except OSError:
            pass


def read_record(attempt_dir: str, nonce: str) -> Message | None:
    """The record of that attempt; None where there is none, or an empty, cut or foreign one."""
    try:
        with open(os.path.join(attempt_dir, RECORD), "rb") as file:
            record = json.loads(file.read())
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("nonce") != nonce:
        return None
    if (record.get("exit_code") is None) == (record.get("signal") is None):
        return None  # it does not say how the attempt ended
    return record


def _began(attempt_dir: str, nonce: str) -> str:
    return os.path.join(attempt_dir, f"{BEGAN}-{nonce}")


def has_begun(attempt_dir: str, nonce: str) -> bool:
    return os.path.exists(_began(attempt_dir, nonce))


def main_process(attempt_dir: str, nonce: str) -> tuple[int, int] | None:
    """(pid, start) of the job, as its runner noted it in `began`."""
    try:
        with open(_began(attempt_dir, nonce)) as file:
            pid, start = file.read().split()
    except (OSError, ValueError):
        return None
    return int(pid), int(start)


def send(gate: socket.socket, message: Message) -> None:
    """A message of any length; a daemon that is gone is no matter."""
    data = json.dumps(message).encode()
    try:
        gate.sendall(HEADER.pack(len(data)) + data)
    except OSError:
        pass


def receive(gate: socket.socket) -> tuple[Message | None, list[int]]:
    """The next whole message with the descriptors that came along; None at the end of the
    connection, however far the message had come."""
    fds: list[int] = []
    header = _receive_exactly(gate, HEADER.size, fds)
    body = None if header is None else _receive_exactly(gate, HEADER.unpack(header)[0], fds)
    return (None if body is None else json.loads(body)), fds


def _receive_exactly(gate: socket.socket, size: int, fds: list[int]) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        try:
            chunk, came, _, _ = socket.recv_fds(gate, size - len(data), MOST_FDS)
        except OSError:
            return None
        for fd in came:
            os.set_inheritable(fd, False)
            fds.append(fd)
        if not chunk:
            return None
        data += chunk
    return bytes(data)
