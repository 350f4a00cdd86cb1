"""How well GPUs are: what gpuq holds against them, and what people wish of them meanwhile. The facts
are written by the loop alone."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpuq.core.gpus.breaker import explain_xid, tell_xid
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.events import record_event


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRow:
    """All that is stored of one GPU's health. Times are seconds since the epoch."""

    gpu: str
    quarantine: str | None = None
    quarantined_at: float | None = None
    is_lasting: bool = False
    boot_id: str | None = None  # in which it was set aside
    accepted: str | None = None
    fast_failures: int = 0
    failed_tests: int = 0
    tested_at: float | None = None
    test_trouble: str | None = None
    test_result: Mapping[str, Any] | None = None
    resumed_at: float | None = None
    drained_by: str | None = None
    drain_reason: str | None = None
    drained_at: float | None = None
    resume_asked_at: float | None = None
    resume_actor: str | None = None
    resume_untested: bool = False


class Health:
    def __init__(self, db: Database) -> None:
        self._db = db
        self._last: tuple[list[Row], dict[str, HealthRow]] = ([], {})

    # ── read ──

    def rows(self) -> Mapping[str, HealthRow]:
        """By uuid, one for each GPU that this machine has shown. Asked at every turn and seldom new:
        the same object as long as it says the same."""
        rows = self._db.remembered(("gpus", "gpu_health", "gpu_wishes"), _ROWS)
        if rows is not self._last[0] and rows != self._last[0]:
            self._last = rows, {row["gpu"]: _health_row(row) for row in rows}
        return self._last[1]

    def xids(self, job: int, attempt: int) -> list[tuple[int, int]]:
        """(XID, index of the GPU) of each error that was told while this attempt had its GPUs."""
        sql = "select xids from attempts where job = ? and attempt = ?"
        told = json.loads(self._db.value(sql, (job, attempt)) or "[]")
        return [(one["xid"], one["gpu"]) for one in told]

    # ── written by the loop ──

    def set_aside(
        self, gpu: str, reason: str, *, is_lasting: bool, boot_id: str, now: float
    ) -> None:
        with self._db.transaction():
            self._begin(gpu)
            self._db.write(
                """
                update gpu_health set quarantine = :reason, quarantined_at = :now,
                  is_lasting = :is_lasting, boot_id = :boot_id, failed_tests = 0, accepted = null
                where gpu = :gpu
                """,
                {
                    "gpu": gpu,
                    "reason": reason,
                    "now": now,
                    "is_lasting": int(is_lasting),
                    "boot_id": boot_id,
                },
            )
            record_event(self._db, now, "gpu_quarantined", gpu=gpu, cause=reason)

    def readmit(self, gpu: str, why: str, *, accepts: str | None, now: float) -> None:
        with self._db.transaction():
            changed = self._db.write(
                """
                update gpu_health set quarantine = null, quarantined_at = null, is_lasting = 0,
                  boot_id = null, failed_tests = 0, fast_failures = 0, accepted = :accepts
                where gpu = :gpu and quarantine is not null
                """,
                {"gpu": gpu, "accepts": accepts},
            )
            self.heed_resume(gpu)
            if changed:
                record_event(self._db, now, "gpu_readmitted", gpu=gpu, cause=why)

    def tested(
        self, gpu: str, trouble: str | None, result: Mapping[str, Any], *, now: float
    ) -> None:
        """A test has ended; what made people or gpuq want it is settled."""
        with self._db.transaction():
            self._begin(gpu)
            self._db.write(
                """
                update gpu_health set tested_at = :now, test_trouble = :trouble,
                  test_result = :result, fast_failures = 0,
                  failed_tests = case when :trouble is not null then failed_tests + 1
                                      when :is_good then 0 else failed_tests end
                where gpu = :gpu
                """,
                {
                    "gpu": gpu,
                    "now": now,
                    "trouble": trouble,
                    "is_good": result.get("verdict") == "good",
                    "result": json.dumps(result),
                },
            )
            if not self._is_wanted_untested(gpu):
                self.heed_resume(gpu)
            record_event(self._db, now, "gpu_tested", gpu=gpu, cause=trouble, detail=result)

    def _is_wanted_untested(self, gpu: str) -> bool:
        """Somebody asked meanwhile to have it back whatever the test says."""
        sql = "select resume_untested from gpu_wishes where gpu = ?"
        return bool(self._db.value(sql, (gpu,)))

    def heed_resume(self, gpu: str) -> None:
        """What somebody wished of it has been acted on."""
        with self._db.transaction():
            self._db.write(
                """
                update gpu_health set resumed_at =
                  (select resume_asked_at from gpu_wishes where gpu_wishes.gpu = gpu_health.gpu)
                where gpu = ?
                """,
                (gpu,),
            )

    def count_end(self, gpus: Sequence[str], *, against: bool) -> None:
        """One more job in a row has failed quickly on these GPUs, or none."""
        if not gpus:
            return
        with self._db.transaction():
            for gpu in gpus:
                if against:
                    self._begin(gpu)
                self._db.write(_COUNT_FAILURE if against else _COUNT_NONE, (gpu,))

    def tell_xids(
        self,
        gpu: str,
        index: int,
        xids: Sequence[int],
        attempts: Iterable[tuple[int, int]],
        *,
        now: float,
    ) -> None:
        """The driver told of errors of a GPU that these attempts (job, attempt) had. However often it
        tells of one, an attempt hears of it once."""
        with self._db.transaction():
            for job, attempt in attempts:
                known = self.xids(job, attempt)
                for xid in sorted({xid for xid in xids if (xid, index) not in known}):
                    self._tell_xid(job, attempt, xid, index)
                    record_event(
                        self._db,
                        now,
                        "xid",
                        job=job,
                        attempt=attempt,
                        gpu=gpu,
                        cause=f"XID {xid}: {explain_xid(xid)}",
                        detail={"xid": xid},
                    )

    def _tell_xid(self, job: int, attempt: int, xid: int, index: int) -> None:
        """An attempt that has failed by then says it too: the driver often tells after the end."""
        which = {"job": job, "attempt": attempt}
        self._db.write(
            """
            update attempts set
              xids = json_insert(xids, '$[#]', json_object('xid', :xid, 'gpu', :gpu))
            where job = :job and attempt = :attempt
            """,
            which | {"xid": xid, "gpu": index},
        )
        for table, its_id in (("attempts", "job"), ("jobs", "id")):
            self._db.write(
                f"""
                update {table} set reason = reason || :words
                where {its_id} = :job and attempt = :attempt and outcome = 'failed'
                """,
                which | {"words": f"; {tell_xid(xid, index)}"},
            )

    def _begin(self, gpu: str) -> None:
        self._db.write("insert into gpu_health (gpu) values (?) on conflict do nothing", (gpu,))


_COUNT_FAILURE = "update gpu_health set fast_failures = fast_failures + 1 where gpu = ?"
_COUNT_NONE = "update gpu_health set fast_failures = 0 where gpu = ? and fast_failures > 0"

_ROWS = """
select g.uuid as gpu, h.quarantine, h.quarantined_at, h.is_lasting, h.boot_id, h.accepted,
       h.fast_failures, h.failed_tests, h.tested_at, h.test_trouble, h.test_result, h.resumed_at,
       w.drained_by, w.drain_reason, w.drained_at, w.resume_asked_at, w.resume_actor,
       w.resume_untested
from gpus g
left join gpu_health h on h.gpu = g.uuid
left join gpu_wishes w on w.gpu = g.uuid
"""


def _health_row(row: Row) -> HealthRow:
    result = row["test_result"]
    return HealthRow(
        **row
        | {
            "is_lasting": bool(row["is_lasting"]),
            "fast_failures": row["fast_failures"] or 0,
            "failed_tests": row["failed_tests"] or 0,
            "test_result": None if result is None else json.loads(result),
            "resume_untested": bool(row["resume_untested"]),
        }
    )
