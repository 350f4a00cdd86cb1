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

    def mark(self, number: int) -> str:
        """What only this database gives for the event of that number: another database has another
        identity, and one that was put back and went on from there another event of that number."""
        at = self._db.value("select at from events where seq = ?", (number,))
        identity = self._db.value("select value from facts where name = 'identity'")
        return f"{number}:{at}:{identity}"

    def is_ours(self, mark: str) -> bool:
        """Whether it was given by this database, and before anything else than what is in it now."""
        number = mark.partition(":")[0]
        return number.isdecimal() and len(number) < 19 and mark == self.mark(int(number))

    def pruned_to(self) -> int:
        """The last of those that were removed for their age; 0: none was."""
        noted = self._db.value("select value from facts where name = ?", (EVENTS_PRUNED_TO,))
        return 0 if noted is None else int(json.loads(noted)["seq"])

    def before(self, moment: float) -> int:
        """The cursor behind the events from before that moment. They are numbered in the order in
        which they happened, so a few are looked at and not all; where the clock was set back
        meanwhile it is one of several such places."""
        first, last = self.pruned_to(), self.last_event()
        while first < last:
            middle = (first + last + 1) // 2
            at = self._db.value("select at from events where seq = ?", (middle,))
            if at is None or at < moment:
                first = middle
            else:
                last = middle - 1
        return first

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


# Those that name one of the jobs, and those of a run of jobs that begins before them and holds one: a
# walk along the runs and the spans together, backwards, knows of each run the next span behind it.
_EVENTS_OF_JOBS = """
with named as materialized (
  select value ->> 0 as first, value ->> 1 as last from json_each(:spans)
),
runs as (
  select job as at, null as first, seq, detail ->> 'last' as last
  from events indexed by events_runs
  where detail ->> 'last' is not null and job < (select max(first) from named)
    and detail ->> 'last' >= (select min(first) from named) and seq > :since
  union all
  select first, first, null, null from named
),
walk as (select seq, last, min(first) over (order by at desc) as next from runs)
select e.* from named n cross join events e on e.job between n.first and n.last
where e.seq > :since
union
select e.* from walk w cross join events e on e.seq = w.seq where w.next <= w.last
order by seq limit :limit
"""
