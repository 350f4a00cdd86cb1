"""gpuqd: wires the rooms together, serves until it is told to leave, and leaves jobs running.

Everything is imported before it says that it is ready, so that an upgrade under a running daemon
never mixes two versions.
"""

import argparse
import asyncio
import fcntl
import os
import resource
import shutil
import signal as signals
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import structlog

import gpuq
from gpuq import config, paths
from gpuq.daemon.gpus import parse_gpus
from gpuq.daemon.handlers import Handlers
from gpuq.daemon.loop import Loop
from gpuq.daemon.server import Server
from gpuq.daemon.store import Store
from gpuq.daemon.watchers import Watchers
from gpuq.errors import GpuqError, UsageError

SCRUBBED = ("GPUQ_", "LISTEN_", "NOTIFY_", "WATCHDOG_")
LOCK_NAME = "lock"
MOST_DESCRIPTORS = 65536

log = structlog.get_logger()


def main(arguments: Sequence[str] | None = None) -> None:
    """The `gpuqd` command."""
    if sys.stderr is None:  # `2>&-`
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as we live
    asked = _parser().parse_args(arguments)
    try:
        settings = _settings(asked, os.environ)
        _serve(settings, asked)
    except GpuqError as error:
        print(f"gpuqd: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _serve(settings: config.Config, asked: argparse.Namespace) -> None:
    _set_up_logging()
    _scrub_environment()
    _make_state_dir(settings, must_be_empty=asked.throwaway is not None)
    os.chdir("/")
    os.umask(0o077)
    _raise_descriptor_limit()
    with _locked(settings):
        store = Store(os.path.join(settings.state_dir, paths.DATABASE_NAME))
        try:
            asyncio.run(_run(settings, store, asked))
        finally:
            store.close()
        if asked.throwaway is not None:
            shutil.rmtree(settings.state_dir, ignore_errors=True)


async def _run(settings: config.Config, store: Store, asked: argparse.Namespace) -> None:
    watchers = Watchers()
    loop = Loop(store, settings, watchers)
    handlers = Handlers(store, settings, loop, watchers)
    facts = {"pid": os.getpid(), "state_dir": settings.state_dir, "mode": settings.mode}
    server = Server(settings.socket, handlers.handle, facts)
    _install_signals(loop)
    loop.start()
    await server.listen()
    turning = asyncio.ensure_future(loop.run())
    _say_ready(settings, asked.ready_fd)
    if asked.throwaway is not None:
        _watch_for_eof(asked.throwaway, loop, handlers, store)
    leaving = asyncio.ensure_future(loop.stopping())
    try:
        # A daemon that lives on without its loop is the worst state of all: the first to end,
        # by a fault or by a wish, ends all.
        await asyncio.wait({turning, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if turning.done():
            turning.result()
    finally:
        await server.close(loop.stop_reason or "a fault, see its log", back=loop.is_replaced)
        for task in (turning, leaving):
            task.cancel()
        await asyncio.gather(turning, leaving, return_exceptions=True)
    log.info("left", why=loop.stop_reason)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpuqd", description="The daemon of gpuq. Settings: flag, environment, file, default."
    )
    parser.add_argument("--version", action="version", version=f"gpuqd {gpuq.__version__}")
    parser.add_argument("--system", action="store_true", help="one daemon for the whole machine")
    for setting in config.SETTINGS:
        flag = "--" + setting.name.replace("_", "-")
        parser.add_argument(flag, help=setting.help, metavar="VALUE")
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--throwaway", type=int, metavar="FD", help=argparse.SUPPRESS)
    return parser


def _settings(asked: argparse.Namespace, environ: Mapping[str, str]) -> config.Config:
    flags: dict[str, Any] = vars(asked)
    mode = "system" if asked.system else "throwaway" if asked.throwaway is not None else "user"
    settings = config.load(flags, environ, mode=mode)
    parse_gpus(settings.gpus)
    return settings


def _set_up_logging() -> None:
    """A line a person can read where a person looks, JSON elsewhere."""
    person = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=False)
            if person
            else structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _scrub_environment() -> None:
    """What was meant for us must not reach a job."""
    for name in list(os.environ):
        if name.startswith(SCRUBBED):
            del os.environ[name]


def _raise_descriptor_limit() -> None:
    """A connection or a running job takes one; a job gets the limit of its submitter."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _make_state_dir(settings: config.Config, *, must_be_empty: bool) -> None:
    path = settings.state_dir
    try:
        os.makedirs(path, mode=0o711 if settings.mode == "system" else 0o700, exist_ok=True)
        owner = os.stat(path).st_uid
    except OSError as error:
        raise GpuqError(f"cannot make the state directory {path}: {error.strerror}") from None
    if owner != os.geteuid():
        raise GpuqError(f"the state directory {path} belongs to uid {owner}, not to you")
    if (kind := paths.file_system_of(path)) in paths.NETWORK_FILE_SYSTEMS:
        raise UsageError(
            f"the state directory {path} is on {kind}: a queue needs a disk of this machine. "
            f"Give another: --state-dir /var/tmp/gpuq-{os.geteuid()}"
        )
    if must_be_empty and set(os.listdir(path)) - {paths.LOG_NAME}:
        raise UsageError(f"--throwaway removes the state directory, and {path} is not empty")


class _locked:
    """Holds the state directory for life. A lock goes with its process, so nothing needs cleaning
    after a crash; what the file says is only who to name to the next one that comes."""

    def __init__(self, settings: config.Config) -> None:
        self._settings = settings
        self._file: TextIO

    def __enter__(self) -> None:
        path = os.path.join(self._settings.state_dir, LOCK_NAME)
        self._file = open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._read_holder()
            self._file.close()
            raise GpuqError(
                f"{self._settings.state_dir} is served already, {holder}. See: gpuq daemon status"
            ) from None
        self._file.truncate(0)
        self._file.write(f"by gpuqd {gpuq.__version__}, pid {os.getpid()}\n")
        self._file.flush()

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read_holder(self) -> str:
        """It may have taken the lock a moment ago and not yet have written its name."""
        for _ in range(100):
            self._file.seek(0)
            line = self._file.readline()
            if line.endswith("\n"):
                return line.strip()
            time.sleep(0.01)
        return "by a gpuqd that does not give its name"


def _install_signals(loop: Loop) -> None:
    running = asyncio.get_running_loop()
    for number in (signals.SIGTERM, signals.SIGINT, signals.SIGHUP):
        running.add_signal_handler(number, loop.ask_to_stop, f"it got {number.name}")
    running.set_exception_handler(_end_on_fault(loop))


def _end_on_fault(loop: Loop) -> Any:
    def handle(running: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        running.default_exception_handler(context)
        if context.get("fatal"):
            loop.ask_to_stop("a fault, see its log")

    return handle


def _say_ready(settings: config.Config, ready_fd: int | None) -> None:
    log.info(
        "serving",
        version=gpuq.__version__,
        pid=os.getpid(),
        socket=settings.socket,
        gpus=settings.gpus,
    )
    if ready_fd is not None:
        os.write(ready_fd, b"\n")
        os.close(ready_fd)


def _watch_for_eof(fd: int, loop: Loop, handlers: Handlers, store: Store) -> None:
    """A throwaway daemon ends everything when whoever started it is gone, however it went."""
    running = asyncio.get_running_loop()

    def check() -> None:
        if not os.read(fd, 1):
            running.remove_reader(fd)
            handlers.end_everything("gpuqd")
            leave_when_empty()

    def leave_when_empty() -> None:
        if store.seen.jobs(ended=False, limit=1):
            running.call_later(0.05, leave_when_empty)
        else:
            loop.ask_to_stop("the process that started it is gone")

    os.set_blocking(fd, False)
    running.add_reader(fd, check)


if __name__ == "__main__":
    main()
