"""Limits that people set: of a user, of a tag, of a group. Written by the handlers alone; those of
named queues and of all users stand in the settings."""

import json
from collections.abc import Iterable
from typing import Any

from gpuq.core.model import Limit, LimitKind
from gpuq.daemon.store.classes import classify_anew
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.events import record_event

Most = dict[str, int | None]  # max_running and max_gpus, those of them that are to change


class Limited:
    def __init__(self, db: Database) -> None:
        self._db = db

    # ── wished ──

    def limit(self, kind: LimitKind, name: str, most: Most, *, actor: str, now: float) -> None:
        """Sets the limit of a user or a tag. What runs goes on, and jobs that wait are sorted anew."""
        with self._db.transaction():
            was_there = self._row(kind, name) is not None
            setting = ", ".join(
                f"{column} = excluded.{column}" for column in ("actor", "at", *most)
            )
            self._db.write(
                f"""
                insert into limits (kind, name, max_running, max_gpus, actor, at)
                values (:kind, :name, :max_running, :max_gpus, :actor, :now)
                on conflict (kind, name) do update set {setting}
                """,
                {"max_running": None, "max_gpus": None}
                | most
                | {"kind": kind.value, "name": name, "actor": actor, "now": now},
            )
            if kind is LimitKind.TAG and not was_there:
                self._sort_tagged(name)
            self._tell("limited", kind, name, most, actor, now)

    def lift(self, kind: LimitKind, name: str, *, actor: str, now: float) -> bool:
        """Removes the limit of a user or a tag; False where there is none."""
        with self._db.transaction():
            sql = "delete from limits where kind = ? and name = ?"
            changed = self._db.write(sql, (kind.value, name))
            if changed:
                if kind is LimitKind.TAG:
                    self._sort_tagged(name)
                self._tell("limit_lifted", kind, name, {}, actor, now)
        return bool(changed)

    def limit_group(self, group: int, most: Most, *, actor: str, now: float) -> None:
        """Sets the limit of a group that is there, or lifts it where both are None."""
        with self._db.transaction():
            setting = ", ".join(f"{column} = :{column}" for column in most)
            self._db.write(
                f"""
                update groups set {setting}, limited_by = :actor, limited_at = :now
                where id = :group
                """,
                most | {"actor": actor, "now": now, "group": group},
            )
            classify_anew(self._db, f"j.group_id = :group and {_UNENDED}", {"group": group})
            row = self.group(group)
            assert row is not None
            lifted = row["max_running"] is None and row["max_gpus"] is None
            kind = "limit_lifted" if lifted else "limited"
            told = {} if lifted else most
            self._tell(kind, LimitKind.GROUP, f"g{group}", told, actor, now)

    def _sort_tagged(self, tag: str) -> None:
        tagged = "exists (select 1 from json_each(s.tags) where value = :tag)"
        classify_anew(self._db, f"{_UNENDED} and {tagged}", {"tag": tag})

    def _tell(
        self, event: str, kind: LimitKind, name: str, most: Most, actor: str, now: float
    ) -> None:
        detail: dict[str, Any] = {"kind": kind.value, "name": name, **most}
        words = ", ".join(f"{column} {number}" for column, number in most.items())
        cause = f"{kind} {name}{': ' if words else ''}{words}"
        record_event(self._db, now, event, actor=actor, cause=cause, detail=detail)

    # ── seen ──

    def of_users_and_tags(self) -> list[Limit]:
        return [_limit(row) for row in self.rows()]

    def of_groups(self, groups: Iterable[int]) -> list[Limit]:
        """Those of these groups that have a limit."""
        rows = self._db.rows(
            """
            select 'group' as kind, id as name, max_running, max_gpus, limited_by as actor
            from groups where id in (select value from json_each(?))
              and (max_running is not null or max_gpus is not null)
            """,
            (json.dumps(sorted(set(groups))),),
        )
        return [_limit(row) for row in rows]

    def rows(self) -> list[Row]:
        return self._db.rows("select * from limits order by kind desc, name")

    def of_groups_in_use(self) -> list[Limit]:
        """Those of groups of which a job has not ended."""
        rows = self._db.rows(
            """
            select 'group' as kind, g.id as name, g.max_running, g.max_gpus,
                   coalesce(g.limited_by, (select s.user from specs s join jobs j on j.spec = s.id
                                           where j.group_id = g.id limit 1)) as actor
            from groups g indexed by groups_limited
            where (max_running is not null or max_gpus is not null)
              and exists (select 1 from jobs where group_id = g.id and state <> 'ended')
            order by g.id
            """
        )
        return [_limit(row) for row in rows]

    def group(self, group: int) -> Row | None:
        return self._db.row("select * from groups where id = ?", (group,))

    def knows_user(self, name: str) -> bool:
        """Has anybody of that name ever submitted?"""
        return self._db.value("select 1 from specs where user = ? limit 1", (name,)) is not None

    def _row(self, kind: LimitKind, name: str) -> Row | None:
        sql = "select * from limits where kind = ? and name = ?"
        return self._db.row(sql, (kind.value, name))


_UNENDED = "j.state <> 'ended'"


def _limit(row: Row) -> Limit:
    return Limit(
        kind=LimitKind(row["kind"]),
        name=str(row["name"]),
        max_running=row["max_running"],
        max_gpus=row["max_gpus"],
        actor=row["actor"],
    )
