"""Counters that never fall: what the events tell, counted up to a cursor that changes in the same
transaction, so that nothing counts twice and nothing is missed. Nothing is counted when a job starts or
ends: that costs whoever wants to know."""

import json
from collections.abc import Mapping
from typing import Any

from gpuq.core.results.tallying import Key, tally
from gpuq.daemon.store.connection import Database
from gpuq.daemon.store.reading import Readable

COUNTED_TO = "events_counted_to"


class Tallies:
    def __init__(self, db: Database) -> None:
        self._db = db

    def count_events(self, limit: int) -> bool:
        """The next events that are not counted yet; False where there are no more of them."""
        return count_events(self._db, limit) == limit

    def add(self, counts: Mapping[Key, float]) -> None:
        with self._db.transaction():
            _add(self._db, counts)


def count_events(db: Database, limit: int, up_to: int | None = None) -> int:
    """Counts so many that come next, up to the one of that number; returns how many there were."""
    with db.transaction():
        rows = db.rows(
            """
            select seq, kind, job, attempt, detail from events
            where seq > ? and seq <= coalesce(?, seq) order by seq limit ?
            """,
            (_counted_to(db), up_to, limit),
        )
        if rows:
            _add(db, tally(rows))
            db.write(
                "insert into facts (name, value) values (?, ?) "
                "on conflict (name) do update set value = excluded.value",
                (COUNTED_TO, json.dumps(rows[-1]["seq"])),
            )
    return len(rows)


def read_tallies(db: Readable) -> dict[Key, float]:
    rows = db.rows("select name, label, value from tallies")
    return {(row["name"], row["label"]): row["value"] for row in rows}


def waits_before(db: Database, job: int, attempt: int, at: float) -> dict[str, float]:
    """How long a job was in the queue before its first attempt ran at that time (waited_s), and how
    long its GPUs stood idle though it was there (gap_s): counted where nothing but a GPU was lacking
    to it since the last of them was left."""
    if attempt != 1:
        return {}
    row = db.row(_BEFORE, {"job": job})
    assert row is not None
    told = {"waited_s": round(max(at - row["submitted_at"], 0.0), 6)}
    if row["left_at"] is not None and row["submitted_at"] <= row["left_at"] and row["was_ready"]:
        told["gap_s"] = round(max(at - row["left_at"], 0.0), 6)
    return told


def _counted_to(db: Database) -> int:
    noted = db.value("select value from facts where name = ?", (COUNTED_TO,))
    return 0 if noted is None else int(json.loads(noted))


def _add(db: Database, counts: Mapping[Key, float]) -> None:
    rows: list[Mapping[str, Any]] = [
        {"name": name, "label": label, "value": value} for (name, label), value in counts.items()
    ]
    db.write_many(
        """
        insert into tallies (name, label, value) values (:name, :label, :value)
        on conflict (name, label) do update set value = value + excluded.value
        """,
        rows,
    )


# A GPU that is shared is not idle, and who waits for others, or for a time, or was held, does not wait
# for a GPU.
_BEFORE = """
select j.submitted_at,
  (select max(g.at) from leases l join gpus_left g using (gpu)
   where l.job = j.id and l.exclusive) as left_at,
  not exists (select 1 from needs where entry = coalesce(j.array_first, j.id))
    and not exists
      (select 1 from events e where e.job = j.id and e.kind in ('due', 'hold_asked', 'release_asked'))
    as was_ready
from jobs j where j.id = :job
"""
