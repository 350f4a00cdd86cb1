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
import socket
import stat
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO, cast

import structlog

import gpuq
from gpuq import config, paths
from gpuq.daemon import faults, own_log
from gpuq.daemon.check import command as check
from gpuq.daemon.clock import Clock
from gpuq.daemon.gpus import check_gpus
from gpuq.daemon.handlers import Handlers
from gpuq.daemon.loop import Loop
from gpuq.daemon.peer import Callers
from gpuq.daemon.reloading import Reloader
from gpuq.daemon.server import Server
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import NEEDS_A_PERSON, StoreDamaged
from gpuq.daemon.story import Story
from gpuq.daemon.systemd import install, uninstall
from gpuq.daemon.systemd.activation import given_socket
from gpuq.daemon.systemd.bus import Bus, find_address
from gpuq.daemon.systemd.host import Host
from gpuq.daemon.systemd.journal import Journal
from gpuq.daemon.systemd.notify import Notifier, notifier_of
from gpuq.daemon.systemd.scopes import Scopes
from gpuq.daemon.upkeep import backup
from gpuq.daemon.watchers import Watchers
from gpuq.errors import GpuqError, UsageError

# Where a daemon that is root finds programs, whoever started it with whatever environment.
TRUSTED_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
SCRUBBED = ("GPUQ_", "LISTEN_", "NOTIFY_", "WATCHDOG_", "JOURNAL_STREAM")
LOCK_TRIES, LOCK_AGAIN_S = 5, 0.02
MOST_DESCRIPTORS = 65536

HELP = """\
The daemon of gpuq. A setting is looked for among the flags, in the
environment and in the file with the settings, in this order, and else has its
default. What the file says is in force once it is saved; where that takes a
restart, `gpuq config` says so. SIGHUP has the file read again at once.
SIGTERM and SIGINT end the daemon: jobs go on, and the next one takes them over."""

FORMS_HELP = """\
SIZE is like 24G or 500M, TIME like 90s, 2h30m or 7d, BOOL is true or false.
LIST has commas between, and HOURS are like mon-fri 09:00-18:00, sat 10:00-14:00.
In the file the names have _ for -, and a text stands in quotes: keep_for = "7d"."""

CHECK_HELP = """\
Hold what gpuq promises against what is there: that the database is whole, no job is lost, none ran
twice without a reason, no GPU was given twice, nothing runs that has ended. It prints a sentence for
each promise that is broken and exits 1, or says that all is well. It changes nothing, and may be asked
beside a daemon that runs or without one."""

BACKUP_HELP = """\
Copy the database, whole and as of one moment, while the daemon lives or without one. Logs and what jobs
have put out are not in it.

To restore it: stop the daemon (gpuq daemon stop), copy FILE over gpuq.db in its state directory, remove
gpuq.db-wal and gpuq.db-shm if they lie there, and start it again (gpuq daemon start)."""

INSTALL_HELP = """\
Make of this installation a service of systemd: for the whole machine (--system, as root) or for you alone
(--user). Without either root installs for the machine and everybody else for themselves. It puts units,
completions and manual pages in place, starts the daemon, and says each thing that it does. Run again, it
repairs what is amiss, and after an upgrade it takes the running daemon over; jobs go on."""

UNINSTALL_HELP = """\
Stop the service, and remove what `gpuqd install` put there. Jobs go on. The queue, logs and settings stay,
and it says where they are."""

KEPT_GPUS = "gpus_given"

Deed = Callable[[config.Config, argparse.Namespace], int]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _FromSystemd:
    """What systemd had for us when it started us: nothing, where somebody else did."""

    notifier: Notifier
    journal: Journal | None
    socket: socket.socket | None


def main(arguments: Sequence[str] | None = None) -> None:
    """The `gpuqd` command."""
    if sys.stderr is None:  # `2>&-`
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as we live
    asked = make_parser().parse_args(arguments)
    is_to_serve = asked.deed is None and not asked.only_check
    notifier = notifier_of(os.environ) if is_to_serve else Notifier()
    try:
        settings = _settings(asked, os.environ)
        if asked.only_check:
            return
        if asked.deed is not None:
            sys.exit(asked.deed(settings, asked))
        _serve(settings, asked, notifier)
    except GpuqError as error:
        notifier.failed(error)
        print(f"gpuqd: {error}", file=sys.stderr)
        # Settings that are wrong are as wrong at the next start: systemd is not to try that again.
        is_lasting = is_to_serve and isinstance(error, UsageError)
        sys.exit(NEEDS_A_PERSON if is_lasting else error.exit_code)


def _serve(settings: config.Config, asked: argparse.Namespace, notifier: Notifier) -> None:
    journal = own_log.set_up(os.environ)
    given = given_socket(os.environ, settings.socket)
    systemd = _FromSystemd(notifier=notifier, journal=journal, socket=given)
    if settings.mode != "system":
        faults.arm(os.environ)
    _scrub_environment()
    if settings.mode == "system":
        os.environ["PATH"] = TRUSTED_PATH
    _make_state_dir(settings, must_be_empty=asked.throwaway is not None)
    os.chdir("/")
    os.umask(0o077)
    _raise_descriptor_limit()
    with _locked(settings):
        faults.here("main.locked")
        store = Store(os.path.join(settings.state_dir, paths.DATABASE_NAME))
        try:
            asyncio.run(_run(_with_kept_gpus(settings, store), store, asked, systemd))
        finally:
            store.close()
        if asked.throwaway is not None:
            shutil.rmtree(settings.state_dir, ignore_errors=True)


def _with_kept_gpus(settings: config.Config, store: Store) -> config.Config:
    """Which GPUs there are was said by whoever started it: a daemon that is started by itself, after a
    crash say, must not see other ones. What stands in the file is said for good, and is not kept."""
    origin = settings.origin("gpus")
    kept = store.seen.fact(KEPT_GPUS)
    if origin in ("default", config.BESIDE_SYSTEM):
        return settings if kept is None else settings.having("gpus", kept, config.AS_LAST_STARTED)
    given = settings.gpus if origin in ("--gpus", "GPUQ_GPUS") else None
    if given != kept:
        store.machine.note(KEPT_GPUS, given)
    return settings


async def _run(
    settings: config.Config, store: Store, asked: argparse.Namespace, systemd: _FromSystemd
) -> None:
    watchers, notifier = Watchers(), systemd.notifier
    telling = _tell_story(store, watchers, systemd.journal)
    system_bus, user_bus = _bus(system=True), _bus(system=False)
    scopes = Scopes(system_bus if settings.mode == "system" else user_bus, settings.scopes)
    loop = Loop(store, settings, watchers, notifier=notifier, scopes=scopes)
    handlers = Handlers(store, settings, loop, watchers)
    facts = {"pid": os.getpid(), "state_dir": settings.state_dir, "mode": settings.mode}
    machine = settings if settings.mode == "system" else None
    callers, is_open = Callers(machine), machine is not None
    server = Server(
        settings.socket, handlers.handle, facts, callers, is_open=is_open, given=systemd.socket
    )
    store.database.on_damage = _leave_with(loop)
    reloader = Reloader(
        settings,
        store,
        Clock(),
        read=lambda: _read_again(settings),
        on_change=loop.settings_changed,
        on_read=lambda: _tell_of_reading(notifier, loop),
    )
    host = Host(
        loop,
        store,
        settings,
        Clock(),
        notifier,
        system_bus=system_bus,
        user_bus=None if settings.mode == "system" else user_bus,
    )
    loop.on_look, handlers.host_notes = host.heed, host.notes
    _install_signals(loop, reloader, host, systemd)
    loop.start()
    await server.listen()
    turning = asyncio.ensure_future(loop.run())
    notifier.ready()
    _say_ready(settings, asked.ready_fd)
    if asked.throwaway is not None:
        _watch_for_eof(asked.throwaway, loop, handlers, store)
    reloading = asyncio.ensure_future(reloader.run())
    hosting = asyncio.ensure_future(host.run())
    reachable = asyncio.ensure_future(server.stay_reachable())
    leaving = asyncio.ensure_future(loop.stopping())
    tasks = (turning, reloading, hosting, reachable, telling, leaving)
    try:
        # A daemon that lives on without its loop is the worst state of all: the first to end,
        # by a fault or by a wish, ends all.
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        faults.here("main.leaving")
        notifier.stopping(f"leaving, jobs go on: {loop.stop_reason or 'a fault, see its log'}")
        await server.close(loop.stop_reason or "a fault, see its log", back=loop.is_replaced)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(system_bus.close(), user_bus.close())
    if store.database.damage is not None:
        raise store.database.damage
    log.info("left", why=loop.stop_reason)


def _bus(*, system: bool) -> Bus:
    """The machine's, or that of our own user; nobody is asked before something is."""
    return Bus(find_address(os.environ, system=system, uid=os.geteuid()))


def _tell_story(store: Store, watchers: Watchers, journal: Journal | None) -> asyncio.Future[None]:
    """From what comes next on."""
    if journal is None:
        return asyncio.get_running_loop().create_future()  # nobody is told, and it never ends
    return asyncio.ensure_future(Story(store.seen, watchers, journal).run())


def _tell_of_reading(notifier: Notifier, loop: Loop) -> None:
    """Whoever asked for it hears that the settings were read, and of what is wrong with them."""
    notifier.reloaded()
    loop.wake()


def _leave_with(loop: Loop) -> Callable[[StoreDamaged], None]:
    """Whoever read the damaged page, a request or the loop: nothing that follows could be trusted."""

    def leave(damage: StoreDamaged) -> None:
        log.critical("the database is damaged; jobs go on", why=str(damage))
        loop.ask_to_stop("its database is damaged")

    return leave


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpuqd",
        usage="gpuqd [OPTION ...] [COMMAND ...]",
        description=HELP,
        epilog=FORMS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gpuqd {gpuq.__version__}")
    parser.add_argument("--system", action="store_true", help="one daemon for the whole machine")
    parser.add_argument("--only-check", action="store_true", help="look at the settings, and leave")
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--throwaway", type=int, metavar="FD", help=argparse.SUPPRESS)
    parser.set_defaults(deed=None)
    for title, settings in config.GROUPS.items():
        group = parser.add_argument_group(f"settings, {title}")
        for setting in settings:
            group.add_argument(setting.flag, help=_help(setting), metavar=setting.form)
    deeds = parser.add_subparsers(title="in place of serving", metavar="COMMAND", prog="gpuqd")
    _add_check(deeds)
    _add_backup(deeds)
    _add_install(deeds)
    _add_uninstall(deeds)
    return parser


def _help(setting: config.Setting) -> str:
    default = "" if setting.default in (None, ()) else f" ({setting.show(setting.default)})"
    return f"{setting.help}{default}".replace("%", "%%")


def _add_deed(
    deeds: Any, name: str, deed: Deed, help: str, **texts: Any
) -> argparse.ArgumentParser:
    """A command that may say which daemon it means before its name or after it."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = deeds.add_parser(name, help=help, formatter_class=plain, **texts)
    parser.set_defaults(deed=deed)
    parser.add_argument("--system", action="store_true", default=argparse.SUPPRESS)
    for setting in config.SETTINGS:
        if setting.name in ("config", "state_dir", "socket"):
            options = {"metavar": setting.form, "default": argparse.SUPPRESS}
            parser.add_argument(setting.flag, help=setting.help, **options)
    return cast(argparse.ArgumentParser, parser)


def _add_check(deeds: Any) -> None:
    what = "hold its promises against what is there"
    parser = _add_deed(deeds, "check", _check, what, description=CHECK_HELP)
    parser.add_argument("file", nargs="?", help="only this database, such as a backup")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def _check(settings: config.Config, asked: argparse.Namespace) -> int:
    return check.run(settings.state_dir, settings.socket, file=asked.file, as_json=asked.json)


def _add_backup(deeds: Any) -> None:
    what = "copy the database, while the daemon lives"
    parser = _add_deed(deeds, "backup", _backup, what, description=BACKUP_HELP)
    parser.add_argument("file", help="where the copy goes")
    parser.add_argument(
        "--force", action="store_true", help="replace FILE where it is there already"
    )


def _backup(settings: config.Config, asked: argparse.Namespace) -> int:
    return backup.run(settings.state_dir, asked.file, force=asked.force)


def _add_install(deeds: Any) -> None:
    what = "make a service of it, for the machine or for you"
    parser = _add_deed(deeds, "install", _install, what, description=INSTALL_HELP)
    _add_whose(parser)
    parser.add_argument(
        "--force", action="store_true", help="replace files that are not from gpuqd install"
    )


def _install(settings: config.Config, asked: argparse.Namespace) -> int:
    return install.run(settings, force=asked.force, dry_run=asked.dry_run)


def _add_uninstall(deeds: Any) -> None:
    what = "undo that; the queue and its logs stay"
    parser = _add_deed(deeds, "uninstall", _uninstall, what, description=UNINSTALL_HELP)
    _add_whose(parser)


def _uninstall(settings: config.Config, asked: argparse.Namespace) -> int:
    return uninstall.run(settings, dry_run=asked.dry_run)


def _add_whose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", action="store_true", help="for you alone")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def _is_for_system(asked: argparse.Namespace) -> bool:
    """Who says nothing installs for whom they can."""
    is_own = getattr(asked, "user", None)
    if asked.system and is_own:
        raise UsageError("--system and --user: one of them")
    return bool(asked.system) or (is_own is False and os.geteuid() == 0)


def _settings(asked: argparse.Namespace, environ: Mapping[str, str]) -> config.Config:
    flags: dict[str, Any] = vars(asked)
    mode = "system" if _is_for_system(asked) else "throwaway" if asked.throwaway is not None else "user"
    return _checked(config.load(flags, environ, mode=mode))


def _read_again(settings: config.Config) -> config.Config:
    """What goes by the GPUs that we have goes on, though their scenario may be in pieces by now."""
    again = settings.read_again()
    return again if again.gpus == settings.gpus else _checked(again)


def _checked(settings: config.Config) -> config.Config:
    check_gpus(settings.gpus)
    return settings


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
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.stat(path)
        owner = found.st_uid
        if settings.mode == "system" and owner == os.geteuid():
            # Its users pass through, whatever our umask.
            os.chmod(path, stat.S_IMODE(found.st_mode) | 0o711)
    except OSError as error:
        raise GpuqError(f"cannot make the state directory {path}: {error.strerror}") from None
    if owner != os.geteuid():
        raise GpuqError(f"the state directory {path} belongs to uid {owner}, not to you")
    # Anybody may put a link into /var/tmp that leads to a directory of ours.
    if (linked_by := os.lstat(path).st_uid) not in (0, owner):
        raise GpuqError(
            f"the state directory {path} is a link that uid {linked_by} has made. Remove it, or give "
            f"another directory: --state-dir"
        )
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
        self._folder: int

    def __enter__(self) -> None:
        path = os.path.join(self._settings.state_dir, paths.LOCK_NAME)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file = open(fd, "r+", encoding="utf-8", errors="surrogateescape")
        if not _has_lock(fd, fcntl.LOCK_EX):
            holder = self._read_holder()
            self._file.close()
            raise GpuqError(
                f"{self._settings.state_dir} is served already, {holder}. See: gpuq daemon status"
            )
        self._keep_from_ageing()
        who = f"by gpuqd {gpuq.__version__}, pid {os.getpid()}"
        words = f"{who}\n{self._settings.socket}\n".encode(errors="surrogateescape")
        with suppress(OSError):  # on a full disk nobody can read who holds it
            os.ftruncate(fd, 0)
            os.pwrite(fd, words, 0)

    def __exit__(self, *_: object) -> None:
        self._file.close()
        os.close(self._folder)

    def _keep_from_ageing(self) -> None:
        """systemd-tmpfiles removes what lies in /var/tmp for long, but nothing below a directory that
        somebody has locked (tmpfiles.d(5))."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self._folder = os.open(self._settings.state_dir, flags)
        if not _has_lock(self._folder, fcntl.LOCK_SH):
            log.warning("not locked against ageing", folder=self._settings.state_dir)

    def _read_holder(self) -> str:
        """It may have taken the lock a moment ago and not yet have written its name."""
        for _ in range(100):
            self._file.seek(0)
            line = self._file.readline()
            if line.endswith("\n"):
                return line.strip()
            time.sleep(0.01)
        return "by a gpuqd that does not give its name"


def _has_lock(fd: int, kind: int) -> bool:
    """Others take it for a moment: `gpuqd check`, to see whether it can be had, systemd-tmpfiles to
    look at a directory."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_AGAIN_S)
        else:
            return True
    return False


def _install_signals(loop: Loop, reloader: Reloader, host: Host, systemd: _FromSystemd) -> None:
    running = asyncio.get_running_loop()
    # In a socket that systemd holds clients can wait for the next daemon, and whoever does has it
    # started.
    back = systemd.socket is not None
    running.add_signal_handler(signals.SIGTERM, lambda: host.leave("it got SIGTERM", back=back))
    running.add_signal_handler(signals.SIGINT, loop.ask_to_stop, "it got SIGINT")
    has_terminal = sys.stderr.isatty()

    def hang_up() -> None:
        """Also what the kernel says when the terminal is gone: nobody runs it any more then, and all
        that it says would fail."""
        if has_terminal and not sys.stderr.isatty():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
            loop.ask_to_stop("its terminal was closed")
        else:
            log.info("reading the settings again", why="it got SIGHUP")
            systemd.notifier.reloading()
            reloader.reload()

    running.add_signal_handler(signals.SIGHUP, hang_up)
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
