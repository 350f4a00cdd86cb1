"""The numbers that triggers keep, held against the rows that they count: for `check`."""

from typing import NamedTuple

from gpuq.daemon.store.audit import Audit


class Misnumbered(NamedTuple):
    """So many jobs are said to be in a state, and so many rows say it of themselves."""

    what: str
    said: int
    there: int


def misnumbered(audit: Audit) -> list[Misnumbered]:
    return [Misnumbered(*row) for row in audit.db.execute(_MISNUMBERED)]


_MISNUMBERED = """
with counted (what, jobs) as (
  select printf('queued in class %d%s%s', class, iif(held_by is null, '', ', held'),
                iif(stop_asked_at is null, '', ', about to be cancelled')),
         sum(last_id - id + 1)
  from jobs where state = 'queued' group by 1
  union all
  select printf('%s in group g%d behind its first', outcome, group_id), sum(last_id - id + 1)
  from jobs where state = 'ended' and id <> group_id group by 1
),
said (what, jobs) as (
  select printf('queued in class %d%s%s', class, iif(is_held, ', held', ''),
                iif(is_stopping, ', about to be cancelled', '')), jobs
  from queued_jobs
  union all
  select printf('%s in group g%d behind its first', outcome, group_id), jobs from ended_jobs
)
select what, coalesce(said.jobs, 0), coalesce(counted.jobs, 0)
from said full join counted using (what)
where coalesce(said.jobs, 0) <> coalesce(counted.jobs, 0) order by what
"""
