"""What attempts told of themselves, and how far that has been read. Written by the loop alone."""

import json
from dataclasses import dataclass, fields
from typing import Any

import apsw

from gpuq.core.results.reported import Told
from gpuq.daemon.store.connection import Database, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """An attempt that has begun and not ended. `uid` is the submitter's."""

    job: int
    attempt: int
    uid: int
    began_at: float  # when it was committed, s since the epoch
    is_being_ended: bool = False  # by gpuq

    @property
    def key(self) -> tuple[int, int]:
        return self.job, self.attempt


class CannotBeStored(ValueError):
    """What was told is no value that the database takes. Nothing of it was stored."""


class Reported:
    def __init__(self, db: Database) -> None:
        self._db = db

    def reporters(self) -> list[Reporter]:
        """Each attempt that runs."""
        return [_reporter(row) for row in self._db.rows(_REPORTERS)]

    def reporter(self, job: int, attempt: int) -> Reporter | None:
        """One of them; None where it has ended."""
        row = self._db.row(f"{_REPORTERS} and a.job = ? and a.attempt = ?", (job, attempt))
        return None if row is None else _reporter(row)

    def told(self, job: int, attempt: int) -> Told:
        sql = "select * from reports where job = ? and attempt = ?"
        row = self._db.row(sql, (job, attempt))
        return Told() if row is None else _told(row)

    def write(self, job: int, attempt: int, told: Told, *, after: Told) -> bool:
        """What was told by now, which was found out from what was told before (`after`). False where
        that is not the case any more: somebody else has read on, or the attempt has ended. Raises
        CannotBeStored, since what a job says is nobody's word but its own."""
        try:
            return self._write(job, attempt, told, after)
        except (ValueError, TypeError, OverflowError, apsw.ConstraintError) as error:
            raise CannotBeStored(f"{type(error).__name__}: {error}") from error

    def _write(self, job: int, attempt: int, told: Told, after: Told) -> bool:
        row = _row(told, after) | {"job": job, "attempt": attempt}
        with self._db.part():
            if not self._has_come_to(after, job, attempt):
                return False
            names = ", ".join(row)
            setting = ", ".join(f"{name} = excluded.{name}" for name in row)
            written = self._db.write(
                f"""
                insert into reports ({names})
                select {", ".join(f":{name}" for name in row)} from attempts
                where job = :job and attempt = :attempt and ended_at is null
                on conflict (job, attempt) do update set {setting}
                """,
                row,
            )
        return bool(written)

    def _has_come_to(self, told: Told, job: int, attempt: int) -> bool:
        """By how far its file has been read and what was counted: no two looks leave those the same."""
        sql = f"select {', '.join(_COUNTED)} from reports where job = ? and attempt = ?"
        counted = {name: getattr(told, name) for name in _COUNTED}
        row = self._db.row(sql, (job, attempt))
        return counted == (row or {name: getattr(Told(), name) for name in _COUNTED})


_COUNTED = tuple(
    one.name for one in fields(Told) if one.name not in ("writers", "metrics", "troubles")
)

# For whoever shows an attempt: of `reports` as r.
REPORT_COLUMNS = """
r.progress, r.progress_from, r.metrics, r.reported_at, r.lines as report_lines,
r.refused as report_refused, r.refused_values as report_refused_values, r.missed as report_missed,
r.skipped_bytes as report_skipped_bytes, r.troubles as report_troubles
"""

# Found by which jobs are active, so that it costs as much as there are of those.
_REPORTERS = """
select a.job, a.attempt, s.uid, a.committed_at as began_at, a.ending is not null as is_being_ended
from jobs j indexed by jobs_active
join specs s on s.id = j.spec
join attempts a on a.job = j.id and a.attempt = j.attempt
where j.state in ('starting', 'running') and a.ended_at is null
"""


def _reporter(row: Row) -> Reporter:
    return Reporter(**row | {"is_being_ended": bool(row["is_being_ended"])})


def _row(told: Told, after: Told) -> Row:
    """A number that a writer left out stands as how far it is below the last one: that is short."""
    row: Row = {name: getattr(told, name) for name in _COUNTED}
    row["troubles"] = json.dumps(told.troubles)
    # Names and texts of the job's: half a character has been cleaned out of them.
    row["metrics"] = json.dumps(told.metrics, ensure_ascii=False)
    if told.writers != after.writers:  # the largest of it
        writers = told.writers.items()
        packed = {name: [last, *(last - gap for gap in gaps)] for name, (last, *gaps) in writers}
        row["writers"] = json.dumps(packed)
    return row


def _told(row: Row) -> Told:
    kept: dict[str, Any] = {name: row[name] for name in row.keys() - {"job", "attempt"}}
    writers = {
        name: (last, *(last - gap for gap in gaps))
        for name, (last, *gaps) in json.loads(row["writers"]).items()
    }
    read = {name: json.loads(row[name]) for name in ("metrics", "troubles")}
    return Told(**kept | {"writers": writers} | read)
