"""What the machine is and does: its GPUs, when they cool, facts. The loop alone writes here."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gpuq.core.gpus.gpu import Gpu
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.events import record_event


class Machine:
    def __init__(self, db: Database) -> None:
        self._db = db

    # ── read ──

    def known_gpus(self) -> list[Gpu]:
        """Every GPU that this machine has shown, as far as it is remembered: no readings."""
        return [_known_gpu(row) for row in self._db.rows("select * from gpus order by idx")]

    def fact(self, name: str) -> Any:
        value = self._db.value("select value from facts where name = ?", (name,))
        return None if value is None else json.loads(value)

    # ── written by the loop ──

    def release(self, gpu: str, slot: int, *, now: float) -> None:
        which = "where gpu = ? and slot = ? and state <> 'active'"
        with self._db.transaction():
            was_dirty = self._db.value(f"select state = 'dirty' from leases {which}", (gpu, slot))
            self._db.write(f"delete from leases {which}", (gpu, slot))
            if was_dirty:
                record_event(self._db, now, "gpu_clean", gpu=gpu)

    def mark_dirty(self, gpu: str, slot: int, dirt: str, *, now: float) -> None:
        """The memory of the GPU has not come back in time."""
        with self._db.transaction():
            changed = self._db.write(
                """
                update leases set state = 'dirty', dirt = ?
                where gpu = ? and slot = ? and state = 'cooling'
                """,
                (dirt, gpu, slot),
            )
            if changed:
                record_event(self._db, now, "gpu_dirty", gpu=gpu, cause=dirt)

    def see_gpus(self, gpus: Sequence[Gpu], *, now: float) -> None:
        """Remembers which GPUs this machine has. Those that are not among them may come again."""
        with self._db.transaction():
            for gpu in gpus:
                self._db.write(_SEE_GPU, _gpu_row(gpu, now))

    def forget_other_simulations(self, gpus: Sequence[Gpu], chosen: str) -> None:
        """Forgets simulated GPUs beside these, with all that was held against them, once after other
        GPUs were chosen than before. One that a job is on stays until a later daemon's first look."""
        before = self._db.value("select value from facts where name = ?", (_SEEN_OF,))
        if before == json.dumps(chosen):
            return
        present = json.dumps([gpu.uuid for gpu in gpus])
        with self._db.transaction():
            for table in ("gpu_health", "gpu_wishes"):
                self._db.write(f"delete from {table} where gpu in ({_GONE})", (present,))
            self._db.write(f"delete from gpus where uuid in ({_GONE})", (present,))
            if self._db.value(_OTHERS, (present,)) is None:
                self.note(_SEEN_OF, chosen)

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


_SEEN_OF = "gpus_seen_of"  # the setting that the simulated ones come from

_OTHERS = """
select uuid from gpus where simulated and uuid not in (select value from json_each(?))
"""

_GONE = f"{_OTHERS} and uuid not in (select gpu from leases)"

_SEE_GPU = """
insert into gpus (uuid, idx, model, simulated, bus_id, memory_total_bytes, memory_reserved_bytes,
                  baseline_bytes, first_seen_at, last_seen_at)
values (:uuid, :idx, :model, :simulated, :bus_id, :memory_total_bytes, :memory_reserved_bytes,
        :baseline_bytes, :now, :now)
on conflict (uuid) do update set
  idx = excluded.idx, model = excluded.model, bus_id = excluded.bus_id,
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
        "bus_id": gpu.bus_id,
        "memory_total_bytes": gpu.memory_total_bytes,
        "memory_reserved_bytes": gpu.memory_reserved_bytes,
        "baseline_bytes": gpu.baseline_bytes,
        "now": now,
    }


def _known_gpu(row: Row) -> Gpu:
    return Gpu(
        index=row["idx"],
        uuid=row["uuid"],
        model=row["model"],
        simulated=bool(row["simulated"]),
        bus_id=row["bus_id"],
        memory_total_bytes=row["memory_total_bytes"],
        memory_reserved_bytes=row["memory_reserved_bytes"],
        baseline_bytes=row["baseline_bytes"],
    )
