"""What attempts told of themselves, and how far that has been read. Written by the loop alone."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from gpuq.core.results.reported import Told
from gpuq.daemon.store.connection import Database, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """An attempt that has begun and not ended. `uid` is the submitter's."""

    job: int
    attempt: int
    uid: int
    began_at: float  # when it was committed, s since the epoch

    @property
    def key(self) -> tuple[int, int]:
        return self.job, self.attempt


class Reported:
    def __init__(self, db: Database) -> None:
        self._db = db

    def reporters(self) -> list[Reporter]:
        """Each attempt that runs."""
        return [Reporter(**row) for row in self._db.rows(_REPORTERS)]

    def reporter(self, job: int, attempt: int) -> Reporter | None:
        """One of them; None where it has ended."""
        row = self._db.row(f"{_REPORTERS} and a.job = ? and a.attempt = ?", (job, attempt))
        return None if row is None else Reporter(**row)

    def told(self, job: int, attempt: int) -> Told:
        sql = "select * from reports where job = ? and attempt = ?"
        row = self._db.row(sql, (job, attempt))
        return Told() if row is None else _told(row)

    def write(self, job: int, attempt: int, told: Told, *, after: Told) -> bool:
        """What was told by now, which was found out from what was told before (`after`). False where
        that is not the case any more: somebody else has read on, or the attempt has ended."""
        with self._db.transaction():
            if self.told(job, attempt) != after:
                return False
            row = asdict(told) | {"job": job, "attempt": attempt}
            row |= {name: json.dumps(row[name]) for name in ("writers", "metrics")}
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


# For whoever shows an attempt: of `reports` as r.
REPORT_COLUMNS = """
r.progress, r.progress_from, r.metrics, r.reported_at, r.lines as report_lines,
r.refused as report_refused, r.missed as report_missed, r.skipped_bytes as report_skipped_bytes,
r.trouble as report_trouble
"""

# Found by which jobs are active, so that it costs as much as there are of those.
_REPORTERS = """
select a.job, a.attempt, s.uid, a.committed_at as began_at
from jobs j indexed by jobs_active
join specs s on s.id = j.spec
join attempts a on a.job = j.id and a.attempt = j.attempt
where j.state in ('starting', 'running') and a.ended_at is null
"""


def _told(row: Row) -> Told:
    kept: dict[str, Any] = {name: row[name] for name in row.keys() - {"job", "attempt"}}
    writers = {name: tuple(known) for name, known in json.loads(row["writers"]).items()}
    return Told(**kept | {"writers": writers, "metrics": json.loads(row["metrics"])})
