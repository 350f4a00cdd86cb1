"""Sees that every notice is delivered once, or that somebody reads why not. Part of the loop and on its
thread; who delivers is a process of its own.

A notice is claimed in the database before its process is started, and the process makes a mark before
it does anything (see `mark`). So a daemon that finds a claimed notice knows what may have happened:
without a mark nothing, and it is delivered; with a result what that says; without one somebody is at it
still, or has died over it. Then it may have been delivered, and that is not done a second time. Before
it looks it takes the marks over: whom an earlier daemon has started cannot make one after that.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import structlog

from gpuq.config import Config
from gpuq.core.asked.hooks import Moment, kind_of
from gpuq.daemon import faults
from gpuq.daemon.clock import Clock
from gpuq.daemon.linux import processes
from gpuq.daemon.notices import mark, payload
from gpuq.daemon.notices.child import Child, end_family
from gpuq.daemon.particulars import particulars
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble, Row
from gpuq.daemon.store.happened import Delay
from gpuq.daemon.upkeep.aside import aside

FOLDER = "notices"
MOST_AT_ONCE = 4
MOST_OF_A_USER = 3  # so that one whose notices hang keeps nobody else from being told
BACKOFF_S = (10.0, 60.0, 300.0)  # after the first try, the second, the third; then it is given up
WITHIN_S = 60.0  # what delivers is ended by then
PATIENCE_S = 15.0  # it takes to end what it started, and to say so
LOOK_AGAIN_S = 0.2  # at a process that an earlier daemon started
DISK_AGAIN_S = 5.0
UNKNOWN = "who delivered it died meanwhile: it may have been done, and is not done again"
NOT_BEGUN = "its process ended before it began"
NOBODY_KNOWS = mark.Mark(pid=0, start=0, is_held=False, result=None)

log = structlog.get_logger()


class Messenger:
    """`heed` tells it that there may be something new; `run` goes on until it is cancelled."""

    def __init__(self, store: Store, config: Config, clock: Clock) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._all_marks = f"{config.state_dir}/{FOLDER}"
        self._folder = mark.folder_in(self._all_marks)
        self._boot_id = processes.boot_id()
        self._bell = asyncio.Event()
        self._under_way: dict[int, int | None] = {}  # the user of each notice
        self._tasks: asyncio.TaskGroup | None = None
        self._is_to_stand = False
        self._seen = 0
        self.within_s = WITHIN_S

    def settings_changed(self) -> None:
        self._is_to_stand = True
        self._bell.set()

    def stand(self) -> None:
        """From now on events are told to whom the settings name."""
        self._is_to_stand = False
        self._store.notices.stand(
            {moment: getattr(self._config, f"on_{moment.value}") for moment in Moment}
        )

    def heed(self) -> None:
        if self._seen != (seen := self._store.notices.written()):
            self._seen = seen
            self._bell.set()

    async def run(self) -> None:
        await self._take_over()
        claimed = self._store.notices.claimed()
        self._tidy({os.path.basename(self._path(notice)) for notice in claimed})
        async with asyncio.TaskGroup() as self._tasks:
            for notice in claimed:
                self._begin(notice)
            while True:
                self._bell.clear()
                try:
                    if self._is_to_stand:
                        self.stand()
                    self._claim_due()
                    longest_s = self._until_next()
                except DiskTrouble as trouble:
                    log.error("notices wait", why=str(trouble), again_in_s=DISK_AGAIN_S)
                    self._is_to_stand, longest_s = True, DISK_AGAIN_S
                await self._rung(longest_s)

    async def _rung(self, within_s: float | None) -> None:
        # wait_for would drop a cancel that comes with the bell
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._bell.wait()

    # ── which, and when ──

    def _claim_due(self) -> None:
        room = MOST_AT_ONCE - len(self._under_way)
        if room <= 0:
            return
        due = self._store.notices.due(self._clock.boottime(), self._boot_id, MOST_AT_ONCE * 4)
        chosen = self._choose(due, room)
        if not chosen:
            return
        faults.here("notices.claiming")
        with self._store.transaction():
            for notice in chosen:
                self._store.notices.claim(notice["id"])
        faults.here("notices.claimed")
        for notice in chosen:
            self._begin(notice | {"tries": notice["tries"] + 1})

    def _choose(self, due: list[Row], room: int) -> list[Row]:
        of_users = Counter(self._under_way.values())
        jobs: set[int] = set()
        chosen: list[Row] = []
        for notice in due:
            is_too_much = of_users[notice["uid"]] >= MOST_OF_A_USER
            if len(chosen) == room or is_too_much or notice["job"] in jobs:
                continue
            of_users[notice["uid"]] += 1
            jobs |= {notice["job"]} - {None}
            chosen.append(notice)
        return chosen

    def _until_next(self) -> float | None:
        """While all hands are full, an end of one of them is news enough."""
        due = self._store.notices.next_due(self._boot_id)
        if due is None or len(self._under_way) >= MOST_AT_ONCE:
            return None
        return max(due - self._clock.boottime(), LOOK_AGAIN_S)

    # ── one of them ──

    def _begin(self, notice: Row) -> None:
        assert self._tasks is not None
        self._under_way[notice["id"]] = notice["uid"]
        self._tasks.create_task(self._see_to(notice))

    async def _see_to(self, notice: Row) -> None:
        """From its claim to the note of what came of it."""
        path = self._path(notice)
        trouble = NOT_BEGUN
        found: mark.Mark | None = NOBODY_KNOWS
        try:
            if mark.read(path) is None:
                trouble = await self._have_delivered(notice, path)
            found = await self._await_result(path)
        except mark.Unreadable as why:
            log.error("the mark of a notice cannot be read", path=path, why=str(why))
        faults.here("notices.heard")
        await self._until_stored(lambda: self._note(notice, found, trouble))
        faults.here("notices.noted")
        mark.remove(path)
        del self._under_way[notice["id"]]
        self._bell.set()

    async def _have_delivered(self, notice: Row, path: str) -> str:
        """Returns once the process is gone, or was ended because it did not end by itself: what was
        wrong, if it has left no mark."""
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            child = Child(self._order(notice, path), is_system=self._is_system)
        except OSError as error:
            return f"its process could not be started: {error.strerror}"
        faults.here("notices.started")
        try:
            async with asyncio.timeout(self.within_s + PATIENCE_S):
                await child.gone.wait()
        except TimeoutError:
            log.warning("a notice does not end", notice=notice["id"], pid=child.pid)
            await aside(partial(end_family, child.pid, child.start))
        finally:
            child.let_go()
        return NOT_BEGUN

    async def _await_result(self, path: str) -> mark.Mark | None:
        """What the mark says once its maker is gone; whoever is at it for too long is ended."""
        until = self._clock.boottime() + self.within_s + PATIENCE_S
        while (found := mark.read(path)) is not None and found.is_held:
            is_late = self._clock.boottime() > until
            if is_late:
                await aside(partial(end_family, found.pid, found.start))
            await asyncio.sleep(PATIENCE_S if is_late else LOOK_AGAIN_S)
        if found is not None and found.result is None:
            await aside(partial(end_family, found.pid, found.start))  # what it had started
        return found

    def _order(self, notice: Row, path: str) -> dict[str, object]:
        told = payload.compose(notice, self._name_of(notice), self._index_of(notice))
        as_user = self._is_system and notice["uid"] is not None
        return {
            "mark": path,
            "kind": kind_of(notice["target"]).value,
            "target": notice["target"],
            "uid": notice["uid"] if as_user else None,
            "gid": notice["gid"],
            "key": notice["key"],
            "payload": told,
            "mood": payload.mood(told),
            "variables": payload.variables(told) | {"GPUQ_SOCKET": self._config.socket},
            "within_s": self.within_s,
        }

    def _name_of(self, notice: Row) -> str:
        """What its job is called; nothing, once that is forgotten."""
        job = notice["job"]
        rows = [] if job is None else self._store.found.jobs(ids=[range(job, job + 1)])
        return particulars(self._store.found.with_values(rows[0]), job).name if rows else ""

    def _index_of(self, notice: Row) -> int | None:
        known = self._store.machine.known_gpus() if notice["gpu"] is not None else []
        return next((gpu.index for gpu in known if gpu.uuid == notice["gpu"]), None)

    # ── what came of it ──

    def _note(self, notice: Row, found: mark.Mark | None, unbegun: str) -> None:
        notices, now = self._store.notices, self._clock.wall()
        if found is not None and found.result is None:
            notices.given_up(notice["id"], trouble=UNKNOWN, output="", now=now, unknown=True)
            return
        result = (found and found.result) or {"trouble": unbegun, "output": ""}
        trouble, output = result["trouble"], result["output"]
        if trouble is None:
            notices.done(notice["id"], output=output, now=now)
            return
        tries = notice["tries"]
        log.info("a notice was not delivered", notice=notice["id"], tries=tries, why=trouble)
        if notice["origin"] == "trial" or tries > len(BACKOFF_S):
            notices.given_up(notice["id"], trouble=trouble, output=output, now=now)
            return
        wait_s = BACKOFF_S[tries - 1]
        boottime = self._clock.boottime() + wait_s
        delay = Delay(boottime=boottime, boot_id=self._boot_id, at=now + wait_s)
        notices.again(notice["id"], delay, trouble=trouble, output=output)

    async def _until_stored(self, deed: Callable[[], None]) -> None:
        while True:
            try:
                deed()
                return
            except DiskTrouble as trouble:
                log.error("a notice cannot be noted", why=str(trouble), again_in_s=DISK_AGAIN_S)
                await asyncio.sleep(DISK_AGAIN_S)

    # ── files ──

    @property
    def _is_system(self) -> bool:
        return bool(self._config.mode == "system")

    def _path(self, notice: Row) -> str:
        return mark.path_of(self._folder, notice["id"], notice["tries"])

    async def _take_over(self) -> None:
        while True:
            try:
                mark.take_over(self._all_marks, self._folder)
                return
            except OSError as error:
                why = f"{self._all_marks}: {error.strerror}"
                log.error("notices wait", why=why, again_in_s=DISK_AGAIN_S)
                await asyncio.sleep(DISK_AGAIN_S)

    def _tidy(self, wanted: set[str]) -> None:
        """Marks whose result was noted, and drafts of who died over them."""
        with suppress(OSError):  # they do no harm
            for name in set(os.listdir(self._folder)) - wanted:
                mark.remove(f"{self._folder}/{name}")
