"""How jobs fared: what they waited, how long they ran, what memory they took, how they failed. Always
by query: what a counter would have missed nobody can count again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.elements import FIRST_IN_SPAN, IN_SPANS, LAST_IN_SPAN
from gpuq.daemon.store.reading import Readable

StatisticsBy = Literal["state", "user", "name", "group", "queue"]
FailuresBy = Literal["outcome", "signature", "gpu", "hour"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which jobs are counted: those that ended since then or have not ended, of a user, called so (with
    * and ?, as the name was given), with a tag, in a queue, with these ids. None: whichever."""

    since: float | None = None
    uid: int | None = None
    user: str | None = None
    name: str | None = None
    tag: str | None = None
    queue: str | None = None
    ids: Sequence[range] | None = None

    @property
    def values(self) -> dict[str, Any]:
        spans = [(span.start, span.stop - 1) for span in self.ids or ()]
        return {
            "since": self.since or 0.0,
            "uid": self.uid,
            "only_user": self.user,
            "only_name": self.name,
            "only_tag": self.tag,
            "only_queue": self.queue,
            "spans": None if self.ids is None else json.dumps(spans),
        }


def statistics(
    db: Readable, by: StatisticsBy, scope: Scope, *, whose: int | None, limit: int
) -> tuple[list[Row], int]:
    """The largest first, and how many there are in all. Names and groups are told of the jobs of the
    uid `whose`, or of all where that is None; the others come as one, `key` None.

    A wait is from the submission to the start of the first attempt, a run from the start of an attempt
    to its end without what it stood still, both in s; of those the 50th and 95th percentile by the
    nearest rank: a value that there was. `fell_back` counts the jobs that turned to the CPU,
    `simulated` the attempts on simulated GPUs.
    """
    sql = _STATISTICS.format(key=_STATISTICS_KEYS[by])
    rows = db.rows(sql, scope.values | {"whose": whose, "limit": limit})
    return _without_number(rows)


def failures(
    db: Readable, by: FailuresBy, scope: Scope, *, whose: int | None, limit: int
) -> tuple[list[Row], int]:
    """Attempts that failed, ran out of time or memory, or were lost; and of how many that ended. The
    most first, hours in their order and the last ones of them, and how many there are in all.
    Signatures are told of the jobs of the uid `whose`, or of all where that is None. An attempt with
    several GPUs counts at each of them; key None: it had none."""
    order = "key desc" if by == "hour" else "errors desc, last_at desc, key"
    sql = _FAILURES.format(order=order, **_FAILURES_KEYS[by])
    rows, number = _without_number(db.rows(sql, scope.values | {"whose": whose, "limit": limit}))
    return (rows[::-1] if by == "hour" else rows), number


def _without_number(rows: list[Row]) -> tuple[list[Row], int]:
    """How many there are in all stands in each of the rows."""
    number = rows[0]["number"] if rows else 0
    return [{name: row[name] for name in row if name != "number"} for row in rows], number


_IS_TOLD = "(:whose is null or s.uid = :whose)"
_STATISTICS_KEYS = {
    "state": "coalesce(j.outcome, j.state)",
    "user": "s.user",
    "name": f"iif({_IS_TOLD}, s.name, null)",
    "group": f"iif({_IS_TOLD}, j.group_id, null)",
    "queue": "c.queue",
}
_ENDED_BADLY = "('failed', 'timed_out', 'out_of_memory', 'lost')"

# Looked up once and not for each job. Elements of an array that nothing told apart share one row, of
# which a part may be asked for.
_NAMED = f"""
named as materialized (
  select j.id, sum({LAST_IN_SPAN} - {FIRST_IN_SPAN} + 1) as number
  from {IN_SPANS.format(spans=":spans")} group by j.id
)
"""
_JOBS_IN_SCOPE = """
  (
    select id from jobs indexed by jobs_ended where state = 'ended' and ended_at >= :since
    union all
    select id from jobs indexed by jobs_unended where state <> 'ended'
  ) u
  join jobs j on j.id = u.id join specs s on s.id = j.spec join classes c on c.id = j.class
  left join named n on n.id = j.id
"""
_NUMBER = "coalesce(n.number, j.last_id - j.id + 1)"
_IS_IN_SCOPE = """
  (:uid is null or s.uid = :uid) and (:only_user is null or s.user = :only_user)
  and (:only_name is null or s.name glob :only_name)
  and (:only_queue is null or c.queue = :only_queue)
  and (:only_tag is null or exists (select 1 from json_each(s.tags) where value = :only_tag))
  and (:spans is null or n.id is not null)
"""

_STATISTICS = f"""
with {_NAMED}, chosen as materialized (
  select {{key}} as key, j.id, {_NUMBER} as number, j.state, j.outcome, j.submitted_at,
         j.gpu_request is not null as fell_back
  from {_JOBS_IN_SCOPE} where {_IS_IN_SCOPE}
),
tries as materialized (
  select c.key, c.id, c.submitted_at, a.started_at, a.ended_at - a.started_at - a.paused_s as ran_s,
         coalesce(a.memory_peak_bytes, a.peak_rss_bytes) as memory_bytes, a.gpu_peak_bytes,
         coalesce(a.gpus ->> '$.simulated', 0) as simulated
  from chosen c join attempts a on a.job = c.id
),
counted as (
  select key, sum(number) as jobs, sum(number * (state = 'queued')) as queued,
         sum(number * (state in ('starting', 'running'))) as running,
         sum(number * (outcome is 'succeeded')) as succeeded,
         sum(number * (outcome is not null and outcome in {_ENDED_BADLY})) as failed,
         sum(number * fell_back) as fell_back
  from chosen group by key
),
tried as (
  select key, count(*) as attempts, max(memory_bytes) as memory_peak_bytes,
         max(gpu_peak_bytes) as gpu_peak_bytes, sum(simulated) as simulated
  from tries group by key
),
waits as (
  select key, max(min(started_at) - submitted_at, 0) as s from tries
  where started_at is not null group by id
),
runs as (select key, max(ran_s, 0) as s from tries where ran_s is not null),
placed_waits as (
  select key, s, row_number() over of_key as place, count(*) over (partition by key) as number
  from waits window of_key as (partition by key order by s)
),
placed_runs as (
  select key, s, row_number() over of_key as place, count(*) over (partition by key) as number
  from runs window of_key as (partition by key order by s)
),
told_waits as (
  select key, min(s) filter (where place * 100 >= number * 50) as p50,
         min(s) filter (where place * 100 >= number * 95) as p95 from placed_waits group by key
),
told_runs as (
  select key, min(s) filter (where place * 100 >= number * 50) as p50,
         min(s) filter (where place * 100 >= number * 95) as p95 from placed_runs group by key
)
select c.*, coalesce(t.attempts, 0) as attempts, coalesce(t.simulated, 0) as simulated,
       w.p50 as wait_p50_s, w.p95 as wait_p95_s,
       r.p50 as run_p50_s, r.p95 as run_p95_s, t.memory_peak_bytes, t.gpu_peak_bytes,
       count(*) over () as number
from counted c left join tried t on t.key is c.key left join told_waits w on w.key is c.key
left join told_runs r on r.key is c.key
order by c.jobs desc, c.key limit :limit
"""

# What ended well is counted beside, where it tells how many of all ended badly.
_FAILURES_KEYS = {
    "outcome": {"key": "t.outcome", "source": "", "ended": "null", "which": "is_error"},
    "signature": {
        "key": "iif(:whose is null or t.uid = :whose, t.error_signature, null)",
        "source": "",
        "ended": "null",
        "which": "is_error",
    },
    "gpu": {
        "key": "g.value",
        "source": "left join json_each(t.gpus, '$.uuids') g",
        "ended": "count(*)",
        "which": "true",
    },
    "hour": {
        "key": "cast(t.ended_at / 3600 as integer) * 3600",
        "source": "",
        "ended": "count(*)",
        "which": "true",
    },
}

# Beside one max() a plain column is that of the row which has it (sqlite.org/lang_select.html).
_FAILURES = f"""
with {_NAMED}, tries as (
  select a.job, a.ended_at, a.outcome, a.error_signature, a.gpus, s.uid,
         a.outcome in {_ENDED_BADLY} as is_error
  from {_JOBS_IN_SCOPE} join attempts a on a.job = j.id
  where a.ended_at >= :since and {_IS_IN_SCOPE}
)
select {{key}} as key, sum(is_error) as errors, {{ended}} as ended,
       count(distinct iif(is_error, job, null)) as jobs,
       count(distinct iif(is_error, uid, null)) as users,
       max(iif(is_error, ended_at, null)) as last_at, job as last_job, count(*) over () as number
from tries t {{source}} where {{which}}
group by 1 having sum(is_error) > 0 order by {{order}} limit :limit
"""
