"""One blocking Client: the only door to the daemon, for the command line, the screen and your code.

    from gpuq import Client

    with Client() as gpuq:
        job = gpuq.submit(["python", "train.py", "--lr", "0.1"], gpus=2)
        print(gpuq.wait([job])[0]["outcome"])

It blocks, so inside a running event loop call it from a thread. It reconnects by itself when the
daemon is restarted: every request can be asked twice without being done twice. On the start-up path
of every command: standard library only, and no more of it than this needs.
"""

import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import gpuq
from gpuq import paths, protocol
from gpuq.errors import DaemonUnreachable, GpuqError, NothingMatched, UsageError, WaitTimedOut

ANSWER_S = 60.0
RESTART_S = 30.0  # how long a client waits for a daemon that is being replaced
WAIT_SLICE_S = 30.0  # of one request, so that a dead daemon is noticed
CHUNK = 256 * 1024

Job = dict[str, Any]
Refs = Iterable[int | str] | int | str  # jobs by id, "12-18", "@", "g12"; one or several


class Address:
    """Where the daemon is looked for, how that was decided, and whether it may be started there."""

    __slots__ = ("may_start", "origin", "socket", "state_dir")

    def __init__(self, socket: str, origin: str, state_dir: str | None, may_start: bool) -> None:
        self.socket = socket
        self.origin = origin
        self.state_dir = state_dir
        self.may_start = may_start


def locate(socket: str | None = None, state_dir: str | None = None) -> Address:
    """Which daemon is meant: what is given, then the machine's, then your own."""
    environ = os.environ
    if socket or environ.get("GPUQ_SOCKET"):
        origin = "--socket" if socket else "GPUQ_SOCKET"
        path = os.path.abspath(socket or environ["GPUQ_SOCKET"])
        return Address(path, origin, state_dir, may_start=False)
    if state_dir or environ.get("GPUQ_STATE_DIR"):
        origin = "--state-dir" if state_dir else "GPUQ_STATE_DIR"
        return _in_state_dir(os.path.abspath(state_dir or environ["GPUQ_STATE_DIR"]), origin)
    if configured := _from_config_file():
        return configured
    if paths.has_system_daemon():
        return Address(paths.SYSTEM_SOCKET, "the machine's daemon", None, may_start=False)
    default = paths.default_state_dir(environ, os.geteuid())
    return _in_state_dir(default, "your own daemon's default place")


def _in_state_dir(state_dir: str, origin: str) -> Address:
    allowed = os.environ.get("GPUQ_AUTOSTART", "1") != "0" and "GPUQ_JOB_ID" not in os.environ
    return Address(os.path.join(state_dir, paths.SOCKET_NAME), origin, state_dir, allowed)


def _from_config_file() -> Address | None:
    """A config file may move the state directory. Read only where there is one: it costs time."""
    path = os.environ.get("GPUQ_CONFIG") or paths.default_config(os.environ)
    if not os.path.exists(path):
        return None
    from gpuq.config import read_file

    values = read_file(path)
    if values.get("socket"):
        return Address(values["socket"], path, values.get("state_dir"), may_start=False)
    if values.get("state_dir"):
        return _in_state_dir(values["state_dir"], path)
    return None


class Client:
    """A connection to the daemon, made at the first request.

    `autostart` starts your own daemon where none runs and none is installed for the machine; what
    was started is said through `say`.
    """

    def __init__(
        self,
        socket: str | None = None,
        state_dir: str | None = None,
        *,
        autostart: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.address = locate(socket, state_dir)
        self.daemon: Job = {}  # what its hello said
        self._autostart = autostart and self.address.may_start
        self._say = say or (lambda line: None)
        self._socket: _Line | None = None
        self._next_id = 0
        self._was_connected = False

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # ── requests ──

    def call(self, do: str, *, answer_s: float | None = ANSWER_S, **arguments: Any) -> Job:
        """One request and its answer; an error of the daemon is raised as it was there.

        `answer_s` bounds the wait for the answer (None: as long as it takes); it never ends a job.
        """
        deadline = time.monotonic() + RESTART_S
        while True:
            try:
                return self._ask(do, answer_s, arguments)
            except _Gone as gone:
                self.close()
                if gone.for_good or not self._was_connected or time.monotonic() > deadline:
                    raise DaemonUnreachable(str(gone)) from None
                time.sleep(0.1)

    def submit(self, argv: Sequence[str], **options: Any) -> int:
        """Queues one job and returns its id. It is on disk when this returns.

        Options are those of `gpuq submit`: gpus, gpu_mem_bytes, exclusive, gpu_model, cpus, name,
        priority, cwd, env (a dict set over this process's environment), grace_s, tags, output,
        stderr, visible, seed.
        """
        return self.submit_many([dict(options, argv=list(argv))])[0]

    def submit_many(self, jobs: Sequence[Job]) -> range:
        """Queues several jobs in one go, all or none; returns their ids."""
        environment = _capture_environment()
        digest = _digest(environment)
        specs = [_spec(job) for job in jobs]
        request: Job = {"jobs": specs, "env_hash": digest, "token": os.urandom(12).hex()}
        answer = self.call("submit", **request)
        if answer.get("wanted") == "environment":
            answer = self.call("submit", environment=environment, **request)
        return range(answer["first"], answer["first"] + answer["count"])

    def jobs(self, refs: Refs = (), **filters: Any) -> list[Job]:
        """Jobs as `gpuq status --json` shows them; without refs the active ones."""
        jobs: list[Job] = []
        before: int | None = None
        limit = filters.pop("limit", None)
        while True:
            page = self.call(
                "status", refs=_names(refs), before=before, limit=limit, **filters
            )
            jobs += page["jobs"]
            before = page.get("before")
            if before is None or (limit is not None and len(jobs) >= limit):
                return sorted(jobs, key=lambda job: int(job["id"]))

    def job(self, ref: int | str) -> Job:
        """One job with its attempts, as `gpuq show --json` has it."""
        answer: Job = self.call("show", ref=str(ref))["job"]
        return answer

    def wait(
        self, refs: Refs, *, any_: bool = False, timeout_s: float | None = None
    ) -> list[Job]:
        """Waits until all of the jobs have ended, or the first (`any_`); returns those ended.

        Raises WaitTimedOut after `timeout_s`, and leaves the jobs alone.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        names = _names(refs)
        while True:
            left = WAIT_SLICE_S if deadline is None else max(deadline - time.monotonic(), 0.0)
            slice_s = min(left, WAIT_SLICE_S)
            answer = self.call("wait", refs=names, any=any_, timeout_s=slice_s)
            if not answer["timed_out"]:
                return self.jobs([answer["ended"]])
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimedOut(f"not all ended within {timeout_s:g} s: {' '.join(names)}")

    def kill(self, refs: Refs, **how: Any) -> list[Job]:
        """Ends jobs: `grace_s` between TERM and KILL (0: KILL at once), or `signal` to send one
        signal without ending. Returns what was done to each."""
        answer = self.call("kill", refs=_names(refs), **how)
        done: list[Job] = answer["jobs"]
        return done

    def gpus(self) -> Job:
        return self.call("gpus")

    def follow(
        self, ref: int | str, *, attempt: int | None = None, tail: int | None = None
    ) -> "Follow":
        """The log of a job from before its start to its end, as chunks of bytes."""
        return Follow(self, ref, attempt, tail)

    # ── the line ──

    def _ask(self, do: str, answer_s: float | None, arguments: Job) -> Job:
        self._next_id += 1
        request = protocol.encode({"id": self._next_id, "do": do, **arguments})
        if len(request) > protocol.FRAME_LIMIT:
            raise UsageError(
                f"this {do} takes {len(request) // 2**20 + 1} MiB; a daemon takes "
                f"{protocol.FRAME_LIMIT // 2**20} MiB in one go. Split it"
            )
        line = self._socket or self._connect()
        line.send(request)
        answer = line.receive(answer_s, self._next_id)
        if "error" in answer:
            protocol.raise_failure(answer["error"])
        result: Job = answer["ok"]
        return result

    def _connect(self) -> "_Line":
        try:
            line = _Line(self.address.socket)
        except OSError as error:
            line = self._connect_otherwise(error)
        self._socket = line
        line.send(protocol.encode(protocol.hello(gpuq.__version__)))
        self.daemon = line.receive(ANSWER_S, None).get("hello", {})
        self._was_connected = True
        return line

    def _connect_otherwise(self, error: OSError) -> "_Line":
        """Nobody listens there: it is being restarted, or it is to be started, or there is none."""
        if self._was_connected:
            raise _Gone(f"the daemon at {self.address.socket} went away") from None
        if self._autostart and isinstance(error, FileNotFoundError | ConnectionRefusedError):
            from gpuq.autostart import start_own_daemon

            self._say(start_own_daemon(self.address))
            return _Line(self.address.socket)
        if self.address.socket == paths.SYSTEM_SOCKET and not isinstance(error, PermissionError):
            return self._wait_for_system_daemon()
        raise DaemonUnreachable(_why_unreachable(self.address, error)) from None

    def _wait_for_system_daemon(self) -> "_Line":
        deadline = time.monotonic() + RESTART_S
        while time.monotonic() < deadline:
            time.sleep(0.1)
            try:
                return _Line(self.address.socket)
            except OSError:
                continue
        raise DaemonUnreachable(
            f"this machine's daemon does not answer at {self.address.socket}. "
            "See: systemctl status gpuqd"
        )


class Follow:
    """Iterates over a log as it grows; `job` is the job as it was when the log ended.

    Following is a stat ten times a second: no daemon, no inotify, works on any file system.
    """

    def __init__(
        self, client: Client, ref: int | str, attempt: int | None, tail: int | None
    ) -> None:
        self._client = client
        self._attempt = attempt
        self._tail = tail
        self.job = client.job(ref)

    def __iter__(self) -> Iterator[bytes]:
        """Chunks until the job has ended; an empty one says that nothing came for a while."""
        number = self.job["id"]
        while self.job["state"] == "queued":
            yield b""
            self._client.call("wait", refs=[str(number)], timeout_s=0.5, started=True)
            self.job = self._client.job(number)
        with _Tail(self._log_path(), self._tail) as log:
            while self.job["state"] != "ended":
                yield from log.read()
                yield b""
                if self._client.call("wait", refs=[str(number)], timeout_s=0.1)["timed_out"]:
                    continue
                self.job = self._client.job(number)
            yield from log.read()

    def _log_path(self) -> str | None:
        if self._attempt is None:
            path: str | None = self.job["log"]
            return path
        for attempt in self.job["attempts"]:
            if attempt["attempt"] == self._attempt:
                found: str | None = attempt["log"]
                return found
        raise NothingMatched(f"job {self.job['id']} has no attempt {self._attempt}")


class _Tail:
    """A file that may not be there yet, read as it grows."""

    def __init__(self, path: str | None, lines: int | None) -> None:
        self._path = path
        self._lines = lines
        self._fd: int | None = None

    def __enter__(self) -> "_Tail":
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def read(self) -> Iterator[bytes]:
        if self._fd is None and not self._open():
            return
        assert self._fd is not None
        while chunk := os.read(self._fd, CHUNK):
            yield chunk

    def _open(self) -> bool:
        if self._path is None:
            return False
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        if self._lines is not None:
            os.lseek(self._fd, start_of_last_lines(self._fd, self._lines), os.SEEK_SET)
        return True


def start_of_last_lines(fd: int, lines: int) -> int:
    """The offset at which the last `lines` lines of a file begin, found from its end."""
    end = position = os.lseek(fd, 0, os.SEEK_END)
    if lines <= 0:
        return end
    seen = 0
    while position > 0:
        start = max(position - CHUNK, 0)
        block = os.pread(fd, position - start, start)
        cut = len(block)
        while (cut := block.rfind(b"\n", 0, cut)) >= 0:
            if start + cut + 1 == end:
                continue  # the newline that closes the last line opens no other
            seen += 1
            if seen == lines:
                return start + cut + 1
        position = start
    return 0


class _Gone(Exception):
    """The daemon left, for good (it said so) or not."""

    def __init__(self, why: str, *, for_good: bool = False) -> None:
        super().__init__(why)
        self.for_good = for_good


class _Line:
    """Lines over a Unix socket. Nothing is sent before the kernel has told who listens."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._buffer = bytearray()
        try:
            paths.connect(self._socket, path)
            self._check_peer()
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise _Gone(f"the daemon at {self._path} went away: {error}") from None

    def receive(self, answer_s: float | None, request_id: int | None) -> Job:
        """The hello (request_id None), or the answer to a request."""
        deadline = None if answer_s is None else time.monotonic() + answer_s
        while True:
            message = protocol.decode(self._line(deadline))
            if "bye" in message:
                raise _Gone(f"the daemon was stopped: {message['bye']}", for_good=True)
            if request_id is None or message.get("id") in (request_id, None):
                return message

    def _line(self, deadline: float | None) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            try:
                left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
                self._socket.settimeout(left)
                data = self._socket.recv(CHUNK)
            except TimeoutError:
                raise DaemonUnreachable(
                    f"the daemon at {self._path} did not answer in time. See: gpuq daemon status"
                ) from None
            except OSError as error:
                raise _Gone(f"the daemon at {self._path} went away: {error}") from None
            if not data:
                raise _Gone(f"the daemon at {self._path} closed the connection")
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _check_peer(self) -> None:
        """A socket that somebody else put there gets neither environment nor command."""
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        uid = struct.unpack("3i", raw)[1]
        if uid not in (0, os.geteuid()):
            raise GpuqError(
                f"the socket {self._path} is served by uid {uid}, which is neither you nor root; "
                "nothing was sent to it"
            )


def _names(refs: Refs) -> list[str]:
    """One text is one reference, not a list of its signs."""
    return [str(refs)] if isinstance(refs, int | str) else [str(ref) for ref in refs]


def _capture_environment() -> list[str]:
    """NAME=value as text, sorted, so that equal environments have equal hashes."""
    return sorted(
        f"{name}={value}" for name, value in os.environ.items() if not protocol.is_dropped(name)
    )


def _digest(environment: list[str]) -> str:
    from hashlib import sha256

    joined = "".join(variable + "\0" for variable in environment)
    return sha256(joined.encode("utf-8", "surrogateescape")).hexdigest()


def _spec(options: Job) -> Job:
    """A job as it goes over the wire, with what this process would have given to a child."""
    spec = {name: value for name, value in options.items() if value is not None}
    spec["argv"] = [os.fspath(word) for word in spec["argv"]]
    spec["cwd"] = os.path.abspath(spec.get("cwd") or _working_directory())
    for field in ("output", "stderr"):
        if field in spec:
            spec[field] = os.path.join(spec["cwd"], spec[field])
    spec["changes"] = spec.pop("env", {})
    spec.setdefault("umask", _umask())
    spec.setdefault("limits", _soft_limits())
    spec.setdefault("seed", int.from_bytes(os.urandom(4), "little"))
    return spec


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise GpuqError("this directory no longer exists: change to one that does") from None


def _umask() -> int:
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _soft_limits() -> dict[str, int]:
    import resource

    return {
        name: resource.getrlimit(getattr(resource, name))[0]
        for name in protocol.LIMITS
        if hasattr(resource, name)
    }


def _why_unreachable(address: Address, error: OSError) -> str:
    where = f"{address.socket} (from {address.origin})"
    if isinstance(error, PermissionError):
        return f"you may not use the daemon at {where}: {error.strerror}"
    return f"no daemon answers at {where}. Start one: gpuq daemon start"


def is_inside_job() -> bool:
    return "GPUQ_JOB_ID" in os.environ


def is_terminal() -> bool:
    return sys.stdout.isatty()
