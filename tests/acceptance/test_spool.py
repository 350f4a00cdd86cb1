"""Files that are dropped into a spool folder, and the jobs that come of them. The daemon, its users and
the files are real ones."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuq.daemon.linux import processes
from gpuq.errors import GpuqError, NotPermitted
from tests.conftest import Daemon, until
from tests.many_users import ALICE, PROJECT_GROUP, ManyUsers, many_users

SCRIPT = "#!/bin/sh\n#GPUQ -g 0\n{}\n"


class Folder:
    """A user's spool folder, as the test looks into it."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._made = self.path.parent.parent / "made"

    def drop(self, name: str, text: str, uid: int | None = None) -> None:
        """Moved in, whole."""
        self._made.write_text(text)
        if uid is not None:
            os.chown(self._made, uid, uid)
        self._made.rename(self.path / name)

    def names(self, inner: str = ".") -> list[str]:
        try:
            return sorted(os.listdir(self.path / inner))
        except FileNotFoundError:
            return []

    @property
    def left(self) -> set[str]:
        return set(self.names()) - {"accepted", "rejected"}

    def until_empty(self) -> None:
        until(lambda: not self.left, f"the files to be taken ({self.left})")


def folder_of(daemon: Daemon) -> Folder:
    with daemon.client() as client:
        return Folder(client.call("spool")["path"])


# ─── one's own daemon ────────────────────────────────────────────────────────────────────────────


def test_a_hundred_files_are_a_hundred_jobs_also_those_of_the_time_when_nobody_served(
    daemon: Daemon,
) -> None:
    folder = folder_of(daemon)
    for number in range(50):
        folder.drop(f"{number:02}.sh", SCRIPT.format(f"exit {number}"))
    daemon.kill()
    for number in range(50, 100):
        folder.drop(f"{number:02}.sh", SCRIPT.format(f"exit {number}"))
    daemon.start()
    folder.until_empty()
    with daemon.client() as client:
        jobs = client.jobs(["1-100"])
        assert len(jobs) == 100
        assert {job["name"] for job in jobs} == {f"{number:02}.sh" for number in range(100)}
        ended = client.wait(["1-100"], timeout_s=120)
    assert {job["name"]: job["exit_code"] for job in ended} == {
        f"{number:02}.sh": number for number in range(100)
    }
    assert set(folder.names("accepted")) == {f"{job['id']}-{job['name']}" for job in jobs}


def test_its_jobs_run_at_home_as_after_a_login(daemon: Daemon) -> None:
    folder = folder_of(daemon)
    folder.drop("a.sh", SCRIPT.format('echo "$PWD"; umask; ulimit -Sn; env | grep ^GPUQ_AUTO'))
    folder.until_empty()
    with daemon.client() as client:
        log = Path(client.wait([1])[0]["log"])
    assert log.read_text().splitlines() == [daemon.environment["HOME"], "0022", "1024"]


def test_who_still_writes_keeps_it_and_it_is_taken_once_it_is_closed(daemon: Daemon) -> None:
    folder = folder_of(daemon)
    with (folder.path / "slow.sh").open("w") as slow:
        slow.write("#!/bin/sh\n")
        slow.flush()
        folder.drop("other.sh", SCRIPT.format("true"))
        until(lambda: folder.names("accepted") == ["1-other.sh"], "the other one")
        assert folder.left == {"slow.sh"}
        slow.write("#GPUQ -g 0\nexit 7\n")
    folder.until_empty()
    with daemon.client() as client:
        assert client.wait([2])[0]["exit_code"] == 7


def test_what_cannot_be_a_job_says_why_on_the_command_line(daemon: Daemon) -> None:
    folder = folder_of(daemon)
    folder.drop("greedy.sh", "#!/bin/sh\n#GPUQ -g 9\n")
    os.mkfifo(folder.path / "pipe")
    folder.until_empty()
    listed = dict(line.split("\t") for line in daemon.gpuq("spool", "--list").stdout.splitlines())
    assert listed == {
        "rejected/greedy.sh": "--gpus 9 can never start: this machine has 4 GPUs. Nothing was "
        "queued.",
        "rejected/pipe": "it is no regular file",
    }
    assert json.loads(daemon.gpuq("spool", "--json").stdout)["waiting"] == []


def test_a_full_queue_is_waited_for(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon.start("--max-queued-per-user", "1")
    folder = folder_of(daemon)
    with daemon.client() as client:
        client.drain("not now")
        folder.drop("first.sh", SCRIPT.format("true"))
        folder.until_empty()
        folder.drop("second.sh", SCRIPT.format("true"))
        until(lambda: "one user may have 1" in _try_by_hand(daemon, folder), "the refusal")
        assert (folder.left, folder.names("rejected")) == ({"second.sh"}, [])
        client.drain(None)
        folder.until_empty()
        assert client.wait([1, 2])[1]["outcome"] == "succeeded"


def _try_by_hand(daemon: Daemon, folder: Folder) -> str:
    """As the daemon has it done, with what it says."""
    ran = daemon.gpuq("__spool", str(folder.path))
    assert ran.returncode == 75, ran
    return ran.stderr


def test_a_folder_that_others_may_write_to_is_named_and_not_read(daemon: Daemon) -> None:
    folder = folder_of(daemon)
    folder.path.chmod(0o777)
    folder.drop("a.sh", SCRIPT.format("true"))
    with daemon.client() as client:
        with pytest.raises(GpuqError, match="has mode 0777"):
            client.call("spool")
        (note,) = client.call("ping")["config_notes"]
        assert "so that others may put jobs of that user into it" in note
        assert "has mode 0777" in daemon.gpuq("doctor").stdout
        assert folder.left == {"a.sh"}
        folder.path.chmod(0o700)
        client.call("spool")
        folder.until_empty()
        assert client.call("ping")["config_notes"] == []


def test_a_link_in_its_place_leads_nowhere(daemon: Daemon, tmp_path: Path) -> None:
    folder = folder_of(daemon)
    elsewhere = tmp_path / "elsewhere"
    folder.path.rename(elsewhere)
    folder.path.symlink_to(elsewhere)
    (elsewhere / "a.sh").write_text(SCRIPT.format("true"))
    daemon.kill()
    daemon.start()
    with daemon.client() as client:
        with pytest.raises(GpuqError, match="spool folder"):
            client.call("spool")
        assert client.jobs() == []
    assert (elsewhere / "a.sh").exists()


def test_it_can_be_turned_off_and_on_while_the_daemon_serves(stopped_daemon: Daemon) -> None:
    config = stopped_daemon.state.parent / ".config" / "gpuq" / "gpuq.toml"
    config.parent.mkdir(parents=True)
    daemon = stopped_daemon.start()
    folder = folder_of(daemon)
    with daemon.client() as client:
        config.write_text("spool = false\n")

        def is_off() -> bool:
            try:
                client.call("spool")
            except GpuqError as error:
                return "spool = false" in str(error)
            return False

        until(is_off, "the setting to be in force")
        folder.drop("a.sh", SCRIPT.format("true"))
        config.write_text("spool = true\n")
        folder.until_empty()
        assert client.wait([1])[0]["outcome"] == "succeeded"


# ─── many users ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def machine() -> Iterator[ManyUsers]:
    with many_users() as box:
        box.start(env={"SECRET_OF_ROOT": "s3cret", "LANG": "C.UTF-8"})
        yield box


@pytest.fixture
def box(machine: ManyUsers) -> Iterator[ManyUsers]:
    yield machine
    assert machine.daemon is not None
    assert machine.daemon.poll() is None, machine.log.read_text()


def spool_of(box: ManyUsers, user: str) -> Path:
    ran = box.gpuq(user, "spool")
    assert ran.returncode == 0, ran.stderr
    return Path(ran.stdout.strip())


def dropped(box: ManyUsers, user: str, text: str, name: str = "job.sh") -> None:
    """By the user, moved in from home."""
    folder = spool_of(box, user)
    words = ["sh", "-c", 'printf %s "$1" > made && mv made "$0"', str(folder / name), text]
    ran = box.run(user, *words)
    assert ran.returncode == 0, ran.stderr


def job_of(box: ManyUsers, user: str, text: str, name: str) -> dict[str, Any]:
    """The job that came of a file, once it has ended."""
    dropped(box, user, text, name)
    accepted = spool_of(box, user) / "accepted"

    def taken() -> list[str]:
        there = os.listdir(accepted) if accepted.is_dir() else []
        return [one for one in there if one.endswith(f"-{name}")]

    (found,) = until(taken, f"{name} to be taken")
    job = int(found.partition("-")[0])
    (ended,) = box.client("root").wait([job], timeout_s=30)
    return dict(ended)


def test_a_users_folder_is_made_on_demand_and_is_theirs_alone(box: ManyUsers) -> None:
    folder = spool_of(box, "alice")
    found = folder.stat()
    assert folder == box.state / "spool" / str(ALICE)
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (ALICE, ALICE, 0o700)
    around = folder.parent.stat()
    assert (around.st_uid, stat.S_IMODE(around.st_mode)) == (0, 0o711)


def test_the_job_is_its_users_as_after_a_login_and_nothing_of_root_is_in_it(box: ManyUsers) -> None:
    script = "id -u; id -G; pwd; umask; ls /proc/self/fd; env; grep -E ^Cap /proc/self/status"
    job = job_of(box, "alice", SCRIPT.format(script), "who.sh")
    assert (job["user"], job["outcome"]) == ("alice", "succeeded")
    text = Path(job["log"]).read_text()
    lines = text.splitlines()
    assert (lines[0], lines[2], lines[3]) == (str(ALICE), str(box.home("alice")), "0022")
    assert set(lines[1].split()) == {str(ALICE), str(PROJECT_GROUP)}
    assert "s3cret" not in text
    assert f"HOME={box.home('alice')}" in lines
    assert {"USER=alice", "LOGNAME=alice", "SHELL=/bin/sh", "LANG=C.UTF-8"} <= set(lines)
    assert "PATH=/usr/local/bin:/usr/bin:/bin" in lines
    assert not [line for line in lines if line.startswith("CapEff") and "0" * 16 not in line]


def test_nobody_else_gets_into_a_folder(box: ManyUsers) -> None:
    theirs = spool_of(box, "alice")
    words = ["sh", "-c", 'echo "#!/bin/sh" > "$0/bobs.sh"', str(theirs)]
    assert box.run("bob", *words).returncode != 0
    assert box.run("bob", "ls", str(theirs)).returncode != 0
    assert box.run("bob", "ls", str(theirs.parent)).returncode != 0
    assert box.run("bob", "mkdir", str(theirs.parent / "9999")).returncode != 0


def test_a_file_of_roots_is_nobody_elses_job(box: ManyUsers) -> None:
    """By a link, by a hard link, or moved in by root itself."""
    secret = box.folder / "secret"
    secret.write_text(SCRIPT.format("echo stolen"))
    secret.chmod(0o600)
    theirs = spool_of(box, "alice")
    assert box.run("alice", "ln", "-s", str(secret), str(theirs / "link.sh")).returncode == 0
    assert box.run("alice", "ln", "-s", "/proc/self/fd/0", str(theirs / "fd.sh")).returncode == 0
    moved = box.folder / "moved"
    moved.write_text(SCRIPT.format("true"))
    moved.rename(theirs / "roots.sh")
    for name in ("link.sh", "fd.sh", "roots.sh"):
        until((theirs / "rejected" / f"{name}.reason").exists, f"{name} to be rejected")
    reasons = {
        name: until((theirs / "rejected" / f"{name}.reason").read_text, "its reason")
        for name in ("link.sh", "roots.sh")
    }
    assert "it is a link" in reasons["link.sh"]
    assert "it belongs to uid 0" in reasons["roots.sh"]
    assert secret.read_text() == SCRIPT.format("echo stolen")


def test_folders_that_lead_elsewhere_get_nobody_more_than_they_have(box: ManyUsers) -> None:
    """Where accepted/ is a link to a folder of root's, nothing is moved there, or submitted."""
    theirs = spool_of(box, "dave")
    trap = box.folder / "trap"
    trap.mkdir()
    for name in ("accepted", "rejected"):
        assert box.run("dave", "ln", "-s", str(trap), str(theirs / name)).returncode == 0
    dropped(box, "dave", SCRIPT.format("true"))
    job_of(box, "bob", SCRIPT.format("true"), "meanwhile.sh")
    assert os.listdir(trap) == []
    assert (theirs / "job.sh").exists()
    assert box.client("dave").jobs(mine=True, all=True) == []


STOPPER = r"""
import os, signal
while True:
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            if b"__spool" in words:
                os.kill(int(pid), signal.SIGSTOP)
                print(pid, flush=True)
                raise SystemExit
        except OSError:
            pass
"""


def test_who_stops_the_process_that_takes_their_files_keeps_nobody_elses(box: ManyUsers) -> None:
    """It is the user's own process: they may stop it, and it is they who wait then."""
    theirs = spool_of(box, "carol")
    stopper = box.popen("carol", sys.executable, "-c", STOPPER, stdout=subprocess.PIPE, text=True)
    dropped(box, "carol", SCRIPT.format("true"))
    assert stopper.stdout is not None
    stopped = int(stopper.stdout.readline())
    stopper.stdout.close()
    stopper.wait()
    assert job_of(box, "bob", SCRIPT.format("exit 5"), "beside.sh")["exit_code"] == 5
    assert (theirs / "job.sh").exists()
    own = processes.identity(stopped)
    assert own is not None
    processes.send(stopped, 9, start=own[1])  # as the daemon does when its time is up


def test_root_has_none_unless_it_may_have_jobs(box: ManyUsers) -> None:
    with pytest.raises(NotPermitted, match="allow_root_jobs"):
        box.client("root").call("spool")
    assert not (box.state / "spool" / "0").exists()


def test_hundreds_of_files_of_one_keep_nobody_waiting(box: ManyUsers) -> None:
    theirs = spool_of(box, "alice")
    flood = (
        'for n in $(seq 550); do echo "no script" > "$0/$n.part"; mv "$0/$n.part" "$0/f$n"; done'
    )
    assert box.run("alice", "sh", "-c", flood, str(theirs)).returncode == 0
    assert job_of(box, "bob", SCRIPT.format("exit 6"), "now.sh")["exit_code"] == 6
    until(lambda: not any(name.startswith("f") for name in os.listdir(theirs)), "the flood")
    assert len(os.listdir(theirs / "rejected")) >= 2 * 550
