"""What people wish for jobs that exist. Written by the handlers alone; the loop makes it so."""

from gpuq.daemon.store.connection import Database
from gpuq.daemon.store.happened import record_event


class Wished:
    def __init__(self, db: Database) -> None:
        self._db = db

    def stop(self, job: int, *, grace_s: float, actor: str, now: float) -> bool:
        """The job is to end. Asking again can shorten the grace and never lengthens it; False where
        the job has ended already."""
        with self._db.transaction():
            changed = self._db.write(
                """
                update jobs set
                  stop_asked_at = coalesce(stop_asked_at, :now),
                  stop_grace_s  = min(coalesce(stop_grace_s, :grace_s), :grace_s),
                  stop_actor    = coalesce(stop_actor, :actor)
                where id = :job and state <> 'ended'
                """,
                {"job": job, "grace_s": grace_s, "actor": actor, "now": now},
            )
            if changed:
                detail = {"grace_s": grace_s}
                record_event(self._db, now, "stop_asked", job=job, actor=actor, detail=detail)
        return bool(changed)

    def signal(self, job: int, number: int, *, actor: str, now: float) -> bool:
        """Send one signal to a running job, without ending it; False where it does not run."""
        with self._db.transaction():
            changed = self._db.write(
                """
                update jobs set signal_asked = :number, signal_serial = signal_serial + 1
                where id = :job and state in ('starting', 'running')
                """,
                {"job": job, "number": number},
            )
            if changed:
                detail = {"signal": number}
                record_event(self._db, now, "signal_asked", job=job, actor=actor, detail=detail)
        return bool(changed)
