"""Keeps house: what grows old goes by itself, and what people want forgotten goes at once.

Part of the loop and on its thread, except for the disk: what is measured and removed there is done in
a thread, some jobs at a time, and noted afterwards. Whoever is killed in between finds what was not
noted again, and what is gone already costs nothing to remove. Logs and records of jobs go when they
are old, or the oldest when they are too much; what a job has put into its output directory never goes
by itself. The rows stay until somebody wants them forgotten.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import structlog

from gpuq.config import Config
from gpuq.core.units import format_bytes, format_seconds
from gpuq.daemon import faults, order
from gpuq.daemon.clock import Clock
from gpuq.daemon.store import Store
from gpuq.daemon.store.audit import find_damage
from gpuq.daemon.store.connection import DiskTrouble, Row
from gpuq.daemon.store.pruned import Remains
from gpuq.daemon.upkeep import job_files, snapshots
from gpuq.daemon.upkeep.aside import aside
from gpuq.daemon.upkeep.job_files import Patience, Removed

SELDOM_S, OFTEN_S = 3600.0, 60.0  # how long nothing is looked at while nobody asks
SOON_S = 2.0  # jobs that end together are looked at together
BREATHER_S = 0.01  # between two batches: others wait for the disk too
DISK_AGAIN_S = 60.0
LOOK_WHOLE_EVERY_S = 86400.0
JOBS_AT_ONCE = 64
ROWS_AT_ONCE = 1000
TOKENS_KEPT_S = 86400.0  # a client asks again within minutes

log = structlog.get_logger()


class Housekeeper:
    """`run` goes on until it is cancelled; `job_ended` and `wake` tell it that there is work."""

    def __init__(self, store: Store, config: Config, clock: Clock) -> None:
        self._store = store
        self._state_dir: str = config.state_dir
        self._config = config
        self._clock = clock
        self._bell = asyncio.Event()
        self._urgent = asyncio.Event()
        self._kept_bytes: int | None = None  # of all files that may be removed
        self._stuck: set[int] = set()  # jobs whose files cannot be removed, until the next daemon
        self._looked_whole_at = clock.monotonic()
        self._everything_at = clock.monotonic()

    @property
    def _keep_for_s(self) -> float:
        return float(self._config.keep_for)

    @property
    def _keep_bytes(self) -> int:
        return int(self._config.keep_size)

    def settings_changed(self) -> None:
        """Less may be kept now."""
        self._everything_at = self._clock.monotonic()
        self.wake()

    def job_ended(self) -> None:
        self._bell.set()

    def wake(self) -> None:
        """Somebody waits for it."""
        self._bell.set()
        self._urgent.set()

    def skip_known_ids(self) -> None:
        """Before the first submit: a new job must not write into the folder of an old one that was
        forgotten when a backup was put back."""
        highest = job_files.highest_id(self._state_dir)
        if skipped := self._store.pruned.skip_ids(highest, now=self._clock.wall()):
            log.warning("ids of jobs that nothing is known of are skipped", jobs=skipped)

    async def run(self) -> None:
        while True:
            self._bell.clear()
            self._urgent.clear()
            everything = self._clock.monotonic() >= self._everything_at
            if everything:
                self._everything_at = self._clock.monotonic() + self._pause_s()
            try:
                await self.tidy(everything=everything)
            except DiskTrouble as trouble:
                log.error("cannot keep house", why=str(trouble), again_in_s=DISK_AGAIN_S)
                if everything:
                    self._everything_at = self._clock.monotonic()
                await asyncio.sleep(DISK_AGAIN_S)
                continue
            await self._sleep(self._everything_at - self._clock.monotonic())

    def _pause_s(self) -> float:
        return min(max(self._keep_for_s, OFTEN_S), SELDOM_S)

    async def _sleep(self, longest_s: float) -> None:
        with suppress(TimeoutError):  # wait_for would drop a cancel that comes with the bell
            async with asyncio.timeout(max(longest_s, 0.0)):
                await self._bell.wait()
            async with asyncio.timeout(SOON_S):
                await self._urgent.wait()

    async def tidy(self, *, everything: bool) -> None:
        """Until there is nothing left to do. `everything`: what only time brings about, too."""
        steps: list[Callable[[], Awaitable[bool]]] = [
            self._forget_wished,
            self._measure_ended,
            self._remove_too_much,
        ]
        if everything:
            steps += [self._remove_old, self._forget_rows, self._remove_snapshots, self._look_whole]
        while await self._take_one(steps):
            await asyncio.sleep(BREATHER_S)

    async def _take_one(self, steps: Sequence[Callable[[], Awaitable[bool]]]) -> bool:
        """The first of them that has something to do, so that wishes never wait for the rest."""
        for step in steps:
            if await step():
                return True
        return False

    # ── jobs that people want forgotten ──

    async def _forget_wished(self) -> bool:
        """Files first, then rows: what lies on disk is always some job's, or was kept on purpose."""
        jobs = self._store.pruned.wished(JOBS_AT_ONCE)
        if not jobs:
            return False
        tmp_dirs = self._tmp_dirs_of_lost(jobs)
        results = await aside(lambda: self._remove_all(jobs, tmp_dirs))
        faults.here("retention.files_pruned")
        sizes, now = self._without_troubles(jobs, results), self._clock.wall()
        for job in jobs:
            if trouble := results[job.id].trouble:
                self._store.pruned.not_forgotten(job.id, trouble, now=now)
        gone = [job for job in jobs if job.id in sizes]
        if gone:
            self._store.pruned.forget(gone, sizes, now=now)
            self._kept_bytes = self._kept() - sum(job.files_bytes or 0 for job in gone)
            await self._remove_snapshots()
        return True

    def _remove_all(
        self, jobs: Sequence[Remains], tmp_dirs: Sequence[tuple[str, int]] = ()
    ) -> dict[int, Removed]:
        patience = Patience()
        for path, uid in tmp_dirs:
            job_files.remove_folder_of(path, uid, patience)
        return {
            job.id: job_files.remove(
                self._state_dir, job.id, job.attempts, outputs=job.outputs, patience=patience
            )
            for job in jobs
        }

    def _without_troubles(
        self, jobs: Sequence[Remains], results: dict[int, Removed]
    ) -> dict[int, int]:
        """What was freed of each job of which nothing is left that should not be."""
        for job in jobs:
            if trouble := results[job.id].trouble:
                log.warning("what a job left could not be removed", job=job.id, why=trouble)
        return {job.id: results[job.id].freed_bytes for job in jobs if not results[job.id].trouble}

    # ── files of jobs that have ended ──

    async def _measure_ended(self) -> bool:
        jobs = self._store.pruned.unmeasured(JOBS_AT_ONCE)
        if not jobs:
            return False
        tmp_dirs = self._tmp_dirs_of_lost(jobs)

        def work() -> dict[int, int]:
            patience = Patience()
            for path, uid in tmp_dirs:
                if freed := job_files.remove_folder_of(path, uid, patience):
                    log.info("removed what a lost job had left", path=path, bytes=freed)
            return {
                job.id: job_files.measure(self._state_dir, job.id, job.attempts).files_bytes
                for job in jobs
                if job.attempts
            }

        sizes = await aside(work)
        kept = self._kept()
        self._store.pruned.measured({job.id: 0 for job in jobs} | sizes)
        # Who came back has been counted before.
        came_back = any(job.came_back for job in jobs)
        self._kept_bytes = None if came_back else kept + sum(sizes.values())
        return len(jobs) == JOBS_AT_ONCE  # who ends meanwhile has a round of his own

    def _tmp_dirs_of_lost(self, jobs: Sequence[Remains]) -> list[tuple[str, int]]:
        """(path, uid): a runner removes its job's temporary directory, one that died cannot."""
        found = []
        for lost in self._store.pruned.lost_attempts([job.id for job in jobs if job.attempts]):
            row = self._store.agreed.to_run(lost["job"])
            found += [(path, row["uid"]) for path in order.tmp_dirs(row, lost["nonce"])]
        return found

    async def _remove_old(self) -> bool:
        oldest = self._store.pruned.oldest_files(JOBS_AT_ONCE, but=self._stuck)
        before = self._clock.wall() - self._keep_for_s
        old = [row for row in oldest if row["ended_at"] < before]
        return await self._remove_files(old, f"older than {format_seconds(self._keep_for_s)}")

    async def _remove_too_much(self) -> bool:
        """The oldest first; who asks what happened just now is to find the log of it."""
        too_much = self._kept() - self._keep_bytes
        if too_much <= 0:
            return False
        oldest = self._store.pruned.oldest_files(JOBS_AT_ONCE + 1, but=self._stuck)
        chosen: list[Row] = []
        for row in oldest[:-1]:
            if too_much <= 0:
                break
            chosen.append(row)
            too_much -= row["files_bytes"]
        return await self._remove_files(chosen, f"beyond {format_bytes(self._keep_bytes)} in all")

    async def _remove_files(self, rows: Sequence[Row], cause: str) -> bool:
        if not rows:
            return False
        jobs = [Remains(id=row["id"], attempts=row["attempts"]) for row in rows]
        results = await aside(lambda: self._remove_all(jobs))
        faults.here("retention.files_removed")
        gone = self._without_troubles(jobs, results)
        self._stuck |= {job.id for job in jobs} - gone.keys()
        if gone:
            kept = self._kept() - sum(row["files_bytes"] for row in rows if row["id"] in gone)
            self._store.pruned.files_removed(gone, cause=cause, now=self._clock.wall())
            self._kept_bytes = kept
            log.info(
                "removed the files of jobs", jobs=len(gone), bytes=sum(gone.values()), why=cause
            )
        return True

    def _kept(self) -> int:
        """Summed up once, and anew after jobs came back from their end: all else changes here."""
        if self._kept_bytes is None:
            self._kept_bytes = self._store.pruned.files_total()
        return self._kept_bytes

    # ── copies of work trees ──

    async def _remove_snapshots(self) -> bool:
        """Those that no job needs any more."""
        since = self._clock.wall() - self._keep_for_s
        found = await aside(lambda: snapshots.old_copies(self._state_dir))
        unneeded = [
            (uid, name)
            for uid, names in found.items()
            for name in set(names) - self._store.snapshots.needed(uid, names, since=since)
        ]
        if not unneeded:
            return False
        patience = Patience()

        def work() -> list[bool]:
            return [
                snapshots.remove(self._state_dir, uid, name, patience)
                for uid, name in unneeded[:JOBS_AT_ONCE]
            ]

        return any(await aside(work))

    # ── rows ──

    async def _forget_rows(self) -> bool:
        pruned, now = self._store.pruned, self._clock.wall()
        return bool(
            # So that whoever reads the metrics finds little left to count.
            self._store.tallies.count_events(ROWS_AT_ONCE)
            or pruned.prune_events(now - self._keep_for_s, ROWS_AT_ONCE)
            or self._store.reserved.forget(now - self._keep_for_s)
            or self._store.notices.forget(now - self._keep_for_s, ROWS_AT_ONCE)
            or pruned.forget_tokens(now - TOKENS_KEPT_S, ROWS_AT_ONCE)
            or pruned.forget_environments(ROWS_AT_ONCE)
        )

    async def _look_whole(self) -> bool:
        """Once a day the whole file is read: a damaged page is to be found before it is needed."""
        if self._clock.monotonic() < self._looked_whole_at + LOOK_WHOLE_EVERY_S:
            return False
        self._looked_whole_at = self._clock.monotonic()
        database = self._store.database
        if database.path != ":memory:" and (
            found := await aside(lambda: find_damage(database.path))
        ):
            raise database.report_damage(found)
        return False
