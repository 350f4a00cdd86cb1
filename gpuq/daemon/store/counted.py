"""How many jobs there are, for everybody and for one user, and how far in front one of them is."""

from gpuq.core.scheduling.queue_order import WaitingRun
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.elements import IS_OF


class Counted:
    def __init__(self, db: Database) -> None:
        self._db = db

    def totals(self) -> tuple[int, int]:
        """How many jobs run, and how many are queued."""
        queued = self._db.value("select coalesce(sum(jobs), 0) from queued_jobs")
        return self._running(), int(queued)

    def for_user(self, uid: int) -> Row:
        """How many are queued and running; of the queued, how many are this user's, and how many of
        anybody's are held. Costs as much as there are classes of jobs that wait, and jobs that run."""
        row = self._db.row(
            """
            select coalesce(sum(q.jobs), 0) as queued,
                   coalesce(sum(q.jobs) filter (where c.uid = ?), 0) as queued_yours,
                   coalesce(sum(q.jobs) filter (where q.is_held), 0) as held
            from queued_jobs q join classes c on c.id = q.class
            """,
            (uid,),
        )
        assert row is not None
        return {"queued": row.pop("queued"), "running": self._running(), **row}

    def _running(self) -> int:
        sql = "select count(*) from jobs indexed by jobs_active where state in ('starting', 'running')"
        return int(self._db.value(sql))

    def ended_since(self, at: float) -> dict[str, int]:
        """How many jobs ended so at that moment or later, by outcome. Costs as much as there are such
        rows."""
        rows = self._db.rows(
            """
            select outcome, sum(last_id - id + 1) as number from jobs indexed by jobs_ended
            where state = 'ended' and ended_at >= ? group by outcome
            """,
            (at,),
        )
        return {row["outcome"]: row["number"] for row in rows}

    def queued(self, uid: int) -> int:
        """How many jobs a user has in the queue, without those that are about to be cancelled."""
        return int(
            self._db.value(
                """
                select coalesce(sum(q.jobs), 0) from queued_jobs q join classes c on c.id = q.class
                where c.uid = ? and not q.is_stopping
                """,
                (uid,),
            )
        )

    def queued_in_queues(self) -> dict[str, int]:
        """How many jobs wait in each named queue; "": in none."""
        rows = self._db.rows(
            """
            select c.queue, sum(q.jobs) as queued
            from queued_jobs q join classes c on c.id = q.class
            where not q.is_stopping group by c.queue
            """
        )
        return {row["queue"]: row["queued"] for row in rows}

    def may_start(self) -> list[WaitingRun]:
        """All that is held by nobody and waits for nothing but its turn. Costs as much as there are
        rows of such jobs."""
        rows = self._db.rows(
            """
            select j.id as first, j.last_id as last, c.uid, j.priority, j.rank, j.place
            from jobs j indexed by jobs_eligible join classes c on c.id = j.class
            where j.state = 'queued' and j.held_by is null and j.stop_asked_at is null
              and j.delayed_until_at is null and j.open_needs = 0
            """
        )
        return [WaitingRun(**row) for row in rows]

    def number_in_class(self, job: int) -> int:
        """How many may start of the class of a job."""
        sql = f"""
            select coalesce(sum(o.last_id - o.id + 1), 0)
            from jobs j join jobs o indexed by jobs_eligible on o.class = j.class
            where {IS_OF} and o.state = 'queued' and o.held_by is null
              and o.stop_asked_at is null and o.delayed_until_at is null and o.open_needs = 0
        """
        return int(self._db.value(sql, {"job": job}))

    def place_in_class(self, job: int) -> int | None:
        """Its 1-based place among the jobs of its class; None where it does not wait."""
        row = self._db.row(
            f"""
            select id, class, priority, rank, place + :job - id as place, :job - id as before
            from jobs j
            where {IS_OF} and state = 'queued' and held_by is null and stop_asked_at is null
              and delayed_until_at is null and open_needs = 0
            """,
            {"job": job},
        )
        if row is None:
            return None
        ahead = self._db.value(
            """
            select coalesce(sum(last_id - id + 1), 0) from jobs indexed by jobs_eligible
            where state = 'queued' and held_by is null and stop_asked_at is null
              and delayed_until_at is null and open_needs = 0 and class = :class and id <> :id
              and (priority > :priority
                   or (priority = :priority and (rank, place) < (:rank, :place)))
            """,
            row,
        )
        return 1 + int(ahead) + int(row["before"])
