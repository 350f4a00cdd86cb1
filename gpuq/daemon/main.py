"""gpuqd: wires the rooms together, serves until it is told to leave, and leaves jobs running.

Everything is imported before it says that it is ready, so that an upgrade under a running daemon
never mixes two versions.
"""

from gpuq.daemon import left_out  # noqa: F401 - first, before what would take it along

# isort: split
import argparse
import asyncio
import os
import resource
import shutil
import signal as signals
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

import gpuq
from gpuq import config, paths
from gpuq.daemon import faults, own_log
from gpuq.daemon.callers.peer import Callers
from gpuq.daemon.clock import Clock
from gpuq.daemon.command_line import make_parser, read_again, settings_of
from gpuq.daemon.loop import Loop
from gpuq.daemon.metrics.textfile import Textfile
from gpuq.daemon.reloading import Reloader
from gpuq.daemon.requests.handlers import Handlers
from gpuq.daemon.requests.metrics import ANYBODY
from gpuq.daemon.server import Server
from gpuq.daemon.spool.watch import Spool
from gpuq.daemon.state_dir import StateLock, make_state_dir
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import NEEDS_A_PERSON, StoreDamaged
from gpuq.daemon.story import Story
from gpuq.daemon.systemd.activation import given_socket
from gpuq.daemon.systemd.bus import Bus, find_address
from gpuq.daemon.systemd.host import Host
from gpuq.daemon.systemd.journal import Journal
from gpuq.daemon.systemd.notify import Notifier, notifier_of
from gpuq.daemon.systemd.scopes import Scopes
from gpuq.daemon.watchers import Watchers
from gpuq.errors import GpuqError, UsageError

SCRUBBED = ("GPUQ_", "LISTEN_", "NOTIFY_", "WATCHDOG_", "JOURNAL_STREAM")
MOST_DESCRIPTORS = 65536

KEPT_GPUS = "gpus_given"

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
        settings = settings_of(asked, os.environ)
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
    if settings.mode == "system" and os.geteuid() != 0:
        raise UsageError(
            "gpuqd --system runs jobs as the people who submit them, which only root can: start it as "
            "root. Your own daemon: gpuqd, or gpuq daemon start"
        )
    if settings.mode != "system":
        faults.arm(os.environ)
    _scrub_environment()
    if settings.mode == "system":
        os.environ["PATH"] = paths.TRUSTED_PATH
    make_state_dir(settings, must_be_empty=asked.throwaway is not None)
    os.chdir("/")
    os.umask(0o077)
    _raise_descriptor_limit()
    with StateLock(settings):
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
    kept = store.machine.fact(KEPT_GPUS)
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
    spool = Spool(settings)
    server = Server(
        settings.socket, handlers.handle, facts, callers, is_open=is_open, given=systemd.socket
    )
    store.database.on_damage = _leave_with(loop)
    reloader = Reloader(
        settings,
        store,
        Clock(),
        read=lambda: read_again(settings),
        on_change=lambda: _tell_of_change(loop, spool, textfile),
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
    loop.on_look, handlers.open_spool = host.heed, spool.open
    metrics = handlers.metrics
    loop.turn_took, store.database.commit_took = metrics.turns.note, metrics.commits.note
    textfile = Textfile(settings, lambda: metrics.text(ANYBODY), metrics.keep)
    handlers.host_notes = lambda: [*host.notes(), *spool.notes()]
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
    spooling = asyncio.ensure_future(spool.run())
    writing = asyncio.ensure_future(textfile.run())
    leaving = asyncio.ensure_future(loop.stopping())
    try:
        await _until_first_ends(
            (turning, reloading, hosting, reachable, spooling, writing, telling, leaving),
            loop,
            server,
            notifier,
        )
    finally:
        await asyncio.gather(system_bus.close(), user_bus.close())
    if store.database.damage is not None:
        raise store.database.damage
    log.info("left", why=loop.stop_reason)


async def _until_first_ends(
    tasks: Sequence[asyncio.Future[None]], loop: Loop, server: Server, notifier: Notifier
) -> None:
    """A daemon that lives on without its loop is the worst state of all: the first to end, by a fault
    or by a wish, ends all."""
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        faults.here("main.leaving")
        why = loop.stop_reason or "a fault, see its log"
        notifier.stopping(f"leaving, jobs go on: {why}")
        await server.close(why, back=loop.is_replaced)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _bus(*, system: bool) -> Bus:
    """The machine's, or that of our own user; nobody is asked before something is."""
    return Bus(find_address(os.environ, system=system, uid=os.geteuid()))


def _tell_story(store: Store, watchers: Watchers, journal: Journal | None) -> asyncio.Future[None]:
    """From what comes next on."""
    if journal is None:
        return asyncio.get_running_loop().create_future()  # nobody is told, and it never ends
    return asyncio.ensure_future(Story(store.told, watchers, journal).run())


def _tell_of_change(loop: Loop, spool: Spool, textfile: Textfile) -> None:
    loop.settings_changed()
    spool.settings_changed()
    textfile.settings_changed()


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
        if store.found.jobs(ended=False, limit=1):
            running.call_later(0.05, leave_when_empty)
        else:
            loop.ask_to_stop("the process that started it is gone")

    os.set_blocking(fd, False)
    running.add_reader(fd, check)


if __name__ == "__main__":
    main()
