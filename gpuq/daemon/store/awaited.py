"""What a job waits for and who waits for it, for those who want to know."""

import json
from collections.abc import Sequence

from gpuq.core.asked.needs import Need, NeedState, When
from gpuq.core.scheduling.judging import Awaited, breaking
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.needs import BEGIN, UNMET_ON

MOST_WAITING = 100  # needs that are looked at to say who waits for a job


class Waiting:
    def __init__(self, db: Database) -> None:
        self._db = db

    def needs_of(self, row: Row) -> list[Awaited]:
        """What the first job of this row was to wait for, as it was asked and how far that is."""
        entry, job = row["array_first"] or row["id"], row["id"]
        if self._db.value("select 1 from needs where entry = ? limit 1", (entry,)) is None:
            return []
        key = {"entry": entry, "job": job}
        return [self._awaited(need, job) for need in self._db.rows(_OF_ONE, key)]

    def was_skipped_for_forgotten(self, row: Row) -> bool:
        """Was this job skipped for one of which nothing is known any more? Nothing revives it."""
        key = {"entry": row["array_first"] or row["id"], "job": row["id"]}
        return self._db.value(_FORGOTTEN_BREAKER, key) is not None

    def waiting_for(self, jobs: range, *, to_succeed: bool = False) -> list[range]:
        """Those that wait for any of these jobs to end, some of them where they are very many; only
        those that want them `to_succeed`. Apart from each other and in order."""
        sql = f"{_WAITING} limit {MOST_WAITING}"
        only = "ok" if to_succeed else None
        needs = self._db.rows(sql, {"first": jobs[0], "last": jobs[-1], "only": only})
        return _own_parts(needs, jobs)

    def skipped_for(self, jobs: range) -> list[range]:
        """Those that were skipped for one of these jobs and for nothing else, some of them where they
        are very many: they wait again once that is queued again."""
        sql = f"{_SKIPPED_FOR} limit {MOST_WAITING}"
        return _own_parts(self._db.rows(sql, {"first": jobs[0], "last": jobs[-1]}), jobs)

    def foretold(self, need: Need) -> Awaited:
        """How far the jobs are that somebody thinks of waiting for."""
        span = {"on_first": need.jobs[0], "on_last": need.jobs[-1]}
        unended = int(self._db.value(_UNENDED, span))
        ends = json.dumps([one.value for one in breaking(need.when)])
        is_broken = self._db.value(_BREAKING, span | {"breaking": ends}) is not None
        state = NeedState.OPEN if unended else NeedState.MET
        return Awaited(
            jobs=need.jobs,
            when=need.when,
            each=need.each,
            state=NeedState.BROKEN if is_broken and not need.each else state,
            ended=len(need.jobs) - unended,
        )

    def _awaited(self, need: Row, job: int) -> Awaited:
        jobs = range(need["on_first"], need["on_last"] + 1)
        if need["each"]:
            jobs = range(jobs[job - need["first"]], jobs[job - need["first"]] + 1)
        state = NeedState(need["state"])
        unended = 0
        if state is NeedState.OPEN:
            span = {"on_first": jobs[0], "on_last": jobs[-1]}
            unended = int(self._db.value(_UNENDED, span))
        return Awaited(
            jobs=jobs,
            when=When(need["condition"]),
            each=bool(need["each"]),
            state=state,
            ended=len(jobs) - unended,
        )


def _own_parts(needs: Sequence[Row], jobs: range) -> list[range]:
    """Apart from each other and in order."""
    joined: list[range] = []
    for first, last in sorted({_own_part(need, jobs) for need in needs}):
        if joined and first <= joined[-1].stop:
            first, last = joined[-1].start, max(joined.pop()[-1], last)
        joined.append(range(first, last + 1))
    return joined


def _own_part(need: Row, jobs: range) -> tuple[int, int]:
    """Of the jobs that wait by this need, those that wait for any of these."""
    if not need["each"]:
        return need["first"], need["last"]
    behind = need["first"] - need["on_first"]
    first, last = max(need["on_first"], jobs[0]), min(need["on_last"], jobs[-1])
    return first + behind, last + behind


# Of each of the things that an entry waits for, the one row that holds this job.
_OF_ONE = """
with recursive numbers (number) as (
  select min(number) from needs where entry = :entry
  union all
  select (select min(number) from needs where entry = :entry and number > numbers.number)
  from numbers where numbers.number is not null
)
select n.* from numbers cross join needs n on n.entry = :entry and n.number = numbers.number
  and n.first = (select max(first) from needs
                 where entry = :entry and number = numbers.number and first <= :job)
order by n.number
"""
_FORGOTTEN_BREAKER = """
select 1 from needs n indexed by needs_unmet
where n.entry = :entry and n.state <> 'met' and n.state = 'broken'
  and n.first <= :job and n.last >= :job
  and coalesce((select last_id from jobs where id <= n.broken_by order by id desc limit 1), 0)
      < n.broken_by
limit 1
"""
_WAITING = (
    f"{UNMET_ON.format(columns='n.*')} and n.state = 'open' "
    "and (:only is null or n.condition = :only)"
)
_SKIPPED_FOR = f"""
{UNMET_ON.format(columns="n.*")} and n.state = 'broken' and n.broken_by between :first and :last
  and (select outcome from jobs where id <= n.first order by id desc limit 1) = 'skipped'
  and not exists (select 1 from needs o indexed by needs_unmet
                  where o.entry = n.entry and o.state <> 'met' and o.id <> n.id
                    and o.state = 'broken' and o.first <= n.last and o.last >= n.first)
"""
_UNENDED = f"""
select coalesce(sum(min(j.last_id, n.on_last) - max(j.id, n.on_first) + 1), 0)
from (select :on_first as on_first, :on_last as on_last) n
cross join jobs j indexed by jobs_unended on j.state <> 'ended'
  and j.id between {BEGIN} and n.on_last and j.last_id >= n.on_first
"""
_BREAKING = f"""
select 1 from (select :on_first as on_first, :on_last as on_last) n
cross join jobs j on j.id between {BEGIN} and n.on_last and j.last_id >= n.on_first
where j.state = 'ended' and j.outcome in (select value from json_each(:breaking)) limit 1
"""
