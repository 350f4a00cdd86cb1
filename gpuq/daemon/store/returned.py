"""What comes back to the queue: jobs that have ended and are to run once more, and those whose cancel
was a mistake. Written by the loop alone, as it was wished."""

from typing import Any

from gpuq.daemon.store.classes import classify_anew
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.elements import span_detail
from gpuq.daemon.store.events import record_event
from gpuq.daemon.store.falling import ask_for_gpus_again
from gpuq.daemon.store.needs import revive


class Returned:
    def __init__(self, db: Database) -> None:
        self._db = db

    def requeue(self, job: int, *, now: float, boottime: float, boot_id: str) -> None:
        """Does what is wished for the jobs of this row, if anything is. One that has ended waits again:
        at the end of the queue, or, where its cancel is undone, as it waited before. `boottime` is
        `now` on CLOCK_BOOTTIME of that boot."""
        with self._db.transaction():
            row = self._db.row(
                """
                select * from jobs
                where id = ? and requeue_asked_at is not null
                  and requeue_asked_at is not requeued_for and prune_asked_at is null
                """,
                (job,),
            )
            if row is None:
                return
            if row["state"] == "queued":
                self._begin_at_once(row, now)
            elif row["state"] == "ended":
                self._put_back(row, now, boottime, boot_id)

    def _put_back(self, row: Row, now: float, boottime: float, boot_id: str) -> None:
        job, kind, actor = row["id"], row["requeue_kind"], row["requeue_actor"]
        if (other := self._living_of_same_key(row)) is not None:
            self._db.write("update jobs set requeued_for = requeue_asked_at where id = ?", (job,))
            cause = f"job {other} has its key and has not ended"
            record_event(self._db, now, "not_requeued", job=job, actor=actor, cause=cause)
            return
        last = self._db.value("select seq from sqlite_sequence where name = 'jobs'")
        changed = _FORGOTTEN | (_anew(row, last) if kind == "requeue" else _as_before(row))
        if changed.get("delayed_until_boottime") is not None:
            left_s = row["delayed_until_at"] - now
            changed |= {"delayed_until_boottime": boottime + left_s, "delayed_boot": boot_id}
        setting = ", ".join(f"{name} = :{name}" for name in changed)
        self._db.write(
            f"update jobs set {setting}, requeued_for = requeue_asked_at, signal_sent = "
            f"{_ALL_SIGNALS} where id = :id",
            changed | {"id": job},
        )
        if kind == "requeue":
            ask_for_gpus_again(self._db, job)
        classify_anew(self._db, "j.id = :job", {"job": job})  # limits may be others by now
        revive(self._db, job, row["last_id"])
        record_event(
            self._db,
            now,
            "requeued",
            job=job,
            attempt=row["attempt"] or None,
            actor=actor,
            cause=kind,
            detail=span_detail(job, row["last_id"]) or None,
        )

    def _living_of_same_key(self, row: Row) -> int | None:
        """Of another submission: the elements of an array share theirs."""
        if row["key"] is None:
            return None
        sql = "select id from jobs where key = ? and state <> 'ended' and group_id <> ? limit 1"
        job: int | None = self._db.value(sql, (row["key"], row["group_id"]))
        return job

    def _begin_at_once(self, row: Row, now: float) -> None:
        """A job that waits in the queue already: what its last attempt has left is a wait, and what it
        has given up is its claim to GPUs."""
        job, actor = row["id"], row["requeue_actor"]
        if row["gpu_request"] is not None:
            ask_for_gpus_again(self._db, job)
            record_event(self._db, now, "requeued", job=job, actor=actor, cause="gpus_again")
        self._db.write("update jobs set requeued_for = requeue_asked_at where id = ?", (job,))
        if row["delayed_for"] == "backoff":
            self._db.write(
                """
                update jobs set reason = null, open_reason = null, delayed_until_at = null,
                  delayed_until_boottime = null, delayed_boot = null, delayed_for = null
                where id = ?
                """,
                (job,),
            )
            record_event(self._db, now, "backoff_over", job=job, actor=actor)


_ALL_SIGNALS = "coalesce((select max(s.id) from signals s where s.job = jobs.id), signal_sent)"
# What was known of its end is so no more.
_FORGOTTEN: dict[str, Any] = {
    "state": "queued",
    "outcome": None,
    "reason": None,
    "open_reason": None,
    "started_at": None,
    "ended_at": None,
    "cancelled_queued": 0,
    "files_bytes": None,
    "files_removed_at": None,
}


def _anew(row: Row, last_id: int) -> dict[str, Any]:
    """At the end of the queue, and with all its retries before it."""
    return {
        "place": last_id + 1,
        "passes": 0,
        "uncounted": row["attempt"],
        "delayed_until_at": None,
        "delayed_until_boottime": None,
        "delayed_boot": None,
        "delayed_for": None,
    }


def _as_before(row: Row) -> dict[str, Any]:
    kept = "delayed_until_at delayed_until_boottime delayed_boot delayed_for"
    return {name: row[name] for name in kept.split()}
