"""What would become of jobs that nobody submits: judged as if they were, and nothing stored."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from typing import Any

import pytest

from gpuq import config
from gpuq.core.model import DelayedJob, Request, Snapshot
from gpuq.core.scheduling.verdict import Candidate, judge, words
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests.handlers import Handlers
from gpuq.daemon.store import Store
from gpuq.daemon.watchers import Watchers
from gpuq.errors import GpuqError, NeverFits, NotPermitted, UsageError
from tests import stored
from tests.builders import active, gpu, job, lease, world
from tests.daemon.test_queue_limits import Still, plain_jobs
from tests.stored import ALICE

ANN = Peer(uid=ALICE.uid, gid=ALICE.gid, pid=1, user="alice")
GPUS = tuple(gpu(index) for index in range(4))


class Seen(Still):
    """A machine of four GPUs that looks like this."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def look(self) -> Snapshot:
        return self.snapshot


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(Store(":memory:")) as opened:
        yield opened


def dry_run(
    store: Store, jobs: list[dict[str, Any]], seen: Snapshot | None = None, **flags: Any
) -> dict[str, Any]:
    """The answer to a dry run on a machine of four GPUs that looks like that."""
    given = {"state_dir": "/nowhere", "gpus": "none", **flags}
    handlers = Handlers(store, config.load(given, {}), Seen(seen or world(GPUS)), Watchers())
    digest = sha256(b"an environment that nobody has sent").hexdigest()
    request = {"do": "dry_run", "jobs": jobs, "env_hash": digest}
    answer: dict[str, Any] = asyncio.run(handlers.handle(request, ANN))
    return answer


def said(store: Store, seen: Snapshot | None = None, **asked: Any) -> str:
    (verdict,) = dry_run(store, plain_jobs(1, **asked), seen)["verdict"]
    return str(verdict["words"])


def busy(*held: int, **more: Any) -> Snapshot:
    """Job 90 + n runs on GPU n."""
    return world(
        GPUS,
        leases=[lease(n, job=90 + n) for n in held],
        active=[active(90 + n, **more) for n in held],
    )


# ── nothing is stored ──


def everything(store: Store) -> dict[str, Any]:
    tables = store.database.rows("select name from sqlite_schema where type = 'table'")
    return {row["name"]: store.database.rows(f"select * from {row['name']}") for row in tables} | {
        "changes": store.database.value("select total_changes()")
    }


@pytest.mark.parametrize(
    "asked",
    [
        {"gpus": 2},
        {"array": {"indices": [[0, 100, 1]]}},
        {"array": {"indices": [[0, 100, 1]], "max_running": 3}},
        {"key": "nightly"},
        {"gpu_mem": "auto", "gpus": 1},
        {"after": [{"jobs": "1", "when": "ok"}]},
        {"begin_in_s": 60.0},
    ],
)
def test_no_table_changes(store: Store, asked: dict[str, Any]) -> None:
    stored.submit(store)
    before = everything(store)
    answer = dry_run(store, plain_jobs(1, **asked))
    assert answer["dry"] is True
    assert everything(store) == before


def test_no_environment_has_to_be_known(store: Store) -> None:
    assert "wanted" not in dry_run(store, plain_jobs(1))


# ── what is refused is refused ──


@pytest.mark.parametrize(
    ("asked", "kind", "complaint"),
    [
        ({"gpus": 9}, NeverFits, "--gpus 9 can never start: this machine has 4 GPUs"),
        ({"priority": 5}, NotPermitted, "only an admin may submit with a priority above 0"),
        ({"argv": []}, UsageError, "there is no command to run"),
        ({"begin_at": 1, "begin_in_s": 1}, UsageError, "leave one out"),
    ],
)
def test_what_would_be_refused_is(
    store: Store, asked: dict[str, Any], kind: type[GpuqError], complaint: str
) -> None:
    with pytest.raises(kind, match=complaint):
        dry_run(store, plain_jobs(1, **asked))


def test_there_has_to_be_room_in_the_queue(store: Store) -> None:
    with pytest.raises(GpuqError, match="one user may have 3"):
        dry_run(store, plain_jobs(4), max_queued_per_user=3)
    many = plain_jobs(1, array={"indices": [[0, 4, 1]]})
    with pytest.raises(GpuqError, match="one user may have 3"):
        dry_run(store, many, max_queued_per_user=3)


def test_what_would_be_noted_is(store: Store) -> None:
    note = dry_run(store, plain_jobs(1, begin_at=1000.0))["note"]
    assert "the moment to begin was" in note


def test_that_apprise_is_not_there_is_noted_where_an_address_wants_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def note(**hooks: str) -> Any:
        return dry_run(store, plain_jobs(1, **hooks))["note"]

    monkeypatch.setitem(sys.modules, "apprise", None)
    assert note(on_end="date", on_start="https://example.org/hook") is None
    assert note(on_end="ntfys://S3CRET") == (
        "ntfys://… will not be told: addresses like this one take Apprise, which is not installed "
        "where gpuqd is: pip install '.[notify]' in the folder of its source, or use a command or an "
        "https:// address"
    )
    assert "will not be told" in note(on_start="mailto://S3CRET")


# ── what is said ──


def test_it_would_start(store: Store) -> None:
    assert said(store, gpus=2) == "would start now on GPUs 0,1"
    assert said(store, gpus=1) == "would start now on GPU 0"
    assert said(store, gpus=0) == "would start now"


def test_it_would_wait_for_one_that_runs(store: Store) -> None:
    assert said(store, busy(0, 1, 2), gpus=2).startswith(
        "would wait for 90 or 91 or 92: wants 2 GPUs, 1 free"
    )
    assert said(store, busy(0, 1, 2), gpus=3).startswith("would wait: wants 3 GPUs, 1 free")


def test_it_says_when_where_the_ends_of_others_are_known(store: Store) -> None:
    told = said(store, busy(0, 1, 2, 3, time_limit_s=7200.0), gpus=1)
    assert "; expected start ~" in told
    assert "by the time limit" in told
    assert "expected" not in said(store, busy(0, 1, 2, 3), gpus=1)


def test_it_stands_behind_those_that_came_before(store: Store) -> None:
    """With the class that its like wait in, though that is known to the database alone."""
    first = stored.submit_one(store, request=Request(gpus=2))
    like = store.asked.class_of(stored.spec(request=Request(gpus=2)), ANN.uid)
    assert like is not None
    seen = busy(0, 1, 2)
    waiting = job(2, id=first, uid=ANN.uid, user="alice", class_id=like, place=first)
    seen = Snapshot(
        **{name: getattr(seen, name) for name in seen.__slots__} | {"waiting": (waiting,)}
    )
    assert said(store, seen, gpus=2) == f"would wait: behind {first}"


def test_it_passes_those_of_lower_priority(store: Store) -> None:
    seen = world(GPUS, [job(4, id=7, priority=-5)])
    assert said(store, seen, gpus=4) == "would start now on GPUs 0-3"
    assert "would wait" in said(store, world(GPUS, [job(4, id=7)]), gpus=4)


def test_of_an_array_so_many_would_start(store: Store) -> None:
    hundred = {"indices": [[0, 100, 1]]}
    assert said(store, gpus=1, array=hundred).startswith(
        "100 jobs: would start 4 now on GPUs 0-3; the others would wait: wants 1 GPU, 0 free"
    )
    assert said(store, gpus=1, array=hundred | {"max_running": 2}).startswith(
        "100 jobs: would start 2 now on GPUs 0,1; the others would wait: 2 jobs of it at a time"
    )
    assert said(store, gpus=1, array={"indices": [[0, 3, 1]]}) == (
        "3 jobs: would start now on GPUs 0-2"
    )


def test_a_million_elements_cost_no_more(store: Store) -> None:
    assert said(store, gpus=1, array={"indices": [[0, 10**6, 1]]}).startswith(
        "1000000 jobs: would start 4 now"
    )


def test_several_are_judged_as_submitted_together(store: Store) -> None:
    verdicts = dry_run(store, plain_jobs(3, gpus=2))["verdict"]
    assert [one["words"] for one in verdicts][:2] == [
        "would start now on GPUs 0,1",
        "would start now on GPUs 2,3",
    ]
    assert verdicts[2]["words"].startswith("would wait")


def test_it_would_wait_for_its_time(store: Store) -> None:
    assert said(store, held=True) == "would wait: held"
    assert said(store, begin_in_s=3600.0).startswith("would wait: not before ")


def test_it_would_wait_for_other_jobs(store: Store) -> None:
    first, second, third = stored.submit(store, 3)
    for one in (second, third):
        stored.start(store, one)
        stored.run(store, one)
    stored.end(store, second)
    stored.end(store, third, exit=stored.Exit(exit_code=3), outcome=stored.Outcome.FAILED)
    assert said(store, after=[{"jobs": str(first)}]) == f"would wait: after {first} (ok)"
    assert said(store, gpus=0, after=[{"jobs": str(second)}]) == "would start now"
    assert said(store, after=[{"jobs": str(third)}]) == (
        f"would be skipped: after {third} (ok), which cannot come any more"
    )
    assert said(store, gpus=0, after=[{"jobs": str(third), "when": "fail"}]) == "would start now"
    both = plain_jobs(1) + plain_jobs(1, after=[{"entry": 0}])
    assert dry_run(store, both)["verdict"][1]["words"] == "would wait: after 4 (ok)"


def test_a_key_that_is_taken_queues_nothing(store: Store) -> None:
    first = stored.submit_one(store, key="nightly")
    assert said(store, key="nightly") == (
        f"nothing would be queued: job {first} has the key 'nightly' and has not ended"
    )


def test_nothing_starts_where_nothing_does(store: Store) -> None:
    drained = world(GPUS, drain="new driver")
    assert said(store, drained, gpus=1) == ("would wait: the queue is drained by bob: new driver")


def test_the_fields_say_the_same_as_the_words(store: Store) -> None:
    (verdict,) = dry_run(store, plain_jobs(1, gpus=2))["verdict"]
    assert verdict == {
        "count": 1,
        "starting": 1,
        "gpus": [0, 1],
        "gpu_uuids": ["GPU-0", "GPU-1"],
        "reason": None,
        "waits_for": [],
        "expected_start_at": None,
        "words": "would start now on GPUs 0,1",
    }
    (verdict,) = dry_run(store, plain_jobs(1, gpus=4), busy(0, time_limit_s=7200.0))["verdict"]
    assert (verdict["starting"], verdict["waits_for"]) == (0, [90])
    assert verdict["expected_start_at"] is not None


def test_what_is_cut_short_by_a_wait_that_is_over_is_judged_all_the_same() -> None:
    """A turn looks again after that, and a dry run has only the one."""
    seen = world(GPUS, delayed=[DelayedJob(id=3, until=0.0)])
    (verdict,) = judge(seen, [Candidate(job=job(1, id=9))])
    assert words(verdict, GPUS) == "would start now on GPU 0"


def test_so_many_are_judged_at_once_and_no_more(store: Store) -> None:
    """Nobody else is served meanwhile."""
    assert len(dry_run(store, plain_jobs(100, gpus=0))["verdict"]) == 100
    with pytest.raises(UsageError, match="up to 100 jobs or arrays, not 101"):
        dry_run(store, plain_jobs(101))
