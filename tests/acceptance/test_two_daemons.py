"""The daemon of the whole machine and one of a user's own, which see the same GPUs: no GPU is given
twice, and who waits is told for whom. The daemons, the users and the locks are real; the library of the
driver is not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.faults.test_upgraded_driver import IDLE, Library
from tests.conftest import PATIENCE_S, until
from tests.many_users import AGENT, Caller, ManyUsers, many_users
from tests.real_gpus import FLAGS

# Takes each of its GPUs in a way that cannot be done twice, and fails where that has been done.
ALONE = """
for gpu in $(echo "$GPUQ_GPU_UUIDS" | tr , ' '); do mkdir "{there}/$gpu" || exit 9; done
sleep 0.05
for gpu in $(echo "$GPUQ_GPU_UUIDS" | tr , ' '); do rmdir "{there}/$gpu" || exit 8; done
"""
HOLD = "while ! [ -e {go} ]; do sleep 0.02; done"
# Has the name of a GPU's lock, and is no daemon.
SQUATTER = """
import socket, sys
lock = socket.socket(socket.AF_UNIX)
lock.bind("\\0gpuq-gpu-" + sys.argv[1])
lock.listen(100)
print("bound", flush=True)
sys.stdin.read()
"""


class Shared(ManyUsers):
    """A machine whose GPUs everybody sees."""

    library: Library
    go: Path

    @property
    def env(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.library.folder)}

    def start_machine_daemon(self) -> None:
        self.start(*FLAGS, *IDLE, gpus="nvml", env=self.env)

    @property
    def own_state(self) -> Path:
        return self.home("bob") / "state"

    @contextmanager
    def daemon_of_bob(self, gpus: str = "nvml") -> "Iterator[subprocess.Popen[Any]]":
        words = [sys.executable, "-P", "-m", "gpuq.daemon.main", "--gpus", gpus]
        words += ["--state-dir", str(self.own_state), *FLAGS, *IDLE]
        with (self.folder / "bob.log").open("ab") as log:
            daemon = self.popen("bob", *words, env=self.env, stdout=log, stderr=log)
        try:
            until(self._bob_is_served, "an answer of bob's daemon")
            yield daemon
            with self.own() as client:
                if jobs := [job["id"] for job in client.jobs()]:
                    client.kill(jobs, grace_s=0)
                    client.wait(jobs, timeout_s=PATIENCE_S)
        finally:
            self.go.touch()
            daemon.terminate()
            daemon.wait(PATIENCE_S)

    @contextmanager
    def own(self) -> Iterator[Caller]:
        """Bob, who speaks to his own daemon."""
        env = {"GPUQ_SOCKET": str(self.own_state / "gpuq.sock")}
        words, pipe = [sys.executable, "-c", AGENT], subprocess.PIPE
        caller = Caller(self.popen("bob", *words, env=env, stdin=pipe, stdout=pipe, text=True))
        try:
            yield caller
        finally:
            caller.close()

    def submit_own(self, script: str, gpus: int = 1) -> int:
        words = ["submit", "-g", str(gpus), "--shell", script]
        told = self.gpuq("bob", "--socket", str(self.own_state / "gpuq.sock"), *words)
        assert told.returncode == 0, told.stderr
        return int(told.stdout)

    def _bob_is_served(self) -> bool:
        socket = self.own_state / "gpuq.sock"
        return self.gpuq("bob", "--socket", str(socket), "ping").returncode == 0


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:
    monkeypatch.setattr("tests.many_users.ManyUsers", Shared)
    with many_users() as machine:
        assert isinstance(machine, Shared)
        machine.library = Library(machine.folder / "driver")
        machine.go = machine.folder / "go"
        yield machine
        machine.go.touch()


def uuids_of(box: Shared) -> list[str]:
    root = box.client("root")
    until(lambda: len(root.gpus()["gpus"]) == 2, "both GPUs")
    return [gpu["uuid"] for gpu in root.gpus()["gpus"]]


def test_what_the_machines_daemon_has_given_a_users_own_waits_for_and_names(box: Shared) -> None:
    box.start_machine_daemon()
    uuids_of(box)
    alice = box.client("alice")
    first = alice.submit(["sh", "-c", HOLD.format(go=box.go)], gpus=2)
    until(lambda: alice.job(first)["state"] == "running", "alice's job to run")
    assert box.daemon is not None
    with box.daemon_of_bob():
        waits = box.submit_own("exit 0")
        with box.own() as bob:
            holder = f"held by another gpuq daemon (pid {_daemon_pid(box)}, root)"
            until(lambda: holder in (bob.job(waits)["reason"] or ""), "the holder to be named")
            assert bob.job(waits)["state"] == "queued"
            box.go.touch()
            assert alice.wait([first], timeout_s=PATIENCE_S)[0]["outcome"] == "succeeded"
            assert bob.wait([waits], timeout_s=PATIENCE_S)[0]["outcome"] == "succeeded"


def test_what_a_users_own_daemon_has_given_the_machines_waits_for_and_names(box: Shared) -> None:
    box.start_machine_daemon()
    uuids_of(box)
    with box.daemon_of_bob():
        first = box.submit_own(HOLD.format(go=box.go), gpus=2)
        with box.own() as bob:
            until(lambda: bob.job(first)["state"] == "running", "bob's job to run")
            alice = box.client("alice")
            waits = alice.submit(["true"], gpus=1)
            named = r"held by another gpuq daemon (pid "
            until(lambda: named in (alice.job(waits)["reason"] or ""), "the holder to be named")
            assert ", bob)" in alice.job(waits)["reason"]
            box.go.touch()
            assert bob.wait([first], timeout_s=PATIENCE_S)[0]["outcome"] == "succeeded"
            assert alice.wait([waits], timeout_s=PATIENCE_S)[0]["outcome"] == "succeeded"


def test_two_daemons_never_give_one_gpu_at_the_same_time(box: Shared) -> None:
    there = box.folder / "taken"
    there.mkdir()
    there.chmod(0o777)
    script = ALONE.format(there=there)
    box.start_machine_daemon()
    uuids_of(box)
    with box.daemon_of_bob(), box.own() as bob:
        alice = box.client("alice")
        theirs = [alice.submit(["sh", "-c", script], gpus=1 + n % 2) for n in range(8)]
        own = [box.submit_own(script, gpus=1 + n % 2) for n in range(8)]
        ends = alice.wait(theirs, timeout_s=2 * PATIENCE_S)
        ends += bob.wait(own, timeout_s=2 * PATIENCE_S)
        assert [job["outcome"] for job in ends] == ["succeeded"] * 16, ends


def test_a_squatter_is_named_and_keeps_nobody_from_the_other_gpus(box: Shared) -> None:
    box.start_machine_daemon()
    squatted, free = uuids_of(box)
    pipe = subprocess.PIPE
    words = [sys.executable, "-c", SQUATTER, squatted]
    squatter = box.popen("carol", *words, stdin=pipe, stdout=pipe, text=True)
    assert squatter.stdout is not None
    assert squatter.stdout.readline() == "bound\n"
    alice = box.client("alice")
    script = 'test "$GPUQ_GPU_UUIDS" = "$0"'
    jobs = [alice.submit(["sh", "-c", script, free], gpus=1) for _ in range(3)]
    ends = alice.wait(jobs, timeout_s=PATIENCE_S)
    assert [job["outcome"] for job in ends] == ["succeeded"] * 3, ends
    both = alice.submit(["true"], gpus=2)
    until(lambda: ", carol)" in (alice.job(both)["reason"] or ""), "the squatter to be named")
    squatter.communicate(timeout=PATIENCE_S)
    assert alice.wait([both], timeout_s=PATIENCE_S)[0]["outcome"] == "succeeded"


def test_no_process_of_a_daemon_has_a_socket_of_the_network(box: Shared) -> None:
    """No TCP and no UDP, whoever might listen: unix sockets and netlink alone."""
    box.start_machine_daemon()
    uuids_of(box)
    alice = box.client("alice")
    job = alice.submit(["sh", "-c", HOLD.format(go=box.go)], gpus=1)
    until(lambda: alice.job(job)["state"] == "running", "alice's job to run")
    own = [pid for pid in box.inside() if b"gpuq.daemon" in _command_line(pid)]
    assert len(own) >= 3, "the daemon, its launcher, its probe and a runner"
    sockets = {inode for pid in own for inode in _sockets(pid)}
    assert sockets
    assert sockets.isdisjoint(_inodes("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet"))


def test_gpus_wait_for_a_driver_that_is_loaded_after_the_daemon(box: Shared) -> None:
    """The machine has had GPUs before: what wants them is no mistake. What wants none goes on."""
    box.start_machine_daemon()
    uuids_of(box)
    assert box.stop() == 0
    link = box.library.folder / "libnvidia-ml.so.1"
    link.rename(box.library.folder / "aside")
    box.start_machine_daemon()
    alice = box.client("alice")
    waits = alice.submit(["true"], gpus=2)
    assert alice.wait([alice.submit(["true"], gpus=0)], timeout_s=PATIENCE_S)[0]["exit_code"] == 0
    told = alice.job(waits)
    assert (told["state"], told["attempt"]) == ("queued", 0)
    assert "driver" in told["reason"]
    (box.library.folder / "aside").rename(link)
    assert alice.wait([waits], timeout_s=PATIENCE_S)[0]["outcome"] == "succeeded"


def _daemon_pid(box: Shared) -> int:
    return int(box.client("root").call("ping")["pid"])


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _sockets(pid: int) -> list[str]:
    links = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()]
    return [link[8:-1] for link in links if link.startswith("socket:[")]


def _inodes(*families: str) -> set[str]:
    """Of all sockets of these kinds in this network: the tenth column, or the last of packet."""
    found = set()
    for family in families:
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
            words = line.split()
            found.add(words[-1] if family == "packet" else words[9])
    return found
