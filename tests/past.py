"""Attempts that were, as a store has them after years: with times and readings as a test wants them.

had(store, 0, 3600, "GPU-0", by=BOB, gpu_util_mean=75.0, gpu_measured_s=3600.0)
"""

from typing import Any

from gpuq.core.model import Exit, Outcome
from gpuq.daemon.store import Store
from gpuq.daemon.store.job_rows import Submitter
from tests import stored
from tests.stored import ALICE, NOW, lease


def had(
    store: Store,
    first: float,
    last: float | None,
    *gpus: str,
    by: Submitter = ALICE,
    outcome: Outcome = Outcome.SUCCEEDED,
    submitted: float | None = None,
    asked: dict[str, Any] | None = None,
    **columns: Any,
) -> int:
    """A job whose only attempt ran from `first` to `last` (s after NOW; None: it runs still) on these
    GPUs. `asked` is of its spec, `columns` are of the attempt."""
    job = stored.submit(store, by=by, **(asked or {})).start
    return attempted(
        store,
        job,
        first,
        last,
        *gpus,
        outcome=outcome,
        submitted=first if submitted is None else submitted,
        **columns,
    )


def attempted(
    store: Store,
    job: int,
    first: float,
    last: float | None,
    *gpus: str,
    attempt: int = 1,
    outcome: Outcome = Outcome.SUCCEEDED,
    submitted: float | None = None,
    again: bool = False,
    **columns: Any,
) -> int:
    """One attempt of it, after which it is tried `again` or is over."""
    stored.start(store, job, *(lease(job, gpu) for gpu in gpus), attempt=attempt)
    stored.run(store, job, attempt=attempt)
    times: dict[str, float] = {"started_at": NOW + first}
    if last is not None:
        times["ended_at"] = NOW + last
        exit = Exit(exit_code=int(outcome is not Outcome.SUCCEEDED), ended_at=NOW + last)
        if again:
            stored.fail(store, job, exit=exit, outcome=outcome, attempt=attempt)
            store.happened.undelay(job, now=NOW + last)
        else:
            stored.end(store, job, exit=exit, outcome=outcome, attempt=attempt)
    for name, value in (times | columns).items():
        sql = f"update attempts set {name} = ? where job = ? and attempt = ?"
        stored.write(store, sql, value, job, attempt)
    if not again:
        for name, value in times.items():
            stored.write(store, f"update jobs set {name} = ? where id = ?", value, job)
    if submitted is not None:
        stored.write(store, "update jobs set submitted_at = ? where id = ?", NOW + submitted, job)
    return job
