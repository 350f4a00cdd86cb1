"""What happened, told in the transaction of what it tells."""

import json
from collections.abc import Mapping
from typing import Any

from gpuq.core.events import GPUQ, cause_of
from gpuq.daemon.store.connection import Database
from gpuq.daemon.store.elements import IS_OF
from gpuq.daemon.store.notice_rows import MOMENTS, TOO_MANY, queue_notices


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
    open_cause: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Adds one event; stands in the transaction of what it tells. Where it tells of a run of jobs,
    `job` is the first and `detail` has the `last` of them. `open_cause` is the cause as others
    than the job's owner are told it, where the cause quotes what is theirs alone. Without an actor it
    is gpuq itself, and without a cause what is always behind that kind of event."""
    event = {
        "now": now,
        "kind": kind,
        "job": job,
        "attempt": attempt,
        "gpu": gpu,
        "actor": actor or GPUQ,
        "cause": cause_of(kind, cause),
        "open_cause": open_cause,
        "detail": None if detail is None else json.dumps(detail),
    }
    db.write(_INSERT, event)
    if kind in MOMENTS and queue_notices(db, event):
        record_event(db, now, "notice_dropped", job=job, gpu=gpu, cause=TOO_MANY)


_INSERT = f"""
insert into events (at, kind, job, uid, attempt, gpu, actor, cause, open_cause, detail)
values (:now, :kind, :job,
        (select s.uid from jobs j join specs s on s.id = j.spec where {IS_OF}),
        :attempt, :gpu, :actor, :cause, :open_cause, :detail)
"""
