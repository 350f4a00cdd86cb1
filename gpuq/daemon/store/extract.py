"""What a report of a fault needs of the database: how much is in it, and what happened last.

Only columns that are named here are read. Names, commands, directories, environments, tags and notices
of jobs are not among them; of a command there is the name of its program. The texts that are (reasons,
causes) may quote what people wrote: whoever passes them on folds them first.
"""

import os
from collections.abc import Iterator
from typing import Any

import apsw

from gpuq.daemon.store.audit import Audit
from gpuq.daemon.store.connection import Row, Values
from gpuq.daemon.store.reading import Readable

MOST_EVENTS, MOST_ATTEMPTS = 500, 200

Extract = dict[str, Any]


class OfAudit:
    """A database that another process has open, as something to read."""

    def __init__(self, audit: Audit) -> None:
        self._db = audit.db

    def rows(self, sql: str, values: Values = ()) -> list[Row]:
        rows: list[Row] = []
        cursor = self._db.execute(sql, values)
        for row in cursor:
            names = [column[0] for column in cursor.get_description()]
            rows.append(dict(zip(names, row, strict=True)))
        return rows

    def row(self, sql: str, values: Values = ()) -> Row | None:
        return next(iter(self.rows(sql, values)), None)

    def value(self, sql: str, values: Values = ()) -> Any:
        return self._db.execute(sql, values).get


def extract(db: Readable, uid: int | None) -> Extract:
    """`uid`: of whose jobs attempts and events are told; None: of everybody's."""
    return {
        "statistics": _statistics(db),
        "jobs": _jobs(db),
        "attempts": list(_attempts(db, uid)),
        "events": _events(db, uid),
    }


def _statistics(db: Readable) -> Extract:
    names = db.rows("select name from sqlite_master where type = 'table' order by name")
    return {
        "sqlite": apsw.sqlite_lib_version(),
        "version": db.value("pragma user_version"),
        "page_bytes": db.value("pragma page_size"),
        "pages": db.value("pragma page_count"),
        "free_pages": db.value("pragma freelist_count"),
        "rows": {
            row["name"]: db.value(f'select count(*) from "{row["name"]}"')
            for row in names
            if not row["name"].startswith("sqlite_")
        },
    }


def _jobs(db: Readable) -> list[Row]:
    """How many there are of each state and outcome; an array counts with all its elements."""
    return db.rows("""
        select state, outcome, sum(last_id - id + 1) as jobs from jobs
        group by state, outcome order by state, outcome
    """)


def _attempts(db: Readable, uid: int | None) -> Iterator[Row]:
    rows = db.rows(
        """
        select a.job, a.attempt, s.uid, s.argv, a.committed_at, a.started_at, a.ended_at, a.ending,
          a.outcome, a.reason, a.exit_code, a.signal, a.stage, a.error, a.lost, a.leftovers,
          a.unkillable is not null as is_unkillable, a.runner_version,
          a.cgroup is not null as has_cgroup,
          a.mem_bound_by, a.cpu_bound_by, a.user_s, a.system_s, a.paused_s, a.peak_rss_bytes,
          a.memory_peak_bytes, a.log_dropped_bytes, a.gpu_peak_bytes, a.gpu_util_mean,
          a.gpu_util_peak, a.idle_since_at, a.contended_at, a.xids, a.gpus
        from attempts a join jobs j on j.id = a.job join specs s on s.id = j.spec
        where :uid is null or s.uid = :uid
        order by a.committed_at desc limit :most
        """,
        {"uid": uid, "most": MOST_ATTEMPTS},
    )
    for row in rows:
        argv = bytes(row.pop("argv"))
        yield row | {"program": _program(argv)}


def _program(argv: bytes) -> str:
    """The first word without its directory."""
    first = argv.partition(b"\0")[0]
    return os.path.basename(first).decode("utf-8", "replace")


def _events(db: Readable, uid: int | None) -> list[Row]:
    """The last ones, in order. Those about no job are everybody's."""
    rows = db.rows(
        """
        select e.seq, e.at, e.kind, e.job, e.attempt, e.gpu, e.cause from events e
        where :uid is null or e.job is null or e.uid = :uid
        order by e.seq desc limit :most
        """,
        {"uid": uid, "most": MOST_EVENTS},
    )
    return rows[::-1]
