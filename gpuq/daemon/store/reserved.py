"""Reservations: GPUs set aside for a user and a time. Written by the handlers alone."""

import json
from collections.abc import Sequence

from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.events import record_event

_LAST_END = """
select max(end_at) as end_at from reservations indexed by reservations_end
where cancelled_at is null
"""


class Reserved:
    def __init__(self, db: Database) -> None:
        self._db = db

    def open(self, now: float) -> list[Row]:
        """Those that have not ended and were not cancelled, by when they begin; `gpus` are uuids."""
        last = self._db.remembered(("reservations",), _LAST_END)[0]["end_at"]
        if last is None or last <= now:
            return []
        rows = self._db.rows(
            """
            select * from reservations indexed by reservations_end
            where cancelled_at is null and end_at > ? order by begin_at, id
            """,
            (now,),
        )
        return [_readable(row) for row in rows]

    def made_by(self, actor: str, token: str) -> Row | None:
        """What an earlier request of that token made, were it over by now."""
        sql = "select * from reservations where actor = ? and token = ?"
        row = self._db.row(sql, (actor, token))
        return None if row is None else _readable(row)

    def make(
        self,
        *,
        uid: int,
        user: str,
        gpus: Sequence[str],
        begin_at: float,
        end_at: float,
        reason: str | None,
        actor: str,
        now: float,
        token: str | None = None,
    ) -> Row:
        with self._db.transaction():
            number = self._db.insert(
                "reservations",
                {
                    "uid": uid,
                    "user": user,
                    "gpus": json.dumps(list(gpus)),
                    "begin_at": begin_at,
                    "end_at": end_at,
                    "reason": reason,
                    "actor": actor,
                    "made_at": now,
                    "token": token,
                },
            )
            detail = {"id": number, "user": user, "begin_at": begin_at, "end_at": end_at}
            for gpu in gpus:
                record_event(
                    self._db, now, "reserved", gpu=gpu, actor=actor, cause=reason, detail=detail
                )
            made = self._db.row("select * from reservations where id = ?", (number,))
            assert made is not None
        return _readable(made)

    def cancel(self, number: int, *, actor: str, now: float) -> bool:
        """False where there is none of that number that has not ended."""
        with self._db.transaction():
            row = self._db.row(
                "select user, gpus from reservations "
                "where id = ? and cancelled_at is null and end_at > ?",
                (number, now),
            )
            if row is None:
                return False
            self._db.write("update reservations set cancelled_at = ? where id = ?", (now, number))
            detail = {"id": number, "user": row["user"]}
            for gpu in json.loads(row["gpus"]):
                record_event(
                    self._db, now, "reservation_cancelled", gpu=gpu, actor=actor, detail=detail
                )
        return True

    def forget(self, before: float) -> int:
        """Those that ended, or were cancelled, before that time."""
        with self._db.transaction():
            return self._db.write(
                "delete from reservations where min(end_at, coalesce(cancelled_at, end_at)) < ?",
                (before,),
            )


def _readable(row: Row) -> Row:
    return row | {"gpus": tuple(json.loads(row["gpus"]))}
