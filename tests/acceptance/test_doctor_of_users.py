"""`gpuq doctor` and `gpuq bundle` on a machine of many users: each sees what is theirs to see."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.many_users import ALICE, BOB, ManyUsers, many_users


@pytest.fixture(scope="module")
def box() -> Iterator[ManyUsers]:
    with many_users() as box:
        box.start()
        for user in ("alice", "bob"):
            job = box.client(user).submit(["false"], gpus=0, name=f"zyzzyva-{user}")
            box.client(user).wait([job])
        yield box


def findings(box: ManyUsers, user: str) -> dict[str, list[dict[str, str]]]:
    ran = box.gpuq(user, "doctor", "--json")
    found: dict[str, list[dict[str, str]]] = {}
    for finding in json.loads(ran.stdout)["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    assert "did not end in its time" not in ran.stdout
    return found


def test_what_is_roots_is_no_failure_for_a_user(box: ManyUsers) -> None:
    alice, root = findings(box, "alice"), findings(box, "root")
    for check in ("state", "database", "socket"):
        assert [one["level"] for one in alice[check] if one["level"] == "failure"] == [], check
    assert "is for root to look at: sudo gpuq doctor" in alice["database"][0]["what"]
    assert root["database"][0]["what"].startswith("database of version ")


def test_a_state_directory_of_ones_own_that_cannot_be_read_is_a_failure(box: ManyUsers) -> None:
    state = box.home("alice") / "closed"
    state.mkdir(mode=0o000)
    os.chown(state, ALICE, ALICE)
    ran = box.gpuq("alice", "--state-dir", str(state), "doctor")
    assert ran.returncode == 1
    assert f"failure\t{state} has mode 0000 and belongs to uid {ALICE}" in ran.stdout
    assert f"failure\t{state}/gpuq.db cannot be read by you\t" in ran.stdout
    assert "Traceback" not in ran.stderr


def told(box: ManyUsers, user: str) -> tuple[dict[str, Any], str]:
    path = Path(box.home(user)) / "b.tar.gz"
    ran = box.gpuq(user, "bundle", str(path))
    assert ran.returncode == 0, ran.stderr
    with tarfile.open(path) as tar:
        texts = {}
        for member in tar.getmembers():
            file = tar.extractfile(member)
            assert file is not None
            texts[member.name.partition("/")[2]] = file.read().decode()
    return json.loads(texts["database.json"]), "".join(texts.values())


def test_a_bundle_tells_a_user_of_their_own_jobs(box: ManyUsers) -> None:
    found, whole = told(box, "alice")
    assert {one["uid"] for one in found["attempts"]} == {ALICE}
    assert {one["job"] for one in found["events"] if one["job"]} == {1}
    assert found["statistics"]["rows"]["jobs"] == 2, "how many there are is everybody's"
    for word in ("alice", "bob", "zyzzyva"):
        assert word not in whole
    everybodys, _ = told(box, "root")
    assert {one["uid"] for one in everybodys["attempts"]} == {ALICE, BOB}
