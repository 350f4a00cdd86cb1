"""Notices on a machine of many users: done as the job's user, and shown to nobody else. The daemon, its
users and what is told are real."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gpuq.errors import NotPermitted
from tests.conftest import until
from tests.hooked import board
from tests.many_users import ALICE, PROJECT_GROUP, ManyUsers, many_users


@pytest.fixture(scope="module")
def box() -> Iterator[ManyUsers]:
    with many_users() as box:
        box.start(env={"SECRET_OF_ROOT": "x"})
        yield box


def told(box: ManyUsers, user: str, job: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = box.client(user).call("notices", refs=[str(job)])["notices"]
    return found


def settled(box: ManyUsers, job: int) -> list[dict[str, Any]]:
    """All of its notices as root sees them, once they are over."""

    def over() -> list[dict[str, Any]]:
        found = told(box, "root", job)
        return found if found and all(one["ended_at"] is not None for one in found) else []

    return list(until(over, f"the notices of job {job}"))


def test_a_command_is_the_users_as_after_a_login_and_nothing_of_root_is_in_it(
    box: ManyUsers,
) -> None:
    alice = box.client("alice")
    hook = "id -u; id -G; pwd; umask; ls /proc/self/fd | wc -l; env"
    job = alice.submit(["true"], gpus=0, on_end=hook)
    alice.wait([job])
    (one,) = settled(box, job)
    uid, groups, where, umask, descriptors, *variables = one["output"].splitlines()
    names = {line.partition("=")[0] for line in variables}
    assert uid == str(ALICE)
    assert set(map(int, groups.split())) == {ALICE, PROJECT_GROUP}
    assert (where, umask) == (str(box.home("alice")), "0022")
    assert "SECRET_OF_ROOT" not in names
    assert {"HOME", "USER", "PATH", "GPUQ_JOB_ID"} <= names
    assert int(descriptors) == 4, "stdin, both outputs, the folder"
    assert box.client("alice").call("show", ref=str(job))["job"]["on_end"] == hook


def test_others_see_no_more_of_an_address_than_the_host(box: ManyUsers) -> None:
    with board() as wall:
        alice = box.client("alice")
        secret = f"{wall.url}/hooks/T0KEN"
        job = alice.submit(["true"], gpus=0, on_start=secret, on_end="echo T0KEN")
        alice.wait([job])
        settled(box, job)
        shown = f"{wall.url}/…"
        assert {one["target"] for one in told(box, "alice", job)} == {secret, "echo T0KEN"}
        assert told(box, "bob", job) == [], "another's are not his"
        of_admin = told(box, "carol", job)
        assert {one["target"] for one in of_admin} == {shown, "a command"}
        for user in ("bob", "carol"):
            view = box.client(user).call("show", ref=str(job))["job"]
            assert (view["on_start"], view["on_end"]) == (shown, "a command")
            events = box.client(user).call("events", since=0)["events"]
            assert "T0KEN" not in json.dumps([view, of_admin, events])
        assert "T0KEN" not in box.log.read_text()
        assert wall.posts[0].path == "/hooks/T0KEN"


def test_what_the_settings_name_is_roots_to_see_and_holds_for_all(box: ManyUsers) -> None:
    with board() as wall:
        box.config.write_text(f'on_end = "{wall.url}/hooks/T0KEN"\n')
        alice = box.client("alice")

        def shown() -> bool:
            settings = alice.call("config")["settings"]
            return any(one["value"] == f"{wall.url}/…" for one in settings)

        until(shown, "the setting")
        line = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 7 MiB"
        job = alice.submit(["sh", "-c", f"echo {line}; exit 1"], gpus=0)
        assert "7 MiB" in alice.wait([job])[0]["reason"]
        (one,) = settled(box, job)
        assert (one["origin"], one["target"]) == ("settings", f"{wall.url}/hooks/T0KEN")
        (hers,) = told(box, "alice", job)
        assert (hers["target"], hers["output"]) == (f"{wall.url}/…", None)
        (post,) = wall.posts
        assert post.json["job"]["id"] == job
        assert post.json["job"]["outcome"] == "out_of_memory"
        assert "7 MiB" not in json.dumps(post.json), "what a job wrote is no matter of a chat room"
        box.config.write_text("")


def test_a_trial_is_of_whoever_asks_and_not_of_root(box: ManyUsers) -> None:
    ran = box.gpuq("bob", "notices", "--test", "id -un")
    assert (ran.returncode, ran.stdout) == (0, "done\n  bob\n"), ran.stderr
    ran = box.gpuq("bob", "notices", "--test", "exit 4")
    assert (ran.returncode, ran.stdout) == (1, "failed: exit code 4\n")
    with pytest.raises(NotPermitted, match="root may not have jobs here"):
        box.client("root").call("test_notice", target="id")


def test_only_the_owner_changes_what_is_done_as_the_owner(box: ManyUsers) -> None:
    job = box.client("alice").submit(["true"], gpus=0, held=True, on_end="true")
    with pytest.raises(NotPermitted, match="is alice's alone"):
        box.client("carol").edit([job], on_end="rm -rf ~")
    assert box.client("carol").edit([job], name="new")[0]["done"] == "edited"
    assert box.client("alice").call("show", ref=str(job))["job"]["on_end"] == "true"
