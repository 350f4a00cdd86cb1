"""What jobs wait for: kept as it was asked, touched when one of those ends, and settled by the loop.

A job ends, and in the same transaction the needs that this concerns are touched; what was touched is
judged in one of the next turns. So nothing that ends is missed, whenever the daemon dies. Each step is
bounded, and what is left of it stays touched.
"""

import json
from collections.abc import Sequence

from gpuq.core.asked.needs import NeedState, When
from gpuq.core.model import EndedJob, Outcome, TouchedNeed
from gpuq.core.scheduling.judging import breaking, judge
from gpuq.daemon.store.classes import classify_anew
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.elements import single_out, span_detail
from gpuq.daemon.store.events import record_event
from gpuq.daemon.store.need_rows import cut_off, cut_out, join_met

TOUCHED_PER_TURN = 512
ROWS_PER_STEP = 512  # of jobs, that one step ends or queues again


def touch(db: Database, job: int) -> None:
    """The job of that row, or all the jobs of it, have ended: who waits for them is to be looked at,
    where that decides something. Stands in the transaction of the end."""
    if db.value(_SOMETHING_OPEN) is None:
        return
    row = db.row("select id, last_id, outcome from jobs where id = ?", (job,))
    if row is None:
        return
    span = {"first": row["id"], "last": row["last_id"]}
    outcome = Outcome(row["outcome"])
    broken = [when.value for when in When if judge(when, outcome) is NeedState.BROKEN]
    db.write(_TOUCH_ALL_OF, span | {"broken": json.dumps(broken)})
    for need in db.rows(_EACH_ON, span):
        first, last = max(need["on_first"], row["id"]), min(need["on_last"], row["last_id"])
        cut_out(db, need, range(first, last + 1), ahead_of_it=need["touched"])


def revive(db: Database, first: int, last: int) -> None:
    """These jobs are queued again: who was skipped for their end is to be looked at again, and so is
    what they themselves were skipped for. Stands in the transaction that queues them."""
    span = {"first": first, "last": last}
    db.write(_TOUCH_BROKEN_ON, span)
    db.write(
        """
        update needs indexed by needs_unmet set touched = 1
        where entry in (select coalesce(array_first, id) from jobs where id between :first and :last)
          and state <> 'met' and state = 'broken' and first <= :last and last >= :first
        """,
        span,
    )


class Needs:
    """What the loop looks at and writes of them."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def touched(self) -> list[TouchedNeed]:
        """The first few about which there is news. Costs the same however many jobs are waited for,
        and hardly anything where there is no news: each turn asks."""
        if self._db.value(_IS_ANY_TOUCHED) is None:
            return []
        breakers = {when.value: json.dumps([one.value for one in breaking(when)]) for when in When}
        rows = self._db.rows(_TOUCHED, breakers | {"limit": TOUCHED_PER_TURN})
        return [_touched_need(row) for row in rows]

    def take_up(self, needs: Sequence[int]) -> None:
        """They were judged and are about to be settled. What is touched from here on is news to that
        verdict: the end of a job that is skipped with it, say, and is judged again."""
        with self._db.transaction():
            sql = "update needs set touched = 0 where id in (select value from json_each(?))"
            self._db.write(sql, (json.dumps(list(needs)),))

    def meet(self, need: int, *, now: float) -> None:
        """What it is about has come: its jobs wait for one thing less."""
        with self._db.transaction():
            row = self._row(need)
            if row is None or row["state"] == NeedState.MET:
                return
            if not self._queue_again(row, now):
                self._look_again(need)
                return
            single_out(self._db, row["first"], row["last"])
            span = row["first"], row["last"]
            sql = "update jobs set open_needs = open_needs - 1 where id between ? and ?"
            self._db.write(sql, span)
            self._settle(need, NeedState.MET)
            if row["each"]:
                join_met(self._db, row)

    def wait(self, need: int, *, now: float) -> None:
        """What it is about is still to come; who was skipped for it is queued again."""
        with self._db.transaction():
            row = self._row(need)
            if row is None or row["state"] == NeedState.MET:
                return
            if self._queue_again(row, now):
                self._settle(need, NeedState.OPEN)
            if row["state"] == NeedState.BROKEN:  # ends since it was judged touched nothing broken
                self._look_again(need)

    def skip(self, need: int, *, broken_by: int, reason: str, now: float) -> list[tuple[int, int]]:
        """What it is about cannot come: its jobs end. Returns the runs of jobs that did so now."""
        with self._db.transaction():
            row = self._row(need)
            if row is None or row["state"] == NeedState.MET:
                return []
            single_out(self._db, row["first"], row["last"])
            ended = self._db.rows(_TO_SKIP, (row["first"], row["last"], ROWS_PER_STEP))
            if row["broken_by"] not in (None, broken_by):
                said = reason, reason, row["first"], row["last"]
                self._db.write(_TELL_ANEW, said)
            for jobs in ended:
                self._skip_row(jobs, reason, now)
            self._settle(need, NeedState.BROKEN, broken_by)
            if len(ended) == ROWS_PER_STEP:
                self._look_again(need)
        return [(jobs["id"], jobs["last_id"]) for jobs in ended]

    def divide(self, need: int) -> None:
        """Elements that wait for elements: those whose own has ended get a need of their own, and so do
        those that were skipped together, whose own fare differently by now."""
        with self._db.transaction():
            row = self._row(need)
            if row is None or row["state"] == NeedState.MET:
                return
            rows = self._db.rows(_ROWS_ON, row | {"limit": ROWS_PER_STEP})
            is_broken = row["state"] == NeedState.BROKEN
            left: Row | None = row
            for jobs in rows:
                if left is not None and (jobs["state"] == "ended" or is_broken):
                    first = max(left["on_first"], jobs["id"])
                    last = min(row["on_last"], jobs["last_id"])
                    left = cut_out(self._db, left, range(first, last + 1), ahead_of_it=0)
            if left is not None and len(rows) == ROWS_PER_STEP:
                cut_off(self._db, left, rows[-1]["last_id"])

    def _row(self, need: int) -> Row | None:
        return self._db.row("select * from needs where id = ?", (need,))

    def _settle(self, need: int, state: NeedState, broken_by: int | None = None) -> None:
        sql = "update needs set state = ?, broken_by = ? where id = ?"
        self._db.write(sql, (state.value, broken_by, need))

    def _look_again(self, need: int) -> None:
        """Not all was done in one step."""
        self._db.write("update needs set touched = 1 where id = ?", (need,))

    def _skip_row(self, jobs: Row, reason: str, now: float) -> None:
        self._db.write(
            """
            update jobs set state = 'ended', outcome = 'skipped', reason = ?, open_reason = ?,
              ended_at = ?, delayed_until_at = null, delayed_until_boottime = null,
              delayed_boot = null, delayed_for = null
            where id = ?
            """,
            (reason, reason, now, jobs["id"]),
        )
        detail = {"outcome": Outcome.SKIPPED} | span_detail(jobs["id"], jobs["last_id"])
        record_event(self._db, now, "ended", job=jobs["id"], cause=reason, detail=detail)
        touch(self._db, jobs["id"])

    def _queue_again(self, need: Row, now: float) -> bool:
        """Those that were skipped for this need and for no other; False where some are left to do."""
        if need["state"] != NeedState.BROKEN:
            return True
        rows = self._db.rows(_SKIPPED_FOR, need | {"limit": ROWS_PER_STEP})
        for jobs in rows:
            self._db.write(_QUEUE_AGAIN, (jobs["id"],))
            # Limits may be others by now.
            classify_anew(self._db, "j.id = :job", {"job": jobs["id"]})
            cause = f"it is not to be skipped for {need['broken_by']} any more"
            detail = span_detail(jobs["id"], jobs["last_id"]) or None
            record_event(self._db, now, "requeued", job=jobs["id"], cause=cause, detail=detail)
            revive(self._db, jobs["id"], jobs["last_id"])
        return len(rows) < ROWS_PER_STEP


def _touched_need(row: Row) -> TouchedNeed:
    breaker = None
    if row["breaker"] is not None:
        outcome = Outcome(row["outcome"])
        breaker = EndedJob(id=row["breaker"], outcome=outcome, reason=row["open_reason"])
    return TouchedNeed(
        id=row["id"],
        when=When(row["condition"]),
        is_unended=bool(row["is_unended"]),
        breaker=breaker,
        is_mixed=bool(row["is_mixed"]),
        forgotten=row["forgotten"],
    )


_SOMETHING_OPEN = "select 1 from needs indexed by needs_on where state <> 'met' limit 1"

# Where the rows begin that hold the jobs that a need is about.
BEGIN = "coalesce((select max(id) from jobs where id <= n.on_first), n.on_first)"
IS_UNENDED = f"""
exists (select 1 from jobs j indexed by jobs_unended where j.state <> 'ended'
        and j.id between {BEGIN} and n.on_last and j.last_id >= n.on_first)
"""

# The needs not met about any of the jobs :first to :last. The reaches that there are, are found by
# skipping through the index, and so are the needs of each that begin near enough.
UNMET_ON = """
with recursive reaches (reach) as (
  select min(reach) from needs indexed by needs_on where state <> 'met'
  union all
  select (select min(reach) from needs indexed by needs_on
          where state <> 'met' and reach > reaches.reach)
  from reaches where reaches.reach is not null
)
select {columns} from reaches cross join needs n indexed by needs_on
  on n.state <> 'met' and n.reach = reaches.reach
  and n.on_first between :first - reaches.reach + 1 and :last and n.on_last >= :first
"""
_EACH_ON = f"{UNMET_ON.format(columns='n.*')} and n.state = 'open' and n.each"
_TOUCH_BROKEN_ON = f"""
update needs set touched = 1
where id in ({UNMET_ON.format(columns="n.id")} and n.state = 'broken')
"""
_TOUCH_ALL_OF = f"""
update needs set touched = 1 where id in (
  {UNMET_ON.format(columns="n.id")} and n.state = 'open' and not n.each
  and (n.condition in (select value from json_each(:broken)) or not {IS_UNENDED})
)
"""

# The first of its jobs that ended as it was not to: of each such end the first, by one look each.
BREAKER = f"""
(select min((
   select j.id from jobs j indexed by jobs_ended_as
   where j.state = 'ended' and j.outcome = broken.value
     and j.id between {BEGIN} and n.on_last and j.last_id >= n.on_first
   order by j.id limit 1))
 from json_each(case n.condition when 'ok' then :ok when 'fail' then :fail else :any end) broken)
"""
# Each element waits for its own, and these are not all of one row.
_IS_MIXED = """
(n.each and n.on_last > n.on_first and (
   exists (select 1 from jobs where id > n.on_first and id <= n.on_last)
   or coalesce((select last_id from jobs where id <= n.on_first order by id desc limit 1)
               between n.on_first and n.on_last - 1, 0)))
"""
_IS_ANY_TOUCHED = "select 1 from needs indexed by needs_touched where touched limit 1"
_TOUCHED = f"""
select t.*, b.outcome, b.open_reason, max(t.found, t.on_first) as breaker from (
  select n.id, n.condition, n.on_first, {IS_UNENDED} as is_unended, {_IS_MIXED} as is_mixed,
         {BREAKER} as found,
         case when n.broken_by > coalesce(
           (select last_id from jobs where id <= n.broken_by order by id desc limit 1), 0)
         then n.broken_by end as forgotten
  from needs n indexed by needs_touched where n.touched order by n.id limit :limit
) t
left join jobs b on b.id = t.found order by t.id
"""

_TO_SKIP = """
select id, last_id from jobs
where id between ? and ? and state = 'queued' and stop_asked_at is null order by id limit ?
"""
_TELL_ANEW = """
update jobs set reason = ?, open_reason = ?
where id between ? and ? and state = 'ended' and outcome = 'skipped'
"""
_SKIPPED_FOR = """
select id, last_id from jobs
where id between :first and :last and state = 'ended' and outcome = 'skipped'
  and prune_asked_at is null
  and (key is null
       or not exists (select 1 from jobs k where k.key = jobs.key and k.state <> 'ended'
                        and k.group_id <> jobs.group_id))
  and not exists (
    select 1 from needs n indexed by needs_unmet
    where n.entry = :entry and n.state <> 'met' and n.state = 'broken' and n.id <> :id
      and n.first <= jobs.last_id and n.last >= jobs.id)
order by id limit :limit
"""
_QUEUE_AGAIN = """
update jobs set state = 'queued', outcome = null, reason = null, open_reason = null,
  ended_at = null, files_bytes = null, files_removed_at = null
where id = ?
"""
_ROWS_ON = """
select id, last_id, state from jobs
where id between coalesce((select max(id) from jobs where id <= :on_first), :on_first) and :on_last
  and last_id >= :on_first
order by id limit :limit
"""
