"""Jobs that wait for GPUs and would make do with the CPU: since when that counts, that they turned to
it, and how they get their claim back. Written by the loop alone."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from gpuq.core.scheduling.fallback import on_cpu, on_gpus_again
from gpuq.core.units import format_seconds
from gpuq.daemon.store.classes import read_request, reclassify
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.elements import single_out
from gpuq.daemon.store.events import record_event

CLOCKED_PER_TURN = 1024


class Falling:
    def __init__(self, db: Database) -> None:
        self._db = db

    def to_clock(self) -> tuple[int, ...]:
        """Rows of jobs that may start by now, and of which nobody has noted since when."""
        return tuple(row["id"] for row in self._db.rows(_TO_CLOCK))

    def count_waits(self, jobs: Iterable[int], *, mono: float, boot_id: str) -> None:
        """They wait since `mono` (CLOCK_MONOTONIC of that boot)."""
        with self._db.transaction():
            self._db.write_many(
                f"update jobs set gpu_wait_mono = ?, gpu_wait_boot = ? where id = ? and {_COUNTS}",
                ((mono, boot_id, job) for job in jobs),
            )

    def forget_waits(self, boot_id: str) -> None:
        """Those of other boots, whose clock has ended: they begin anew."""
        with self._db.transaction():
            self._db.write(
                """
                update jobs set gpu_wait_mono = null, gpu_wait_boot = null
                where id in (select id from jobs indexed by jobs_clocked
                             where gpu_wait_mono is not null and gpu_wait_boot <> ?)
                """,
                (boot_id,),
            )

    def fall_back(self, job: int, *, version: int, why: str, now: float) -> bool:
        """This job, alone of all in its row, asks for the CPU from now on. False where it has started,
        or something else is wished of it than was when that was decided."""
        with self._db.transaction():
            single_out(self._db, job, job)
            row = self._db.row(_TO_FALL, (job, version))
            if row is None:
                return False
            asked = read_request(row["request"])
            reclassify(self._db, job, on_cpu(asked, row["time_limit_s"]))
            self._db.write(
                """
                update jobs set gpu_request = ?, gpu_wait_mono = null, gpu_wait_boot = null, passes = 0
                where id = ?
                """,
                (row["request"], job),
            )
            waited = format_seconds(row["cpu_after_s"])
            record_event(
                self._db,
                now,
                "cpu_fallback",
                job=job,
                cause=f"it has waited {waited} for GPUs: {why}",
                detail={"gpus": asked.gpus, "cpus": asked.cpus},
            )
        return True


def ask_for_gpus_again(db: Database, job: int) -> None:
    """For the GPUs that a job asked for before it turned to the CPU, if it did. Stands in the
    transaction of what it is wished for."""
    row: Row | None = db.row(
        """
        select j.gpu_request, c.request, s.time_limit_s
        from jobs j join classes c on c.id = j.class join specs s on s.id = j.spec
        where j.id = ? and j.gpu_request is not null
        """,
        (job,),
    )
    if row is None:
        return
    request, given_up = read_request(row["request"]), read_request(row["gpu_request"])
    reclassify(db, job, on_gpus_again(request, given_up, row["time_limit_s"]))
    db.write("update jobs set gpu_request = null where id = ?", (job,))


def gave_up(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a job asked for of GPUs that has turned to the CPU, as people see it."""
    if row["gpu_request"] is None:
        return None
    kept = "gpus gpu_mem_bytes exclusive gpu_model gpu_ids exclude_gpus max_util"
    asked = json.loads(row["gpu_request"])
    return {name: asked.get(name) for name in kept.split()}


_COUNTS = """
state = 'queued' and held_by is null and stop_asked_at is null and delayed_until_at is null
  and open_needs = 0 and cpu_after_s is not null and gpu_request is null and gpu_wait_mono is null
"""

_TO_CLOCK = f"""
select id from jobs indexed by jobs_to_clock where {_COUNTS} order by id limit {CLOCKED_PER_TURN}
"""

_TO_FALL = """
select j.cpu_after_s, c.request, s.time_limit_s
from jobs j join classes c on c.id = j.class join specs s on s.id = j.spec
where j.id = ? and j.version = ? and j.state = 'queued' and j.held_by is null
  and j.stop_asked_at is null and j.delayed_until_at is null and j.open_needs = 0
  and j.cpu_after_s is not null and j.gpu_request is null
"""
