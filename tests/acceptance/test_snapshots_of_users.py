"""Copies of work trees where one daemon, which is root, serves several people."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_S, until
from tests.git_tree import OUTSIDE
from tests.many_users import ALICE, ManyUsers, many_users

TREE = """
set -e
git init -q work; cd work
echo "print('committed')" > train.py; git add .; git commit -qm one
echo "print('edited')" > train.py
"""


@pytest.fixture(scope="module")
def box() -> Iterator[ManyUsers]:
    with many_users() as box:
        box.start()
        for user in ("alice", "bob"):
            made = box.run(user, "sh", "-c", TREE, cwd=box.home(user), env=OUTSIDE)
            assert made.returncode == 0, made.stderr
        yield box


def submitted(box: ManyUsers, user: str) -> int:
    work = box.home(user) / "work"
    done = box.gpuq(user, "submit", "-g0", "--snapshot", "python3", "train.py", cwd=work)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_copy_is_its_user_s_own_and_goes_as_they_would_remove_it(box: ManyUsers) -> None:
    alice = box.client("alice")
    job = submitted(box, "alice")
    ended = alice.wait([job], timeout_s=PATIENCE_S)[0]
    assert Path(ended["log"]).read_text() == "edited\n"
    copy = Path(ended["snapshot"])
    around = copy.parent
    assert (around.stat().st_uid, stat.S_IMODE(around.stat().st_mode)) == (ALICE, 0o700)
    assert {path.lstat().st_uid for path in copy.rglob("*")} == {ALICE}
    assert box.gpuq("bob", "show", "--diff", str(job)).returncode != 0
    assert "edited" not in box.gpuq("bob", "show", "--diff", str(job)).stdout

    target = Path(box.state) / "not-hers"
    target.write_text("root's")
    (copy / "tree" / "link").symlink_to(target)
    os.utime(copy, (copy.stat().st_mtime - 3600,) * 2)
    assert box.gpuq("alice", "prune", "-y", str(job)).returncode == 0
    until(lambda: not copy.exists())
    assert target.read_text() == "root's"


def test_a_folder_that_is_somebody_else_s_is_not_used(box: ManyUsers) -> None:
    """Nobody but root can put one there; a restored backup may have."""
    around = Path(box.state) / "snapshots"
    around.mkdir(exist_ok=True)
    (around / str(box.client("bob").call("snapshots")["folder"].rpartition("/")[2])).rmdir()
    own = around / "2002"
    own.mkdir()
    os.chown(own, ALICE, ALICE)
    refused = box.gpuq("bob", "submit", "-g0", "--snapshot", "true", cwd=box.home("bob") / "work")
    assert refused.returncode == 1
    assert "is no folder of uid 2002" in refused.stderr
    assert os.listdir(own) == []
