"""Groups of jobs as tables: how many of them wait, run and ended how, what they reported, and a page of
their rows. All of it is asked of a `Readable`, so that it can be asked beside the loop.

What one of these costs depends on how many rows the jobs have, never on how many jobs: the elements of
an array that have not begun are one row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpuq.core.results.giving_up import FAILURES
from gpuq.core.results.ranking import Goal
from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.elements import LARGEST
from gpuq.daemon.store.grouped import WORDS
from gpuq.daemon.store.reading import Readable
from gpuq.daemon.store.reported import REPORT_COLUMNS

NAMES_SOUGHT = 200  # jobs that are asked for what they report
MOST_ERRORS = 50  # kinds of them
RUNS_COUNTED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which jobs are meant. `counted` is where their rows are found fastest, `first` to `last` where
    they lie; `condition` holds for them in both. `owner` is the uid of each, in SQL."""

    counted: str
    condition: str
    values: dict[str, Any] = field(default_factory=dict)
    owner: str = "s.uid"
    first: int = 0
    last: int = LARGEST


def of_group(group: int, uid: int, spans: Sequence[range]) -> Chosen:
    return Chosen(
        counted="jobs j indexed by jobs_group",
        condition="j.group_id = :group",
        values={"group": group},
        owner=str(int(uid)),
        first=spans[0].start,
        last=spans[-1].stop - 1,
    )


def of_name(name: str, *, uid: int | None, user: str | None) -> Chosen:
    """A family: jobs of that name, and those whose name goes on behind it with a sign that divides
    words. * and ? stand for any signs."""
    if "*" in name or "?" in name:
        return _of_specs("s.name glob :name", {"name": name.replace("[", "[[]")}, uid, user)
    goes_on = "substr(s.name, 1, length(:name)) = :name and substr(s.name, length(:name) + 1, 1)"
    condition = f"(s.name = :name or ({goes_on} in ('-', '_', '.', '/', ':', '[', '{{', ' ')))"
    return _of_specs(condition, {"name": name}, uid, user)


def of_tag(tag: str, *, uid: int | None, user: str | None) -> Chosen:
    condition = "exists (select 1 from json_each(s.tags) where value = :tag)"
    return _of_specs(condition, {"tag": tag}, uid, user)


def _of_specs(
    condition: str, values: Mapping[str, Any], uid: int | None, user: str | None
) -> Chosen:
    if uid is not None:
        condition += " and s.uid = :uid"
    if user is not None:
        condition += " and s.user = :user"
    return Chosen(
        counted="specs s cross join jobs j indexed by jobs_spec on j.spec = s.id",
        condition=condition,
        values={**values, "uid": uid, "user": user},
    )


class Table:
    """Of the jobs that were chosen."""

    def __init__(self, db: Readable, chosen: Chosen) -> None:
        self._db = db
        self._chosen = chosen
        self._from = f"from {chosen.counted}"
        self._where = f"where {chosen.condition}"

    # ── all of them ──

    def counts(self) -> dict[str, int]:
        """How many are queued, starting, running, and ended how."""
        rows = self._rows(
            f"""
            select coalesce(j.outcome, j.state) as word, sum(j.last_id - j.id + 1) as number
            {self._from} {self._where} group by 1
            """
        )
        return dict.fromkeys(WORDS, 0) | {row["word"]: row["number"] for row in rows}

    def held(self) -> int:
        """Of those that wait."""
        sql = f"""
            select coalesce(sum(j.last_id - j.id + 1), 0) {self._from} {self._where}
            and j.state = 'queued' and j.held_by is not null
        """
        return int(self._db.value(sql, self._chosen.values))

    def on_simulated_gpus(self) -> int:
        """How many ran, or run, on simulated GPUs at last."""
        sql = f"""
            select count(*) {self._from} join attempts a on a.job = j.id and a.attempt = j.attempt
            {self._where} and a.gpus ->> '$.simulated'
        """
        return int(self._db.value(sql, self._chosen.values))

    def run_times(self) -> list[float]:
        """Of the last that ran to an end of their own, without the time that they stood still."""
        rows = self._rows(
            f"""
            select max(a.ended_at - a.started_at - a.paused_s, 0.0) as seconds {self._from}
            join attempts a on a.job = j.id and a.attempt = j.attempt
            {self._where} and j.state = 'ended' and not j.cancelled_queued
              and j.outcome in ({_ENDS_OF_ITS_OWN}) and a.started_at is not null
            order by j.id desc limit {RUNS_COUNTED}
            """
        )
        return [row["seconds"] for row in rows]

    def running(self) -> list[Row]:
        """`started_at` (None: it is only starting) and `paused_s` of each that runs."""
        return self._rows(
            f"""
            select j.id, a.started_at, coalesce(a.paused_s, 0) as paused_s {self._from}
            left join attempts a on a.job = j.id and a.attempt = j.attempt
            {self._where} and j.state in ('starting', 'running') order by j.id
            """
        )

    def errors(self, *, reader: int | None) -> list[Row]:
        """How those failed that did, like ends together, the most frequent first. Only of jobs of that
        user the signature of what they wrote; None: of all."""
        may_read = "true" if reader is None else f"{self._chosen.owner} = :reader"
        return self._db.rows(
            f"""
            select iif({may_read}, a.error_signature, null) as signature, j.outcome,
                   iif({may_read} and a.error_signature is not null, null, a.exit_code) as exit_code,
                   iif({may_read} and a.error_signature is not null, null, a.signal) as signal,
                   sum(j.last_id - j.id + 1) as number, min(j.id) as job
            {self._from} left join attempts a on a.job = j.id and a.attempt = j.attempt
            {self._where} and j.state = 'ended' and j.outcome in ({_FAILURES})
            group by 1, 2, 3, 4 order by number desc, job limit {MOST_ERRORS}
            """,
            {**self._chosen.values, "reader": reader},
        )

    def why_cancelled(self) -> str | None:
        """Of the first that was cancelled while it waited, as anybody may read it."""
        why: str | None = self._db.value(
            f"""
            select j.open_reason {self._from} {self._where} and j.state = 'ended'
            and j.outcome = 'cancelled' and j.cancelled_queued order by j.id limit 1
            """,
            self._chosen.values,
        )
        return why

    def reported_names(self) -> list[str]:
        """Of metrics, as far as the first jobs that reported any tell."""
        rows = self._rows(
            f"""
            select distinct m.key as name from (
              select r.metrics {self._from}
              join reports r on r.job = j.id and r.attempt = j.attempt
              {self._where} and r.metrics <> '{{}}' limit {NAMES_SOUGHT}
            ) r, json_each(r.metrics) m order by 1
            """
        )
        return [str(row["name"]) for row in rows]

    # ── their rows ──

    def page(self, after: int | None, limit: int) -> list[Row]:
        """In the order of their ids, those behind that one; of a run of jobs that lies across it the
        whole row."""
        next_id = max(self._chosen.first, 0 if after is None else after + 1)
        return self._db.rows(
            f"""
            {_COLUMNS} {_BY_ID} {self._where}
              and j.id between coalesce((select max(id) from jobs where id <= :next_id), 0) and :last
              and j.last_id >= :next_id
            order by j.id limit :limit
            """,
            self._chosen.values | {"next_id": next_id, "last": self._chosen.last, "limit": limit},
        )

    def ranked(self, goal: Goal, limit: int) -> list[Row]:
        """The first in the order of that metric, as `ranking.in_order` has it."""
        way = "desc" if goal.highest else "asc"
        order = f"is_number desc, number {way}, is_text desc, text, ranked"
        return self._db.rows(
            f"""
            with first_ones as materialized (
              select j.id as ranked, {_IS_NUMBER} as is_number,
                     iif({_IS_NUMBER}, m.value, null) as number,
                     coalesce(m.type = 'text', false) as is_text,
                     iif(m.type = 'text', m.value, null) as text
              from jobs j not indexed cross join specs s on s.id = j.spec
              left join reports r on r.job = j.id and r.attempt = j.attempt
              left join json_each(r.metrics) m on m.key = :metric
              {self._where} and j.id between :first and :last order by {order} limit :limit
            )
            {_COLUMNS} from first_ones f cross join jobs j on j.id = f.ranked
            cross join specs s on s.id = j.spec {_BESIDE}
            order by {order}
            """,
            self._chosen.values
            | {"metric": goal.metric, "limit": limit}
            | {"first": self._chosen.first, "last": self._chosen.last},
        )

    def values_of(self, spec: int, elements: range) -> dict[int, str]:
        """What a table gives these elements of an array: JSON lists, by element."""
        rows = self._db.rows(
            'select element, "values" from parameters where spec = ? and element between ? and ?',
            (spec, elements.start, elements.stop - 1),
        )
        return {row["element"]: row["values"] for row in rows}

    def _rows(self, sql: str) -> list[Row]:
        return self._db.rows(sql, self._chosen.values)


_FAILURES = ", ".join(f"'{outcome}'" for outcome in FAILURES)
_ENDS_OF_ITS_OWN = "'succeeded', 'failed', 'timed_out', 'out_of_memory'"

# Infinity is none: a JSON text may hold 1e999.
_IS_NUMBER = "coalesce(m.type in ('integer', 'real') and abs(m.value) < 9e999, false)"

_COLUMNS = f"""
select j.id, j.last_id, j.group_id, j.spec, j.state, j.outcome, j.attempt, j.cancelled_queued,
       j.started_at, j.ended_at, j.id - j.array_first as element, s.uid, s.user, s.name, s.elements,
       p."values", a.exit_code, a.signal, a.paused_s, a.outcome as attempt_outcome,
       coalesce(a.gpus ->> '$.simulated', 0) as gpus_simulated,
       {REPORT_COLUMNS}
"""
_BESIDE = """
left join parameters p on p.spec = j.spec and p.element = j.id - j.array_first
left join attempts a on a.job = j.id and a.attempt = j.attempt
left join reports r on r.job = j.id and r.attempt = j.attempt
"""
# By the primary key, so that a page costs as much as it has rows.
_BY_ID = f"from jobs j not indexed cross join specs s on s.id = j.spec {_BESIDE}"
