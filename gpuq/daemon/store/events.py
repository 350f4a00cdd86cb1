"""What happened, told in the transaction of what it tells."""

import json
from collections.abc import Mapping
from typing import Any

from gpuq.daemon.store.connection import Database


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
