"""What happened: attempts, leases, ends, GPUs seen. Written by the loop alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from gpuq.core.model import Exit, Gpu, Lease, Outcome
from gpuq.daemon.store.connection import Database, LeaseRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAttempt:
    """An attempt about to be committed, with the runner that waits at the gate for it."""

    job: int
    attempt: int
    nonce: str
    boot_id: str
    runner_pid: int
    runner_start: int
    runner_version: int
    leases: tuple[Lease, ...] = ()
    gpu_indices: tuple[int, ...] = ()
    simulated: bool = False
    passed: tuple[int, ...] = ()


class Happened:
    def __init__(self, db: Database) -> None:
        self._db = db

    def start(self, new: NewAttempt, *, now: float) -> bool:
        """Commits attempt, runner and leases together; False where the job no longer wants to run.

        The keys and triggers of the schema refuse a GPU that is not free, whatever the plan says.
        """
        with self._db.transaction():
            moved = self._db.write(
                """
                update jobs set state = 'starting', attempt = :attempt
                where id = :job and state = 'queued' and attempt = :attempt - 1
                  and held_by is null and stop_asked_at is null
                """,
                {"job": new.job, "attempt": new.attempt},
            )
            if not moved:
                return False
            self._insert_attempt(new, now)
            for lease in new.leases:
                self._insert_lease(lease, now)
            for other in new.passed:
                self._db.write("update jobs set passes = passes + 1 where id = ?", (other,))
            gpus = {"gpus": list(new.gpu_indices)} if new.gpu_indices else None
            record_event(self._db, now, "starting", job=new.job, attempt=new.attempt, detail=gpus)
        return True

    def running(
        self, job: int, attempt: int, pid: int | None, pid_start: int | None, at: float
    ) -> None:
        with self._db.transaction():
            moved = self._db.write(
                "update jobs set state = 'running', started_at = ? "
                "where id = ? and attempt = ? and state = 'starting'",
                (at, job, attempt),
            )
            if not moved:
                return
            self._db.write(
                "update attempts set pid = ?, pid_start = ?, started_at = ? "
                "where job = ? and attempt = ?",
                (pid, pid_start, at, job, attempt),
            )
            record_event(self._db, at, "running", job=job, attempt=attempt, detail={"pid": pid})

    def return_to_queue(self, job: int, attempt: int, *, cause: str, now: float) -> None:
        """The attempt is known never to have run: it is forgotten, and its number given again."""
        with self._db.transaction():
            if not self._db.value(
                "select 1 from jobs where id = ? and attempt = ? and state = 'starting'",
                (job, attempt),
            ):
                return
            self._db.write("delete from leases where job = ? and attempt = ?", (job, attempt))
            self._db.write("delete from attempts where job = ? and attempt = ?", (job, attempt))
            self._db.write(
                "update jobs set state = 'queued', attempt = attempt - 1 where id = ?", (job,)
            )
            record_event(self._db, now, "returned", job=job, attempt=attempt, cause=cause)

    def end(
        self,
        job: int,
        attempt: int,
        exit: Exit,
        *,
        outcome: Outcome,
        reason: str,
        now: float,
        cooling: tuple[float, str] | None,
    ) -> None:
        """Ends the job and gives its GPUs back, or lets them cool from (CLOCK_MONOTONIC, boot id)."""
        ended_at = exit.ended_at or now
        facts = {
            "ended_at": ended_at,
            "exit_code": exit.exit_code,
            "signal": exit.signal,
            "stage": exit.stage,
            "error": exit.error,
            "lost": exit.lost,
            "leftovers": exit.leftovers,
            "user_s": exit.user_s,
            "system_s": exit.system_s,
            "peak_rss_bytes": exit.peak_rss_bytes,
        }
        with self._db.transaction():
            setting = ", ".join(f"{name} = :{name}" for name in facts)
            self._db.write(
                f"update attempts set {setting} where job = :job and attempt = :attempt",
                facts | {"job": job, "attempt": attempt},
            )
            self._let_go(job, attempt, cooling)
            self._end_job(job, outcome, reason, ended_at)
            detail = {"outcome": outcome, "exit_code": exit.exit_code, "signal": exit.signal}
            record_event(
                self._db, now, "ended", job=job, attempt=attempt, cause=reason, detail=detail
            )

    def cancel(self, job: int, *, actor: str, now: float) -> None:
        """Ends a job that never started."""
        reason = f"cancelled by {actor} while it was queued"
        with self._db.transaction():
            self._end_job(job, Outcome.CANCELLED, reason, now)
            detail = {"outcome": Outcome.CANCELLED}
            record_event(self._db, now, "ended", job=job, actor=actor, cause=reason, detail=detail)

    def stop_step(self, job: int, attempt: int, column: str, mono: float) -> None:
        """Notes when TERM (`term_mono`) or KILL (`kill_mono`) goes out, before it does."""
        assert column in ("term_mono", "kill_mono")
        with self._db.transaction():
            self._db.write(
                f"update attempts set {column} = ? where job = ? and attempt = ?",
                (mono, job, attempt),
            )

    def signal_sent(self, job: int) -> None:
        with self._db.transaction():
            self._db.write("update jobs set signal_sent = signal_serial where id = ?", (job,))

    def release(self, gpu: str, slot: int, *, warm: str | None, now: float) -> None:
        with self._db.transaction():
            self._db.write(
                "delete from leases where gpu = ? and slot = ? and state = 'cooling'", (gpu, slot)
            )
            if warm is not None:
                record_event(self._db, now, "gpu_still_warm", gpu=gpu, cause=warm)

    def see_gpus(self, gpus: Sequence[Gpu], *, now: float) -> None:
        """Remembers which GPUs this machine has; simulated ones are forgotten once they are gone."""
        with self._db.transaction():
            for gpu in gpus:
                self._db.write(_SEE_GPU, _gpu_row(gpu, now))
            present = json.dumps([gpu.uuid for gpu in gpus])
            self._db.write(
                "delete from gpus where simulated and uuid not in (select value from json_each(?)) "
                "and uuid not in (select gpu from leases)",
                (present,),
            )

    def note(self, name: str, value: Any) -> None:
        with self._db.transaction():
            self._db.write(
                "insert into facts (name, value) values (?, ?) "
                "on conflict (name) do update set value = excluded.value",
                (name, json.dumps(value)),
            )

    def event(self, kind: str, *, now: float, cause: str | None = None, **about: Any) -> None:
        with self._db.transaction():
            record_event(self._db, now, kind, cause=cause, **about)

    def _insert_attempt(self, new: NewAttempt, now: float) -> None:
        held = {
            "indices": list(new.gpu_indices),
            "uuids": [lease.gpu for lease in new.leases],
            "simulated": new.simulated,
        }
        self._db.insert(
            "attempts",
            {
                "job": new.job,
                "attempt": new.attempt,
                "nonce": new.nonce,
                "boot_id": new.boot_id,
                "runner_pid": new.runner_pid,
                "runner_start": new.runner_start,
                "runner_version": new.runner_version,
                "committed_at": now,
                "gpus": json.dumps(held),
            },
        )

    def _insert_lease(self, lease: Lease, now: float) -> None:
        """In the lowest free slot of the GPU, which is 0 for an exclusive lease."""
        row = {
            "gpu": lease.gpu,
            "job": lease.job,
            "attempt": lease.attempt,
            "exclusive": int(lease.exclusive),
            "memory_bytes": lease.memory_bytes,
            "since": now,
        }
        taken = {r["slot"] for r in self._db.rows(_SLOTS_TAKEN, (lease.gpu,))}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        try:
            self._db.insert("leases", row | {"slot": slot})
        except apsw.ConstraintError as error:
            raise LeaseRefused(f"GPU {lease.gpu}: {error}") from error

    def _let_go(self, job: int, attempt: int, cooling: tuple[float, str] | None) -> None:
        which = "where job = ? and attempt = ?"
        if cooling is None:
            self._db.write(f"delete from leases {which}", (job, attempt))
            return
        self._db.write(
            f"update leases set state = 'cooling', cooling_mono = ?, cooling_boot = ? {which}",
            (*cooling, job, attempt),
        )

    def _end_job(self, job: int, outcome: Outcome, reason: str, ended_at: float) -> None:
        self._db.write(
            "update jobs set state = 'ended', outcome = ?, reason = ?, ended_at = ? where id = ?",
            (outcome.value, reason, ended_at, job),
        )


_SLOTS_TAKEN = "select slot from leases where gpu = ?"

_SEE_GPU = """
insert into gpus (uuid, idx, model, simulated, memory_total_bytes, memory_reserved_bytes,
                  baseline_bytes, first_seen_at, last_seen_at)
values (:uuid, :idx, :model, :simulated, :memory_total_bytes, :memory_reserved_bytes,
        :baseline_bytes, :now, :now)
on conflict (uuid) do update set
  idx = excluded.idx, model = excluded.model,
  -- a GPU that is lost just now still has the size that it had
  memory_total_bytes = coalesce(excluded.memory_total_bytes, memory_total_bytes),
  memory_reserved_bytes = coalesce(excluded.memory_reserved_bytes, memory_reserved_bytes),
  baseline_bytes = excluded.baseline_bytes, last_seen_at = excluded.last_seen_at
"""


def _gpu_row(gpu: Gpu, now: float) -> Mapping[str, Any]:
    return {
        "uuid": gpu.uuid,
        "idx": gpu.index,
        "model": gpu.model,
        "simulated": int(gpu.simulated),
        "memory_total_bytes": gpu.memory_total_bytes,
        "memory_reserved_bytes": gpu.memory_reserved_bytes,
        "baseline_bytes": gpu.baseline_bytes,
        "now": now,
    }


def record_event(
    db: Database,
    now: float,
    kind: str,
    *,
    job: int | None = None,
    attempt: int | None = None,
    gpu: str | None = None,
    actor: str | None = None,
    cause: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Adds one event; stands in the transaction of what it tells."""
    db.write(
        "insert into events (at, kind, job, attempt, gpu, actor, cause, detail) "
        "values (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            now,
            kind,
            job,
            attempt,
            gpu,
            actor,
            cause,
            None if detail is None else json.dumps(detail),
        ),
    )
