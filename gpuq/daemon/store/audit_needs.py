"""What jobs wait for, held against how those ended: for `check`."""

import json
from typing import NamedTuple

from gpuq.core.asked.needs import When
from gpuq.core.scheduling.judging import breaking
from gpuq.daemon.store.audit import Audit
from gpuq.daemon.store.needs import BREAKER, IS_UNENDED


class MiscountedRow(NamedTuple):
    """Jobs that are said to wait for another number of things than there are."""

    id: int
    last_id: int
    open_needs: int
    needs: int


class UnjudgedNeed(NamedTuple):
    """Jobs wait for others, whose end decides it, and nobody is going to look at that."""

    first: int
    last: int
    on_first: int
    on_last: int


def miscounted(audit: Audit) -> list[MiscountedRow]:
    return [MiscountedRow(*row) for row in audit.db.execute(_MISCOUNTED)]


def unjudged(audit: Audit) -> list[UnjudgedNeed]:
    breakers = {when.value: json.dumps([one.value for one in breaking(when)]) for when in When}
    return [UnjudgedNeed(*row) for row in audit.db.execute(_UNJUDGED, breakers)]


_MISCOUNTED = """
select * from (
  select j.id, j.last_id, j.open_needs, (
    select count(*) from needs n indexed by needs_unmet
    where n.entry = coalesce(j.array_first, j.id) and n.state <> 'met'
      and n.first <= j.last_id and n.last >= j.id) as needs
  from jobs j where j.state = 'queued'
) where open_needs <> needs order by id
"""
# Where each element waits for one, whoever has ended is to have been told apart from the others.
_UNJUDGED = f"""
select n.first, n.last, n.on_first, n.on_last from needs n
where n.state = 'open' and not n.touched
  and exists (select 1 from jobs j where j.id between n.first and n.last and j.state = 'queued')
  and (not {IS_UNENDED} or {BREAKER} is not null
       or (n.each and exists (select 1 from jobs j where j.state = 'ended'
                              and j.id between n.on_first and n.on_last)))
order by n.first
"""
