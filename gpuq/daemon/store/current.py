"""How things stand now: what the scheduler plans a turn by, jobs and leases as values of the core."""

import json

from gpuq.core.model import ActiveJob, DelayedJob, Drain, JobState, Lease, WaitingJob
from gpuq.daemon.store.classes import read_request
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.values import end_cause, lease, stop_wish

CANCELS_PER_TURN = 256
DELAYED_PER_TURN = 64


class Current:
    def __init__(self, db: Database) -> None:
        self._db = db

    def waiting(self, jobs_per_class: int) -> list[WaitingJob]:
        """The first few of each class that may start, and jobs that are only to be cancelled.

        Costs as much as there are classes, not as there are jobs: the classes are found by
        skipping through the index (a loose index scan), and each is read from its start.
        """
        rows = self._db.rows(_HEADS, (jobs_per_class,)) + self._db.rows(_TO_CANCEL)
        return [_waiting_job(row) for row in rows]

    def has_waiting(self) -> bool:
        sql = """
            select 1 from jobs indexed by jobs_unended
            where state <> 'ended' and state = 'queued' limit 1
        """
        return self._db.value(sql) is not None

    def delayed(self) -> list[DelayedJob]:
        """Those whose wait ends first; jobs that are only to be cancelled wait for nothing."""
        rows = self._db.rows(_DELAYED)
        return [DelayedJob(id=row["id"], until=row["delayed_until_boottime"]) for row in rows]

    def active(self) -> list[ActiveJob]:
        return [_active_job(row) for row in self._db.rows(_ACTIVE)]

    def state(self, job: int) -> str | None:
        value = self._db.value("select state from jobs where id = ?", (job,))
        return None if value is None else str(value)

    def drain(self) -> Drain | None:
        sql = "select value ->> 'reason' as reason, actor from wishes where name = 'drain'"
        row = self._db.row(sql)
        return None if row is None else Drain(**row)

    def leases(self) -> list[Lease]:
        return [lease(row) for row in self._db.rows("select * from leases order by gpu, slot")]

    def leases_on_real_gpus(self) -> list[Lease]:
        """Those that other daemons of this machine have to respect."""
        rows = self._db.rows(
            """
            select l.* from leases l join gpus g on g.uuid = l.gpu where not g.simulated
            order by l.gpu, l.slot
            """
        )
        return [lease(row) for row in rows]

    def held(self) -> list[tuple[str, int, int, int | None]]:
        """(uuid, job, pid, declared bytes) of each active lease; pid 0 before there is one."""
        rows = self._db.rows(
            """
            select l.gpu, l.job, coalesce(a.pid, 0) as pid, l.memory_bytes
            from leases l join attempts a using (job, attempt) where l.state = 'active'
            """
        )
        return [(row["gpu"], row["job"], row["pid"], row["memory_bytes"]) for row in rows]


_WAITING_COLUMNS = """
j.id, j.class, c.request, c.uid, c.queue, c.group_id, c.tags, j.priority, j.rank,
j.place, j.passes, j.attempt,
j.stop_asked_at, j.stop_grace_s,
j.stop_actor, (select user from specs where id = j.spec) as user
"""

_HEADS = f"""
with recursive class_ids (id) as (
  select min(class) from jobs indexed by jobs_eligible
  where state = 'queued' and held_by is null and stop_asked_at is null
    and delayed_until_at is null and open_needs = 0
  union all
  select (select min(class) from jobs indexed by jobs_eligible
          where state = 'queued' and held_by is null and stop_asked_at is null
            and delayed_until_at is null and open_needs = 0 and class > class_ids.id)
  from class_ids where class_ids.id is not null
)
select {_WAITING_COLUMNS}
from class_ids
join classes c on c.id = class_ids.id
join jobs j on j.id in (
  select id from jobs indexed by jobs_eligible
  where state = 'queued' and held_by is null and stop_asked_at is null
    and delayed_until_at is null and open_needs = 0 and class = class_ids.id
  order by priority desc, rank, place limit ?
)
order by j.priority desc, j.id
"""

_TO_CANCEL = f"""
select {_WAITING_COLUMNS}
from jobs j indexed by jobs_to_cancel join classes c on c.id = j.class
where j.state = 'queued' and j.stop_asked_at is not null
order by j.id limit {CANCELS_PER_TURN}
"""

_DELAYED = f"""
select id, delayed_until_boottime from jobs indexed by jobs_delayed
where delayed_until_boottime is not null and state = 'queued' and stop_asked_at is null
order by delayed_until_boottime limit {DELAYED_PER_TURN}
"""

_ACTIVE = """
select j.id, j.state, c.request, j.stop_asked_at, j.stop_grace_s, j.stop_actor, j.paused_by,
       s.uid, s.grace_s, s.time_limit_s, s.heartbeat_s, s.mem_bytes, a.attempt, a.started_mono,
       a.paused_mono, a.resumed_mono, a.paused_s, a.ending, a.term_mono, a.term_delivered, a.kill_mono,
       a.main_ended_mono, a.unkillable,
       (select json_group_array(number) from (
          select number from signals where job = j.id and id > j.signal_sent order by id)
       ) as signal_wishes
from jobs j indexed by jobs_active
join specs s on s.id = j.spec
join classes c on c.id = j.class
join attempts a on a.job = j.id and a.attempt = j.attempt
where j.state in ('starting', 'running')
"""


def _waiting_job(row: Row) -> WaitingJob:
    return WaitingJob(
        id=row["id"],
        class_id=row["class"],
        request=read_request(row["request"]),
        uid=row["uid"],
        user=row["user"],
        queue=row["queue"],
        group=row["group_id"] or None,
        tags=tuple(json.loads(row["tags"])),
        priority=row["priority"],
        rank=row["rank"],
        place=row["place"],
        passes=row["passes"],
        attempt=row["attempt"] + 1,
        stop=stop_wish(row),
    )


def _active_job(row: Row) -> ActiveJob:
    return ActiveJob(
        id=row["id"],
        attempt=row["attempt"],
        state=JobState(row["state"]),
        request=read_request(row["request"]),
        uid=row["uid"],
        grace_s=row["grace_s"],
        time_limit_s=row["time_limit_s"],
        heartbeat_s=row["heartbeat_s"],
        mem_bytes=row["mem_bytes"],
        running_since=row["started_mono"],
        paused_since=row["paused_mono"],
        resumed_at=row["resumed_mono"],
        paused_s=row["paused_s"],
        stop=stop_wish(row),
        pause_wished=row["paused_by"] is not None,
        ending=end_cause(row),
        term_sent_at=row["term_mono"],
        term_delivered=bool(row["term_delivered"]),
        kill_sent_at=row["kill_mono"],
        main_ended_at=row["main_ended_mono"],
        is_unkillable=row["unkillable"] is not None,
        signal_wishes=tuple(json.loads(row["signal_wishes"])),
    )
