"""Rows as values of the core, for those that several modules here read."""

from gpuq.core.model import EndCause, Lease, LeaseState, StopWish
from gpuq.daemon.store.connection import Row


def lease(row: Row) -> Lease:
    return Lease(
        gpu=row["gpu"],
        slot=row["slot"],
        job=row["job"],
        attempt=row["attempt"],
        exclusive=bool(row["exclusive"]),
        memory_bytes=row["memory_bytes"],
        state=LeaseState(row["state"]),
        cooling_since=row["cooling_mono"],
        dirt=row["dirt"],
        given_up_for=row.get("given_up_for"),
    )


def stop_wish(row: Row) -> StopWish | None:
    if row["stop_asked_at"] is None:
        return None
    return StopWish(grace_s=row["stop_grace_s"], actor=row["stop_actor"] or "somebody")


def end_cause(row: Row) -> EndCause | None:
    return None if row["ending"] is None else EndCause(row["ending"])
