"""What is measured of attempts on their GPUs, and what follows from it. Written by the loop alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpuq.core.gpus.usage import GpuUse, Intruder, Stray
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.events import record_event


@dataclass(frozen=True, slots=True, kw_only=True)
class OnGpus:
    """An attempt that runs on GPUs, and what is written down of it by now."""

    job: int
    attempt: int
    started_mono: float
    is_paused: bool
    beside: frozenset[int]  # the pids of strangers that were there when it was started
    use: GpuUse
    is_idle: bool
    is_contended: bool  # or was
    is_over_memory: bool  # or was


class Measured:
    def __init__(self, db: Database) -> None:
        self._db = db

    def running(self) -> list[OnGpus]:
        """Each attempt that runs and holds a GPU."""
        return [_on_gpus(row) for row in self._db.rows(_RUNNING)]

    def use(self, job: int, attempt: int) -> GpuUse:
        """What is written down of an attempt."""
        sql = f"select {_USE} from attempts where job = ? and attempt = ?"
        row = self._db.row(sql, (job, attempt))
        return GpuUse() if row is None else _use(row)

    def contenders(self, job: int, attempt: int) -> set[int | None]:
        """The pids of those that were told of; None stands for another daemon."""
        rows = self._db.rows(
            "select detail ->> 'pid' as pid from events "
            "where job = ? and attempt = ? and kind = 'contended'",
            (job, attempt),
        )
        return {row["pid"] for row in rows}

    def write(self, job: int, attempt: int, use: GpuUse) -> None:
        self._set(job, attempt, use_columns(use))

    def watched(self) -> list[tuple[int, int, int, float | None]]:
        """(job, attempt, bytes that it may use, when it began to run on CLOCK_MONOTONIC) of each whose
        memory the daemon has to watch."""
        rows = self._db.rows(
            """
            select a.job, a.attempt, s.mem_bytes, a.started_mono
            from jobs j indexed by jobs_active
            join specs s on s.id = j.spec
            join attempts a on a.job = j.id and a.attempt = j.attempt
            where j.state in ('starting', 'running') and a.mem_bound_by = 'watched'
            """
        )
        return [(row["job"], row["attempt"], row["mem_bytes"], row["started_mono"]) for row in rows]

    def memory_peak(self, job: int, attempt: int, peak_bytes: int) -> None:
        """What an attempt whose memory is watched was seen to use at the most."""
        with self._db.transaction():
            self._set(job, attempt, {"memory_peak_bytes": peak_bytes})

    def idle(
        self, job: int, attempt: int, *, since_at: float, gpu: str | None, cause: str, now: float
    ) -> None:
        """It has computed nothing since then."""
        with self._db.transaction():
            self._set(job, attempt, {"idle_since_at": since_at})
            self._event(now, "gpu_idle", job, attempt, gpu, cause)

    def used(self, job: int, attempt: int, *, gpu: str | None, cause: str, now: float) -> None:
        """It computes again."""
        with self._db.transaction():
            self._set(job, attempt, {"idle_since_at": None})
            self._event(now, "gpu_used", job, attempt, gpu, cause)

    def contended(self, job: int, attempt: int, by: Intruder, *, now: float) -> None:
        """Somebody outside gpuq is on a GPU of it. The first one stays in its record."""
        with self._db.transaction():
            self._db.write(
                "update attempts set contended_at = ?, contended_by = ? "
                "where job = ? and attempt = ? and contended_at is null",
                (now, by.words, job, attempt),
            )
            detail = {"pid": by.pid}
            self._event(now, "contended", job, attempt, by.gpu, by.words, detail)

    def astray(self, job: int, attempt: int, stray: Stray, *, now: float) -> None:
        """It computes where it should not, as a script does that sets CUDA_VISIBLE_DEVICES itself."""
        with self._db.transaction():
            self._event(now, "astray", job, attempt, stray.gpu, stray.words)

    def over_memory(self, job: int, attempt: int, *, gpu: str, words: str, now: float) -> None:
        """It uses more of a shared GPU than it asked for."""
        with self._db.transaction():
            self._set(job, attempt, {"over_memory": words})
            self._event(now, "over_memory", job, attempt, gpu, words)

    def _set(self, job: int, attempt: int, columns: Mapping[str, Any]) -> None:
        setting = ", ".join(f"{name} = :{name}" for name in columns)
        with self._db.transaction():
            self._db.write(
                f"update attempts set {setting} where job = :job and attempt = :attempt",
                {**columns, "job": job, "attempt": attempt},
            )

    def _event(
        self,
        now: float,
        kind: str,
        job: int,
        attempt: int,
        gpu: str | None,
        cause: str,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        record_event(
            self._db, now, kind, job=job, attempt=attempt, gpu=gpu, cause=cause, detail=detail
        )


# Found by who holds a GPU, so that it costs as much as there are of those and not of attempts.
_RUNNING = """
select a.* from (select distinct job, attempt from leases where state = 'active') l
cross join attempts a on a.job = l.job and a.attempt = l.attempt
where a.started_mono is not null and a.ended_at is null
"""


def use_columns(use: GpuUse) -> dict[str, Any]:
    """As the columns of `attempts`. A mean over no time at all is none."""
    return {
        "gpu_measured_s": use.measured_s or None,
        "gpu_peak_bytes": use.peak_bytes,
        "gpu_util_mean": use.util_mean,
        "gpu_util_peak": use.util_peak,
        "gpu_energy_j": use.energy_j,
    }


_USE = ", ".join(use_columns(GpuUse()))


def _use(row: Row) -> GpuUse:
    return GpuUse(
        measured_s=row["gpu_measured_s"] or 0.0,
        peak_bytes=row["gpu_peak_bytes"],
        util_mean=row["gpu_util_mean"],
        util_peak=row["gpu_util_peak"],
        energy_j=row["gpu_energy_j"],
    )


def _on_gpus(row: Row) -> OnGpus:
    return OnGpus(
        job=row["job"],
        attempt=row["attempt"],
        started_mono=row["started_mono"],
        is_paused=row["paused_mono"] is not None,
        beside=frozenset(json.loads(row["gpus"]).get("beside", ())),
        use=_use(row),
        is_idle=row["idle_since_at"] is not None,
        is_contended=row["contended_at"] is not None,
        is_over_memory=row["over_memory"] is not None,
    )
