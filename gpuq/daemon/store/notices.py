"""Notices: what became of telling somebody of an event. Written by the loop, but for a trial, which is
stored when it is asked for.
"""

import json
from collections.abc import Mapping, Sequence

from gpuq.core.asked.hooks import Moment
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.events import record_event
from gpuq.daemon.store.happened import Delay
from gpuq.daemon.store.notice_rows import COUNT_WAITING, MOST_WAITING, NEW_KEY

MOST_KEPT = 10_000  # of those that are over


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

    # ── read ──

    def listed(
        self,
        uid: int | None,
        *,
        jobs: Sequence[range] = (),
        notice: int | None = None,
        limit: int,
    ) -> list[Row]:
        """The newest first: those of one user or (None) of all, of some jobs, or a single one."""
        clauses = ["true"] if uid is None else ["n.uid = :uid"]
        if notice is not None:
            clauses.append("n.id = :notice")
        if jobs:
            clauses.append(_OF_JOBS)
        spans = json.dumps([(span.start, span.stop - 1) for span in jobs])
        sql = f"select n.* from notices n where {' and '.join(clauses)} order by n.id desc limit :limit"
        return self._db.rows(sql, {"uid": uid, "notice": notice, "spans": spans, "limit": limit})

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
            if row is not None:
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
        """Those that were over by then, and the oldest of very many."""
        with self._db.transaction():
            return self._db.write(
                """
                delete from notices where id in (
                  select id from notices indexed by notices_ended
                  where ended_at is not null and (ended_at < :before
                    or id <= (select max(id) from notices) - :kept)
                  order by ended_at limit :limit)
                """,
                {"before": before, "kept": MOST_KEPT, "limit": limit},
            )


_OF_JOBS = """
exists (select 1 from json_each(:spans) span
        where n.job <= span.value ->> 1 and coalesce(n.told ->> 'last', n.job) >= span.value ->> 0)
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
