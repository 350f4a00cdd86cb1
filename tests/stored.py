"""Rows in a line: jobs submitted, attempts committed, run and ended, straight into a store."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from typing import Any

from gpuq.core.asked.spec import Spec
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import EndCause, Exit, JobState, Lease, Outcome, Request
from gpuq.daemon.chronicle import Chronicle
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import DiskTrouble
from gpuq.daemon.store.happened import Delay, Ended, NewAttempt
from gpuq.daemon.store.job_rows import Submitter

ALICE = Submitter(uid=1000, gid=1000, user="alice")
BOB = Submitter(uid=1001, gid=1001, user="bob")
ENVIRONMENT = b"HOME=/home/alice\0"
DIGEST = sha256(ENVIRONMENT).digest()
NOW = 1_700_000_000.0
MONO = 5000.0  # NOW on CLOCK_MONOTONIC
BOOT = "boot"
GPUS = ("GPU-0", "GPU-1")


def with_gpus(store: Store) -> Store:
    gpus = [Gpu(index=i, uuid=uuid, model="H100", simulated=False) for i, uuid in enumerate(GPUS)]
    store.machine.see_gpus(gpus, now=NOW)
    return store


def spec(**changes: Any) -> Spec:
    plain = Spec(
        argv=(b"sh", b"-c", b"true"),
        cwd=b"/",
        umask=0o022,
        environment=DIGEST,
        request=Request(),
        name="sh",
        limits={},
        changes={},
    )
    return replace(plain, **changes)


def submit(store: Store, count: int = 1, by: Submitter = ALICE, **changes: Any) -> range:
    store.asked.keep_environment(by.uid, DIGEST, ENVIRONMENT)
    token = changes.pop("token", None)
    return store.asked.submit(by, [spec(**changes)] * count, now=NOW, token=token)


def submit_one(store: Store, **changes: Any) -> int:
    return submit(store, **changes).start


def lease(job: int, gpu: str = "GPU-0", **changes: Any) -> Lease:
    whole = Lease(gpu=gpu, slot=0, job=job, attempt=1, exclusive=True)
    return replace(whole, **changes)


def share(job: int, gpu: str = "GPU-0") -> Lease:
    return lease(job, gpu, exclusive=False, memory_bytes=2**30)


def attempt_of(
    job: int, *leases: Lease, attempt: int = 1, passed: Sequence[int] = (), **changes: Any
) -> NewAttempt:
    plain = NewAttempt(
        job=job,
        attempt=attempt,
        nonce="a1b2c3d4e5f60718",
        boot_id=BOOT,
        runner_pid=4242,
        runner_start=99,
        runner_version=1,
        leases=tuple(replace(held, attempt=attempt) for held in leases),
        passed=tuple(passed),
    )
    return replace(plain, **changes)


def start(store: Store, job: int, *leases: Lease, **changes: Any) -> bool:
    return store.happened.start(attempt_of(job, *leases, **changes), now=NOW)


def run(store: Store, job: int, *, attempt: int = 1, mono: float = MONO) -> None:
    """It is heard that it runs."""
    store.happened.running(job, attempt, pid=4243, pid_start=100, at=NOW, mono=mono)


def ended(
    job: int,
    exit: Exit | None = None,
    outcome: Outcome = Outcome.SUCCEEDED,
    *,
    attempt: int = 1,
    reason: str | None = None,
    open_reason: str | None = None,
    cooling: tuple[float, str] | None = None,
) -> Ended:
    exit = exit or Exit(exit_code=0, ended_at=NOW + 9)
    return Ended(
        job=job,
        attempt=attempt,
        exit=exit,
        outcome=outcome,
        reason=reason or f"exit code {exit.exit_code}",
        open_reason=open_reason or f"exit code {exit.exit_code}",
        cooling=cooling,
    )


def end(store: Store, job: int, **how: Any) -> None:
    store.happened.end(ended(job, **how), now=NOW + 9)


def fail(
    store: Store, job: int, *, wait_s: float = 60.0, request: Request | None = None, **how: Any
) -> None:
    """Its attempt ends with code 3, and it waits for the next one."""
    failed: dict[str, Any] = {"exit": Exit(exit_code=3, ended_at=NOW), "outcome": Outcome.FAILED}
    delay = Delay(boottime=MONO + wait_s, boot_id=BOOT, at=NOW + wait_s)
    store.happened.try_again(
        ended(job, **(failed | how)), delay, request=request, why="attempt 2 of 3 in 60 s", now=NOW
    )


def step(
    store: Store,
    job: int,
    *,
    kill: bool = False,
    cause: EndCause = EndCause.ASKED,
    mono: float = MONO,
) -> None:
    """Notes TERM, or KILL."""
    store.happened.stop_step(job, 1, kill=kill, cause=cause, mono=mono, now=NOW)


def job_in(store: Store, state: JobState, **changes: Any) -> int:
    job = submit_one(store, **changes)
    if state in (JobState.STARTING, JobState.RUNNING, JobState.ENDED):
        start(store, job)
    if state in (JobState.RUNNING, JobState.ENDED):
        run(store, job)
    if state is JobState.ENDED:
        end(store, job)
    return job


def write(store: Store, sql: str, *values: Any) -> int:
    with store.transaction():
        return store.database.write(sql, values)


@contextmanager
def full(store: Store) -> Iterator[None]:
    """A database on a full disk: not even the smallest event finds room."""
    pages = store.database.value("pragma page_count")
    store.database.value(f"pragma max_page_count = {pages}")
    try:
        while True:
            store.machine.event("x", now=NOW)
    except DiskTrouble:
        pass
    try:
        yield
    finally:
        store.database.value("pragma max_page_count = 1000000")


def count(store: Store, table: str) -> int:
    return int(store.database.value(f"select count(*) from {table}"))


def row(store: Store, job: int) -> dict[str, Any]:
    (found,) = store.found.jobs(ids=[range(job, job + 1)])
    return found


def states(store: Store) -> dict[int, str]:
    return {row["id"]: row["state"] for row in store.database.rows("select id, state from jobs")}


def take_in(store: Store, chronicle: Chronicle) -> bool:
    """What was heard, in a commit of its own; False where there was nothing."""
    if not chronicle.inbox:
        return False
    with store.transaction():
        count = chronicle.write_down()
    chronicle.announce(count)
    return True


def events(store: Store) -> list[dict[str, Any]]:
    return store.told.events(0, 10_000)[0]


def kinds(store: Store, job: int | None = None) -> list[str]:
    """Of the events, in order; of one job where it is named."""
    return [one["kind"] for one in events(store) if job in (None, one["job"])]
