"""What happened to jobs: attempts, leases, ends. Written by the loop alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import apsw

from gpuq.core.ends.beside import on_kill_words
from gpuq.core.ends.bounds import CpuBound, MemBound
from gpuq.core.gpus.usage import GpuUse
from gpuq.core.model import EndCause, Exit, Lease, Outcome, Request
from gpuq.core.results.series import Series
from gpuq.daemon.store.classes import reclassify
from gpuq.daemon.store.connection import Database, LeaseRefused
from gpuq.daemon.store.elements import single_out, span_detail
from gpuq.daemon.store.events import record_event
from gpuq.daemon.store.falling import ask_for_gpus_again
from gpuq.daemon.store.measured import use_columns
from gpuq.daemon.store.needs import touch
from gpuq.daemon.store.series import write_series
from gpuq.daemon.store.tallies import waits_before


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
    cgroup: str | None = None
    mem_bound_by: MemBound | None = None
    cpu_bound_by: CpuBound | None = None
    leases: tuple[Lease, ...] = ()
    gpu_indices: tuple[int, ...] = ()
    simulated: bool = False
    cool_at_once: bool = False  # no memory stays on its GPUs when it ends
    preempt_signal: int | None = None  # what it is sent to give way, if it ever is
    passed: tuple[int, ...] = ()
    version: int | None = None  # of the wishes that it was planned by; None: by those of now
    beside: tuple[int, ...] = ()  # pids of strangers on its GPUs, beside whom it is started


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """An attempt that is over, and what that was. `open_reason` is the reason as others are told it
    who may not read the log. `cooling` is since when (CLOCK_MONOTONIC, boot id)
    its GPUs cool down; None where they are cool at once. `gpu_use` and `series` are what was
    measured; None leaves what is written down of it."""

    job: int
    attempt: int
    exit: Exit
    outcome: Outcome
    reason: str
    open_reason: str
    error_signature: str | None = None  # None: it did what was wanted of it
    cooling: tuple[float, str] | None = None
    gpu_use: GpuUse | None = None
    series: Series | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """When the next attempt may start: on CLOCK_BOOTTIME of this boot, and by the wall clock for
    people and for the next boot."""

    boottime: float
    boot_id: str
    at: float


class Happened:
    def __init__(self, db: Database) -> None:
        self._db = db

    def start(self, new: NewAttempt, *, now: float) -> bool:
        """Commits attempt, runner and leases together; False where the job no longer wants to run, or
        asks for something else by now, or somebody does not want it on these GPUs any more.

        The keys and triggers of the schema refuse a GPU that is not free, whatever the plan says.
        """
        with self._db.part():  # whose caller goes on where a lease is refused
            for one in (new.job, *new.passed):
                single_out(self._db, one, one)
            moved = self._db.write(
                """
                update jobs set state = 'starting', attempt = :attempt
                where id = :job and state = 'queued' and attempt = :attempt - 1
                  and version = coalesce(:version, version)
                  and held_by is null and stop_asked_at is null and delayed_until_at is null
                  and open_needs = 0
                  and not exists (select 1 from wishes where name = 'drain')
                  and not exists (select 1 from gpu_wishes where drained_by is not null
                                    and gpu in (select value from json_each(:gpus)))
                """,
                {
                    "job": new.job,
                    "attempt": new.attempt,
                    "version": new.version,
                    "gpus": json.dumps([lease.gpu for lease in new.leases]),
                },
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
        self,
        job: int,
        attempt: int,
        *,
        pid: int | None,
        pid_start: int | None,
        at: float,
        mono: float,
        is_over: bool = False,
    ) -> None:
        """The job's process exists since then. `is_over`: its end follows in the same transaction, so
        the job itself need not be told of both."""
        with self._db.transaction():
            began = self._db.write(
                """
                update attempts set pid = ?, pid_start = ?, started_at = ?, started_mono = ?
                where job = ? and attempt = ?
                  and exists (select 1 from jobs j where j.id = attempts.job
                                and j.attempt = attempts.attempt and j.state = 'starting')
                """,
                (pid, pid_start, at, mono, job, attempt),
            )
            if not began:
                return
            if not is_over:
                sql = "update jobs set state = 'running', started_at = ? where id = ?"
                self._db.write(sql, (at, job))
            detail = {"pid": pid} | waits_before(self._db, job, attempt, at)
            record_event(self._db, at, "running", job=job, attempt=attempt, detail=detail)

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

    def end(self, ended: Ended, *, now: float) -> None:
        """Ends the job with this attempt and gives its GPUs back, or lets them cool."""
        with self._db.transaction():
            self._end_attempt(ended, now)
            at = ended.exit.ended_at or now
            self._end_job(ended.job, ended.outcome, ended.reason, ended.open_reason, at)
            self._tell_end("ended", ended, now)

    def try_again(
        self, ended: Ended, delay: Delay, *, request: Request | None, why: str, now: float
    ) -> None:
        """Ends the attempt and queues the job for its next one, which asks for `request` where that
        is to change."""
        with self._db.transaction():
            self._end_attempt(ended, now)
            self._db.write(
                f"""
                update jobs set state = 'queued', started_at = null,
                  reason = :reason, open_reason = :open_reason,
                  delayed_until_at = :at, delayed_until_boottime = :boottime, delayed_boot = :boot,
                  delayed_for = 'backoff',
                  -- signals that this attempt did not get were not meant for the next one
                  signal_sent = {_ALL_SIGNALS}
                where id = :job
                """,
                {
                    "job": ended.job,
                    "reason": f"{ended.reason}; {why}",
                    "open_reason": f"{ended.open_reason}; {why}",
                    "at": delay.at,
                    "boottime": delay.boottime,
                    "boot": delay.boot_id,
                },
            )
            if request is not None:
                reclassify(self._db, ended.job, request)
            self._tell_end("attempt_ended", ended, now)
            until = {"until_at": delay.at}
            self._event(now, "backoff", ended.job, ended.attempt, cause=why, detail=until)

    def give_back(self, ended: Ended, cause: EndCause, *, now: float) -> None:
        """Ends the attempt and queues the job again, which counts as none of its retries: at the end
        of the queue where somebody wanted it to begin anew, and otherwise in its place."""
        with self._db.transaction():
            self._end_attempt(ended, now)
            self._db.write(
                f"""
                update jobs set state = 'queued', started_at = null, reason = null, open_reason = null,
                  uncounted = uncounted + 1, preemptions = preemptions + iif(:requeued, 0, 1),
                  signal_sent = {_ALL_SIGNALS},
                  place = case when :requeued then {_LAST_PLACE} else place end,
                  requeued_for = case when :requeued then requeue_asked_at else requeued_for end
                where id = :job
                """,
                {"job": ended.job, "requeued": cause is EndCause.REQUEUED},
            )
            if cause is EndCause.REQUEUED:
                ask_for_gpus_again(self._db, ended.job)
            self._tell_end("attempt_ended", ended, now)
            self._event(now, "given_back", ended.job, ended.attempt, cause=cause.value)

    def undelay(self, job: int, *, now: float) -> None:
        """Its wait for the time to begin, or for its next attempt, is over."""
        with self._db.transaction():
            row = self._db.row("select last_id, delayed_for from jobs where id = ?", (job,))
            changed = self._db.write(
                """
                update jobs set reason = null, open_reason = null, delayed_until_at = null,
                  delayed_until_boottime = null, delayed_boot = null, delayed_for = null
                where id = ? and delayed_until_at is not null
                """,
                (job,),
            )
            if changed and row is not None:
                kind = "due" if row["delayed_for"] == "begin" else "backoff_over"
                detail = span_detail(job, row["last_id"]) or None
                self._event(now, kind, job, None, detail=detail)

    def delay_anew(self, job: int, delay: Delay) -> None:
        """The same wait on the clock of another boot."""
        with self._db.transaction():
            self._db.write(
                "update jobs set delayed_until_boottime = ?, delayed_boot = ? where id = ?",
                (delay.boottime, delay.boot_id, job),
            )

    def cancel(
        self, job: int, *, last: int | None = None, actor: str, now: float, why: str | None = None
    ) -> None:
        """Ends a job that waits, or all from there to `last` that do. That can be undone for a while,
        so what it waited for stays. `why` is what anybody may read; None: the actor asked for it."""
        reason = why or f"cancelled by {actor} while it was queued"
        with self._db.transaction():
            single_out(self._db, job, last or job)
            # Somebody may have split the row since this was decided.
            for first, end in self._rows(job, last or job, "queued"):
                self._db.write(
                    """
                    update jobs set state = 'ended', outcome = 'cancelled', cancelled_queued = 1,
                      reason = :reason, open_reason = :reason, ended_at = :now
                    where id = :job
                    """,
                    {"job": first, "reason": reason, "now": now},
                )
                touch(self._db, first)
                detail = {"outcome": Outcome.CANCELLED} | span_detail(first, end)
                self._event(now, "ended", first, None, actor=actor, cause=reason, detail=detail)

    def stop_step(
        self, job: int, attempt: int, *, kill: bool, cause: EndCause, mono: float, now: float
    ) -> None:
        """Notes TERM, or what stands for it, or the first KILL, before it goes out, and what for; who
        stands still goes on for it. One from before the job was there counts for nothing once it is,
        and so does what was told to a job that was to run again, once it is to end for good."""
        column = "kill_mono" if kill else "term_mono"
        is_new = "kill_mono is null"
        if not kill:
            runs_again = "ending in ('preempted', 'requeued') and ending <> :cause"
            is_new = f"(term_mono is null or term_mono < started_mono or {runs_again})"
        with self._db.transaction():
            self.resume(job, attempt, mono=mono, now=now)
            changed = self._db.write(
                f"""
                update attempts set {column} = :mono, term_delivered = term_delivered and :kill,
                  ending_mono = iif(ending_mono >= coalesce(started_mono, 0), ending_mono, :mono),
                  ending = iif(ending in ('preempted', 'requeued'), :cause, coalesce(ending, :cause))
                where job = :job and attempt = :attempt and {is_new}
                """,
                {"mono": mono, "cause": cause.value, "job": job, "attempt": attempt, "kill": kill},
            )
            if changed and (kill or cause is not EndCause.PREEMPTED):  # that has its own event
                kind = "kill_sent" if kill else "term_sent"
                actor = self._asker(job, cause)
                self._event(now, kind, job, attempt, actor=actor, cause=cause.value)

    def term_delivered(self, job: int, attempt: int) -> None:
        """The TERM that was noted has gone out: a later daemon need not send it again."""
        with self._db.transaction():
            self._db.write(
                "update attempts set term_delivered = 1 where job = ? and attempt = ?",
                (job, attempt),
            )

    def signals_sent(self, job: int, attempt: int, number: int, *, now: float) -> None:
        """Notes that the next of the signals asked for by hand goes out."""
        with self._db.transaction():
            self._db.write(
                """
                update jobs set signal_sent =
                  (select min(s.id) from signals s where s.job = jobs.id and s.id > signal_sent)
                where id = ?
                """,
                (job,),
            )
            self._event(now, "signal_sent", job, attempt, detail={"signal": number})

    def pause(self, job: int, attempt: int, *, mono: float, now: float) -> None:
        with self._db.transaction():
            self._db.write(
                "update attempts set paused_mono = ? where job = ? and attempt = ?",
                (mono, job, attempt),
            )
            actor = self._db.value("select paused_by from jobs where id = ?", (job,))
            self._event(now, "paused", job, attempt, actor=actor)

    def resume(self, job: int, attempt: int, *, mono: float, now: float) -> None:
        with self._db.transaction():
            changed = self._db.write(
                """
                update attempts set paused_s = paused_s + max(:mono - paused_mono, 0),
                  resumed_mono = :mono, paused_mono = null
                where job = :job and attempt = :attempt and paused_mono is not null
                """,
                {"mono": mono, "job": job, "attempt": attempt},
            )
            if changed:
                self._event(now, "resumed", job, attempt)

    def main_ended(self, job: int, attempt: int, *, left: int, mono: float, now: float) -> None:
        """The job's own process has ended, and others of it have not."""
        with self._db.transaction():
            changed = self._db.write(
                """
                update attempts set main_ended_mono = ?
                where job = ? and attempt = ? and main_ended_mono is null
                """,
                (mono, job, attempt),
            )
            if changed:
                self._event(now, "main_ended", job, attempt, detail={"left": left})

    def unkillable(self, job: int, attempt: int, words: str, *, now: float) -> None:
        with self._db.transaction():
            self._db.write(
                "update attempts set unkillable = ? where job = ? and attempt = ?",
                (words, job, attempt),
            )
            self._event(now, "unkillable", job, attempt, cause=words)

    def _insert_attempt(self, new: NewAttempt, now: float) -> None:
        held = {
            "indices": list(new.gpu_indices),
            "uuids": [lease.gpu for lease in new.leases],
            "simulated": new.simulated,
            "cool_at_once": new.cool_at_once,
            "beside": list(new.beside),
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
                "cgroup": new.cgroup,
                "preempt_signal": new.preempt_signal,
                "mem_bound_by": None if new.mem_bound_by is None else new.mem_bound_by.value,
                "cpu_bound_by": None if new.cpu_bound_by is None else new.cpu_bound_by.value,
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
        slot = 0 if lease.exclusive else self._free_slot(lease.gpu)
        try:
            self._db.insert("leases", row | {"slot": slot})
        except apsw.ConstraintError as error:
            raise LeaseRefused(f"GPU {lease.gpu}: {error}") from error

    def _free_slot(self, gpu: str) -> int:
        taken = {row["slot"] for row in self._db.rows(_SLOTS_TAKEN, (gpu,))}
        return next(number for number in range(len(taken) + 1) if number not in taken)

    def _let_go(self, job: int, attempt: int, cooling: tuple[float, str] | None, at: float) -> None:
        which = "where job = ? and attempt = ?"
        self._db.write(
            f"insert or replace into gpus_left (gpu, at) select distinct gpu, ? from leases {which}",
            (at, job, attempt),
        )
        if cooling is None:
            self._db.write(f"delete from leases {which}", (job, attempt))
            return
        self._db.write(
            f"update leases set state = 'cooling', cooling_mono = ?, cooling_boot = ? {which}",
            (*cooling, job, attempt),
        )

    def _end_attempt(self, ended: Ended, now: float) -> None:
        exit = ended.exit
        facts = {
            "ended_at": exit.ended_at or now,
            "outcome": ended.outcome.value,
            "reason": ended.reason,
            "open_reason": ended.open_reason,
            "exit_code": exit.exit_code,
            "signal": exit.signal,
            "stage": exit.stage,
            "error": exit.error,
            "error_signature": ended.error_signature,
            "lost": exit.lost,
            "leftovers": exit.leftovers,
            "leftover_names": exit.leftover_names,
            "user_s": exit.user_s,
            "system_s": exit.system_s,
            "peak_rss_bytes": exit.peak_rss_bytes,
            "log_dropped_bytes": exit.log_dropped_bytes,
        }
        if exit.memory_peak_bytes is not None:  # what a watch has written down stays otherwise
            facts["memory_peak_bytes"] = exit.memory_peak_bytes
        if ended.gpu_use is not None:
            facts |= use_columns(ended.gpu_use)
        self._db.write(
            _set_of_attempt(tuple(facts)), facts | {"job": ended.job, "attempt": ended.attempt}
        )
        if ended.series is not None:
            write_series(self._db, ended.job, ended.attempt, ended.series)
        self._let_go(ended.job, ended.attempt, ended.cooling, exit.ended_at or now)

    def _tell_end(self, kind: str, ended: Ended, now: float) -> None:
        exit = ended.exit
        detail = {
            "outcome": ended.outcome,
            "exit_code": exit.exit_code,
            "signal": exit.signal,
            "leftovers": exit.leftovers,
        }
        if (said := on_kill_words(exit)) is not None:
            told = {"exit_code": exit.on_kill_code}
            self._event(now, "on_kill", ended.job, ended.attempt, cause=said, detail=told)
        is_cancelled = ended.outcome is Outcome.CANCELLED
        record_event(
            self._db,
            now,
            kind,
            job=ended.job,
            attempt=ended.attempt,
            actor=self._asker(ended.job, EndCause.ASKED) if is_cancelled else None,
            cause=ended.reason,
            open_cause=ended.open_reason,
            detail=detail,
        )

    def _asker(self, job: int, cause: EndCause) -> str | None:
        """Who wants that end of it; None: nobody asked for it."""
        if cause not in (EndCause.ASKED, EndCause.REQUEUED):
            return None
        column = "stop_actor" if cause is EndCause.ASKED else "requeue_actor"
        actor: str | None = self._db.value(f"select {column} from jobs where id = ?", (job,))
        return actor

    def _end_job(
        self, job: int, outcome: Outcome, reason: str, open_reason: str, ended_at: float
    ) -> None:
        self._db.write(
            """
            update jobs set state = 'ended', outcome = ?, reason = ?, open_reason = ?, ended_at = ?,
              started_at = (select a.started_at from attempts a
                            where a.job = jobs.id and a.attempt = jobs.attempt),
              delayed_until_at = null, delayed_until_boottime = null, delayed_boot = null,
              delayed_for = null
            where id = ?
            """,
            (outcome.value, reason, open_reason, ended_at, job),
        )
        touch(self._db, job)

    def _event(
        self,
        now: float,
        kind: str,
        job: int,
        attempt: int | None,
        *,
        actor: str | None = None,
        cause: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        record_event(
            self._db,
            now,
            kind,
            job=job,
            attempt=attempt,
            actor=actor,
            cause=cause,
            detail=detail,
        )

    def _rows(self, first: int, last: int, state: str) -> list[tuple[int, int]]:
        """(id, last_id) of those in that state that begin among these jobs."""
        sql = "select id, last_id from jobs where id between ? and ? and state = ? order by id"
        rows = self._db.rows(sql, (first, last, state))
        return [(row["id"], row["last_id"]) for row in rows]


@cache
def _set_of_attempt(columns: tuple[str, ...]) -> str:
    setting = ", ".join(f"{name} = :{name}" for name in columns)
    return f"update attempts set {setting} where job = :job and attempt = :attempt"


_ALL_SIGNALS = "coalesce((select max(id) from signals where job = :job), signal_sent)"
_LAST_PLACE = "(select seq + 1 from sqlite_sequence where name = 'jobs')"
_SLOTS_TAKEN = "select slot from leases where gpu = ?"
