"""How much room the history of many jobs takes, and what is left once its events are old.

    python bench/history_size.py 1000000 single      each submitted by itself
    python bench/history_size.py 1000000 array       in arrays of a thousand

Each job runs once on a GPU and succeeds, straight into a store: what is measured is what the daemon
would have written. The files of jobs, logs above all, are not counted: they go by the settings keep_for
and keep_size.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from gpuq.core.asked.elements import Elements
from gpuq.core.asked.spec import Spec
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Exit, Lease, Outcome, Request
from gpuq.daemon.store import Store
from gpuq.daemon.store.asked import Submitter
from gpuq.daemon.store.happened import Ended, NewAttempt

BY = Submitter(uid=1000, gid=1000, user="alice")
ENVIRONMENT = b"HOME=/home/alice\0" + b"A=1\0" * 500
DIGEST = sha256(ENVIRONMENT).digest()
THEN = time.time() - 40 * 86400
AT_ONCE = 1000
SIZES = """
select coalesce(i.tbl_name, s.name) as name, sum(s.pgsize) as bytes
from dbstat s left join sqlite_master i on i.name = s.name
where s.aggregate = true group by 1 order by 2 desc limit 6
"""


def main() -> None:
    number, shape = int(sys.argv[1]), sys.argv[2]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "gpuq.db"
        store = Store(path)
        store.machine.see_gpus(
            [Gpu(index=0, uuid="GPU-0", model="H100", simulated=False)], now=THEN
        )
        store.asked.keep_environment(BY.uid, DIGEST, ENVIRONMENT)
        timed("written", lambda: write(store, number, shape))
        tell("with all events", store, path, number)
        timed(
            "counted for the metrics", lambda: until_false(lambda: store.tallies.count_events(1000))
        )
        timed(
            "events removed",
            lambda: until_false(lambda: store.pruned.prune_events(time.time(), 1000) > 0),
        )
        tell("events removed", store, path, number)
        copy = Path(folder) / "copy.db"
        store.database.value(f"vacuum into '{copy}'")
        print(f"as a backup: {copy.stat().st_size / 1e6:.0f} MB")
        store.close()


def write(store: Store, number: int, shape: str) -> None:
    for first in range(1, number, AT_ONCE):
        with store.transaction():
            for spec in specs(shape):
                store.asked.submit(BY, [spec], now=THEN + first)
            for job in range(first, first + AT_ONCE):
                live(store, job)


def specs(shape: str) -> list[Spec]:
    whole = Spec(
        argv=(b"python", b"train.py", b"--config", b"configs/sweep.yaml", b"--lr", b"0.001"),
        cwd=b"/home/alice/projects/vision",
        umask=0o022,
        environment=DIGEST,
        request=Request(gpus=1),
        name="train",
        limits={},
        changes={},
    )
    if shape == "single":
        return [whole] * AT_ONCE
    return [replace(whole, elements=Elements(indices=(range(AT_ONCE),)))]


def live(store: Store, job: int) -> None:
    at = THEN + job / 10
    lease = Lease(gpu="GPU-0", slot=0, job=job, attempt=1, exclusive=True)
    new = NewAttempt(
        job=job,
        attempt=1,
        nonce=f"{job:016x}",
        boot_id="0f6ea2b4-3a1c-4f1e-9d55-111122223333",
        runner_pid=4000 + job % 100_000,
        runner_start=99_000_000 + job,
        runner_version=1,
        leases=(lease,),
        gpu_indices=(0,),
    )
    assert store.happened.start(new, now=at)
    store.happened.running(job, 1, pid=4001, pid_start=99_000_001, at=at + 0.01, mono=5.0)
    exit = Exit(exit_code=0, ended_at=at + 0.09, user_s=0.05, system_s=0.01, peak_rss_bytes=10**8)
    words = "exit code 0"
    ended = Ended(
        job=job, attempt=1, exit=exit, outcome=Outcome.SUCCEEDED, reason=words, open_reason=words
    )
    store.happened.end(ended, now=at + 0.09)


def timed(what: str, work: Callable[[], None]) -> None:
    began = time.perf_counter()
    work()
    print(f"{what} in {time.perf_counter() - began:.1f} s", flush=True)


def until_false(step: Callable[[], bool]) -> None:
    while step():
        pass


def tell(what: str, store: Store, path: Path, number: int) -> None:
    store.database.value("pragma wal_checkpoint(truncate)")
    size, free = os.path.getsize(path), store.database.value("pragma freelist_count") * 4096
    print(f"{what}: {size / 1e6:.0f} MB, {free / 1e6:.0f} MB of it free to be written again")
    for row in store.database.rows(SIZES):
        print(f"  {row['name']}: {row['bytes'] / 1e6:.0f} MB, {row['bytes'] / number:.0f} a job")


if __name__ == "__main__":
    main()
