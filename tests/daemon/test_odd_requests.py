"""Whatever a request holds, it is answered by a sentence: no fault of the daemon, and no long echo."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuq import config
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests.fields import LONGEST_NAME
from gpuq.daemon.requests.handlers import Handlers
from gpuq.daemon.store import Store
from gpuq.daemon.watchers import Watchers
from gpuq.errors import NothingMatched, UsageError
from tests import stored
from tests.daemon.test_queue_limits import ADMIN, Still

LONGEST_ANSWER = 500  # signs


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "gpuq.db")) as opened:
        stored.submit(stored.with_gpus(opened), 3)
        yield opened


def ask(store: Store, do: str, peer: Peer = ADMIN, **request: Any) -> dict[str, Any]:
    given = {"state_dir": str(Path(store.database.path).parent), "gpus": "none"}
    asked = Handlers(store, config.load(given, {}), Still(), Watchers())
    answer = asyncio.run(asked.handle({"do": do, **request}, peer))
    assert json.loads(json.dumps(answer)) == answer
    return answer


@pytest.mark.parametrize(
    ("do", "request_"),
    [
        ("history", {"name": "*" * 60_000}),
        ("stats", {"name": "a*" * 30_000}),
        ("errors", {"name": "?" * 60_000}),
        ("errors", {"tag": "x" * (LONGEST_NAME + 1)}),
        ("status", {"user": "x" * 1_000_000}),
        ("group", {"ref": "*" * 60_000}),
        ("group", {"ref": "name:" + "?*" * 1000}),
        ("group", {"ref": "tag:" + "x" * 1_000_000}),
        ("group", {"ref": "g1", "sort": "x" * 1_000_000}),
        ("group", {"ref": "g1", "best": "x" * 150 + ":up"}),
        ("group", {"ref": "g1", "after": 2**63 - 1}),
        ("group", {"ref": "g1", "after": -(2**63)}),
        ("history", {"after": [1.0, 2**63]}),
        ("history", {"since": "z" * 1_000_000}),
        ("history", {"states": ["z" * 1_000_000]}),
        ("history", {"refs": "z" * 1_000_000}),
        ("history", {"refs": ["z" * 1_000_000]}),
        ("usage", {"price": "9" * 1_000_000}),
        ("stats", {"by": "z" * 1_000_000}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_too_long_or_too_large_is_refused_in_a_line(
    store: Store, do: str, request_: dict[str, Any]
) -> None:
    with pytest.raises(UsageError) as refused:
        ask(store, do, **request_)
    assert len(str(refused.value)) <= LONGEST_ANSWER


def test_a_name_as_long_as_one_may_be_is_asked_for(store: Store) -> None:
    assert ask(store, "history", name="*" * LONGEST_NAME)["jobs"] == []
    name = "n" * LONGEST_NAME
    job = stored.submit_one(store, name=name)
    found = ask(store, "group", ref=f"name:{name}", all=True)
    assert [row["id"] for row in found["jobs"]] == [job]


@pytest.mark.parametrize("ref", ["9" * 19, "9" * 30, "0" * 19 + "1"])
def test_a_job_of_a_number_that_none_can_have_is_not_there(store: Store, ref: str) -> None:
    with pytest.raises(NothingMatched, match="no job"):
        ask(store, "group", ref=ref)


def test_of_very_many_names_of_jobs_that_are_not_there_the_first_are_told(store: Store) -> None:
    refs = [",".join(str(100_001 + 2 * n) for n in range(20_000))]
    with pytest.raises(NothingMatched, match=r"^no job 100001,100003,.*…") as refused:
        ask(store, "notices", refs=refs)
    assert len(str(refused.value)) <= LONGEST_ANSWER


def test_of_a_trial_that_failed_no_event_tells_everybody(store: Store) -> None:
    """It would have what the server said that somebody named."""
    owner = {"uid": 7, "gid": 7, "user": "ann", "now": 1.0}
    for trial in (True, False):
        notice = store.notices.ask_trial("https://host/x", **owner)  # type: ignore[arg-type]
        assert notice is not None
        if not trial:
            stored.write(store, "update notices set origin = 'job', job = 1 where id = ?", notice)
        store.notices.claim(notice)
        store.notices.given_up(notice, trouble="403 of a house", output="", now=2.0)
    events = store.told.events(0, 100)[0]
    assert [row["job"] for row in events if row["kind"] == "notice_failed"] == [1]
