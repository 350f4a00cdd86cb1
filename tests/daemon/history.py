"""A database with a past, made by the store itself: jobs in every state, told by their events."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from gpuq.core.asked.spec import Spec
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Exit, Lease, Outcome, Request
from gpuq.daemon.linux import processes
from gpuq.daemon.store import Store
from gpuq.daemon.store.happened import Delay, Ended, NewAttempt
from gpuq.daemon.store.job_rows import Submitter
from gpuq.daemon.store.pruned import Remains

ALICE = Submitter(uid=1000, gid=1000, user="alice")
BOB = Submitter(uid=1001, gid=1001, user="bob")
ENVIRONMENT = b"HOME=/home/alice\0"
DIGEST = sha256(ENVIRONMENT).digest()
NOW = 1_700_000_000.0
GPUS = ("GPU-0", "GPU-1")
RUNNER = (4242, 99)  # pid and start of every runner; nobody is alive there

SPEC = Spec(
    argv=(b"sh", b"-c", b"true"),
    cwd=b"/",
    umask=0o022,
    environment=DIGEST,
    request=Request(),
    name="sh",
    limits={},
    changes={},
)


def open_store(path: Path | str) -> Store:
    store = Store(path)
    gpus = [Gpu(index=i, uuid=uuid, model="H100", simulated=False) for i, uuid in enumerate(GPUS)]
    store.machine.see_gpus(gpus, now=NOW)
    return store


def submit(
    store: Store, count: int = 1, by: Submitter = ALICE, *, now: float = NOW, **changes: Any
) -> range:
    token, content = changes.pop("token", None), changes.pop("content", ENVIRONMENT)
    digest = sha256(content).digest()
    store.asked.keep_environment(by.uid, digest, content)
    specs = [replace(SPEC, environment=digest, **changes)] * count
    return store.asked.submit(by, specs, now=now, token=token)


def start(
    store: Store, job: int, *gpus: str, attempt: int = 1, now: float = NOW, exclusive: bool = True
) -> None:
    leases = [Lease(gpu=gpu, slot=0, job=job, attempt=attempt, exclusive=exclusive) for gpu in gpus]
    new = NewAttempt(
        job=job,
        attempt=attempt,
        nonce=f"{job:08x}{attempt:08x}",
        boot_id=processes.boot_id(),
        runner_pid=RUNNER[0],
        runner_start=RUNNER[1],
        runner_version=1,
        cgroup=f"/sys/fs/cgroup/gpuq-test/{job}-{attempt}",
        leases=tuple(leases),
    )
    assert store.happened.start(new, now=now)
    store.happened.running(job, attempt, pid=RUNNER[0] + 1, pid_start=RUNNER[1], at=now, mono=5.0)


def _ended(job: int, attempt: int, outcome: Outcome, at: float, **changes: Any) -> Ended:
    how = {"exit_code": 0} if outcome is Outcome.SUCCEEDED else {"exit_code": 1}
    if outcome is Outcome.LOST:
        how = {"lost": "its runner is gone"}
    return Ended(
        job=job,
        attempt=attempt,
        exit=Exit(ended_at=at, **how),
        outcome=outcome,
        reason="so it was",
        open_reason="so it was",
        **changes,
    )


def end(
    store: Store,
    job: int,
    *,
    attempt: int = 1,
    outcome: Outcome = Outcome.SUCCEEDED,
    at: float = NOW + 9,
    cooling: tuple[float, str] | None = None,
) -> None:
    store.happened.end(_ended(job, attempt, outcome, at, cooling=cooling), now=at)


def try_again(store: Store, job: int, *, attempt: int = 1, wait_s: float = 10.0) -> None:
    delay = Delay(boottime=1000.0 + wait_s, boot_id=processes.boot_id(), at=NOW + 9 + wait_s)
    ended = _ended(job, attempt, Outcome.FAILED, NOW + 9)
    store.happened.try_again(ended, delay, request=None, why="once more", now=NOW + 9)


def run(store: Store, job: int, *gpus: str, at: float = NOW + 9, **how: Any) -> None:
    """From the queue to the end."""
    start(store, job, *gpus)
    end(store, job, at=at, **how)


def forget(store: Store, jobs: Sequence[int], *, actor: str = "alice") -> None:
    runs = [range(job, job + 1) for job in jobs]
    store.wished.prune(runs, outputs=False, actor=actor, now=NOW + 20)
    store.pruned.forget(
        [Remains(id=job, attempts=1, actor=actor) for job in jobs], {}, now=NOW + 21
    )


# What happened to whom in the history below.
QUEUED, ENDED, CANCELLED, RUNNING, AGAIN, DELAYED, FORGOTTEN, SHARING, LOST = range(1, 10)


def make_history(path: Path) -> None:
    with closing(open_store(path)) as store:
        assert submit(store, 9, retries=1) == range(1, 10)
        run(store, ENDED, "GPU-0")
        store.wished.stop(CANCELLED, grace_s=1.0, actor="alice", now=NOW)
        store.happened.cancel(CANCELLED, actor="alice", now=NOW + 1)
        start(store, AGAIN, "GPU-0")
        try_again(store, AGAIN)
        store.happened.undelay(AGAIN, now=NOW + 19)
        start(store, DELAYED)
        try_again(store, DELAYED)
        run(store, FORGOTTEN)
        forget(store, [FORGOTTEN])
        start(store, RUNNING, "GPU-0")
        start(store, AGAIN, "GPU-1", attempt=2, exclusive=False)
        start(store, SHARING, "GPU-1", exclusive=False)
        run(store, LOST, outcome=Outcome.LOST)
