"""How many jobs one user may have in the queue, and what the scheduler is told of users."""

import asyncio
from contextlib import closing, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gpuq import config
from gpuq.core.decisions import Plan
from gpuq.core.model import JobState, Snapshot
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests.handlers import Handlers
from gpuq.daemon.store import Store
from gpuq.daemon.watchers import Watchers
from gpuq.errors import GpuqError, NeverFits
from tests import stored
from tests.builders import gpu
from tests.stored import ALICE, BOB, NOW, fail, job_in, submit_one

RUNNING, ENDED = JobState.RUNNING, JobState.ENDED
ANN = Peer(uid=ALICE.uid, gid=ALICE.gid, pid=1, user="alice")
BEN = Peer(uid=BOB.uid, gid=BOB.gid, pid=1, user="bob")
ADMIN = Peer(uid=2003, gid=2003, pid=1, user="carol", is_admin=True)


class Still:
    """A machine of four GPUs on which nothing happens."""

    turns = 0
    plan = Plan()
    gpu_trouble: str | None = None
    has_no_driver = False
    health = ()
    gpus = tuple(gpu(index) for index in range(4))

    commit_and_start = nullcontext

    def wake(self) -> None: ...
    def look_closely(self) -> None: ...
    def look(self) -> Snapshot:
        return Snapshot(now=0.0, gpus=())

    def keep_house(self) -> None: ...
    def note_kills(self, jobs: Any) -> list[Any]:
        return []

    def strike(self, kills: Any) -> None: ...
    def ask_to_stop(self, reason: str, *, back: bool = False) -> None: ...
    def wish_tests(self, uuids: Any, actor: str) -> None: ...
    def owner_of(self, pid: int) -> int | None: ...
    def gpu_use(self, job: int, attempt: int) -> None: ...
    async def settle(self) -> None: ...
    async def first_reading(self, timeout_s: float) -> None: ...


def plain_jobs(number: int, **changes: Any) -> list[dict[str, Any]]:
    return [{"argv": ["true"], "cwd": "/", "gpus": 0} | changes] * number


def limited(tmp_path: Path, store: Store, **flags: Any) -> Handlers:
    given = {"state_dir": str(tmp_path), "gpus": "none", **flags}
    return Handlers(store, config.load(given, {}), Still(), Watchers())


def submit_to(handlers: Handlers, peer: Peer, jobs: list[dict[str, Any]], **more: Any) -> Any:
    asked = {"environment": ["A=1"], "env_hash": sha256(b"A=1\0").hexdigest()} | more
    return handlers.handle({"do": "submit", "jobs": jobs, **asked}, peer)


def test_a_batch_that_would_be_too_many_is_refused_as_a_whole(tmp_path: Path) -> None:
    with closing(Store(":memory:")) as store:
        handlers = limited(tmp_path, store, max_queued_per_user=3)
        asyncio.run(submit_to(handlers, ANN, plain_jobs(2)))
        with pytest.raises(GpuqError) as refusal:
            asyncio.run(submit_to(handlers, ANN, plain_jobs(2)))
        assert str(refusal.value).startswith(
            "cannot queue these 2: you have 2 queued, and one user may have 3"
        )
        assert stored.count(store, "jobs") == 2
        asyncio.run(submit_to(handlers, BEN, plain_jobs(3)))
        asyncio.run(submit_to(handlers, ANN, plain_jobs(1)))
        assert (store.counted.queued(ANN.uid), store.counted.queued(BEN.uid)) == (3, 3)


def test_of_many_that_come_at_once_no_more_are_taken_than_there_is_room_for(
    tmp_path: Path,
) -> None:
    async def crowd(handlers: Handlers) -> list[Any]:
        asks = [submit_to(handlers, ANN, plain_jobs(2)) for _ in range(20)]
        return await asyncio.gather(*asks, return_exceptions=True)

    with closing(Store(":memory:")) as store:
        done = asyncio.run(crowd(limited(tmp_path, store, max_queued_per_user=7)))
        refused = [one for one in done if isinstance(one, GpuqError)]
        assert (len(refused), stored.count(store, "jobs")) == (17, 6)


def test_who_asks_again_for_what_was_taken_is_not_refused(tmp_path: Path) -> None:
    with closing(Store(":memory:")) as store:
        handlers = limited(tmp_path, store, max_queued_per_user=1)
        first, again = (
            asyncio.run(submit_to(handlers, ANN, plain_jobs(1), token="t")) for _ in range(2)
        )
        assert first == again
        keyed = limited(tmp_path, store, max_queued_per_user=2)
        told = [asyncio.run(submit_to(keyed, ANN, plain_jobs(1, key="night"))) for _ in range(2)]
        assert told[1]["first"] == told[0]["first"]
        assert [one["is_new"] for one in told] == [True, False]


@pytest.mark.parametrize("state", [JobState.STARTING, RUNNING, ENDED])
def test_what_has_left_the_queue_does_not_count(tmp_path: Path, state: JobState) -> None:
    with closing(Store(":memory:")) as store:
        job_in(store, state)
        assert store.counted.queued(ALICE.uid) == 0
        waits = submit_one(store)
        assert store.counted.queued(ALICE.uid) == 1
        store.wished.stop(waits, grace_s=1.0, actor="alice", now=NOW)
        assert store.counted.queued(ALICE.uid) == 0, "it is about to be cancelled"


def test_what_waits_for_another_attempt_counts(tmp_path: Path) -> None:
    with closing(Store(":memory:")) as store:
        fail(store, job_in(store, RUNNING, retries=1))
        assert store.counted.queued(ALICE.uid) == 1


def test_a_job_for_more_gpus_than_one_user_may_have_is_refused(tmp_path: Path) -> None:
    with closing(Store(":memory:")) as store:
        handlers = limited(tmp_path, store, max_gpus_per_user=2)
        with pytest.raises(NeverFits) as refusal:
            asyncio.run(submit_to(handlers, ADMIN, plain_jobs(1, gpus=3)))
        assert str(refusal.value) == (
            "the job can never start: it wants 3 GPUs, and one user may have 2 at a time "
            "(max_gpus_per_user). Nothing was queued."
        )


def test_the_scheduler_sees_whose_the_jobs_are() -> None:
    with closing(Store(":memory:")) as store:
        job_in(store, RUNNING)
        stored.submit(store, by=BOB)
        assert [(job.uid, job.user) for job in store.current.waiting(9)] == [(BOB.uid, "bob")]
        assert [job.uid for job in store.current.active()] == [ALICE.uid]
