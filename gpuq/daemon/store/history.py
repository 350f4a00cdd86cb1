"""Jobs that have ended, the last one first."""

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.elements import IN_SPANS
from gpuq.daemon.store.found import BESIDE_JOBS, JOB_COLUMNS, STATE_WORDS, Where, element
from gpuq.daemon.store.reading import Readable
from gpuq.daemon.store.statistics import Scope

READ_AT_ONCE = 50  # rows, each with its command, which may be long


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Behind that job: one of those that ended at that time."""

    ended_at: float
    job: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Idleness:
    """Who has used his GPUs no more than so much, and was measured for so long, held them idle."""

    percent: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which of the jobs that `scope` names. `ids`, in order and apart from each other; None: all;
    `outcomes` none: however they ended."""

    scope: Scope
    ids: Sequence[range] | None = None
    outcomes: Sequence[str] = ()
    until: float | None = None
    only_idle: bool = False


def history(
    db: Readable,
    wanted: Wanted,
    *,
    idleness: Idleness,
    limit: int,
    most_bytes: int,
    after: Place | None,
) -> list[Row]:
    """A page of jobs, each as `Found.jobs` has it with `held_idle` beside: up to `limit`, or until
    their commands have more than `most_bytes`."""
    found: list[Row] = []
    size = 0
    for row in _elements(db, wanted, idleness, after):
        found.append(row)
        size += len(row["argv"])
        if len(found) >= limit or size > most_bytes:
            break
    return found


def _elements(
    db: Readable, wanted: Wanted, idleness: Idleness, after: Place | None
) -> Iterator[Row]:
    """Each job of each row, since elements of an array that were cancelled together share one."""
    while rows := _rows(db, wanted, idleness, after):
        for row in rows:
            for job in _jobs_of(row, wanted.ids, after):
                yield element(row, job)
            after = Place(ended_at=row["ended_at"], job=row["id"])


def _jobs_of(row: Row, ids: Sequence[range] | None, after: Place | None) -> Iterator[int]:
    last = row["last_id"]
    if after is not None and after.ended_at == row["ended_at"]:
        last = min(last, after.job - 1)
    if ids is None:
        yield from range(last, row["id"] - 1, -1)
        return
    begin = bisect_right(ids, row["id"], key=lambda span: span.stop)
    end = bisect_right(ids, last, key=lambda span: span.start)
    for span in reversed(ids[begin:end]):
        yield from range(min(last, span.stop - 1), max(row["id"], span.start) - 1, -1)


def _rows(db: Readable, wanted: Wanted, idleness: Idleness, after: Place | None) -> list[Row]:
    where = _where(wanted)
    if after is not None:
        where.add("(j.ended_at, j.id) < (?, ?)", after.ended_at, after.job)
    is_idle = _IS_IDLE.format(percent=float(idleness.percent), seconds=float(idleness.seconds))
    if wanted.only_idle:
        where.add(is_idle)
    return db.rows(
        f"""
        {JOB_COLUMNS}, j.id - j.array_first as element, {is_idle} as held_idle
        from jobs j indexed by jobs_ended {BESIDE_JOBS}
        where {where.sql} order by j.ended_at desc, j.id desc limit {READ_AT_ONCE}
        """,
        where.values,
    )


def _where(wanted: Wanted) -> Where:
    scope, where = wanted.scope, Where()
    where.add("j.state = 'ended'")
    for condition, value in (
        ("s.uid = ?", scope.uid),
        ("s.user = ?", scope.user),
        ("c.queue = ?", scope.queue),
        ("s.name glob ?", scope.name),
        ("exists (select 1 from json_each(s.tags) where value = ?)", scope.tag),
        ("j.ended_at >= ?", scope.since),
        ("j.ended_at < ?", wanted.until),
    ):
        if value is not None:
            where.add(condition, value)
    if wanted.outcomes:
        where.add(" or ".join(STATE_WORDS[word] for word in wanted.outcomes))
    if wanted.ids is not None:
        where.add(_LIES_IN, json.dumps([(span.start, span.stop - 1) for span in wanted.ids]))
    return where


# It had computed nothing for long when it ended, or hardly anything in all of its time.
_IS_IDLE = """
(a.idle_since_at is not null
 or coalesce(a.gpu_util_mean < {percent} and a.gpu_measured_s >= {seconds}, false))
"""
# Asks for nothing of the row outside, so the spans are looked up once and not for each row.
_LIES_IN = f"j.id in (select j.id from {IN_SPANS.format(spans='?')})"
