"""What stands in the file with the settings is in force once it is saved; no daemon is restarted."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuq.client import Client
from tests.builders import GIB
from tests.conftest import BIN, Daemon, until


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the daemon, whose home this is, looks for its settings."""
    return tmp_path / ".config" / "gpuq" / "gpuq.toml"


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    pid = daemon.pid
    with daemon.client() as client:
        yield client
        assert client.call("ping")["pid"] == pid, "it was not restarted"


def save(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(text)
    os.rename(new, file)


def waits_because(client: Client, job: int, words: str) -> None:
    until(lambda: words in (client.job(job)["reason"] or ""), f"job {job} to wait: {words}")
    assert client.job(job)["state"] == "queued"


def is_in_force(client: Client, name: str, value: str) -> None:
    def told() -> Any:
        return {row["name"]: row["value"] for row in client.call("config")["settings"]}[name]

    until(lambda: told() == value, f"{name} = {value}")


def events(client: Client, kind: str) -> list[dict[str, Any]]:
    return [event for event in client.call("events", since=0)["events"] if event["kind"] == kind]


def test_a_gpu_is_given_once_the_file_does_not_deny_it_any_more(client: Client, file: Path) -> None:
    save(file, "deny_gpus = [1, 2, 3]\n")
    is_in_force(client, "deny_gpus", "1, 2, 3")
    first = client.submit(["sleep", "600"], gpus=1)
    until(lambda: client.job(first)["gpus"] == [0], "the first job")
    second = client.submit(["true"], gpus=1)
    waits_because(client, second, "wants 1 GPU, 0 free")
    save(file, "deny_gpus = [1, 3]\n")
    (ended,) = client.wait([second], timeout_s=20)
    assert (ended["outcome"], ended["gpus"]) == ("succeeded", [2])
    earlier, later = events(client, "config_changed")
    assert earlier["detail"] == {"deny_gpus": {"before": "–", "after": "1, 2, 3"}}
    assert later["cause"] == "deny_gpus 1, 2, 3 → 1, 3"


def test_a_gpu_that_the_file_denies_from_now_on_is_given_to_nobody(
    client: Client, file: Path
) -> None:
    first = client.submit(["sleep", "600"], gpus=3)
    until(lambda: client.job(first)["gpus"] == [0, 1, 2], "the first job")
    save(file, 'deny_gpus = [3, "GPU-of-another-machine"]\n')
    is_in_force(client, "deny_gpus", "3, GPU-of-another-machine")
    second = client.submit(["true"], gpus=1)
    waits_because(client, second, "wants 1 GPU, 0 free")
    save(file, "deny_gpus = [2]\n")
    (ended,) = client.wait([second], timeout_s=20)
    assert ended["gpus"] == [3]
    assert client.job(first)["state"] == "running", "who has a GPU keeps it"


def test_more_jobs_share_a_gpu_once_the_file_lets_them(client: Client, file: Path) -> None:
    save(file, "max_jobs_per_gpu = 1\nallow_gpus = [0]\n")
    is_in_force(client, "max_jobs_per_gpu", "1")
    first = client.submit(["sleep", "600"], gpus=1, gpu_mem_bytes=GIB)
    until(lambda: client.job(first)["state"] == "running", "the first job")
    second = client.submit(["true"], gpus=1, gpu_mem_bytes=GIB)
    waits_because(client, second, "wants 1 GPU with 1G, 0 free")
    save(file, "max_jobs_per_gpu = 2\nallow_gpus = [0]\n")
    (ended,) = client.wait([second], timeout_s=20)
    assert (ended["outcome"], ended["gpus"]) == ("succeeded", [0])
    assert client.job(first)["state"] == "running"


def test_a_file_that_is_wrong_changes_nothing_and_says_so(
    client: Client, daemon: Daemon, file: Path
) -> None:
    save(file, "max_bypass = 3\n")
    is_in_force(client, "max_bypass", "3")
    save(file, "max_bypass = 4\nmax_jobs_per_gpu = many\n")
    until(lambda: events(client, "config_rejected"), "the daemon to tell")
    (event,) = events(client, "config_rejected")
    assert event["cause"].startswith(f"{file}: Invalid value (at line 2")
    note = f"the file was changed and cannot be read: {event['cause']}; "
    note += "the settings before stay in force"
    said = daemon.gpuq("config")
    assert f"max_bypass\t3\t{file}\n" in said.stdout
    assert said.stderr == f"gpuq: {note}\n"
    assert json.loads(daemon.gpuq("config", "--json").stdout)["notes"] == [note]
    assert note in daemon.gpuq("daemon", "status").stdout.splitlines()
    assert "config rejected" in daemon.log.read_text()
    save(file, "max_bypass = 5\n")
    is_in_force(client, "max_bypass", "5")
    assert daemon.gpuq("config").stderr == ""
    file.unlink()
    is_in_force(client, "max_bypass", "10")


def test_what_takes_a_restart_is_told_and_then_done_by_one(
    stopped_daemon: Daemon, file: Path
) -> None:
    daemon = stopped_daemon.start()
    save(file, 'cgroup = "none"\n')
    note = "restart needed: cgroup (now auto, the file says none): gpuq daemon restart"
    until(lambda: note in daemon.gpuq("daemon", "status").stdout, "the note")
    assert daemon.gpuq("config").stderr == f"gpuq: {note}\n"
    daemon.stop()
    daemon.start()
    said = daemon.gpuq("config")
    assert (f"cgroup\tnone\t{file}\n" in said.stdout, said.stderr) == (True, "")


def test_sighup_has_the_file_read_and_nothing_else(
    client: Client, daemon: Daemon, file: Path
) -> None:
    running = client.submit(["sleep", "600"], gpus=1)
    until(lambda: client.job(running)["state"] == "running", "a job")
    save(file, "max_bypass = 3\n")
    os.kill(daemon.pid, signal.SIGHUP)
    is_in_force(client, "max_bypass", "3")
    assert "it got SIGHUP" in daemon.log.read_text()
    assert client.job(running)["state"] == "running"


def test_a_daemon_whose_terminal_is_closed_leaves(stopped_daemon: Daemon) -> None:
    """The kernel says SIGHUP then, too, but nobody is there who could have meant the settings."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", BIN / "gpuqd", "--state-dir", stopped_daemon.state, "--gpus", "none"],
        env=stopped_daemon.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        until(lambda: stopped_daemon.gpuq("ping").returncode == 0, "the daemon")
        process.send_signal(signal.SIGHUP)
        assert stopped_daemon.gpuq("ping").returncode == 0, "its terminal is still there"
        os.close(ours)
        assert process.wait(20) == 0
        assert stopped_daemon.gpuq("ping").returncode == 4
    finally:
        process.kill()
        process.wait()


def test_help_says_what_may_be_set_and_what_sighup_does() -> None:
    ran = subprocess.run([BIN / "gpuqd", "--help"], text=True, capture_output=True, check=True)
    words = " ".join(ran.stdout.split())
    assert "SIGHUP has the file read again at once" in words
    assert "--deny-gpus LIST never give out these GPUs" in words
    assert "--calm-for TIME the time that they cover at least (3s)" in words
