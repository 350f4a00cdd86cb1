"""Changes of mind at a true command line: held, moved, edited, run once more and undone, while others
start; and whose mind counts."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuq.errors import NotPermitted
from tests.conftest import Daemon, until
from tests.many_users import ManyUsers, many_users

ROUNDS = 200


def lines(ran: "subprocess.CompletedProcess[str]", code: int = 0) -> list[str]:
    assert (ran.returncode, ran.stderr) == (code, ""), ran
    return ran.stdout.splitlines()


def submit(daemon: Daemon, *words: str) -> int:
    (line,) = lines(daemon.gpuq("submit", *words))
    return int(line)


def field(daemon: Daemon, job: int, name: str) -> Any:
    (found,) = json.loads(daemon.gpuq("status", str(job), "--json").stdout)["jobs"]
    return found[name]


def test_a_day_in_the_queue(daemon: Daemon, tmp_path: Path) -> None:
    """One job after the other, since each wants all four GPUs."""
    order = tmp_path / "order"
    lines(daemon.gpuq("drain", "-m", "thinking"), 0)
    note = f"echo $GPUQ_JOB_ID >> {order}"
    jobs = [submit(daemon, "-g", "4", "--shell", note) for _ in range(5)]
    first, second, third, fourth, fifth = map(str, jobs)
    assert lines(daemon.gpuq("hold", first)) == [f"{first}\theld\t"]
    assert lines(daemon.gpuq("priority", "-5", second)) == [f"{second}\tchanged\t"]
    assert lines(daemon.gpuq("move", "--front", fifth)) == [f"{fifth}\tmoved\t"]
    assert lines(daemon.gpuq("kill", f"{third},{fourth}"))[0] == f"{third}\tcancelled"
    until(lambda: field(daemon, jobs[3], "state") == "ended", "the cancel")
    assert lines(daemon.gpuq("undo")) == [f"{third}\tundone\t", f"{fourth}\tundone\t"]
    assert field(daemon, jobs[0], "reason").startswith("held by ")
    lines(daemon.gpuq("drain", "--off"))
    with daemon.client() as client:
        client.wait(jobs[1:], timeout_s=30)
        assert order.read_text().split() == [fifth, third, fourth, second]
        lines(daemon.gpuq("release", first))
        client.wait(jobs, timeout_s=30)
        assert lines(daemon.gpuq("requeue", f"{third},{first}")) == [
            f"{first}\trequeued\t",
            f"{third}\trequeued\t",
        ]
        assert [job["attempt"] for job in client.wait([first, third], timeout_s=30)] == [2, 2]


def test_an_editor_changes_a_job_that_waits(daemon: Daemon, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text(
        '#!/bin/sh\nsed -i -e \'s/^command = .*/command = ["sh", "-c", "exit 7"]/\' '
        '-e \'s/^# time = .*/time = "1h"/\' "$1"\n'
    )
    editor.chmod(0o700)
    job = submit(daemon, "-g", "1", "--hold", "--", "sh", "-c", "exit 3")
    environment = daemon.environment | {"EDITOR": str(editor), "TMPDIR": str(tmp_path)}
    assert lines(daemon.gpuq("edit", str(job), env=environment)) == [f"{job}\tedited\t"]
    assert field(daemon, job, "time_limit_s") == 3600.0
    lines(daemon.gpuq("release", str(job)))
    with daemon.client() as client:
        assert client.wait([job], timeout_s=30)[0]["exit_code"] == 7


def test_a_job_that_starts_is_held_or_runs_and_never_both(daemon: Daemon) -> None:
    """Held right after its submit, while it is about to start."""
    outcomes = {"held": 0, "refused": 0}
    with daemon.client() as client:
        for _ in range(ROUNDS):
            job = client.submit(["true"], gpus=0)
            (answer,) = client.hold([job])
            outcomes[answer["done"]] += 1
            client.call("status", after_turn=True)
            if answer["done"] == "held":
                assert client.job(job)["attempt"] == 0, "it was held, and started"
                client.release([job])
            else:
                assert client.job(job)["attempt"] == 1
            client.wait([job], timeout_s=30)
    assert sum(outcomes.values()) == ROUNDS


def test_a_job_that_starts_is_edited_or_runs_as_it_was(daemon: Daemon) -> None:
    with daemon.client() as client:
        for _ in range(ROUNDS):
            job = client.submit(["sh", "-c", "exit 3"], gpus=1)
            (answer,) = client.edit([job], argv=["sh", "-c", "exit 4"], gpus=2)
            told = client.wait([job], timeout_s=30)[0]
            wanted = (4, 2) if answer["done"] == "edited" else (3, 1)
            assert (told["exit_code"], told["gpu_count"]) == wanted, answer
            held = client.job(job)["attempts"][0]["gpus"]
            assert len(held) == wanted[1], "it has the GPUs of what it runs"


def test_the_promises_are_kept(daemon: Daemon) -> None:
    """`gpuq daemon check` after all kinds of returns to the queue."""
    with daemon.client() as client:
        ended = client.submit(["false"], retries=1, backoff="0s")
        runs = client.submit(["sh", "-c", "[ $GPUQ_ATTEMPT = 2 ] || exec sleep 300"])
        client.wait([ended], timeout_s=30)
        until(lambda: client.job(runs)["state"] == "running", "the job to run")
        client.requeue([ended, runs])
        client.wait([ended, runs], timeout_s=30)
        client.drain("quiet")
        waits = client.submit(["true"])
        for _ in range(3):
            client.kill([waits])
            client.wait([waits], timeout_s=30)
            client.undo()
        client.drain(None)
        client.wait([waits], timeout_s=30)
    ran = daemon.gpuq("daemon", "check")
    assert ran.returncode == 0, ran.stdout + ran.stderr


# ── of many users ──


@pytest.fixture(scope="module")
def box() -> Iterator[ManyUsers]:
    with many_users() as box:
        box.start()
        yield box


CHANGES = [
    ("hold",),
    ("release",),
    ("priority", "-1"),
    ("move", "--front"),
    ("requeue",),
    ("undo",),
    ("edit", "-n", "mine"),
    ("edit",),
]


@pytest.mark.parametrize("words", CHANGES, ids=" ".join)
def test_nobody_changes_what_is_anothers(box: ManyUsers, words: tuple[str, ...]) -> None:
    alice, bob = box.client("alice"), box.client("bob")
    theirs = alice.submit(["true"], gpus=0, held=True)
    mine = bob.submit(["true"], gpus=0, held=True)
    before = [alice.job(theirs), bob.job(mine)]
    ran = box.gpuq("bob", *words, str(mine), str(theirs), env={"EDITOR": "true"})
    assert (ran.returncode, ran.stdout) == (5, ""), ran
    assert f"job {theirs} belongs to alice" in ran.stderr
    assert [alice.job(theirs), bob.job(mine)] == before
    box.client("carol").kill([theirs, mine])


def test_what_an_admin_holds_only_an_admin_releases(box: ManyUsers) -> None:
    alice, carol = box.client("alice"), box.client("carol")
    job = alice.submit(["true"], gpus=0, held=True)
    carol.hold([job])
    ran = box.gpuq("alice", "release", str(job))
    assert ran.returncode == 5
    assert "is held by carol, an admin" in ran.stderr
    assert box.gpuq("carol", "release", str(job)).returncode == 0
    assert alice.wait([job], timeout_s=30)[0]["outcome"] == "succeeded"


def test_a_priority_above_0_is_for_admins(box: ManyUsers) -> None:
    alice = box.client("alice")
    job = alice.submit(["true"], gpus=0, held=True)
    for words in (("priority", "5", str(job)), ("edit", str(job), "-p", "5")):
        ran = box.gpuq("alice", *words)
        assert (ran.returncode, ran.stdout) == (5, ""), ran
        assert "only an admin may raise a priority above 0" in ran.stderr
    assert box.gpuq("carol", "priority", "5", str(job)).returncode == 0
    assert box.gpuq("alice", "priority", "3", str(job)).returncode == 0
    assert alice.job(job)["priority"] == 3
    alice.kill([job])


def test_an_undo_without_a_name_is_of_ones_own_kill(box: ManyUsers) -> None:
    alice, bob = box.client("alice"), box.client("bob")
    hers, his = (one.submit(["true"], gpus=0, held=True) for one in (alice, bob))
    alice.kill([hers])
    bob.kill([his])
    alice.wait([hers, his], timeout_s=30)
    assert [one["id"] for one in alice.undo()] == [hers]
    assert alice.job(his)["outcome"] == "cancelled"
    alice.kill([hers])


def test_an_admin_edits_anothers_job_but_not_its_environment(box: ManyUsers) -> None:
    alice, carol = box.client("alice"), box.client("carol")
    job = alice.submit(["true"], gpus=0, held=True, env={"TOKEN": "xyzzy"})
    assert "xyzzy" not in json.dumps(carol.editable(job))
    assert carol.edit([job], name="renamed")[0]["done"] == "edited"
    with pytest.raises(NotPermitted, match="is alice's alone"):
        carol.edit([job], env={"LD_PRELOAD": "/tmp/evil.so"})
    assert alice.job(job)["name"] == "renamed"
    alice.kill([job])
