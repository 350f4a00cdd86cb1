"""What people wish for jobs that exist, and for GPUs. Written by the handlers alone; the loop makes it
so."""

from collections.abc import Sequence

from gpuq.core.units import format_spans
from gpuq.daemon.store.connection import Database
from gpuq.daemon.store.elements import single_out, span_detail
from gpuq.daemon.store.events import record_event


class Wished:
    def __init__(self, db: Database) -> None:
        self._db = db

    def stop(
        self, job: int, last: int | None = None, *, grace_s: float, actor: str, now: float
    ) -> bool:
        """The job is to end, or all from there to `last`, which are of one row. Asking again can
        shorten the grace and never lengthens it; False where the job has ended already."""
        with self._db.transaction():
            single_out(self._db, job, last or job)
            changed = self._db.write(
                """
                update jobs set
                  stop_asked_at = coalesce(stop_asked_at, :now),
                  stop_grace_s  = min(coalesce(stop_grace_s, :grace_s), :grace_s),
                  stop_actor    = coalesce(stop_actor, :actor),
                  -- who has not ended is not to run once more either
                  requeue_asked_at = iif(state = 'ended', requeue_asked_at, requeued_for),
                  requeue_kind = iif(state <> 'ended' and requeued_for is null, null, requeue_kind),
                  version       = version + 1
                where id = :job and (state <> 'ended' or requeue_asked_at is not requeued_for)
                """,
                {"job": job, "grace_s": grace_s, "actor": actor, "now": now},
            )
            if changed:
                detail = {"grace_s": grace_s} | span_detail(job, last or job)
                record_event(self._db, now, "stop_asked", job=job, actor=actor, detail=detail)
        return bool(changed)

    def signal(self, job: int, number: int, *, actor: str, now: float) -> bool:
        """Send one signal to a running job, without ending it; False where it does not run."""
        with self._db.transaction():
            changed = self._db.write(
                """
                insert into signals (job, number)
                select id, :number from jobs where id = :job and state in ('starting', 'running')
                """,
                {"job": job, "number": number},
            )
            if changed:
                detail = {"signal": number}
                record_event(self._db, now, "signal_asked", job=job, actor=actor, detail=detail)
        return bool(changed)

    def pause(self, job: int, *, paused: bool, actor: str, now: float) -> bool:
        """A running job is to stand still, or to go on; False where it does not run, or where that
        is so already."""
        with self._db.transaction():
            changed = self._db.write(
                """
                update jobs set paused_by = case when :paused then :actor end
                where id = :job and state in ('starting', 'running')
                  and (paused_by is not null) <> :paused
                """,
                {"job": job, "paused": paused, "actor": actor},
            )
            if changed:
                kind = "pause_asked" if paused else "resume_asked"
                record_event(self._db, now, kind, job=job, actor=actor)
        return bool(changed)

    def prune(self, jobs: Sequence[range], *, outputs: bool, actor: str, now: float) -> int:
        """Jobs that have ended are to be forgotten, with all that they left; with `outputs` also with
        what lies in their output directories. Returns of how many that is wished."""
        with self._db.transaction():
            changed = 0
            for run in jobs:
                single_out(self._db, run[0], run[-1])
                asked = self._db.write(
                    """
                    update jobs set prune_asked_at = ?, prune_actor = ?, prune_outputs = ?
                    where id = ? and state = 'ended' and requeue_asked_at is requeued_for
                    """,
                    (now, actor, int(outputs), run[0]),
                )
                changed += len(run) if asked else 0
            if changed:
                detail = {"jobs": format_spans(jobs), "outputs": outputs}
                record_event(self._db, now, "prune_asked", actor=actor, detail=detail)
        return changed

    def drain_gpu(self, gpu: str, reason: str, *, actor: str, now: float) -> None:
        """Give this GPU to nobody any more, and say why."""
        with self._db.transaction():
            self._db.write(
                """
                insert into gpu_wishes (gpu, drained_by, drain_reason, drained_at)
                values (:gpu, :actor, :reason, :now)
                on conflict (gpu) do update set drained_by = excluded.drained_by,
                  drain_reason = excluded.drain_reason, drained_at = excluded.drained_at
                """,
                {"gpu": gpu, "actor": actor, "reason": reason, "now": now},
            )
            record_event(self._db, now, "gpu_drained", gpu=gpu, actor=actor, cause=reason)

    def resume_gpu(self, gpu: str, *, untested: bool, actor: str, now: float) -> tuple[bool, bool]:
        """Give this GPU out again. Returns whether it was drained, which is over now, and whether it
        is set aside, which the loop ends once a test was good, or (`untested`) without one."""
        with self._db.transaction():
            drained = self._db.write(
                """
                update gpu_wishes set drained_by = null, drain_reason = null, drained_at = null
                where gpu = ? and drained_by is not null
                """,
                (gpu,),
            )
            wished = self._db.write(
                """
                insert into gpu_wishes (gpu, resume_asked_at, resume_actor, resume_untested)
                select gpu, :now, :actor, :untested from gpu_health
                where gpu = :gpu and quarantine is not null
                on conflict (gpu) do update set resume_asked_at = excluded.resume_asked_at,
                  resume_actor = excluded.resume_actor, resume_untested = excluded.resume_untested
                """,
                {"gpu": gpu, "now": now, "actor": actor, "untested": int(untested)},
            )
            if drained:
                record_event(self._db, now, "gpu_undrained", gpu=gpu, actor=actor)
            if wished:
                cause = "without a test" if untested else None
                record_event(self._db, now, "gpu_resume_asked", gpu=gpu, actor=actor, cause=cause)
        return bool(drained), bool(wished)

    def drain(self, reason: str | None, *, actor: str, now: float) -> bool:
        """Start nothing any more, and say why; None: go on. False where nothing changes."""
        with self._db.transaction():
            if reason is None:
                changed = self._db.write("delete from wishes where name = 'drain'")
            else:
                changed = self._db.write(
                    """
                    insert into wishes (name, value, actor, at)
                    values ('drain', json_object('reason', :reason), :actor, :now)
                    on conflict (name) do update set
                      value = excluded.value, actor = excluded.actor, at = excluded.at
                    """,
                    {"reason": reason, "actor": actor, "now": now},
                )
            if changed:
                kind = "undrained" if reason is None else "drained"
                record_event(self._db, now, kind, actor=actor, cause=reason)
        return bool(changed)
