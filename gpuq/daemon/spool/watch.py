"""Watches the spool folders, and starts the process that empties one as its user.

Of each user one at a time, and beside each other: one that hangs, or that never has enough, keeps
nobody else's from being emptied. What a process does not manage is tried again, later each time.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from gpuq import paths
from gpuq.config import Config
from gpuq.daemon import faults
from gpuq.daemon.callers import names
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.linux.syscalls import FolderNews
from gpuq.daemon.spool import folders
from gpuq.daemon.upkeep.aside import aside
from gpuq.errors import GpuqError, NotPermitted
from gpuq.protocol import SPOOL_LATER, SPOOL_MORE

SETTLE_S = 0.05  # so close together what is dropped is one piece of news
PAUSE_S = 1.0  # from the end of one process to the next of the same user
LATER_S, LONGEST_LATER_S = 1.0, 60.0  # until what is not ready yet is looked at again
DEADLINE_S = 60.0
MOST_AT_ONCE = 64  # processes; of one user there is one
BLIND_S = 5.0  # from one look to the next where the kernel tells nothing

log = structlog.get_logger()


@dataclass(slots=True)
class _Box:
    """A user's folder, and what is to be done there."""

    uid: int
    path: str
    has_news: bool = False
    rests_until: float = 0.0  # CLOCK_MONOTONIC, s
    later_s: float = LATER_S
    is_wrong: bool = False  # as it was when it was last looked at
    work: "asyncio.Task[None] | None" = None


class Spool:
    """`open` makes a user's folder; `run` follows all of them until it is cancelled."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._boxes: dict[int, _Box] = {}
        self._by_watch: dict[int, _Box] = {}
        self._news: FolderNews | None = None  # while it runs
        self._at_once = asyncio.Semaphore(MOST_AT_ONCE)
        self._processes: set[subprocess.Popen[bytes]] = set()

    async def open(self, peer: Peer) -> str:
        """The caller's own folder."""
        if not self._config.spool:
            raise GpuqError(
                "this daemon takes no files from spool folders (spool = false in "
                f"{self._config.config}). Use gpuq submit"
            )
        if not self._may_have_jobs(peer.uid):
            raise NotPermitted(
                "root may not submit jobs here, and so has no spool folder; an admin may set "
                f"allow_root_jobs = true in {self._config.config}"
            )
        if self._config.mode == "system" and await names.users.get(peer.uid) is None:
            raise NotPermitted(f"uid {peer.uid} is no user of this machine")
        path = folders.make_folder(self._config.state_dir, peer.uid, peer.gid)
        faults.here("spool.made")
        self._nudge(self._watch(peer.uid))
        return path

    def notes(self) -> list[str]:
        """What is wrong with folders that are there."""
        if not self._config.spool:
            return []
        troubles = (folders.trouble_with(box.path, box.uid) for box in self._boxes.values())
        return [trouble for trouble in troubles if trouble is not None]

    def settings_changed(self) -> None:
        """They may be watched again, or a user may have jobs who might not."""
        for box in self._boxes.values():
            self._nudge(box)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self._news = _news()
        for uid in folders.known_users(self._config.state_dir):
            self._nudge(self._watch(uid))
        if self._news is not None:
            loop.add_reader(self._news.fd, self._take_news)
        try:
            while True:
                await asyncio.sleep(BLIND_S)
                self._look_again()
        finally:
            if self._news is not None:
                loop.remove_reader(self._news.fd)
                self._news.close()
            await self._leave()

    # ── noticed ──

    def _watch(self, uid: int) -> _Box:
        box = self._boxes.get(uid)
        if box is None:
            path = folders.folder_of(self._config.state_dir, uid)
            box = self._boxes[uid] = _Box(uid, path)
        if self._news is not None:
            with suppress(OSError):  # where it is wrong the notes say so
                self._by_watch[self._news.watch(box.path)] = box  # the same as before, if any
        return box

    def _take_news(self) -> None:
        assert self._news is not None
        told = self._news.read()
        touched = self._boxes.values() if told is None else map(self._by_watch.get, told)
        for box in touched:
            if box is not None:
                self._nudge(box)

    def _look_again(self) -> None:
        """Where the kernel does not tell of what happens, or of an owner or a mode put right."""
        watched = {box.uid for box in self._by_watch.values()}
        for box in list(self._boxes.values()):
            if box.uid not in watched or box.is_wrong:
                self._nudge(self._watch(box.uid))

    def _nudge(self, box: _Box) -> None:
        box.has_news = True
        if box.work is None or box.work.done():
            box.work = asyncio.ensure_future(self._serve(box))

    # ── emptied ──

    async def _serve(self, box: _Box) -> None:
        while box.has_news:
            await asyncio.sleep(max(box.rests_until - time.monotonic(), SETTLE_S))
            box.has_news = False
            if not await aside(lambda: self._is_to_be_emptied(box)):
                continue
            async with self._at_once:
                code = await aside(lambda: self._empty(box))
            box.rests_until = time.monotonic() + PAUSE_S
            self._heed(box, code)

    def _is_to_be_emptied(self, box: _Box) -> bool:
        if not self._config.spool or not self._may_have_jobs(box.uid):
            return False
        box.is_wrong = folders.trouble_with(box.path, box.uid) is not None
        return not box.is_wrong and folders.has_files(box.path)

    def _may_have_jobs(self, uid: int) -> bool:
        return uid != 0 or self._config.mode != "system" or self._config.allow_root_jobs

    def _heed(self, box: _Box, code: int | None) -> None:
        """What is left there is looked at again, at once where there is only much of it."""
        if code == 0:
            box.later_s = LATER_S
            return
        box.has_news = True
        if code == SPOOL_MORE:
            box.later_s = LATER_S
            return
        if code != SPOOL_LATER:
            why = f"no end after {DEADLINE_S:g} s" if code is None else f"exit code {code}"
            log.warning("a spool folder could not be emptied", uid=box.uid, why=why)
            box.later_s = LONGEST_LATER_S
        box.rests_until = time.monotonic() + box.later_s
        box.later_s = min(2 * box.later_s, LONGEST_LATER_S)

    def _empty(self, box: _Box) -> int | None:
        """In a thread. The exit code of the process; None where its time was up."""
        try:
            process = subprocess.Popen(
                self._command(box),
                env=self._environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:  # no room for another process
            log.warning("no process for a spool folder", uid=box.uid, why=str(error))
            return SPOOL_LATER
        self._processes.add(process)
        try:
            return process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None
        finally:
            self._processes.discard(process)

    def _command(self, box: _Box) -> Sequence[str]:
        # -P: a file of ours must not be shadowed by one in the folder that the daemon stands in.
        ours = (sys.executable, "-P", "-m", "gpuq.daemon.spool.as_user")
        who = (str(box.uid),) if self._config.mode == "system" else ()
        return (*ours, *who, box.path, self._config.socket)

    def _environment(self) -> dict[str, str]:
        if self._config.mode != "system":
            return {**os.environ}
        kept = {name: os.environ[name] for name in ("LANG",) if name in os.environ}
        return {"PATH": paths.TRUSTED_PATH, **kept}

    async def _leave(self) -> None:
        """What is under way is ended: it is done again by the next daemon, and nothing of it twice."""
        for process in list(self._processes):
            process.kill()
        works = [box.work for box in self._boxes.values() if box.work is not None]
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)


def _news() -> FolderNews | None:
    try:
        return FolderNews()
    except OSError as error:  # a user has 128 instances of inotify, and editors take many
        log.info("dropped files are seen late", why=str(error), within_s=BLIND_S)
        return None
