"""What users of one machine see of each other, and how much of it each may have."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import until
from tests.many_users import ManyUsers, many_users

WORDS = (
    "secret-run",
    "--token-7431",
    "hidden-tag",
    "hidden-key",
    "private-place",
    "WORDS-IN-THE-LOG",
)
# What a job that ran out of GPU memory writes at its end.
SAYS_SO = """
import sys
print("torch.OutOfMemoryError: CUDA out of memory.", "WORDS-IN-THE" + "-LOG", file=sys.stderr)
sys.exit(1)
"""


@pytest.fixture(scope="module")
def box() -> Iterator[ManyUsers]:
    with many_users() as box:
        box.start("--cpu-slots", "8")
        yield box


@pytest.fixture(autouse=True)
def as_by_default(box: ManyUsers) -> Iterator[None]:
    """No setting and no job is left for the next test."""
    yield
    root = box.client("root")
    if jobs := [job["id"] for job in root.jobs()]:
        root.kill(jobs, grace_s=0)
        root.wait(jobs, timeout_s=20)
    configure(box)


def configure(box: ManyUsers, **settings: Any) -> None:
    """Saves the file, and returns once that is in force."""
    wanted = {"visibility": "all", "max_queued_per_user": 0} | settings
    wanted = {"max_running_per_user": 0, "max_gpus_per_user": 0} | wanted
    new = box.config.with_suffix(".new")
    new.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in wanted.items()))
    os.rename(new, box.config)

    def told() -> bool:
        rows = box.client("root").call("config")["settings"]
        known = {row["name"]: row["value"] for row in rows}
        return all(known[name] == str(value) for name, value in wanted.items())

    until(told, f"{wanted} to be in force")


def secret_job(box: ManyUsers, *argv: str, **options: Any) -> int:
    place = box.home("alice") / "private-place"
    place.mkdir(exist_ok=True)
    os.chown(place, 2001, 2001)
    job: int = box.client("alice").submit(
        [*argv, "--token-7431"],
        name="secret-run",
        tags=["hidden-tag"],
        cwd=str(place),
        **options,
    )
    return job


def all_that_is_told(box: ManyUsers, user: str, job: int) -> str:
    """By each command that says something of jobs, as text and as JSON."""
    commands = [
        ("status", "-a"),
        ("status", "-a", "--json"),
        ("status", "-a", "-o", "id,name,tags,cwd,command,reason"),
        ("show", str(job)),
        ("show", "--json", str(job)),
        ("why", str(job)),
        ("events", str(job)),
        ("events", "--since", "0", "--json"),
        ("gpus", "--procs"),
        ("gpus", "--json"),
        ("wait", str(job), "--timeout", "0.1s"),
        ("logs", str(job)),
        ("logs", "--path", str(job)),
        ("logs", "-f", str(job)),
        ("kill", str(job)),
        ("prune", str(job), "--dry-run"),
    ]
    said = [box.gpuq(user, *words) for words in commands]
    assert not any("Traceback" in one.stderr for one in said)
    return "\n".join(one.stdout + one.stderr for one in said)


def words_in(text: str) -> list[str]:
    return [word for word in WORDS if word in text]


@pytest.fixture
def failed(box: ManyUsers) -> int:
    job = secret_job(box, "python3", "-c", SAYS_SO, gpus=1, key="hidden-key")
    (ended,) = box.client("alice").wait([job])
    assert "WORDS-IN-THE-LOG" in ended["reason"]
    return job


def test_with_own_other_users_learn_nothing_of_what_a_job_runs(box: ManyUsers, failed: int) -> None:
    configure(box, visibility="own")
    text = all_that_is_told(box, "bob", failed)
    assert words_in(text) == []
    assert "submit again" not in text
    for user in ("alice", "carol", "root"):
        told = box.gpuq(user, "show", "--json", str(failed)).stdout
        assert words_in(told) == list(WORDS), f"{user} may see it"
    shown = json.loads(box.gpuq("bob", "show", "--json", str(failed)).stdout)["jobs"][0]
    assert (shown["user"], shown["outcome"], shown["hidden"]) == ("alice", "out_of_memory", True)
    assert shown["reason"] == "out of GPU memory (exit code 1)"


def test_with_all_other_users_see_commands_and_not_what_a_job_wrote(
    box: ManyUsers, failed: int
) -> None:
    text = all_that_is_told(box, "bob", failed)
    assert words_in(text) == list(WORDS[:-1])
    shown = json.loads(box.gpuq("bob", "show", "--json", str(failed)).stdout)["jobs"][0]
    assert (shown["name"], shown["key"], shown["hidden"]) == ("secret-run", "hidden-key", False)
    assert shown["reason"] == "out of GPU memory (exit code 1)"


def test_the_list_says_whose_a_hidden_job_is(box: ManyUsers) -> None:
    configure(box, visibility="own")
    job = secret_job(box, "sh", "-c", "sleep 600", gpus=1)
    until(lambda: box.client("bob").job(job)["state"] == "running", "the job")
    mine = box.client("bob").submit(["sleep", "600"], name="mine", gpus=1)
    chosen = box.gpuq("bob", "status", "-o", "id,name,command").stdout.splitlines()
    assert chosen == [f"{job}\t\t", f"{mine}\tmine\tsleep 600"]
    refusal = box.gpuq("bob", "logs", str(job))
    assert refusal.returncode == 5
    assert f"the log of job {job} is readable to alice alone" in refusal.stderr


def test_a_hidden_job_is_not_found_by_its_name_or_its_tag(box: ManyUsers) -> None:
    job = secret_job(box, "sh", "-c", "sleep 600", gpus=0)
    tagged = ("status", "--tag", "hidden-tag")
    assert box.gpuq("bob", *tagged).stdout.startswith(f"{job}\t")
    configure(box, visibility="own")
    assert box.gpuq("bob", *tagged).stdout == ""
    assert box.gpuq("alice", *tagged).stdout.startswith(f"{job}\t")
    assert box.client("bob").jobs(name="secret-run") == []
    assert [one["id"] for one in box.client("alice").jobs(name="secret-run")] == [job]
    refused = box.gpuq("bob", "kill", "--name", "*", "-y")
    assert refused.returncode == 3, "none of his own matches, and no other is tried"


# ── how much each may have ──


def test_a_user_holds_no_more_gpus_than_one_user_may(box: ManyUsers) -> None:
    configure(box, max_gpus_per_user=1)
    alice, bob = box.client("alice"), box.client("bob")
    first, second = (alice.submit(["sleep", "600"], gpus=1) for _ in range(2))
    until(lambda: alice.job(first)["state"] == "running", "the first job")
    reason = "alice has 1 of the 1 GPU that one user may have (max_gpus_per_user)"
    until(lambda: bob.job(second)["reason"] == reason, "the second to be told why it waits")
    his = bob.submit(["sleep", "600"], gpus=1)
    until(lambda: bob.job(his)["state"] == "running", "the job of another user behind it")
    too_large = box.gpuq("bob", "submit", "-g", "2", "true")
    assert too_large.returncode == 6
    assert "it wants 2 GPUs, and one user may have 1 at a time" in too_large.stderr
    alice.kill([first], grace_s=0)
    until(lambda: alice.job(second)["state"] == "running", "the second job")


def test_a_limit_that_is_lowered_ends_nothing_and_one_that_is_raised_is_used(
    box: ManyUsers,
) -> None:
    alice = box.client("alice")
    jobs = [alice.submit(["sleep", "600"], gpus=0) for _ in range(2)]
    until(lambda: all(alice.job(job)["state"] == "running" for job in jobs), "both")
    configure(box, max_running_per_user=1)
    third = alice.submit(["sleep", "600"], gpus=0)
    until(lambda: "alice has 2 running jobs" in alice.job(third)["reason"], "the limit")
    assert [alice.job(job)["state"] for job in jobs] == ["running", "running"]
    configure(box, max_running_per_user=3)
    until(lambda: alice.job(third)["state"] == "running", "the third")


def test_a_user_queues_no_more_than_one_user_may(box: ManyUsers) -> None:
    configure(box, max_queued_per_user=2, max_running_per_user=1)
    alice, bob = box.client("alice"), box.client("bob")
    first = alice.submit(["sleep", "600"], gpus=0)
    until(lambda: alice.job(first)["state"] == "running", "the first")
    for _ in range(2):
        alice.submit(["true"], gpus=0)
    refused = box.gpuq("alice", "submit", "-g", "0", "true")
    assert refused.returncode == 1
    assert "you have 2 queued, and one user may have 2 (max_queued_per_user)" in refused.stderr
    assert bob.submit(["true"], gpus=0)
    assert len(alice.jobs(mine=True)) == 3
