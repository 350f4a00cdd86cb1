"""What stands in the file with the settings is in force once it is saved.

The file is looked at and read in a thread: a home on a network may hang for minutes, and neither the
queue nor the daemon's leaving is to wait for it. What was read is taken over on the loop's thread. A
file that is wrong changes nothing.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from typing import Any

import structlog
from watchfiles import watch

from gpuq.config import Change, Config
from gpuq.daemon.clock import Clock
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.errors import UsageError

# inotify tells of what this machine writes: not of another one that writes to a shared file system,
# and of a chain of links only at its ends. So the file itself is looked at beside it.
LOOK_EVERY_S = 2.0
# News that come so close together are one, and it takes so long to leave.
STEP_S = 0.1
LEAVE_S = 1.0
# Whoever saves a file may empty or remove it first: what has stood still for so long is meant. A
# change within one tick of the kernel's clock, too, would not show in the times of the file.
STILL_S = 0.1
MOST_WAITS = 20

log = structlog.get_logger()


class Reloader:
    """`run` follows the file until it is cancelled. `read` gives what it says now, or raises
    UsageError; `on_change` is called whenever `config` says something else than before, `on_read`
    whenever the file has been read."""

    def __init__(
        self,
        config: Config,
        store: Store,
        clock: Clock,
        *,
        read: Callable[[], Config],
        on_change: Callable[[], None],
        on_read: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._read = read
        self._on_change = on_change
        self._on_read = on_read
        self._path: str = config.config
        self._mark: tuple[int, ...] | None = None  # of the file when it was last read
        self._nudge = threading.Event()
        self._is_asked = False
        self._is_leaving = False
        self._is_blind = False

    def reload(self) -> None:
        """Somebody says that the file is to be read, though it may not look changed."""
        self._is_asked = True
        self._nudge.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        findings: asyncio.Queue[Config | BaseException] = asyncio.Queue()

        def tell(found: Config | BaseException) -> None:
            with suppress(RuntimeError):  # the loop is closed: the daemon has left meanwhile
                loop.call_soon_threadsafe(findings.put_nowait, found)

        thread = threading.Thread(target=self._follow, args=(tell,), daemon=True)
        thread.start()
        try:
            while True:
                self._take(await findings.get())
                self._on_read()
        finally:
            self._is_leaving = True
            self._nudge.set()
            thread.join(LEAVE_S)  # no longer: a disk that hangs lets nobody go

    # ── in the thread ──

    def _follow(self, tell: Callable[[Config | BaseException], None]) -> None:
        try:
            while not self._is_leaving:
                self._nudge.clear()
                self._look(tell)
                self._watch(tell)
        except BaseException as fault:
            tell(fault)

    def _watch(self, tell: Callable[[Config | BaseException], None]) -> None:
        """Until it is nudged, or the file is to be watched elsewhere."""
        folders = _folders(self._path)
        with closing(self._news(folders)) as news:
            for _ in news:
                self._look(tell)
                if _folders(self._path) != folders:
                    return

    def _news(self, folders: Sequence[str]) -> Generator[None, None, None]:
        """Yields now and then, and when something has happened in these directories; ends when it is
        nudged, or when it cannot be told what happens there."""
        try:
            for _ in watch(
                *folders,
                watch_filter=None,
                debounce=int(LOOK_EVERY_S * 1000),
                step=int(STEP_S * 1000),
                rust_timeout=int(LOOK_EVERY_S * 1000),
                yield_on_timeout=True,
                stop_event=self._nudge,
                recursive=False,
                # Said here, or variables of the environment would say it.
                debug=False,
                force_polling=False,
                ignore_permission_denied=False,
            ):
                yield
        except (OSError, RuntimeError) as error:
            # A user has 128 instances of inotify, and editors take many; or a directory is gone.
            if not self._is_blind:
                log.info("changed settings are seen late", why=str(error), within_s=LOOK_EVERY_S)
            self._is_blind = True
            self._nudge.wait(LOOK_EVERY_S)

    def _look(self, tell: Callable[[Config | BaseException], None]) -> None:
        asked, self._is_asked = self._is_asked, False
        if _mark(self._path) == self._mark and not asked:
            return
        self._mark = self._wait_until_still()
        try:
            tell(self._read())
        except UsageError as error:
            tell(error)

    def _wait_until_still(self) -> tuple[int, ...]:
        mark = _mark(self._path)
        for _ in range(MOST_WAITS):
            time.sleep(STILL_S)
            before, mark = mark, _mark(self._path)
            if mark == before or self._is_leaving:
                break
        return mark

    # ── on the loop's thread ──

    def _take(self, found: Config | BaseException) -> None:
        if isinstance(found, UsageError):
            self._reject(str(found))
            return
        if isinstance(found, BaseException):
            raise found
        was_wrong, pending = self._config.fault is not None, self._config.pending
        changes = self._config.take_over(found)
        if changes or was_wrong:
            cause = _words(changes) or "the file can be read again, and changes nothing"
            self._tell("config_changed", cause, _detail(changes))
        if self._config.pending and self._config.pending != pending:
            wishes = self._config.pending
            cause = f"{_words(wishes)}: gpuq daemon restart"
            self._tell("restart_needed", cause, _detail(wishes))
        if changes:
            self._on_change()

    def _reject(self, fault: str) -> None:
        """Told once, however often it is found so."""
        if fault != self._config.fault:
            self._config.fault = fault
            self._tell("config_rejected", fault)

    def _tell(self, kind: str, cause: str, detail: Any = None) -> None:
        say = log.warning if kind == "config_rejected" else log.info
        say(kind.replace("_", " "), why=cause)
        try:
            self._store.machine.event(kind, now=self._clock.wall(), cause=cause, detail=detail)
        except DiskTrouble as trouble:
            log.error("an event could not be stored", kind=kind, why=str(trouble))


def _words(changes: Sequence[Change]) -> str:
    return "; ".join(f"{one.name} {one.before} → {one.after}" for one in changes)


def _detail(changes: Sequence[Change]) -> dict[str, dict[str, str]]:
    return {one.name: {"before": one.before, "after": one.after} for one in changes}


def _folders(path: str) -> list[str]:
    """Where its news would come from: its directory and that of the file that it is a link to, or the
    nearest ones that there are."""
    return sorted({_nearest(os.path.dirname(one)) for one in (path, os.path.realpath(path))})


def _nearest(folder: str) -> str:
    while folder != "/" and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def _mark(path: str) -> tuple[int, ...]:
    """Another one once the file has been written, replaced, removed, or linked elsewhere."""
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
