"""Reading: what the scheduler looks at, and what people ask to see. Writes nothing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpuq.core.bounds import Bounds
from gpuq.core.model import (
    ActiveJob,
    DelayedJob,
    Drain,
    EndCause,
    Gpu,
    JobState,
    Lease,
    LeaseState,
    Outcome,
    Request,
    StopWish,
    WaitingJob,
)
from gpuq.daemon.store.connection import Database, Row

CANCELS_PER_TURN = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class UnendedAttempt:
    """An attempt that a daemon finds when it starts, and must find the truth about."""

    job: int
    attempt: int
    state: JobState
    nonce: str
    boot_id: str
    runner_pid: int
    runner_start: int
    cgroup: str | None
    stop_to: str
    uid: int  # the submitter's


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an attempt's end is judged by: the job's own terms, and how gpuq had begun to end it."""

    attempt: int
    boot_id: str  # in which it was started
    started_mono: float | None  # CLOCK_MONOTONIC
    ending: EndCause | None
    ending_since: float | None  # its first signal for that, CLOCK_MONOTONIC
    stop: StopWish | None
    time_limit_s: float | None
    heartbeat_s: float | None
    retries: int
    backoff: str | None
    retry_on: str | None
    gpu_mem_from: str | None  # what it asks of a GPU follows from what its command used before
    over_memory: str | None
    mem_bytes: int | None
    memory_peak_bytes: int | None  # as a watch saw it
    request: Request
    gpus: tuple[str, ...]  # the uuids it had
    cool_at_once: bool  # no memory stays on those when it ends


class Seen:
    def __init__(self, db: Database) -> None:
        self._db = db

    # ── for the scheduler ──

    def waiting(self, jobs_per_class: int) -> list[WaitingJob]:
        """The first few of each class that may start, and jobs that are only to be cancelled.

        Costs as much as there are classes, not as there are jobs: the classes are found by
        skipping through the index (a loose index scan), and each is read from its start.
        """
        rows = self._db.rows(_HEADS, (jobs_per_class,)) + self._db.rows(_TO_CANCEL)
        return [_waiting_job(row) for row in rows]

    def active(self) -> list[ActiveJob]:
        return [_active_job(row) for row in self._db.rows(_ACTIVE)]

    def delayed(self) -> list[DelayedJob]:
        """Those whose wait ends first; jobs that are only to be cancelled wait for nothing."""
        rows = self._db.rows(_DELAYED)
        return [DelayedJob(id=row["id"], until=row["delayed_until_boottime"]) for row in rows]

    def delayed_elsewhen(self, boot_id: str) -> list[tuple[int, float, float]]:
        """(job, until on the wall clock, its length in s) of each wait of an earlier boot."""
        rows = self._db.rows(
            """
            select j.id, j.delayed_until_at as until_at, j.delayed_until_at - a.ended_at as length_s
            from jobs j indexed by jobs_delayed
            join attempts a on a.job = j.id and a.attempt = j.attempt
            where j.delayed_until_at is not null and j.delayed_boot <> ?
            """,
            (boot_id,),
        )
        return [(row["id"], row["until_at"], max(row["length_s"], 0.0)) for row in rows]

    def drain(self) -> Drain | None:
        sql = "select value ->> 'reason' as reason, actor from wishes where name = 'drain'"
        row = self._db.row(sql)
        return None if row is None else Drain(**row)

    def leases(self) -> list[Lease]:
        return [_lease(row) for row in self._db.rows("select * from leases order by gpu, slot")]

    def leases_on_real_gpus(self) -> list[Lease]:
        """Those that other daemons of this machine have to respect."""
        rows = self._db.rows(
            """
            select l.* from leases l join gpus g on g.uuid = l.gpu where not g.simulated
            order by l.gpu, l.slot
            """
        )
        return [_lease(row) for row in rows]

    def stale_cooling(self, boot_id: str) -> list[Lease]:
        """Cooling leases of an earlier boot: after a restart every GPU is cool."""
        sql = "select * from leases where state <> 'active' and cooling_boot <> ?"
        return [_lease(row) for row in self._db.rows(sql, (boot_id,))]

    def held(self) -> list[tuple[str, int, int, int | None]]:
        """(uuid, job, pid, declared bytes) of each active lease; pid 0 before there is one."""
        rows = self._db.rows(
            """
            select l.gpu, l.job, coalesce(a.pid, 0) as pid, l.memory_bytes
            from leases l join attempts a using (job, attempt) where l.state = 'active'
            """
        )
        return [(row["gpu"], row["job"], row["pid"], row["memory_bytes"]) for row in rows]

    def has_waiting(self) -> bool:
        sql = """
            select 1 from jobs indexed by jobs_unended
            where state <> 'ended' and state = 'queued' limit 1
        """
        return self._db.value(sql) is not None

    # ── for the supervisor's part of the loop ──

    def unended_attempts(self) -> list[UnendedAttempt]:
        rows = self._db.rows(
            """
            select a.job, a.attempt, j.state, a.nonce, a.boot_id, a.runner_pid, a.runner_start,
                   a.cgroup, s.stop_to, s.uid
            from jobs j indexed by jobs_active
            join specs s on s.id = j.spec
            join attempts a on a.job = j.id and a.attempt = j.attempt
            where j.state in ('starting', 'running')
            """
        )
        return [UnendedAttempt(**row | {"state": JobState(row["state"])}) for row in rows]

    def to_run(self, job: int) -> Row:
        """All that a runner's order is made of: the spec, the environment, the array index."""
        row = self._db.row(
            """
            select s.*, e.content as environment_content, j.id as job,
                   case when j.array_base is null then null
                        else j.array_base + j.id - j.group_id end as array_index,
                   j.attempt as attempts_before
            from jobs j join specs s on s.id = j.spec
            join environments e on e.uid = s.uid and e.hash = s.environment
            where j.id = ?
            """,
            (job,),
        )
        assert row is not None
        return row

    def bounds(self, job: int) -> tuple[Bounds, float]:
        """What a job may use of the machine, and its grace (s)."""
        row = self._db.row(
            "select s.mem_bytes, s.cpu_bound, s.grace_s from jobs j join specs s on s.id = j.spec "
            "where j.id = ?",
            (job,),
        )
        assert row is not None
        return Bounds(mem_bytes=row["mem_bytes"], cpus=row["cpu_bound"]), row["grace_s"]

    def terms(self, job: int, attempt: int) -> Terms:
        row = self._db.row(
            """
            select j.stop_asked_at, j.stop_grace_s, j.stop_actor, s.time_limit_s, s.heartbeat_s,
                   s.retries, s.backoff, s.retry_on, s.gpu_mem_from, c.request, a.ending, a.gpus,
                   a.over_memory, s.mem_bytes, a.memory_peak_bytes, a.started_mono, a.boot_id,
                   coalesce(a.term_mono, a.kill_mono) as ending_since
            from jobs j join specs s on s.id = j.spec join classes c on c.id = j.class
            join attempts a on a.job = j.id
            where j.id = ? and a.attempt = ?
            """,
            (job, attempt),
        )
        assert row is not None
        held = json.loads(row["gpus"])
        return Terms(
            attempt=attempt,
            boot_id=row["boot_id"],
            started_mono=row["started_mono"],
            ending=_end_cause(row),
            ending_since=row["ending_since"],
            stop=_stop_wish(row),
            time_limit_s=row["time_limit_s"],
            heartbeat_s=row["heartbeat_s"],
            retries=row["retries"],
            backoff=row["backoff"],
            retry_on=row["retry_on"],
            gpu_mem_from=row["gpu_mem_from"],
            over_memory=row["over_memory"],
            mem_bytes=row["mem_bytes"],
            memory_peak_bytes=row["memory_peak_bytes"],
            request=read_request(row["request"]),
            gpus=tuple(held["uuids"]),
            cool_at_once=held["cool_at_once"],
        )

    def fact(self, name: str) -> Any:
        value = self._db.value("select value from facts where name = ?", (name,))
        return None if value is None else json.loads(value)

    def known_gpus(self) -> list[Gpu]:
        """Every GPU that this machine has shown, as far as it is remembered: no readings."""
        return [_known_gpu(row) for row in self._db.rows("select * from gpus order by idx")]

    # ── for people ──

    def jobs(
        self,
        *,
        ids: Sequence[range] | None = None,
        ended: bool = True,
        uid: int | None = None,
        user: str | None = None,
        states: Sequence[str] = (),
        tag: str | None = None,
        name: str | None = None,
        since: float | None = None,
        limit: int | None = None,
        cursor: int | None = None,
    ) -> list[Row]:
        """Rows for status and show. With ended jobs among them the newest come first, otherwise the
        oldest; `cursor` is the last id of the page before. `since`: submitted, started or ended
        at that time or later."""
        chosen = _Where()
        if ids is not None:
            spans = json.dumps([(span.start, span.stop - 1) for span in ids])
            chosen.add(_IN_SPANS, spans)
        if not ended:
            chosen.add("j.state <> 'ended'")
        if uid is not None:
            chosen.add("s.uid = ?", uid)
        if user is not None:
            chosen.add("s.user = ?", user)
        if name is not None:
            chosen.add("s.name = ?", name)
        if tag is not None:
            chosen.add("exists (select 1 from json_each(s.tags) where value = ?)", tag)
        if states:
            chosen.add(" or ".join(_STATE_WORDS.get(word, "false") for word in states))
        if since is not None:
            chosen.add(_TOUCHED_SINCE, since, since, since)
        if cursor is not None:
            chosen.add("j.id < ?" if ended else "j.id > ?", cursor)
        order = "desc" if ended else "asc"
        sql = f"{_JOB_ROWS} where {chosen.sql} order by j.id {order} limit ?"
        return self._db.rows(sql, (*chosen.values, -1 if limit is None else limit))

    def state(self, job: int) -> str | None:
        value = self._db.value("select state from jobs where id = ?", (job,))
        return None if value is None else str(value)

    def submission(self, uid: int, back: int) -> range | None:
        """The ids of a user's last submission but `back`."""
        first = self._db.value(
            """
            select distinct j.group_id from jobs j join specs s on s.id = j.spec
            where s.uid = ? order by j.group_id desc limit 1 offset ?
            """,
            (uid, back),
        )
        return None if first is None else self.group(int(first))

    def group(self, first: int) -> range | None:
        last = self._db.value("select max(last_id) from jobs where group_id = ?", (first,))
        return None if last is None else range(first, int(last) + 1)

    def counts(self, uid: int) -> Row:
        """How many are queued and running, how many of the queued are this user's."""
        row = self._db.row(
            """
            select count(*) filter (where j.state = 'queued') as queued,
                   count(*) filter (where j.state in ('starting', 'running')) as running,
                   count(*) filter (where j.state = 'queued' and s.uid = ?) as queued_yours
            from jobs j indexed by jobs_unended join specs s on s.id = j.spec
            where j.state <> 'ended'
            """,
            (uid,),
        )
        assert row is not None
        return row

    def owner(self, job: int) -> int | None:
        """The uid that it belongs to."""
        sql = "select s.uid from jobs j join specs s on s.id = j.spec where j.id = ?"
        uid = self._db.value(sql, (job,))
        return None if uid is None else int(uid)

    def queued(self, uid: int) -> int:
        """How many jobs a user has in the queue, without those that are about to be cancelled. Costs
        as much as there are such jobs, not as there are others."""
        return int(
            self._db.value(
                """
                select coalesce(sum(j.last_id - j.id + 1), 0)
                from classes c cross join jobs j indexed by jobs_queued on j.class = c.id
                where c.uid = ? and j.state = 'queued' and j.stop_asked_at is null
                """,
                (uid,),
            )
        )

    def totals(self) -> tuple[int, int]:
        """How many jobs run, and how many are queued."""
        row = self._db.row(
            """
            select count(*) filter (where state <> 'queued') as running,
                   count(*) filter (where state = 'queued') as queued
            from jobs indexed by jobs_unended where state <> 'ended'
            """
        )
        assert row is not None
        return row["running"], row["queued"]

    def last_id(self, uid: int | None = None) -> int | None:
        if uid is None:
            last = self._db.value("select max(last_id) from jobs")
        else:
            last = self._db.value(
                "select max(j.last_id) from jobs j join specs s on s.id = j.spec where s.uid = ?",
                (uid,),
            )
        return None if last is None else int(last)

    def attempts(self, job: int) -> list[Row]:
        return self._db.rows("select * from attempts where job = ? order by attempt", (job,))

    def environment_of(self, job: int) -> bytes:
        return bytes(self.to_run(job)["environment_content"])

    def place_in_class(self, job: int) -> int | None:
        """Its 1-based place among the jobs of its class; None where it does not wait."""
        row = self._db.row(
            """
            select class, priority from jobs
            where id = ? and state = 'queued' and held_by is null and stop_asked_at is null
              and delayed_until_at is null
            """,
            (job,),
        )
        if row is None:
            return None
        return 1 + int(
            self._db.value(
                """
                select count(*) from jobs
                where state = 'queued' and held_by is null and stop_asked_at is null
                  and delayed_until_at is null and class = :class
                  and (priority > :priority or (priority = :priority and id < :id))
                """,
                row | {"id": job},
            )
        )

    def last_event(self) -> int:
        return int(self._db.value("select max(seq) from events") or 0)

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
            rows = self._db.rows(_EVENTS_OF_JOBS, (spans, since, limit))
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


_WAITING_COLUMNS = """
j.id, j.class, c.request, c.uid, j.priority, j.passes, j.attempt, j.stop_asked_at, j.stop_grace_s,
j.stop_actor, (select user from specs where id = j.spec) as user
"""

_HEADS = f"""
with recursive class_ids (id) as (
  select min(class) from jobs indexed by jobs_eligible
  where state = 'queued' and held_by is null and stop_asked_at is null
    and delayed_until_at is null
  union all
  select (select min(class) from jobs indexed by jobs_eligible
          where state = 'queued' and held_by is null and stop_asked_at is null
            and delayed_until_at is null and class > class_ids.id)
  from class_ids where class_ids.id is not null
)
select {_WAITING_COLUMNS}
from class_ids
join classes c on c.id = class_ids.id
join jobs j on j.id in (
  select id from jobs indexed by jobs_eligible
  where state = 'queued' and held_by is null and stop_asked_at is null
    and delayed_until_at is null and class = class_ids.id
  order by priority desc, id limit ?
)
order by j.priority desc, j.id
"""

_TO_CANCEL = f"""
select {_WAITING_COLUMNS}
from jobs j indexed by jobs_to_cancel join classes c on c.id = j.class
where j.state = 'queued' and j.stop_asked_at is not null
order by j.id limit {CANCELS_PER_TURN}
"""

DELAYED_PER_TURN = 64

_DELAYED = f"""
select id, delayed_until_boottime from jobs indexed by jobs_delayed
where delayed_until_at is not null and state = 'queued' and stop_asked_at is null
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

_JOB_ROWS = """
select j.*, s.uid, s.user, s.name, s.argv, s.cwd, s.grace_s, s.tags, s.output, s.stderr, s.visible,
       s.seed, s.stop_to, s.time_limit_s, s.heartbeat_s, s.retries, s.backoff, s.retry_on,
       c.request, c.queue, a.pid, a.exit_code, a.signal, a.gpus, a.committed_at, a.ending,
       a.term_mono, a.kill_mono, a.main_ended_mono, a.paused_mono, a.paused_s, a.unkillable,
       a.outcome as attempt_outcome, a.leftovers, a.gpu_measured_s, a.gpu_peak_bytes,
       a.gpu_util_mean, a.gpu_util_peak, a.gpu_energy_j, a.idle_since_at, a.contended_at,
       a.contended_by, a.over_memory, a.xids, s.gpu_mem_from, s.mem_bytes, s.cpu_bound,
       a.mem_bound_by, a.cpu_bound_by, a.memory_peak_bytes,
       case when j.array_base is null then null else j.array_base + j.id - j.group_id end
         as array_index
from jobs j
join specs s on s.id = j.spec
join classes c on c.id = j.class
left join attempts a on a.job = j.id and a.attempt = j.attempt
"""


# However many spans there are: each is looked up by its ends, and a long chain of "or" is refused.
_IN_SPANS = """
j.id in (
  select k.id from json_each(?) span
  cross join jobs k on k.id between span.value ->> 0 and span.value ->> 1
)
"""

_EVENTS_OF_JOBS = """
select e.* from json_each(?) span
cross join events e on e.job between span.value ->> 0 and span.value ->> 1
where e.seq > ? order by e.seq limit ?
"""

# What has ended did so last of all, so the two indexes find them: this costs as much as there are
# such jobs and active ones, not as there is history.
_TOUCHED_SINCE = """
j.id in (
  select id from jobs indexed by jobs_ended where state = 'ended' and ended_at >= ?
  union all
  select id from jobs indexed by jobs_unended
  where state <> 'ended' and (submitted_at >= ? or started_at >= ?)
)
"""

_STATE_WORDS = (
    {word: f"j.state = '{word}'" for word in ("queued", "starting", "running", "ended")}
    | {word.value: f"j.outcome = '{word.value}'" for word in Outcome}
    | {
        "held": "(j.state = 'queued' and j.held_by is not null)",
        "backoff": "(j.state = 'queued' and j.delayed_until_at is not null)",
        "paused": "(j.state = 'running' and a.paused_mono is not null)",
        "stopping": "(j.state in ('starting', 'running') and (j.stop_asked_at is not null or "
        "a.ending is not null or a.main_ended_mono is not null) and a.unkillable is null)",
        "unkillable": "(j.state in ('starting', 'running') and a.unkillable is not null)",
    }
)


class _Where:
    """Conditions that all hold, with their values."""

    def __init__(self) -> None:
        self._clauses: list[str] = []
        self.values: list[Any] = []

    def add(self, clause: str, *values: Any) -> None:
        self._clauses.append(f"({clause or 'false'})")
        self.values += values

    @property
    def sql(self) -> str:
        return " and ".join(self._clauses) or "true"


def read_request(text: str) -> Request:
    """A class's request as stored; fields of a newer gpuq are unknown to an older database only."""
    fields = json.loads(text)
    for name in ("gpu_ids", "exclude_gpus"):
        fields[name] = tuple(fields.get(name, ()))
    return Request(**fields)


def _stop_wish(row: Row) -> StopWish | None:
    if row["stop_asked_at"] is None:
        return None
    return StopWish(grace_s=row["stop_grace_s"], actor=row["stop_actor"] or "somebody")


def _waiting_job(row: Row) -> WaitingJob:
    return WaitingJob(
        id=row["id"],
        class_id=row["class"],
        request=read_request(row["request"]),
        uid=row["uid"],
        user=row["user"],
        priority=row["priority"],
        passes=row["passes"],
        attempt=row["attempt"] + 1,
        stop=_stop_wish(row),
    )


def _end_cause(row: Row) -> EndCause | None:
    return None if row["ending"] is None else EndCause(row["ending"])


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
        stop=_stop_wish(row),
        pause_wished=row["paused_by"] is not None,
        ending=_end_cause(row),
        term_sent_at=row["term_mono"],
        term_delivered=bool(row["term_delivered"]),
        kill_sent_at=row["kill_mono"],
        main_ended_at=row["main_ended_mono"],
        is_unkillable=row["unkillable"] is not None,
        signal_wishes=tuple(json.loads(row["signal_wishes"])),
    )


def _lease(row: Row) -> Lease:
    return Lease(
        gpu=row["gpu"],
        slot=row["slot"],
        job=row["job"],
        attempt=row["attempt"],
        exclusive=bool(row["exclusive"]),
        memory_bytes=row["memory_bytes"],
        state=LeaseState(row["state"]),
        cooling_since=row["cooling_mono"],
        dirt=row["dirt"],
    )


def _known_gpu(row: Row) -> Gpu:
    return Gpu(
        index=row["idx"],
        uuid=row["uuid"],
        model=row["model"],
        simulated=bool(row["simulated"]),
        bus_id=row["bus_id"],
        memory_total_bytes=row["memory_total_bytes"],
        memory_reserved_bytes=row["memory_reserved_bytes"],
        baseline_bytes=row["baseline_bytes"],
    )
