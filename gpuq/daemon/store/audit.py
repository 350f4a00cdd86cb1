"""The database read and never changed, by another process than its daemon's: for `check` and `backup`.

Beside a daemon that writes it, after one that was killed, and after one that stopped: not a byte of the
file, its log or its index is touched, and a directory that is read-only will do.
"""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import apsw

from gpuq.daemon.store.connection import DAMAGE, StoreRefused, find_version, is_ours, newest_version
from gpuq.daemon.store.pruned import EVENTS_PRUNED_TO
from gpuq.errors import GpuqError, NothingMatched

BUSY_MS = 2000
TELLING = (
    *("starting", "returned", "running", "attempt_ended", "backoff", "ended"),
    *("given_back", "requeued"),
)


class Unreadable(GpuqError):
    """The file cannot be read."""


class Damaged(Unreadable):
    """What was read of it makes no sense."""


class JobRow(NamedTuple):
    id: int
    last_id: int
    state: str
    attempt: int
    retries: int
    uncounted: int  # attempts that were none of them
    submitted_at: float
    delayed_until_boottime: float | None
    delayed_boot: str | None
    delayed_for: str | None


class AttemptRow(NamedTuple):
    job: int
    attempt: int
    uid: int
    nonce: str
    boot_id: str
    runner_pid: int
    runner_start: int
    cgroup: str | None
    committed_at: float
    main_ended: bool
    ended_at: float | None
    gpus: tuple[str, ...]  # the uuids that it has, while it has not ended


class LeaseRow(NamedTuple):
    gpu: str
    slot: int
    job: int
    attempt: int
    exclusive: bool
    state: str
    job_state: str | None  # None where there is no such job
    job_attempt: int | None
    attempt_ended: bool | None  # None where there is no such attempt


class Dossier(NamedTuple):
    """All about one job: its row, its attempts in order, and how often it was told what of them."""

    job: JobRow
    attempts: list[AttemptRow]
    told: Counter[tuple[str, int]]


class Audit:
    """One look at a database: everything is as of one moment, however long the reading takes."""

    def __init__(self, db: apsw.Connection, path: str) -> None:
        self.path = path
        self.db = db

    def value(self, sql: str) -> Any:
        return self.db.execute(sql).get

    def damage(self) -> list[str]:
        """What is wrong with the pages and indexes of the file; empty where it is whole."""
        try:
            found = [str(row[0]) for row in self.db.execute("pragma integrity_check")]
        except DAMAGE as error:
            return [str(error)]
        return [] if found == ["ok"] else found

    def foreign_keys(self) -> list[tuple[str, str]]:
        """(table, parent) of rows that point to a row that is not there."""
        rows = self.db.execute("pragma foreign_key_check")
        return [(str(table), str(parent)) for table, _, parent, _ in rows]

    def dossiers(self) -> Iterator[Dossier]:
        """One after the other by id, so that a million jobs need no more room than one."""
        attempts = _PerJob(self.db.execute(_ATTEMPTS))
        told = _PerJob(self.db.execute(_TOLD, TELLING))
        of_runs = _OfRuns(self.db.execute(_TOLD_OF_RUNS, TELLING))
        for row in self.db.execute(_JOBS):
            job = JobRow(*row)
            kinds = [(kind, attempt) for _, kind, attempt in told.take(job.id)]
            counted = Counter((kind, attempt or 0) for kind, attempt in kinds)
            counted.update((kind, 0) for kind in of_runs.take(job.id))
            yield Dossier(job, [_attempt(row) for row in attempts.take(job.id)], counted)

    def leases(self) -> list[LeaseRow]:
        return [LeaseRow(*row) for row in self.db.execute(_LEASES)]

    def pruned(self) -> list[tuple[int, int]]:
        """(first, last) of ids whose jobs somebody wanted forgotten."""
        return list(self.db.execute("select first, last from pruned order by first"))

    def without_group(self) -> list[tuple[int, int]]:
        """(first, last) of jobs that lie in no span of their group."""
        sql = """
            select id, last_id from jobs j where not exists (
              select 1 from group_spans s
              where s.group_id = j.group_id and j.id >= s.first and j.last_id <= s.last)
            order by id
        """
        return list(self.db.execute(sql))

    def prune_troubles(self) -> list[tuple[int, str]]:
        sql = """
            select id, prune_trouble from jobs indexed by jobs_to_prune
            where prune_asked_at is not null and prune_failed_for = prune_asked_at
        """
        return list(self.db.execute(sql))

    def last_id_given(self) -> int:
        return int(self.value("select seq from sqlite_sequence where name = 'jobs'") or 0)

    def submitted(self) -> list[tuple[int, int]]:
        """(first, last) of each submission that was told."""
        sql = "select job, detail ->> 'count' from events where kind = 'submitted' order by job"
        return [(job, job + int(count or 1) - 1) for job, count in self.db.execute(sql)]

    def events_pruned(self) -> tuple[int, float]:
        """(seq, at): the last event that was removed for its age, and the latest time of those."""
        sql = "select value from facts where name = ?"
        value = self.db.execute(sql, (EVENTS_PRUNED_TO,)).get
        told = json.loads(value) if value is not None else {}
        return int(told.get("seq", 0)), float(told.get("at", float("-inf")))

    def last_event_given(self) -> int:
        return int(self.value("select seq from sqlite_sequence where name = 'events'") or 0)

    def events(self) -> int:
        return int(self.value("select count(*) from events"))

    def event_runs(self) -> list[tuple[int, int]]:
        """(first, last) of each unbroken run of events; one where none is missing."""
        sql = """
            select min(seq), max(seq)
            from (select seq, seq - row_number() over (order by seq) as run from events)
            group by run order by 1
        """
        return list(self.db.execute(sql))

    def group_roots(self, boot_id: str) -> list[str]:
        """The control groups below which attempts of this boot had theirs."""
        sql = """
            select distinct rtrim(rtrim(cgroup, replace(cgroup, '/', '')), '/')
            from attempts where cgroup is not null and boot_id = ?
        """
        return [str(row[0]) for row in self.db.execute(sql, (boot_id,))]


@contextmanager
def open_audit(path: str) -> Iterator[Audit]:
    """The database there as it is now; NothingMatched, StoreRefused or Unreadable say why not."""
    try:
        if not is_ours(Path(path)):
            raise NothingMatched(f"there is no database at {path}. Name another: --state-dir DIR")
        with _readable(path) as uri, closing(_connect(uri)) as db:
            _check_version(path, find_version(db), newest_version())
            db.execute("begin")
            yield Audit(db, path)
    except DAMAGE as error:
        raise Damaged(f"{path}: the database is damaged: {error}") from error
    except apsw.Error as error:
        raise Unreadable(f"{path}: cannot be read: {error}") from error
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read: {error.strerror}") from error


def _connect(uri: str) -> apsw.Connection:
    db = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    db.set_busy_timeout(BUSY_MS)
    return db


def _check_version(path: str, version: int, newest: int) -> None:
    about = f"{path}: database version {version}, and this gpuqd knows {newest}"
    if version > newest:
        raise StoreRefused(f"{about}: it was written by a newer gpuq; use that one's gpuqd")
    if version < newest:
        raise StoreRefused(f"{about}: a daemon that starts there brings it up to date first")


def find_damage(path: str) -> str | None:
    """Reads the whole file, in a connection of its own, and says what is wrong with it. For the daemon
    itself: the file is opened by SQLite alone, since to close any other descriptor of it would take
    away the locks that SQLite has on it (https://www.sqlite.org/howtocorrupt.html, section 2.2)."""
    try:
        with closing(_connect(_uri(path))) as db:
            found = str(db.execute("pragma quick_check(1)").get)
    except DAMAGE as error:
        return str(error)
    except apsw.Error:
        return None  # that it cannot be read now says nothing about what is in it
    return None if found == "ok" else found


@contextmanager
def _readable(path: str) -> Iterator[str]:
    """A URI of the file, opened such that nothing of it changes.

    With an index of the log (-shm) beside it there is, or was, a daemon: the log counts, and the index
    is not written to. With a log alone, as in a copy, SQLite would have to make an index, so a copy
    in a place of our own is read. With neither the file is all there is, and nothing would be made
    beside it.
    """
    wal, shm = f"{path}-wal", f"{path}-shm"
    if os.path.exists(shm):
        yield _uri(path, "readonly_shm=1")
    elif os.path.exists(wal) and os.path.getsize(wal):
        with tempfile.TemporaryDirectory(prefix="gpuq-") as folder:
            copy = os.path.join(folder, "copy.db")
            shutil.copyfile(path, copy)
            shutil.copyfile(wal, f"{copy}-wal")
            yield _uri(copy)
    else:
        yield _uri(path, "immutable=1")


def _uri(path: str, *options: str) -> str:
    return f"file:{quote(os.path.abspath(path))}?{'&'.join(('mode=ro', *options))}"


class _PerJob:
    """Rows that begin with their job's id, sorted by it, handed out job by job."""

    def __init__(self, rows: Iterator[tuple[Any, ...]]) -> None:
        self._groups = groupby(rows, key=_first)
        self._next = next(self._groups, None)

    def take(self, job: int) -> list[tuple[Any, ...]]:
        while self._next is not None and self._next[0] < job:
            self._next = next(self._groups, None)
        if self._next is None or self._next[0] != job:
            return []
        found = list(self._next[1])
        self._next = next(self._groups, None)
        return found


class _OfRuns:
    """What befell runs of jobs at once, sorted by the first of each: handed out to the jobs behind that
    one, to which it happened as well though their rows were split off later."""

    def __init__(self, rows: Iterator[tuple[int, int, str]]) -> None:
        self._rows = rows
        self._next = next(rows, None)
        self._begun: list[tuple[int, int, str]] = []

    def take(self, job: int) -> list[str]:
        while self._next is not None and self._next[0] < job:
            self._begun.append(self._next)
            self._next = next(self._rows, None)
        self._begun = [run for run in self._begun if run[1] >= job]
        return [kind for _, _, kind in self._begun]


def _first(row: tuple[Any, ...]) -> int:
    return int(row[0])


def _attempt(row: tuple[Any, ...]) -> AttemptRow:
    uuids = json.loads(row[-1]).get("uuids", []) if row[-1] else []
    return AttemptRow._make((*row[:-1], tuple(uuids)))


_JOBS = """
select j.id, j.last_id, j.state, j.attempt, s.retries, j.uncounted, j.submitted_at,
       case when j.state = 'queued' then j.delayed_until_boottime end, j.delayed_boot,
       j.delayed_for
from jobs j join specs s on s.id = j.spec order by j.id
"""

_ATTEMPTS = """
select a.job, a.attempt, s.uid, a.nonce, a.boot_id, a.runner_pid, a.runner_start, a.cgroup,
       a.committed_at, a.main_ended_mono is not null, a.ended_at,
       case when a.ended_at is null then a.gpus end
from attempts a join jobs j on j.id = a.job join specs s on s.id = j.spec
order by a.job, a.attempt
"""

_TOLD = f"""
select job, kind, attempt from events indexed by events_job
where job is not null and kind in ({", ".join("?" * len(TELLING))}) order by job
"""

_TOLD_OF_RUNS = f"""
select job, detail ->> 'last', kind from events indexed by events_runs
where detail ->> 'last' is not null and kind in ({", ".join("?" * len(TELLING))}) order by job
"""

_LEASES = """
select l.gpu, l.slot, l.job, l.attempt, l.exclusive, l.state, j.state, j.attempt,
       case when a.job is not null then a.ended_at is not null end
from leases l
left join jobs j on j.id = l.job
left join attempts a on a.job = l.job and a.attempt = l.attempt
order by l.gpu, l.slot
"""
