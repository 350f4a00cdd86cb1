"""Ten daemons one after the other, killed or replaced, while people follow, wait and submit."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gpuq.client import Client
from gpuq.daemon.linux import processes
from tests.acceptance.faults.conftest import (
    FaultyDaemon,
    MakeDaemon,
    assert_all_well,
    assert_checked,
)
from tests.conftest import BIN, until

SUBMITS, KILLS, BY_WISH, BY_COMMAND = 200, 6, 2, 2
CLIENTS = 3  # of the test's own


@dataclass
class Lived:
    """What there was to see before, in and after ten restarts."""

    daemon: FaultyDaemon
    before: dict[str, Any]
    after: dict[str, Any] = field(default_factory=dict)
    said: dict[str, bytes] = field(default_factory=dict)  # by who followed
    codes: dict[str, int] = field(default_factory=dict)
    submitted: list[int] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)  # of the daemons


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    daemon = FaultyDaemon(tmp_path_factory.mktemp("daemon"), flags=("--cpu-slots", "6")).start()
    try:
        yield _live_through_ten_restarts(daemon)
        assert_all_well(daemon)
        assert_checked(daemon)
    finally:
        daemon.end()


def _live_through_ten_restarts(daemon: FaultyDaemon) -> Lived:
    with daemon.client() as client, daemon.client() as reader, daemon.client() as submitter:
        talker = client.submit(**daemon.job(_talk(daemon, 5)))
        daemon.at_work(talker)
        lived = Lived(daemon, before=client.job(talker))
        followers = _followers(daemon, talker)
        _be_followed(daemon, followers)
        watching = threading.Thread(target=_follow, args=(reader, talker, lived))
        submitting = threading.Thread(target=_submit, args=(submitter, daemon, lived))
        watching.start()
        submitting.start()
        _restart_ten_times(daemon, client, lived)
        submitting.join()
        lived.after = client.job(talker)
        (daemon.folder / "go").touch()
        client.wait([f"1-{daemon.last_id()}"], timeout_s=30)
        watching.join()
        _gather(daemon, followers, lived)
    return lived


def _talk(daemon: FaultyDaemon, code: int) -> str:
    line = 'echo "line $((n = n + 1))"; sleep 0.02'
    return f"n=0; while [ ! -e {daemon.folder}/go ]; do {line}; done; exit {code}"


def _followers(daemon: FaultyDaemon, talker: int) -> dict[str, "subprocess.Popen[bytes]"]:
    commands = {
        "wait": ["wait", str(talker)],
        "logs": ["logs", "-f", str(talker)],
        "run": ["run", "-g", "0", "--", "sh", "-c", _talk(daemon, 6)],
        "watch": ["status", "--watch", "--json", str(talker)],
    }
    return {name: _gpuq(daemon, name, *words) for name, words in commands.items()}


def _gpuq(daemon: FaultyDaemon, name: str, *words: str) -> "subprocess.Popen[bytes]":
    with (daemon.folder / name).open("wb") as out:
        return subprocess.Popen([BIN / "gpuq", *words], env=daemon.environment, stdout=out)


def _be_followed(daemon: FaultyDaemon, followers: dict[str, "subprocess.Popen[bytes]"]) -> None:
    """Who has reached a daemon waits for the next one; who waits for an end says nothing until then,
    but was the first to begin."""
    for name in set(followers) - {"wait"}:
        until(lambda name=name: (daemon.folder / name).stat().st_size, f"the first word to {name}")
    until(lambda: _connections(daemon) >= CLIENTS + len(followers), "all to be connected")


def _connections(daemon: FaultyDaemon) -> int:
    """As the daemon's side has them: see unix(7) and /proc/net/unix."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    connected = [line[7] for line in lines if len(line) > 7 and line[5] == "03"]
    return connected.count(str(daemon.state / "gpuq.sock"))


def _follow(client: Client, talker: int, lived: Lived) -> None:
    following = client.follow(talker)
    lived.said["follow"] = b"".join(following)
    lived.codes["follow"] = following.job["exit_code"]


def _submit(client: Client, daemon: FaultyDaemon, lived: Lived) -> None:
    """A few to each daemon, so that each dies with some of them on its hands."""
    for number in range(SUBMITS):
        until(lambda n=number: n < 20 * (len(lived.pids) + 1), "the next daemon")
        lived.submitted.append(client.submit(**daemon.job()))


def _restart_ten_times(daemon: FaultyDaemon, client: Client, lived: Lived) -> None:
    def note() -> int:
        lived.pids.append(client.call("ping")["pid"])
        return lived.pids[-1]

    with daemon.kept():
        for number in range(KILLS + BY_WISH):
            if note() and number % 4 == 3:
                client.call("stop", restart=True)
            else:
                os.kill(daemon.pid, signal.SIGKILL)
            until(lambda n=number: daemon.deaths == n + 1, "the next daemon")
    for _ in range(BY_COMMAND):
        note()
        restarted = daemon.gpuq("daemon", "restart")
        assert restarted.returncode == 0, restarted.stderr
        os.kill(note(), signal.SIGKILL)
        daemon.start()


def _gather(
    daemon: FaultyDaemon, followers: dict[str, "subprocess.Popen[bytes]"], lived: Lived
) -> None:
    watched = daemon.folder / "watch"
    until(lambda: b'"outcome": "failed"' in watched.read_bytes(), "the end, for who watches")
    followers["watch"].send_signal(signal.SIGINT)
    for name, process in followers.items():
        lived.codes[name] = process.wait(30)
        lived.said[name] = (daemon.folder / name).read_bytes()


def test_a_job_does_not_notice(lived: Lived) -> None:
    assert len(set(lived.pids)) == KILLS + BY_WISH + 2 * BY_COMMAND
    assert lived.after["state"] == "running"
    assert lived.after["attempt"] == lived.before["attempt"] == 1
    assert lived.after["pid"] == lived.before["pid"]
    assert lived.after["started_at"] == lived.before["started_at"]


@pytest.mark.parametrize(
    ("who", "code"), [("wait", 5), ("logs", 0), ("run", 6), ("follow", 5), ("watch", 130)]
)
def test_who_follows_hears_the_end(lived: Lived, who: str, code: int) -> None:
    assert lived.codes[who] == code


@pytest.mark.parametrize("who", ["logs", "follow", "run"])
def test_who_reads_along_misses_nothing_and_reads_nothing_twice(lived: Lived, who: str) -> None:
    lines = lived.said[who].decode().splitlines()
    assert lines == [f"line {number + 1}" for number in range(len(lines))]
    if who != "run":
        assert lived.said[who] == Path(lived.after["log"]).read_bytes()


def test_who_watches_sees_it_run_and_end(lived: Lived) -> None:
    pictures = [json.loads(line)["jobs"][0] for line in lived.said["watch"].splitlines()]
    assert [one["state"] for one in pictures][:1] == ["running"]
    assert pictures[-1]["exit_code"] == 5


def test_each_of_two_hundred_submits_is_one_job(lived: Lived) -> None:
    assert len(lived.submitted) == len(set(lived.submitted)) == SUBMITS
    assert lived.daemon.last_id() == SUBMITS + 2, "and those of the two that talk"
    runs = lived.daemon.runs(*lived.submitted)
    assert sorted(runs) == sorted(f"{job}.1" for job in lived.submitted)


def test_twenty_submits_with_one_key_are_one_job(make: MakeDaemon) -> None:
    daemon = make()

    def submit(client: Client) -> int:
        with client:
            return client.submit(**daemon.job("sleep 300", key="one"))

    clients = [daemon.client() for _ in range(20)]
    with daemon.dying_at("submit.committed"), ThreadPoolExecutor(20) as people:
        jobs = set(people.map(submit, clients))
    assert jobs == {1}
    assert daemon.last_id() == 1
    daemon.at_work(1)
    with daemon.client() as client:
        client.kill([1], grace_s=0)
        client.wait([1], timeout_s=10)
        pid = client.job(1)["pid"]
    assert processes.identity(pid) is None
    assert daemon.runs(1) == ["1.1"]
