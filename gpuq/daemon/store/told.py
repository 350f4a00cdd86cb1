"""The events that were recorded, read on from a cursor in the order in which they happened."""

import json
from collections.abc import Sequence

from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.pruned import EVENTS_PRUNED_TO


class Told:
    def __init__(self, db: Database) -> None:
        self._db = db

    def last_event(self) -> int:
        """The last that was given a number, whether or not it is kept."""
        return int(self._db.value("select seq from sqlite_sequence where name = 'events'") or 0)

    def pruned_to(self) -> int:
        """The last of those that were removed for their age; 0: none was."""
        noted = self._db.value("select value from facts where name = ?", (EVENTS_PRUNED_TO,))
        return 0 if noted is None else int(json.loads(noted)["seq"])

    def events(
        self, since: int, limit: int, jobs: Sequence[range] | None = None
    ) -> tuple[list[Row], int]:
        """The next events after a cursor, and the cursor behind all that was looked at: where only
        some jobs are asked for, nothing of the others is looked at twice."""
        if jobs is None:
            sql = "select * from events where seq > ? order by seq limit ?"
            rows = self._db.rows(sql, (since, limit))
        else:
            spans = json.dumps([(span.start, span.stop - 1) for span in jobs])
            wanted = {"spans": spans, "since": since, "limit": limit}
            rows = self._db.rows(_EVENTS_OF_JOBS, wanted)
        if len(rows) == limit:
            return rows, int(rows[-1]["seq"])
        return rows, max(self.last_event(), since)

    def story(self, since: int, limit: int) -> list[Row]:
        """The next events of jobs after a cursor, each with the job's user and the GPUs that the
        attempt has or had; None where those are not known any more."""
        return self._db.rows(
            """
            select e.seq, e.kind, e.job, e.attempt, e.actor, e.cause, e.detail, s.user, a.gpus
            from events e
            left join jobs j on j.id = e.job
            left join specs s on s.id = j.spec
            left join attempts a on a.job = e.job and a.attempt = e.attempt
            where e.seq > ? and e.job is not null
            order by e.seq limit ?
            """,
            (since, limit),
        )


# Those that name one of the jobs, and those of a run of jobs that begins before them and holds them.
_EVENTS_OF_JOBS = """
select e.* from json_each(:spans) span
cross join events e on e.job between span.value ->> 0 and span.value ->> 1
where e.seq > :since
union
select e.* from json_each(:spans) span
cross join events e indexed by events_runs
  on e.job < span.value ->> 0 and e.detail ->> 'last' >= span.value ->> 0
where e.detail ->> 'last' is not null and e.seq > :since
order by seq limit :limit
"""
