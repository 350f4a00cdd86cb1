"""What of the database goes into a report of a fault."""

import json
from pathlib import Path

import pytest

from gpuq.daemon.extracting import main
from gpuq.daemon.store import Store
from gpuq.daemon.store.audit import open_audit
from gpuq.daemon.store.extract import OfAudit, extract
from tests.stored import ALICE, BOB, end, run, start, submit, submit_one

SECRET = b"--key=zyzzyva"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A job of alice's and one of bob's that have ended, and an array of alice's that waits."""
    store = Store(tmp_path / "gpuq.db")
    for submitter in (ALICE, BOB):
        job = submit_one(store, by=submitter, argv=(b"/opt/zyzzyva/train", SECRET), name="zyzzyva")
        assert start(store, job)
        run(store, job)
        end(store, job)
    submit(store, 3)
    return store


def test_it_tells_how_much_there_is_and_what_happened_last(store: Store) -> None:
    found = extract(store.database, None)
    assert found["statistics"]["rows"]["jobs"] == len(store.database.rows("select id from jobs"))
    assert {(one["state"], one["jobs"]) for one in found["jobs"]} == {("ended", 2), ("queued", 3)}
    assert [one["job"] for one in found["attempts"]] in ([1, 2], [2, 1])
    assert [one["program"] for one in found["attempts"]] == ["train", "train"]
    numbers = [one["seq"] for one in found["events"]]
    assert numbers == sorted(numbers)
    assert "zyzzyva" not in json.dumps(found), "neither arguments nor names nor directories"


def test_a_user_is_told_of_their_own_jobs(store: Store) -> None:
    found = extract(store.database, BOB.uid)
    assert {one["uid"] for one in found["attempts"]} == {BOB.uid}
    assert {one["job"] for one in found["events"] if one["job"] is not None} == {2}
    assert found["statistics"] == extract(store.database, None)["statistics"]


def test_without_a_daemon_it_is_the_same(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads(json.dumps(extract(store.database, None)))
    with open_audit(str(tmp_path / "gpuq.db")) as audit:
        assert json.loads(json.dumps(extract(OfAudit(audit), None))) == told
    store.close()
    assert main(str(tmp_path)) == 0
    assert json.loads(capsys.readouterr().out)["jobs"] == told["jobs"]
    assert main(str(tmp_path / "nowhere")) != 0
    assert "there is no database" in capsys.readouterr().err
