"""How things stand now: what the scheduler plans a turn by, jobs and leases as values of the core."""

import json
from collections import defaultdict
from functools import lru_cache

from gpuq.core.model import ActiveJob, DelayedJob, Drain, JobState, Lease, WaitingJob
from gpuq.daemon.store.classes import read_request
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.values import end_cause, lease, stop_wish

CANCELS_PER_TURN = 256
REQUEUES_PER_TURN = 256
DELAYED_PER_TURN = 64


class Current:
    def __init__(self, db: Database) -> None:
        self._db = db

    def seldom(self) -> Row:
        """What of all that is seldom the case is so: one question at each turn in place of many."""
        row = self._db.row(_SELDOM)
        assert row is not None
        return row

    def waiting(self, jobs_per_class: int, *, to_cancel: bool = True) -> list[WaitingJob]:
        """The first few of each class that may start, and (`to_cancel`) jobs that only are to be ended.

        Costs as much as there are classes, not as there are jobs: the classes are found by
        skipping through the index (a loose index scan), and each is read from its start. Of a row
        that stands for many jobs only so many are made as are shown.
        """
        shown: dict[int, int] = defaultdict(int)
        heads: list[WaitingJob] = []
        for row in self._db.rows(_HEADS, (jobs_per_class,)):
            room = min(row["last_id"] - row["id"] + 1, jobs_per_class - shown[row["class"]])
            shown[row["class"]] += room
            heads += [_waiting_job(row, number) for number in range(room)]
        if to_cancel:
            heads += [_waiting_job(row) for row in self._db.rows(_TO_CANCEL)]
        return heads

    def has_waiting(self) -> bool:
        sql = """
            select 1 from jobs indexed by jobs_unended
            where state <> 'ended' and state = 'queued' limit 1
        """
        return self._db.value(sql) is not None

    def delayed(self) -> list[DelayedJob]:
        """Those whose wait ends first, by either clock; jobs that are only to be cancelled wait for
        nothing."""
        rows = self._db.rows(_DELAYED) + self._db.rows(_DELAYED_BY_WALL)
        return [DelayedJob(**row | {"by_wall": bool(row["by_wall"])}) for row in rows]

    def to_requeue(self) -> tuple[int, ...]:
        """Rows of jobs that do not run and that somebody wants to run once more, or to wait for nothing
        that their last attempt has left behind."""
        return tuple(row["id"] for row in self._db.rows(_TO_REQUEUE))

    def active(self) -> list[ActiveJob]:
        return [_active_job(row) for row in self._db.rows(_ACTIVE)]

    def state(self, job: int) -> str | None:
        value = self._db.value("select state from jobs where id = ?", (job,))
        return None if value is None else str(value)

    def drain(self) -> Drain | None:
        sql = "select value ->> 'reason' as reason, actor from wishes where name = 'drain'"
        rows = self._db.remembered(("wishes",), sql)
        return Drain(**rows[0]) if rows else None

    def leases(self) -> list[Lease]:
        rows = self._db.rows(
            """
            select l.*, a.gives_way_to as given_up_for
            from leases l join attempts a using (job, attempt) order by l.gpu, l.slot
            """
        )
        return [lease(row) for row in rows]

    def leases_on_real_gpus(self) -> list[Lease]:
        """Those that other daemons of this machine have to respect."""
        if not self._db.remembered(("gpus",), "select 1 from gpus where not simulated limit 1"):
            return []
        rows = self._db.remembered(
            ("leases", "gpus"),
            """
            select l.* from leases l join gpus g on g.uuid = l.gpu where not g.simulated
            order by l.gpu, l.slot
            """,
        )
        return [lease(row) for row in rows]

    def holdings(self) -> int:
        """Another number as soon as `held` may say something else."""
        return self._db.writes("leases") + self._db.writes("attempts")

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
j.id, j.last_id, j.class, c.request, c.uid, c.queue, c.group_id, c.tags, j.priority, j.rank,
j.place, j.passes, j.attempt, j.version,
j.stop_asked_at, j.stop_grace_s,
j.stop_actor, j.gpu_wait_mono, s.user, s.time_limit_s, s.grace_s
"""

_SELDOM = """
select
  exists (select 1 from jobs indexed by jobs_to_cancel
          where state = 'queued' and stop_asked_at is not null) as to_cancel,
  exists (select 1 from jobs indexed by jobs_delayed
          where delayed_until_boottime is not null and state = 'queued')
    or exists (select 1 from jobs indexed by jobs_delayed_by_wall
               where delayed_until_at is not null and delayed_until_boottime is null
                 and state = 'queued') as delayed,
  exists (select 1 from jobs indexed by jobs_to_requeue
          where requeue_asked_at is not null and requeue_asked_at is not requeued_for)
    as to_requeue,
  exists (select 1 from jobs indexed by jobs_to_clock
          where state = 'queued' and held_by is null and stop_asked_at is null
            and delayed_until_at is null and open_needs = 0 and cpu_after_s is not null
            and gpu_request is null and gpu_wait_mono is null) as to_clock,
  exists (select 1 from needs indexed by needs_touched where touched) as touched
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
join specs s on s.id = j.spec
order by j.priority desc, j.rank, j.place
"""

_TO_CANCEL = f"""
select {_WAITING_COLUMNS}
from jobs j indexed by jobs_to_cancel
join classes c on c.id = j.class
join specs s on s.id = j.spec
where j.state = 'queued' and j.stop_asked_at is not null
order by j.id limit {CANCELS_PER_TURN}
"""

_DELAYED = f"""
select id, delayed_until_boottime as until, 0 as by_wall from jobs indexed by jobs_delayed
where delayed_until_boottime is not null and state = 'queued' and stop_asked_at is null
order by delayed_until_boottime limit {DELAYED_PER_TURN}
"""

_DELAYED_BY_WALL = f"""
select id, delayed_until_at as until, 1 as by_wall from jobs indexed by jobs_delayed_by_wall
where delayed_until_at is not null and delayed_until_boottime is null and state = 'queued'
  and stop_asked_at is null
order by delayed_until_at limit {DELAYED_PER_TURN}
"""

_TO_REQUEUE = f"""
select id from jobs indexed by jobs_to_requeue
where requeue_asked_at is not null and requeue_asked_at is not requeued_for
  and state in ('queued', 'ended') and prune_asked_at is null
order by id limit {REQUEUES_PER_TURN}
"""

_ACTIVE = """
select j.id, j.state, c.request,
       j.requeue_asked_at is not j.requeued_for as requeue_wished,
       j.stop_asked_at, j.stop_grace_s, j.stop_actor, j.paused_by,
       j.priority, j.preemptions, s.preemptible, a.preempt_signal, a.gives_way_to,
       s.uid, s.user, c.queue, j.group_id, s.tags,
       s.grace_s, s.time_limit_s, s.heartbeat_s, s.mem_bytes, a.attempt, a.started_mono,
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


@lru_cache(maxsize=1024)
def _tags(packed: str) -> tuple[str, ...]:
    return tuple(json.loads(packed))


def _waiting_job(row: Row, number: int = 0) -> WaitingJob:
    """The one so far behind the first of its row."""
    return WaitingJob(
        id=row["id"] + number,
        last=None if row["stop_asked_at"] is None else row["last_id"],
        class_id=row["class"],
        request=read_request(row["request"]),
        uid=row["uid"],
        user=row["user"],
        queue=row["queue"],
        group=row["group_id"] or None,
        tags=_tags(row["tags"]),
        priority=row["priority"],
        rank=row["rank"],
        place=row["place"] + number,
        passes=row["passes"],
        attempt=row["attempt"] + 1,
        version=row["version"],
        time_limit_s=row["time_limit_s"],
        grace_s=row["grace_s"],
        stop=stop_wish(row),
        gpu_wait_since=row["gpu_wait_mono"],
    )


def _active_job(row: Row) -> ActiveJob:
    return ActiveJob(
        id=row["id"],
        attempt=row["attempt"],
        state=JobState(row["state"]),
        request=read_request(row["request"]),
        uid=row["uid"],
        user=row["user"],
        queue=row["queue"],
        group=row["group_id"],
        tags=_tags(row["tags"]),
        priority=row["priority"],
        preemptible=bool(row["preemptible"]),
        preempt_signal=row["preempt_signal"],
        preemptions=row["preemptions"],
        gives_way_to=row["gives_way_to"],
        grace_s=row["grace_s"],
        time_limit_s=row["time_limit_s"],
        heartbeat_s=row["heartbeat_s"],
        mem_bytes=row["mem_bytes"],
        running_since=row["started_mono"],
        paused_since=row["paused_mono"],
        resumed_at=row["resumed_mono"],
        paused_s=row["paused_s"],
        stop=stop_wish(row),
        requeue_wished=bool(row["requeue_wished"]),
        pause_wished=row["paused_by"] is not None,
        ending=end_cause(row),
        term_sent_at=row["term_mono"],
        term_delivered=bool(row["term_delivered"]),
        kill_sent_at=row["kill_mono"],
        main_ended_at=row["main_ended_mono"],
        is_unkillable=row["unkillable"] is not None,
        signal_wishes=tuple(json.loads(row["signal_wishes"])),
    )
