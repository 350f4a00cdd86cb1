"""Who may do what in a daemon of the whole machine, seen with true users at a true command line:
alice and bob are people, carol is of the admin group, dave is a student."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gpuq import paths
from gpuq.daemon.linux import processes
from gpuq.errors import NothingMatched, NotPermitted
from tests.conftest import BIN, until
from tests.many_users import UIDS as UID
from tests.many_users import ManyUsers, many_users

NOT_PERMITTED = 5
SLEEP = ["sleep", "300"]

# Says one request on a bare connection and prints what is answered: no client of ours checks it.
BARE = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect(os.environ["GPUQ_SOCKET"])
    lines = line.makefile("rwb")
    lines.write(b'{"hello": {"version": "1", "protocol": 1}}\\n' + sys.argv[1].encode() + b"\\n")
    lines.flush()
    first = lines.readline()
    print((lines.readline() if b"hello" in first else first).decode())
"""


@pytest.fixture(scope="module")
def box() -> Iterator[ManyUsers]:
    with many_users() as box:
        box.start()
        yield box


@pytest.fixture
def sleeper(box: ManyUsers) -> Iterator[int]:
    """A job of alice's that runs."""
    alice = box.client("alice")
    job = int(alice.submit(SLEEP, gpus=0, env={"SECRET": "xyzzy"}))
    until(lambda: alice.job(job)["state"] == "running", "the job to run")
    yield job
    with suppress(NothingMatched):
        alice.kill([job], grace_s=0)


def refused(ran: "subprocess.CompletedProcess[str]", words: str) -> None:
    assert ran.returncode == NOT_PERMITTED, ran
    assert words in ran.stderr
    assert ran.stderr.startswith("gpuq: ")
    assert ran.stderr.count("\n") == 1


def done(ran: "subprocess.CompletedProcess[str]") -> str:
    assert ran.returncode == 0, ran
    return ran.stdout


@contextmanager
def setting(box: ManyUsers, line: str) -> Iterator[None]:
    """In force inside the block."""
    name = line.split(" ")[0]

    def origin() -> str:
        settings = box.client("root").call("config")["settings"]
        return next(str(one["origin"]) for one in settings if one["name"] == name)

    box.config.write_text(line + "\n")
    until(lambda: origin() == str(box.config), f"{name} to be in force")
    yield
    box.config.write_text("")
    until(lambda: origin() == "default", f"{name} to be as it was")


def say(box: ManyUsers, caller: str, do: str, **request: Any) -> dict[str, Any]:
    words = json.dumps({"id": 1, "do": do, **request})
    return dict(json.loads(done(box.run(caller, sys.executable, "-c", BARE, words))))


# ─── the jobs of others ──────────────────────────────────────────────────────────────────────────


def test_nobody_touches_the_jobs_of_others(box: ManyUsers, sleeper: int) -> None:
    for user in ("bob", "dave"):
        for command, verb in (("kill", "kill"), ("pause", "pause"), ("resume", "resume")):
            refused(
                box.gpuq(user, command, str(sleeper)),
                f"job {sleeper} belongs to alice; only its owner or an admin may {verb} it. "
                "Nothing was done.",
            )
    assert box.client("alice").job(sleeper)["state"] == "running"


def test_a_selector_means_what_one_may_change(box: ManyUsers, sleeper: int) -> None:
    own = box.client("bob").submit(SLEEP, gpus=0)
    until(lambda: box.client("bob").job(own)["state"] == "running", "bob's job to run")
    assert done(box.gpuq("bob", "kill", "-s", "running", "--now")) == f"{own}\tkilling\n"
    assert box.gpuq("dave", "kill", "-s", "running").returncode == NothingMatched.exit_code
    assert box.client("alice").job(sleeper)["state"] == "running"
    assert done(box.gpuq("carol", "kill", "-s", "running", "--now")) == f"{sleeper}\tkilling\n"


@pytest.mark.parametrize("user", ["alice", "carol", "root"])
def test_its_owner_root_and_admins_may_change_a_job(
    box: ManyUsers, sleeper: int, user: str
) -> None:
    done(box.gpuq(user, "pause", str(sleeper)))
    done(box.gpuq(user, "resume", str(sleeper)))
    done(box.gpuq(user, "kill", "--now", str(sleeper)))
    alice = box.client("alice")
    alice.wait([sleeper], timeout_s=30)
    refused(box.gpuq("bob", "prune", "-y", str(sleeper)), f"job {sleeper} belongs to alice")
    done(box.gpuq(user, "prune", "-y", str(sleeper)))
    with pytest.raises(NothingMatched):
        alice.job(sleeper)


def test_an_admin_who_names_nobodys_jobs_prunes_only_his_own(box: ManyUsers) -> None:
    alices = box.client("alice").submit(["true"], gpus=0)
    carols = box.client("carol").submit(["true"], gpus=0)
    box.client("alice").wait([alices, carols], timeout_s=30)
    done(box.gpuq("carol", "prune", "--keep", "0", "-y"))
    with pytest.raises(NothingMatched):
        box.client("carol").job(carols)
    assert box.client("alice").job(alices)["state"] == "ended"


def test_an_environment_is_its_owners_and_roots(box: ManyUsers, sleeper: int) -> None:
    for user in ("bob", "carol"):
        told = say(box, user, "show", ref=sleeper, with_env=True)
        assert told["error"]["code"] == "not_permitted"
        assert told["error"]["message"] == f"the environment of job {sleeper} is alice's alone"
    for user in ("alice", "root"):
        told = say(box, user, "show", ref=sleeper, with_env=True)
        assert "USER=alice" in told["ok"]["job"]["environment"]
    assert "xyzzy" not in done(box.gpuq("bob", "show", str(sleeper), "--json"))


# ─── what goes for everybody ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("drain", "-m", "why"), "drain this daemon"),
        (("gpus", "drain", "0"), "drain a GPU"),
        (("gpus", "resume", "0"), "resume a GPU"),
        (("daemon", "stop"), "stop this daemon"),
    ],
)
def test_what_goes_for_everybody_is_for_admins(
    box: ManyUsers, words: tuple[str, ...], what: str
) -> None:
    for user in ("alice", "dave"):
        refused(box.gpuq(user, *words), f"only an admin may {what}")
    assert box.daemon is not None
    assert box.daemon.poll() is None
    assert box.client("alice").call("ping")["drained"] is None
    with pytest.raises(NotPermitted, match="only an admin may have GPUs tested"):
        box.client("alice").call("test_gpus")


def test_an_admin_drains_and_resumes(box: ManyUsers) -> None:
    for user in ("carol", "root"):
        done(box.gpuq(user, "drain", "-m", "new driver"))
        assert box.client("alice").call("ping")["drained"]["actor"] == user
        done(box.gpuq(user, "drain", "--off"))
        done(box.gpuq(user, "gpus", "drain", "0"))
        done(box.gpuq(user, "gpus", "resume", "0"))


def test_only_an_admin_submits_with_a_priority_above_0(box: ManyUsers) -> None:
    for user in ("alice", "dave"):
        refused(
            box.gpuq(user, "submit", "-p", "7", "--gpus", "0", "true"),
            "only an admin may submit with a priority above 0, and 7 was asked for; "
            "use -p 0, or less. Nothing was queued.",
        )
        done(box.gpuq(user, "submit", "-p", "-3", "--gpus", "0", "true"))
    job = int(done(box.gpuq("carol", "submit", "-p", "7", "--gpus", "0", "true")))
    assert box.client("alice").job(job)["priority"] == 7


# ─── nobody becomes another ──────────────────────────────────────────────────────────────────────


def test_whatever_a_submit_says_the_job_is_its_callers(box: ManyUsers) -> None:
    environment = ["PATH=/usr/bin:/bin", "USER=alice", "HOME=/root"]
    forged = {"uid": 0, "gid": 0, "user": "root", "groups": [0], "actor": "root", "submitter": 0}
    job = {"argv": ["id", "-u"], "cwd": "/", "gpus": 0} | forged
    digest = sha256(b"".join(one.encode() + b"\0" for one in environment)).hexdigest()
    told = say(
        box, "bob", "submit", jobs=[job], environment=environment, env_hash=digest, peer=0, **forged
    )
    number = told["ok"]["first"]
    bob = box.client("bob")
    bob.wait([number], timeout_s=30)
    assert bob.job(number)["user"] == "bob"
    assert done(box.gpuq("bob", "logs", str(number))) == f"{UID['bob']}\n"
    events = say(box, "bob", "events", since=0, refs=[str(number)])["ok"]["events"]
    assert {event["actor"] for event in events} <= {"bob", "gpuq", "gpuqd"}


def test_tokens_keys_and_environments_are_each_users_own(box: ManyUsers) -> None:
    digest = sha256(b"A=1\0").hexdigest()
    job = {"argv": ["sleep", "300"], "cwd": "/", "gpus": 0, "key": "nightly"}
    asked = {"jobs": [job], "env_hash": digest, "token": "t" * 32}
    first = say(box, "alice", "submit", environment=["A=1"], **asked)["ok"]["first"]
    assert say(box, "alice", "submit", **asked)["ok"]["first"] == first, "the same token"
    told = say(box, "bob", "submit", **asked)["ok"]
    assert told == {"wanted": "environment"}, "alice's is not lent to him, nor is it named"
    bobs = say(box, "bob", "submit", environment=["A=1"], **asked)["ok"]
    assert (bobs["first"], bobs["note"]) == (first + 1, None), "neither is her token, nor her key"
    assert say(box, "bob", "show", ref="@")["ok"]["job"]["user"] == "bob"
    assert say(box, "alice", "show", ref="@")["ok"]["job"]["user"] == "alice"
    assert "error" in say(box, "dave", "wait", refs=["@99"])
    box.client("root").kill([first, bobs["first"]], grace_s=0)


# ─── root, and root of a container ───────────────────────────────────────────────────────────────


def test_root_submits_only_where_that_is_allowed(box: ManyUsers) -> None:
    refused(
        box.gpuq("root", "submit", "--gpus", "0", "true"),
        f"set allow_root_jobs = true in {box.config}. Nothing was queued.",
    )
    with setting(box, "allow_root_jobs = true"):
        done(box.gpuq("root", "submit", "--gpus", "0", "true"))


def test_root_of_a_container_sees_the_queue_and_does_nothing(box: ManyUsers, sleeper: int) -> None:
    def inside(*words: str) -> "subprocess.CompletedProcess[str]":
        return box.run("root", "unshare", "--mount", str(BIN / "gpuq"), *words)

    assert "alice" in done(inside("status"))
    for words in (
        ("kill", str(sleeper)),
        ("submit", "--gpus", "0", "true"),
        ("drain", "-m", "why"),
        ("pause", str(sleeper)),
        ("why", "pid:1"),
        ("daemon", "stop"),
    ):
        refused(inside(*words), "you are root of a container")
    assert "with --user and your own UID:GID" in inside("kill", str(sleeper)).stderr
    assert box.client("alice").job(sleeper)["state"] == "running"


def test_only_root_can_serve_a_machine(box: ManyUsers) -> None:
    words = ("--system", "--state-dir", str(box.home("bob") / "own"))
    ran = box.run("bob", str(BIN / "gpuqd"), *words, "--socket", str(box.home("bob") / "sock"))
    assert ran.returncode == 78
    assert "which only root can: start it as root" in ran.stderr
    assert not (box.home("bob") / "own").exists()


def test_what_the_settings_say_of_gpus_that_are_not_there_is_told(box: ManyUsers) -> None:
    with setting(box, "deny_gpus = [1, 7]"):
        notes = box.client("alice").call("ping")["config_notes"]
        assert notes == ["deny_gpus: no GPU of this machine is 7. See: gpuq gpus"]


def test_a_daemon_that_is_root_finds_programs_where_root_alone_puts_them(box: ManyUsers) -> None:
    assert box.daemon is not None
    launchers = [
        pid
        for pid in processes.descendants(box.daemon.pid)
        if b"gpuq.daemon.attempt.launcher" in proc(pid, "cmdline")
    ]
    assert launchers
    for pid in launchers:
        assert f"PATH={paths.TRUSTED_PATH}".encode() in proc(pid, "environ").split(b"\0")


def proc(pid: int, name: str) -> bytes:
    """Of a process that may leave meanwhile."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


# ─── who is served ───────────────────────────────────────────────────────────────────────────────


def test_only_the_groups_that_are_allowed_are_served(box: ManyUsers) -> None:
    with setting(box, 'allow_groups = ["students", "staff"]'):
        refused(
            box.gpuq("bob", "status"),
            "this daemon serves the members of students, staff (this machine does not know staff), "
            "and bob is none. Ask an admin of this machine to be made one, and log in again. "
            "Nothing was done.",
        )
        refused(box.gpuq("bob", "submit", "--gpus", "0", "true"), "and bob is none")
        for user in ("dave", "carol", "root"):
            done(box.gpuq(user, "status"))
    done(box.gpuq("bob", "status"))


# ─── other people's processes ────────────────────────────────────────────────────────────────────


def test_of_a_process_nobody_is_told_more_than_proc_tells_him(box: ManyUsers) -> None:
    process = box.popen("alice", "sleep", "300")
    try:
        until(lambda: "sleep 300" in done(box.gpuq("alice", "why", f"pid:{process.pid}")), "it")
        channel = box.run("root", "cat", f"/proc/{process.pid}/wchan").stdout
        for user in ("alice", "carol", "root"):
            told = done(box.gpuq(user, "why", f"pid:{process.pid}"))
            assert "is told to" not in told
            assert channel in told or channel == "0"
        told = done(box.gpuq("bob", "why", f"pid:{process.pid}"))
        assert "sleep 300" in told
        assert "where in the kernel it waits is told to alice and to admins alone" in told
        assert channel not in told or channel == "0"
    finally:
        process.kill()
        process.wait()


def test_processes_that_the_machine_hides_are_not_told(box: ManyUsers) -> None:
    with many_users() as other:
        hide = ["mount", "-t", "proc", "-o", "hidepid=invisible", "proc", "/proc"]
        assert subprocess.run([*other.enter(), *hide], check=False).returncode == 0
        other.start()
        process = other.popen("alice", "sleep", "300")
        try:
            until(
                lambda: "sleep 300" in other.gpuq("alice", "why", f"pid:{process.pid}").stdout, "it"
            )
            told = other.gpuq("bob", "why", f"pid:{process.pid}")
            assert told.returncode == 3
            assert "or it is not yours: this machine hides those of others" in told.stderr
            assert "sleep" not in told.stdout + told.stderr
            assert "child of" not in other.gpuq("alice", "why", f"pid:{process.pid}").stdout
            assert "sleep 300" in done(other.gpuq("carol", "why", f"pid:{process.pid}"))
        finally:
            process.kill()
            process.wait()
