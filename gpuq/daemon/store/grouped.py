"""Groups as one entry each: how many of their jobs wait, run and ended how, and one for all of them."""

import json
from collections.abc import Sequence
from typing import Any

from gpuq.core.model import JobState, Outcome
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.found import Found, element

# The most alive first, and of those that have ended what went wrong.
_LIVELY = (JobState.RUNNING, JobState.STARTING, JobState.QUEUED)
_TELLING = (
    *(Outcome.FAILED, Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT, Outcome.LOST),
    *(Outcome.SKIPPED, Outcome.CANCELLED, Outcome.SUCCEEDED),
)
WORDS = (*_LIVELY, *_TELLING)
NAMES_AT_EACH_END = 50


class Grouped:
    def __init__(self, db: Database, found: Found) -> None:
        self._db = db
        self._found = found

    def entries(
        self, *, ended: bool, limit: int, cursor: int | None, **filters: Any
    ) -> tuple[list[Row], int | None]:
        """A page of the groups that have jobs of these, each by the first that is found (`Found.jobs`
        says in which order), and the cursor of the next page. Costs as much as there are groups: from
        one it goes on behind its span."""
        rows: list[Row] = []
        while len(rows) < limit:
            found = self._found.jobs(ended=ended, limit=1, cursor=cursor, **filters)
            if not found:
                return rows, None
            row = found[0]
            spans = self._found.group(row["group_id"])
            here = next(n for n, span in enumerate(spans) if row["id"] in span)
            cursor = spans[here].start if ended else spans[here].stop - 1
            before = spans[here + 1 :] if ended else spans[:here]
            if not self._has_any(before, ended, filters):
                rows.append(element(row, row["last_id"] if ended else row["id"]))
        return rows, cursor

    def _has_any(self, spans: Sequence[range], ended: bool, filters: dict[str, Any]) -> bool:
        """Was the group shown already, for one of these spans?"""
        if not spans:
            return False
        ids = filters.get("ids")
        both = list(spans) if ids is None else _shared(spans, ids)
        return bool(self._found.jobs(**filters | {"ids": both}, ended=ended, limit=1))

    def counts(self, group: int) -> dict[str, int]:
        """How many of its jobs are queued, starting, running, and ended how. Costs as much as there are
        of those that run: those that wait are the rest of its ids."""
        counts: dict[str, int] = dict.fromkeys(WORDS, 0)
        for row in self._db.rows(_COUNTS, {"group": group}):
            counts[row["word"]] += row["number"]
        known = int(self._db.value(_KNOWN, {"group": group}))
        return counts | {JobState.QUEUED.value: known - sum(counts.values())}

    def representative(self, group: int, counts: dict[str, int]) -> Row | None:
        """The first of those that are most alive, with all about it."""
        word = next((word for word in WORDS if counts[word]), None)
        if word is None:
            return None
        state, outcome = (word, None) if word in _LIVELY else (JobState.ENDED, word)
        job = self._db.value(
            """
            select id from jobs indexed by jobs_group
            where group_id = ? and state = ? and outcome is ? order by id limit 1
            """,
            (group, state.value, outcome and outcome.value),
        )
        (row,) = self._found.jobs(ids=[range(job, job + 1)])
        return row

    def names(self, group: int) -> list[str]:
        """The names of its jobs as they were written, that of the first job first: of the first rows
        and the last ones, as many as a list can wait for."""
        return [row["name"] for row in self._db.rows(_NAMES, {"group": group})]

    def gpus_in_use(self, group: int) -> list[int]:
        """The indices of those that its jobs have now."""
        rows = self._db.rows(
            """
            select a.gpus from jobs j indexed by jobs_active
            join attempts a on a.job = j.id and a.attempt = j.attempt
            where j.state in ('starting', 'running') and j.group_id = ?
            """,
            (group,),
        )
        return sorted({index for row in rows for index in json.loads(row["gpus"])["indices"]})


def _shared(ones: Sequence[range], others: Sequence[range]) -> list[range]:
    """What lies in both."""
    both = (range(max(a.start, b.start), min(a.stop, b.stop)) for a in ones for b in others)
    return [span for span in both if span]


# The row whose id is the group's own is not among `ended_jobs`.
_COUNTS = """
select outcome as word, jobs as number from ended_jobs where group_id = :group
union all
select outcome, last_id - id + 1 from jobs where id = :group and state = 'ended'
union all
select state, count(*) from jobs indexed by jobs_group
where group_id = :group and state in ('starting', 'running') group by state
"""
# All that were submitted, without those that were forgotten.
_KNOWN = """
select coalesce(sum(s.last - s.first + 1 - (
  select coalesce(sum(min(p.last, s.last) - max(p.first, s.first) + 1), 0) from pruned p
  where p.first <= s.last and p.last >= s.first
    and p.first >= coalesce((select max(first) from pruned where first <= s.first), s.first)
)), 0)
from group_spans s where s.group_id = :group
"""
_NAMES = f"""
with spans as (select first, last from group_spans where group_id = :group),
ends (id) as (
  select * from (
    select id from jobs where id between (select min(first) from spans)
      and (select last from spans order by first limit 1)
    order by id limit {NAMES_AT_EACH_END})
  union
  select * from (
    select id from jobs where id between (select max(first) from spans)
      and (select max(last) from spans)
    order by id desc limit {NAMES_AT_EACH_END})
)
select s.name, min(j.id) as first from ends e join jobs j on j.id = e.id
join specs s on s.id = j.spec group by s.name order by first
"""
