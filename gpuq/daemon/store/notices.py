"""Notices: what became of telling somebody of an event. Written by the loop, but for a trial, which is
stored when it is asked for.
"""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from gpuq.core.asked.hooks import Moment
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.elements import LARGEST
from gpuq.daemon.store.events import record_event
from gpuq.daemon.store.happened import Delay
from gpuq.daemon.store.notice_rows import COUNT_WAITING, MOST_WAITING, NEW_KEY
from gpuq.daemon.store.reading import Readable

MOST_KEPT = 2000  # of one user
READ_AT_ONCE = 1000  # rows that are looked through


def listed(
    db: Readable,
    uid: int | None,
    *,
    jobs: Sequence[range] = (),
    notice: int | None = None,
    limit: int,
) -> list[Row]:
    """The newest first: those of one user or (None) of all, of some jobs (in order and apart from each
    other), or a single one."""
    condition = "true" if uid is None else "n.uid = :uid"
    condition += "" if notice is None else " and n.id = :notice"
    values: dict[str, Any] = {"uid": uid, "notice": notice, "limit": limit}
    if jobs:
        values["chosen"] = json.dumps(_of_jobs(db, condition, values, jobs))
        condition += " and n.id in (select value from json_each(:chosen))"
    sql = f"select n.* from notices n where {condition} order by n.id desc limit :limit"
    return db.rows(sql, values)


def _of_jobs(
    db: Readable, condition: str, values: dict[str, Any], jobs: Sequence[range]
) -> list[int]:
    """The ids of the first of them that tell of one of the jobs, or of a run that holds one."""
    chosen: list[int] = []
    before = LARGEST
    while len(chosen) < values["limit"]:
        rows = db.rows(_RUNS.format(condition), values | {"before": before, "page": READ_AT_ONCE})
        if not rows:
            break
        before = rows[-1]["id"]
        chosen += [row["id"] for row in rows if _holds_any(row["job"], row["last"], jobs)]
    return chosen


def _holds_any(first: int, last: int, jobs: Sequence[range]) -> bool:
    place = bisect_right(jobs, last, key=lambda span: span.start)
    return place > 0 and jobs[place - 1].stop > first


_RUNS = """
select n.id, n.job, coalesce(n.told ->> 'last', n.job) as last from notices n
where {} and n.job is not null and n.id < :before order by n.id desc limit :page
"""


class Notices:
    def __init__(self, db: Database) -> None:
        self._db = db

    # ── asked ──

    def ask_trial(self, target: str, *, uid: int, gid: int, user: str, now: float) -> int | None:
        """A notice that tells of nothing, for who wants to see whether it arrives; its id. None where
        too much of that user's waits."""
        with self._db.transaction():
            if self._db.value(COUNT_WAITING, {"uid": uid}) >= MOST_WAITING:
                return None
            return self._db.insert(
                "notices",
                {
                    "moment": Moment.END.value,
                    "origin": "trial",
                    "target": target,
                    "key": self._db.value(NEW_KEY),
                    "told": json.dumps({"reason": None}),
                    "uid": uid,
                    "gid": gid,
                    "user": user,
                    "made_at": now,
                },
            )

    # ── read by the loop ──

    def written(self) -> int:
        """Something else when there may be something new."""
        return self._db.writes("notices")

    def claimed(self) -> list[Row]:
        sql = "select * from notices indexed by notices_open where state in ('waiting', 'claimed') "
        return self._db.rows(f"{sql} and state = 'claimed' order by id")

    def due(self, boottime: float, boot_id: str, limit: int) -> list[Row]:
        """Those whose time has come, each user's first ones first. Of a job one at a time, so that its
        start is told before its end."""
        values = {"boottime": boottime, "boot": boot_id, "limit": limit}
        return self._db.rows(_DUE, values)

    def next_due(self, boot_id: str) -> float | None:
        """When the next try is due, on CLOCK_BOOTTIME."""
        sql = """
            select min(due_boottime) from notices indexed by notices_open
            where state in ('waiting', 'claimed') and state = 'waiting' and due_boot = ?
        """
        due: float | None = self._db.value(sql, (boot_id,))
        return due

    # ── written by the loop ──

    def stand(self, targets: Mapping[Moment, str | None]) -> None:
        """From now on the settings want this."""
        wanted = {moment.value: target for moment, target in targets.items() if target is not None}
        found = self._db.rows("select moment, target from hooks")
        if wanted == {row["moment"]: row["target"] for row in found}:
            return
        with self._db.transaction():
            self._db.write("delete from hooks")
            for moment, target in wanted.items():
                self._db.insert("hooks", {"moment": moment, "target": target})

    def claim(self, notice: int) -> None:
        """Somebody is about to do it."""
        with self._db.transaction():
            self._db.write(
                """
                update notices set state = 'claimed', tries = tries + 1,
                  due_boottime = null, due_boot = null, due_at = null
                where id = ? and state = 'waiting'
                """,
                (notice,),
            )

    def again(self, notice: int, delay: Delay, *, trouble: str, output: str) -> None:
        """It failed, and is tried again."""
        with self._db.transaction():
            self._db.write(
                """
                update notices set state = 'waiting', trouble = ?, output = ?,
                  due_boottime = ?, due_boot = ?, due_at = ?
                where id = ? and state = 'claimed'
                """,
                (trouble, output, delay.boottime, delay.boot_id, delay.at, notice),
            )

    def done(self, notice: int, *, output: str, now: float) -> None:
        with self._db.transaction():
            self._end(notice, "done", None, output, now)

    def given_up(
        self, notice: int, *, trouble: str, output: str, now: float, unknown: bool = False
    ) -> None:
        """It is not tried again. `unknown`: nobody can say whether it was done."""
        with self._db.transaction():
            row = self._end(notice, "unknown" if unknown else "failed", trouble, output, now)
            # A trial is nobody's business but of who asked, who is shown what came of it.
            if row is not None and row["origin"] != "trial":
                record_event(
                    self._db,
                    now,
                    "notice_failed",
                    job=row["job"],
                    attempt=row["attempt"],
                    gpu=row["gpu"],
                    cause=trouble,
                    detail={"notice": notice, "moment": row["moment"], "tries": row["tries"]},
                )

    def _end(
        self, notice: int, state: str, trouble: str | None, output: str, now: float
    ) -> Row | None:
        """None where its end is known already."""
        changed = self._db.write(
            """
            update notices set state = ?, trouble = ?, output = ?, ended_at = ?
            where id = ? and state = 'claimed'
            """,
            (state, trouble, output, now, notice),
        )
        return self._db.row("select * from notices where id = ?", (notice,)) if changed else None

    def forget(self, before: float, limit: int) -> int:
        """Those that were over by then, and the oldest of a user who has very many."""
        with self._db.transaction():
            return self._db.write(_FORGET, {"before": before, "kept": MOST_KEPT, "limit": limit})


# Each user's by themselves, those of nobody (null) among them: else one user's could push out those of
# all others.
_FORGET = """
with recursive whose(uid) as (
  select min(uid) from notices
  union all
  select (select min(uid) from notices where uid > w.uid) from whose w where w.uid is not null
)
delete from notices where id in (
  select id from notices indexed by notices_ended where ended_at is not null and ended_at < :before
  union all
  select n.id from whose w cross join notices n indexed by notices_uid
    on n.uid is w.uid and n.id <= (
      select id from notices where uid is w.uid order by id desc limit 1 offset :kept)
  where n.ended_at is not null
  limit :limit
)
"""

_DUE = """
select * from (
  select n.*, row_number() over (partition by n.uid order by n.id) as place
  from notices n indexed by notices_open
  where n.state in ('waiting', 'claimed') and n.state = 'waiting'
    and (n.due_boot is not :boot or n.due_boottime <= :boottime)
    and not exists (select 1 from notices o indexed by notices_job
                    where o.job = n.job and o.id < n.id and o.state = 'claimed')
)
order by place, id limit :limit
"""
