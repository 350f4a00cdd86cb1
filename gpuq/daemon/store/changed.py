"""Changes of mind about jobs that exist: hold them, let them go, put them higher, first or back, ask
for something else. Written by the handlers alone; what follows is the loop's.

Each method is about the jobs `first` to `last`, which are of one row, and returns whether anything
changed. What the loop has done meanwhile is looked at again in the same transaction, so that nothing
is changed of a job that has started.
"""

import json
from collections.abc import Mapping
from typing import Any

from gpuq.core.model import Request
from gpuq.daemon.store.classes import class_id, limited_tags
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.elements import single_out, span_detail
from gpuq.daemon.store.events import record_event


class Changed:
    def __init__(self, db: Database) -> None:
        self._db = db

    def hold(self, first: int, last: int, *, actor: str, as_admin: bool, now: float) -> bool:
        """They are not to start until somebody releases them: an admin, where one held them as such."""
        setting = "held_by = :actor, held_as_admin = :as_admin"
        where = """
            state = 'queued' and stop_asked_at is null
            and (held_by is null or held_as_admin < :as_admin)
        """
        values = {"as_admin": int(as_admin)}
        return self._wish(first, last, setting, where, "hold_asked", actor, now, values)

    def release(self, first: int, last: int, *, actor: str, now: float) -> bool:
        setting = "held_by = null, held_as_admin = 0"
        where = "state = 'queued' and held_by is not null"
        return self._wish(first, last, setting, where, "release_asked", actor, now)

    def prioritise(self, first: int, last: int, priority: int, *, actor: str, now: float) -> bool:
        return self._wish(
            first,
            last,
            "priority = :priority",
            "state = 'queued' and stop_asked_at is null and priority <> :priority",
            "priority_asked",
            actor,
            now,
            {"priority": priority},
        )

    def rank(self, first: int, last: int, rank: int, *, actor: str, now: float) -> bool:
        """Among their user's own jobs of that priority, those of a lower rank go first."""
        return self._wish(
            first,
            last,
            "rank = :rank",
            "state = 'queued' and stop_asked_at is null and rank <> :rank",
            "move_asked",
            actor,
            now,
            {"rank": rank},
        )

    def requeue(
        self, first: int, last: int, *, actor: str, now: float, token: str | None = None
    ) -> bool:
        """They are to run (once more): at once in the queue, or after the attempt that runs is ended.
        What was wished of a run that has ended is wished no more."""
        setting = """
            requeue_asked_at = :now, requeue_actor = :actor, requeue_kind = 'requeue',
            wish_token = :token,
            paused_by = null,
            stop_asked_at = case when state = 'ended' then null else stop_asked_at end,
            stop_grace_s = case when state = 'ended' then null else stop_grace_s end,
            stop_actor = case when state = 'ended' then null else stop_actor end
        """
        where = "prune_asked_at is null and (state = 'ended' or stop_asked_at is null)"
        values = {"token": token}
        return self._wish(first, last, setting, where, "requeue_asked", actor, now, values)

    def undo(
        self,
        first: int,
        last: int,
        *,
        since: float,
        actor: str,
        now: float,
        token: str | None = None,
    ) -> bool:
        """The cancel of jobs that waited, not before `since`, was a mistake."""
        setting = """
            stop_asked_at = null, stop_grace_s = null, stop_actor = null, wish_token = :token,
            requeue_asked_at = case when state = 'ended' then :now else requeue_asked_at end,
            requeue_actor = case when state = 'ended' then :actor else requeue_actor end,
            requeue_kind = case when state = 'ended' then 'undo' else requeue_kind end
        """
        where = """
            prune_asked_at is null and ((state = 'ended' and cancelled_queued and ended_at >= :since)
              or (state = 'queued' and stop_asked_at is not null))
        """
        values = {"since": since, "token": token}
        return self._wish(first, last, setting, where, "undo_asked", actor, now, values)

    def edit(
        self,
        first: int,
        last: int,
        *,
        version: int,
        spec: Mapping[str, Any],
        request: Request,
        queue: str,
        priority: int,
        changed: list[str],
        actor: str,
        now: float,
        token: str | None = None,
    ) -> bool:
        """They are to be something else, where nothing was wished of them since that version and none
        has started. What others share with them stays as it was: they get a spec of their own."""
        with self._db.transaction():
            single_out(self._db, first, last)
            row = self._db.row(
                """
                select j.*, s.uid from jobs j join specs s on s.id = j.spec
                where j.id = ? and j.last_id = ? and j.version = ? and j.state = 'queued'
                  and j.stop_asked_at is null
                """,
                (first, last, version),
            )
            if row is None:
                return False
            new_spec = self._own_spec(row, spec)
            wanted = self._class(row, request, queue, spec.get("tags"))
            # One that has turned to the CPU asks for it when it wants its GPUs again.
            has_turned = row["gpu_request"] is not None
            cpu_after_s = row["cpu_after_s"] if has_turned else request.cpu_after_s
            self._db.write(
                """
                update jobs set spec = ?, class = ?, priority = ?, wish_token = ?, cpu_after_s = ?,
                  version = version + 1
                where id = ?
                """,
                (new_spec, wanted, priority, token, cpu_after_s, first),
            )
            detail = {"changed": changed} | span_detail(first, last)
            record_event(self._db, now, "edited", job=first, actor=actor, detail=detail)
        return True

    # ── what they ask before ──

    def lowest_rank(self, uid: int) -> int:
        """Of a user's jobs that wait, and of a job that nobody has moved. Costs as much as that user
        has jobs in the queue."""
        return int(
            self._db.value(
                """
                select min(coalesce(min(j.rank), 0), 0)
                from classes c cross join jobs j indexed by jobs_queued on j.class = c.id
                where c.uid = ? and j.state = 'queued' and j.stop_asked_at is null
                """,
                (uid,),
            )
        )

    def make_room_before(self, first: int, last: int) -> int:
        """A rank that goes before these jobs and behind all others of their user that go before them
        now, among those of the same priority."""
        with self._db.transaction():
            single_out(self._db, first, last)
            this = self._db.row(
                """
                select j.id, j.priority, j.rank, j.place, c.uid
                from jobs j join classes c on c.id = j.class where j.id = ?
                """,
                (first,),
            )
            assert this is not None
            self._db.write(
                """
                update jobs set rank = rank - 2 where id in (
                  select j.id from classes c cross join jobs j indexed by jobs_queued on j.class = c.id
                  where c.uid = :uid and j.state = 'queued' and j.stop_asked_at is null
                    and j.priority = :priority and j.id <> :id
                    and (j.rank < :rank or (j.rank = :rank and j.place <= :place)))
                """,
                this,
            )
        return int(this["rank"]) - 1

    def pending_requeues(self, uid: int) -> int:
        """How many jobs of a user that have ended are about to be in the queue again."""
        return int(
            self._db.value(
                """
                select coalesce(sum(j.last_id - j.id + 1), 0)
                from jobs j indexed by jobs_to_requeue join specs s on s.id = j.spec
                where j.requeue_asked_at is not null and j.requeue_asked_at is not j.requeued_for
                  and j.state = 'ended' and s.uid = ?
                """,
                (uid,),
            )
        )

    def living_of_same_key(self, job: int) -> int | None:
        """A job of another submission that has this one's key and has not ended. An array has its key
        as a whole."""
        other = self._db.value(
            """
            select o.id from jobs j join jobs o indexed by jobs_key on o.key = j.key
            where j.id = ? and o.group_id <> j.group_id and o.key is not null and o.state <> 'ended'
            """,
            (job,),
        )
        return None if other is None else int(other)

    def last_kill(self, actor: str, *, since: float) -> list[range]:
        """The jobs that somebody's last kill cancelled while they waited, if it was not before
        `since`."""
        rows = self._db.rows(
            """
            select id, last_id from jobs indexed by jobs_undoable
            where cancelled_queued and stop_asked_at = (
              select max(stop_asked_at) from jobs indexed by jobs_undoable
              where cancelled_queued and stop_actor = :actor and stop_asked_at >= :since)
              and stop_actor = :actor
            order by id
            """,
            {"actor": actor, "since": since},
        )
        return [range(row["id"], row["last_id"] + 1) for row in rows]

    def ended_by_kill(self, actor: str, at: float) -> list[range]:
        """The jobs that ran when somebody killed them at `at`; of many the first."""
        rows = self._db.rows(
            """
            select id, last_id from jobs indexed by jobs_ended
            where state = 'ended' and ended_at >= :at and not cancelled_queued
              and stop_asked_at = :at and stop_actor = :actor
            union all
            select id, last_id from jobs indexed by jobs_active
            where state in ('starting', 'running') and stop_asked_at = :at and stop_actor = :actor
            order by id limit 100
            """,
            {"actor": actor, "at": at},
        )
        return [range(row["id"], row["last_id"] + 1) for row in rows]

    def done_by(self, token: str) -> list[range]:
        """The jobs of which a request of that token was the last that was not to be done twice."""
        sql = "select id, last_id from jobs where wish_token = ? order by id"
        return [range(row["id"], row["last_id"] + 1) for row in self._db.rows(sql, (token,))]

    def spec_of(self, job: int) -> Row:
        """All columns of what a job is to run, with its request and queue."""
        row = self._db.row(
            """
            select s.*, c.request, c.queue, j.priority, j.version, j.key as job_key
            from jobs j join specs s on s.id = j.spec join classes c on c.id = j.class
            where j.id <= ? order by j.id desc limit 1
            """,
            (job,),
        )
        assert row is not None
        return row

    # ── helpers ──

    def _wish(
        self,
        first: int,
        last: int,
        setting: str,
        where: str,
        kind: str,
        actor: str,
        now: float,
        values: Mapping[str, Any] | None = None,
    ) -> bool:
        with self._db.transaction():
            single_out(self._db, first, last)
            changed = self._db.write(
                f"""
                update jobs set {setting}, version = version + 1
                where id between :first and :last and ({where})
                """,
                {"first": first, "last": last, "actor": actor, "now": now, **(values or {})},
            )
            if changed:
                said = {k: v for k, v in (values or {}).items() if k in ("priority", "rank")}
                detail = said | span_detail(first, last)
                record_event(self._db, now, kind, job=first, actor=actor, detail=detail or None)
        return bool(changed)

    def _own_spec(self, row: Row, changes: Mapping[str, Any]) -> int:
        """The row's spec with these columns changed: in place where nobody else has it."""
        sql = "select 1 from jobs where spec = ? and id <> ? limit 1"
        if self._db.value(sql, (row["spec"], row["id"])) is None:
            if changes:
                setting = ", ".join(f"{name} = :{name}" for name in changes)
                self._db.write(
                    f"update specs set {setting} where id = :spec", {**changes, "spec": row["spec"]}
                )
            return int(row["spec"])
        if not changes:
            return int(row["spec"])
        old = self._db.row("select * from specs where id = ?", (row["spec"],))
        assert old is not None
        new = self._db.insert("specs", {**old, **changes, "id": None})
        self._db.write(
            """
            insert into parameters (spec, element, "values")
            select :new, element, "values" from parameters
            where spec = :old and element between :first and :last
            """,
            {"new": new, "old": old["id"]}
            | {"first": row["id"] - (row["array_first"] or row["id"])}
            | {"last": row["last_id"] - (row["array_first"] or row["id"])},
        )
        return new

    def _class(self, row: Row, request: Request, queue: str, tags: Any) -> int:
        old = self._db.row("select * from classes where id = ?", (row["class"],))
        assert old is not None
        own = old["tags"] if tags is None else tags
        limited = limited_tags(self._db).intersection(json.loads(own))
        return class_id(
            self._db, row["uid"], request, queue=queue, group=old["group_id"], tags=limited
        )
