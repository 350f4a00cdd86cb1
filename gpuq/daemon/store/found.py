"""Finding jobs as people name and describe them: by id, group, user, tag, state, time."""

import json
from collections.abc import Sequence
from typing import Any

from gpuq.core.model import Outcome
from gpuq.daemon.store.connection import Database, Row


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

    def attempts(self, job: int) -> list[Row]:
        return self._db.rows("select * from attempts where job = ? order by attempt", (job,))

    def owner(self, job: int) -> int | None:
        """The uid that it belongs to."""
        sql = "select s.uid from jobs j join specs s on s.id = j.spec where j.id = ?"
        uid = self._db.value(sql, (job,))
        return None if uid is None else int(uid)

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

    def last_id(self, uid: int | None = None) -> int | None:
        if uid is None:
            last = self._db.value("select max(last_id) from jobs")
        else:
            last = self._db.value(
                "select max(j.last_id) from jobs j join specs s on s.id = j.spec where s.uid = ?",
                (uid,),
            )
        return None if last is None else int(last)


_JOB_ROWS = """
select j.*, s.uid, s.user, s.name, s.argv, s.cwd, s.grace_s, s.tags, s.output, s.stderr, s.visible,
       s.seed, s.stop_to, s.time_limit_s, s.heartbeat_s, s.retries, s.backoff, s.retry_on,
       c.request, c.queue, a.pid, a.exit_code, a.signal, a.gpus, a.committed_at, a.ending,
       a.term_mono, a.kill_mono, a.main_ended_mono, a.paused_mono, a.paused_s, a.unkillable,
       a.outcome as attempt_outcome, a.leftovers, a.gpu_measured_s, a.gpu_peak_bytes,
       a.gpu_util_mean, a.gpu_util_peak, a.gpu_energy_j, a.idle_since_at, a.contended_at,
       a.contended_by, a.over_memory, a.xids, s.gpu_mem_from, s.mem_bytes, s.cpu_bound,
       a.mem_bound_by, a.cpu_bound_by, a.memory_peak_bytes,
       s.elements, case when j.array_first is null then null else j.id - j.array_first end as element
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
