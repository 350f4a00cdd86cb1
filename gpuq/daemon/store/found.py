"""Finding jobs as people name and describe them: by id, group, user, tag, state, time."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gpuq.core.model import Outcome
from gpuq.core.units import merged
from gpuq.daemon.particulars import known_elements
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.elements import FIRST_IN_SPAN, IN_SPANS, IS_OF, LARGEST, LAST_IN_SPAN
from gpuq.daemon.store.reported import REPORT_COLUMNS


class Found:
    def __init__(self, db: Database) -> None:
        self._db = db

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
        queue: str | None = None,
        since: float | None = None,
        limit: int | None = None,
        cursor: int | None = None,
    ) -> list[Row]:
        """Rows for status and show, each a run of jobs that are alike, `id` to `last_id`: as much of it
        as lies among those asked for. With ended jobs among them the newest come first, otherwise the
        oldest; `cursor` is the last id of the page before. `since`: submitted, started or ended
        at that time or later."""
        chosen, part = Where(), _Part(cursor, ended)
        if ids is not None:
            part.lie_in(ids)
        if not ended:
            chosen.add("j.state <> 'ended'")
        if uid is not None:
            chosen.add("s.uid = ?", uid)
        if user is not None:
            chosen.add("s.user = ?", user)
        if name is not None:
            chosen.add("s.name = ?", name)
        if queue is not None:
            chosen.add("c.queue = ?", queue)
        if tag is not None:
            chosen.add("exists (select 1 from json_each(s.tags) where value = ?)", tag)
        if states:
            chosen.add(" or ".join(STATE_WORDS.get(word, "false") for word in states))
        if since is not None:
            chosen.add(_TOUCHED_SINCE, since, since, since)
        if cursor is not None:
            chosen.add(part.is_beyond_cursor)
        sql = f"""
            {JOB_COLUMNS}, {part.columns} from {part.source} {BESIDE_JOBS}
            where {chosen.sql} order by {part.order} limit ?
        """
        values = (*part.values, *chosen.values, -1 if limit is None else limit)
        return self._db.rows(sql, values)

    def whole_rows(self, ids: Sequence[range], limit: int) -> list[Row]:
        """The rows that hold one of the jobs, those of an array whole, and those beside them that are
        of an array: where a run was divided or joined both sides are told. The oldest first."""
        if not ids:
            return []
        beside = merged(range(max(span.start - 1, 1), span.stop + 1) for span in ids)
        found = self._extents(ids, limit)
        found += [row for row in self._extents(beside, limit) if row["array_first"] is not None]
        arrays = [row for row in found if row["array_first"] is not None]
        whole = [range(row["id"], row["last_id"] + 1) for row in arrays]
        return self.jobs(ids=merged([*ids, *whole]), limit=limit) if found else []

    def _extents(self, ids: Sequence[range], limit: int) -> list[Row]:
        part = _Part(None, newest_first=False)
        part.lie_in(ids)
        columns = "j.id, j.last_id, j.array_first"
        sql = f"select {columns} from {part.source} group by j.id order by j.id limit ?"
        return self._db.rows(sql, (*part.values, limit))

    def brief(self, ids: Sequence[range]) -> list[Row]:
        """Without what only people read of them: as `jobs` without conditions, the oldest first."""
        return self._brief(ids, "true")

    def to_end(self, ids: Sequence[range]) -> list[Row]:
        """As `brief`, but those that are over and done with are joined to runs, as far as they are
        neighbours and one user's: of an array there may be a million."""
        part = _Part(None, newest_first=False)
        part.lie_in(ids)
        rest = self._brief(ids, f"not ({_IS_OVER})")
        if sum(row["last_id"] - row["id"] + 1 for row in rest) == sum(map(len, ids)):
            return rest
        sql = f"""
            select min(first) as id, max(last) as last_id, uid, user, 'ended' as state
            from (
              select {part.first} as first, {part.last} as last, s.uid, s.user,
                sum({part.last} - {part.first} + 1)
                  over (partition by s.uid order by j.id, {part.first}) - {part.last} as run
              from {part.source} join specs s on s.id = j.spec where {_IS_OVER}
            )
            group by uid, run
        """
        over = self._db.rows(sql, part.values)
        return sorted([*rest, *over], key=lambda row: int(row["id"]))

    def _brief(self, ids: Sequence[range], condition: str) -> list[Row]:
        part = _Part(None, newest_first=False)
        part.lie_in(ids)
        sql = f"""
            select j.*, s.uid, s.user, s.name, s.grace_s, {part.columns} from {part.source}
            join specs s on s.id = j.spec where {condition} order by {part.order}
        """
        return self._db.rows(sql, part.values)

    def has(self, job: int) -> bool:
        sql = f"select 1 from jobs j where {IS_OF}"
        return self._db.value(sql, {"job": job}) is not None

    def count(self, ids: Sequence[range]) -> int:
        """How many jobs there are with such ids."""
        part = _Part(None, newest_first=False)
        part.lie_in(ids)
        sql = f"select coalesce(sum({part.last} - {part.first} + 1), 0) from {part.source}"
        return int(self._db.value(sql, part.values))

    def still_before(self, moment: str, ids: Sequence[range]) -> list[range]:
        """Those of these jobs that have not `started` or not `ended`, in order; neighbours are one."""
        part = _Part(None, newest_first=False)
        part.lie_in(ids)
        before = "j.state = 'queued'" if moment == "started" else "j.state <> 'ended'"
        sql = f"select {part.columns} from {part.source} where {before} order by {part.order}"
        joined: list[range] = []
        for row in self._db.rows(sql, part.values):
            touches = joined and joined[-1].stop == row["id"]
            first = joined.pop().start if touches else row["id"]
            joined.append(range(first, row["last_id"] + 1))
        return joined

    def attempts(self, job: int) -> list[Row]:
        """Each with what it reported."""
        return self._db.rows(
            f"""
            select a.*, {REPORT_COLUMNS} from attempts a
            left join reports r on r.job = a.job and r.attempt = a.attempt
            where a.job = ? order by a.attempt
            """,
            (job,),
        )

    def with_values(self, row: Row) -> Row:
        """The row of one job with what a table gives it, where its array has one."""
        if row["element"] is None or not known_elements(row["elements"]).columns:
            return row
        sql = 'select "values" from parameters where spec = ? and element = ?'
        return row | {"values": self._db.value(sql, (row["spec"], row["element"]))}

    def owner(self, job: int) -> int | None:
        """The uid that it belongs to."""
        sql = f"select s.uid from jobs j join specs s on s.id = j.spec where {IS_OF}"
        uid = self._db.value(sql, {"job": job})
        return None if uid is None else int(uid)

    def submission(self, uid: int, back: int) -> list[range]:
        """The ids of a user's last submission but `back`; none where there is no such."""
        sql = "select id from groups where uid = ? order by id desc limit 1 offset ?"
        first = self._db.value(sql, (uid, back))
        return [] if first is None else self.group(int(first))

    def group(self, first: int) -> list[range]:
        """The ids of a group, a span for each piece in which it was submitted; none where there is no
        such group."""
        sql = "select first, last from group_spans where group_id = ? order by first"
        return [range(row["first"], row["last"] + 1) for row in self._db.rows(sql, (first,))]

    def last_id(self, uid: int | None = None) -> int | None:
        if uid is None:
            last = self._db.value("select last_id from jobs order by id desc limit 1")
        else:
            last = self._db.value(
                """
                select max(s.last) from groups g indexed by groups_uid
                join group_spans s on s.group_id = g.id where g.uid = ?
                """,
                (uid,),
            )
        return None if last is None else int(last)


def element(row: Row, job: int) -> Row:
    """One of the jobs of a row as a row of its own."""
    offset = job - row["id"]
    number = row["element"]
    return row | {
        "id": job,
        "last_id": job,
        "place": row["place"] + offset,
        "element": None if number is None else number + offset,
    }


def unfolded(rows: Iterable[Row], *, newest_first: bool) -> Iterator[Row]:
    """Each of the jobs of these rows, in the order of the rows, made when it is asked for."""
    for row in rows:
        if row["id"] == row["last_id"]:
            yield row
            continue
        jobs = range(row["id"], row["last_id"] + 1)
        for job in reversed(jobs) if newest_first else jobs:
            yield element(row, job)


def separately(rows: Iterable[Row], *, newest_first: bool = False) -> Iterator[Row]:
    """A row of separate jobs that are alike becomes one for each: only those of an array are shown as
    a run."""
    for row in rows:
        if row["element"] is None and row["last_id"] > row["id"]:
            yield from unfolded([row], newest_first=newest_first)
        else:
            yield row


JOB_COLUMNS = f"""
select j.*, s.uid, s.user, s.name, s.argv, s.cwd, s.grace_s, s.tags, s.output, s.stderr, s.visible,
       s.seed, s.stop_to, s.time_limit_s, s.heartbeat_s, s.on_kill, s.retries, s.backoff, s.retry_on,
       c.request, c.queue, a.pid, a.exit_code, a.signal, a.gpus, a.committed_at, a.ending,
       a.term_mono, a.kill_mono, a.main_ended_mono, a.paused_mono, a.paused_s, a.unkillable,
       a.outcome as attempt_outcome, a.error_signature, a.leftovers, a.gpu_measured_s, a.gpu_peak_bytes,
       a.gpu_util_mean, a.gpu_util_peak, a.gpu_energy_j, a.idle_since_at, a.contended_at,
       a.contended_by, a.over_memory, a.xids, s.gpu_mem_from, s.mem_bytes, s.cpu_bound,
       a.mem_bound_by, a.cpu_bound_by, a.memory_peak_bytes, a.peak_rss_bytes,
       s.preemptible, s.preempt_signal, a.gives_way_for, s.on_start, s.on_end,
       s.elements, s.commit_id, s.snapshot, s.script is not null as has_script, s.as_slurm,
       g.stop_after, {REPORT_COLUMNS}
"""

BESIDE_JOBS = """
join specs s on s.id = j.spec
join classes c on c.id = j.class
left join groups g on g.id = j.group_id
left join reports r on r.job = j.id and r.attempt = j.attempt
left join attempts a on a.job = j.id and a.attempt = j.attempt
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

# Nobody wants it once more.
_IS_OVER = "j.state = 'ended' and j.requeue_asked_at is j.requeued_for"

STATE_WORDS = (
    {word: f"j.state = '{word}'" for word in ("queued", "starting", "running", "ended")}
    | {word.value: f"j.outcome = '{word.value}'" for word in Outcome}
    | {
        "held": "(j.state = 'queued' and j.held_by is not null)",
        "delayed": "(j.state = 'queued' and j.delayed_for = 'begin')",
        "backoff": "(j.state = 'queued' and j.delayed_for = 'backoff')",
        "paused": "(j.state = 'running' and a.paused_mono is not null)",
        "stopping": "(j.state in ('starting', 'running') and (j.stop_asked_at is not null or "
        "a.ending is not null or a.main_ended_mono is not null) and a.unkillable is null)",
        "unkillable": "(j.state in ('starting', 'running') and a.unkillable is not null)",
    }
)


class _Part:
    """As much of each row as is asked for: what lies in some spans, and behind a cursor."""

    def __init__(self, cursor: int | None, newest_first: bool) -> None:
        self._cursor = None if cursor is None else min(max(cursor, 0), LARGEST)
        self._newest_first = newest_first
        self.source = "jobs j"
        self.values: tuple[Any, ...] = ()
        self._first, self._last = "j.id", "j.last_id"
        self._is_of_spans = False

    def lie_in(self, spans: Sequence[range]) -> None:
        """They lie apart from each other. One alone, as a group is, is read in the order of its ids: of
        a long one only as much as is wanted."""
        if len(spans) == 1 and spans[0].stop <= LARGEST:
            # Bound, not written out: to prepare a statement takes fifty times as long as to run it, and
            # this is the same one for each job. Stands before all other values.
            self.values = (spans[0].start, spans[0].stop - 1)
            self.source = """
                (select * from jobs where id between
                   coalesce((select max(id) from jobs where id <= ?1), ?1) and ?2
                 and last_id >= ?1) j
            """
            self._first, self._last = "max(j.id, ?1)", "min(j.last_id, ?2)"
            return
        self._is_of_spans = True
        self.source = IN_SPANS.format(spans="?")
        self.values = (json.dumps([(span.start, span.stop - 1) for span in spans]),)
        self._first, self._last = FIRST_IN_SPAN, LAST_IN_SPAN

    @property
    def first(self) -> str:
        if self._cursor is None or self._newest_first:
            return self._first
        return f"max({self._first}, {self._cursor + 1})"

    @property
    def last(self) -> str:
        if self._cursor is None or not self._newest_first:
            return self._last
        return f"min({self._last}, {self._cursor - 1})"

    @property
    def columns(self) -> str:
        return f"""
            {self.first} as id, {self.last} as last_id, j.place + {self.first} - j.id as place,
            {self.first} - j.array_first as element
        """

    @property
    def is_beyond_cursor(self) -> str:
        if self._newest_first:
            return f"{self._first} < {self._cursor}"
        start = f"select coalesce(max(id), 0) from jobs where id <= {self._cursor}"
        return f"j.id >= ({start}) and {self._last} > {self._cursor}"

    @property
    def order(self) -> str:
        way = "desc" if self._newest_first else "asc"
        return f"j.id {way}" + (f", span.value ->> 0 {way}" if self._is_of_spans else "")


class Where:
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
