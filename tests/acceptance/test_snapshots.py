"""A job that runs in a copy of its submitter's work tree, through the whole house."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gpuq.work_tree import snapshot
from tests.conftest import Daemon, until
from tests.git_tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "work", train_py="print('as committed')\n")


def copies(daemon: Daemon) -> list[Path]:
    return sorted((daemon.state / "snapshots" / str(os.geteuid())).glob("[0-9a-f]*"))


def test_what_is_edited_after_the_submit_does_not_reach_the_job(daemon: Daemon, tree: Tree) -> None:
    tree.write("train.py", "import sys; print('edited'); from lib import new; print(new.word)\n")
    tree.write("lib/new.py", "word = 'untracked'\n")
    with daemon.client() as client:
        client.drain("let me edit")
        job = client.submit(["python3", "train.py"], gpus=0, cwd=str(tree.top), snapshot=True)
        tree.write("train.py", "print('too late')\n")
        (tree.top / "lib/new.py").unlink()
        client.drain(None)
        ended = client.wait([job])[0]
    assert Path(ended["log"]).read_text() == "edited\nuntracked\n"
    assert ended["commit"] == tree.head
    assert ended["cwd"] == f"{ended['snapshot']}/tree"


def test_the_difference_is_shown_and_the_tree_is_named(daemon: Daemon, tree: Tree) -> None:
    tree.write("train.py", "print('edited')\n")
    submitted = daemon.gpuq("submit", "-g0", "--snapshot", "python3", "train.py", cwd=tree.top)
    job = submitted.stdout.strip()
    shown = daemon.gpuq("show", "--diff", job).stdout
    assert "-print('as committed')\n+print('edited')\n" in shown
    page = daemon.gpuq("show", job).stdout
    assert f"of {tree.top} at {tree.head[:7]}, with 1 file changed" in page
    assert tree.head in page


def test_without_it_only_the_commit_is_kept(daemon: Daemon, tree: Tree) -> None:
    submitted = daemon.gpuq("submit", "-g0", "true", cwd=tree.top)
    job = json.loads(daemon.gpuq("show", "--json", submitted.stdout.strip()).stdout)["jobs"][0]
    assert (job["commit"], job["snapshot"], job["cwd"]) == (tree.head, None, str(tree.top))
    refused = daemon.gpuq("show", "--diff", submitted.stdout.strip())
    assert refused.returncode == 3
    assert "Submit with --snapshot" in refused.stderr
    assert copies(daemon) == []


def test_a_job_knows_where_the_work_tree_is(daemon: Daemon, tree: Tree) -> None:
    with daemon.client() as client:
        words = ["sh", "-c", "echo $GPUQ_WORK_TREE"]
        job = client.submit(words, gpus=0, cwd=str(tree.top), snapshot=True)
        assert Path(client.wait([job])[0]["log"]).read_text().strip() == str(tree.top)


def test_jobs_of_one_state_share_a_copy_that_goes_with_the_last(daemon: Daemon, tree: Tree) -> None:
    with daemon.client() as client:
        how = {"gpus": 0, "cwd": str(tree.top), "snapshot": True}
        first, second = (client.submit(["true"], **how) for _ in range(2))
        client.wait([first, second])
        (copy,) = copies(daemon)
        prune(daemon, first)
        long_ago = copy.stat().st_mtime - 3600
        os.utime(copy, (long_ago, long_ago))  # the tree was not asked for lately
        prune(daemon, client.submit(["true"], gpus=0))
        assert copy.exists()
        prune(daemon, second)
    until(lambda: copies(daemon) == [])


def test_a_copy_waits_for_its_job_however_long_that_waits(daemon: Daemon, tree: Tree) -> None:
    with daemon.client() as client:
        other = client.submit(["true"], gpus=0)
        client.wait([other])
        client.drain("a long night")
        job = client.submit(["python3", "train.py"], gpus=0, cwd=str(tree.top), snapshot=True)
        (copy,) = copies(daemon)
        long_ago = copy.stat().st_mtime - 3600
        os.utime(copy, (long_ago, long_ago))
        prune(daemon, other)
        until(lambda: daemon.gpuq("status", str(other)).returncode == 3)
        client.drain(None)
        assert client.wait([job])[0]["outcome"] == "succeeded"


def prune(daemon: Daemon, job: int) -> None:
    daemon.gpuq("wait", str(job))
    assert daemon.gpuq("prune", "-y", str(job)).returncode == 0


def test_jobs_that_are_submitted_together_see_one_state_that_is_taken_once(
    daemon: Daemon, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    take = snapshot.take

    def count(cwd: str, *words: Any) -> snapshot.Snapshot:
        taken.append(cwd)
        tree.write("train.py", f"print({len(taken)})\n")  # edited while they are being submitted
        return take(cwd, *words)

    monkeypatch.setattr(snapshot, "take", count)
    how = {"argv": ["python3", "train.py"], "gpus": 0, "cwd": str(tree.top), "snapshot": True}
    with daemon.client() as client:
        ended = client.wait([str(job) for job in client.submit_many([how] * 3)])
    assert taken == [str(tree.top)]
    assert [Path(job["log"]).read_text() for job in ended] == ["1\n"] * 3


def test_outside_of_a_work_tree_nothing_is_queued(daemon: Daemon, tmp_path: Path) -> None:
    refused = daemon.gpuq("submit", "--snapshot", "true", cwd=tmp_path)
    assert refused.returncode == 2
    assert "is in none" in refused.stderr
    assert daemon.gpuq("status", "-a").stdout == ""
