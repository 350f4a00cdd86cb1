"""Jobs that give way to others: which, and for whom. Written by the loop alone."""

from gpuq.daemon.store.connection import Database
from gpuq.daemon.store.events import record_event


class GivingWay:
    def __init__(self, db: Database) -> None:
        self._db = db

    def begin(self, job: int, attempt: int, *, to: int, for_whom: str, now: float) -> None:
        """Notes the job for which this attempt is about to be told to end, and that job in words."""
        with self._db.transaction():
            changed = self._db.write(
                """
                update attempts set gives_way_to = ?, gives_way_for = ?
                where job = ? and attempt = ? and ended_at is null and gives_way_to is null
                """,
                (to, for_whom, job, attempt),
            )
            if changed:
                record_event(
                    self._db,
                    now,
                    "preempted",
                    job=job,
                    attempt=attempt,
                    cause=f"gives way to {for_whom}",
                    detail={"to": to},
                )
