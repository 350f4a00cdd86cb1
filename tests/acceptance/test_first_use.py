"""The first minutes of a person with gpuq: no daemon yet, no settings, a home directory."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import BIN, Daemon, clean_environment, until


class Person(Daemon):
    """Somebody with a home and nothing in it; the daemon is whatever `gpuq` starts by itself."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.state = home / ".local" / "state" / "gpuq"
        self.environment = clean_environment(HOME=str(home), GPUQ_GPUS=self.gpus)

    def end(self) -> None:
        self.gpuq("kill", "--now", "--mine", "-y")
        self.gpuq("daemon", "stop")
        super().end()


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    person = Person(tmp_path)
    yield person
    person.end()


def test_the_first_submit_starts_a_daemon_and_says_so(person: Person) -> None:
    first = person.gpuq("submit", "sh", "-c", "exit 3")
    assert first.stdout == "1\n"
    assert first.stderr.startswith("gpuq: started your own daemon (pid ")
    assert first.stderr.count("\n") == 1
    assert str(person.state) in first.stderr
    second = person.gpuq("submit", "true")
    assert (second.stdout, second.stderr) == ("2\n", "")
    assert person.gpuq("wait", "1", "2").returncode == 3


def test_twenty_first_submits_at_once_start_one_daemon(person: Person) -> None:
    submits = [
        subprocess.Popen(
            [BIN / "gpuq", "submit", "-g", "0", "true"],
            env=person.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(20)
    ]
    said = [submit.communicate(timeout=60) for submit in submits]
    assert [submit.returncode for submit in submits] == [0] * 20, said
    assert sorted(int(out) for out, _ in said) == list(range(1, 21))
    assert sum("started your own daemon" in err for _, err in said) == 1


def test_autostart_can_be_turned_off(person: Person) -> None:
    person.environment["GPUQ_AUTOSTART"] = "0"
    refused = person.gpuq("submit", "true")
    assert refused.returncode == 4
    assert "gpuq daemon start" in refused.stderr
    assert not person.state.exists()


def test_only_bringing_work_starts_a_daemon(person: Person) -> None:
    assert person.gpuq("status").returncode == 4
    assert not person.state.exists()


def test_a_job_can_ask_its_own_daemon_and_starts_none(person: Person, tmp_path: Path) -> None:
    ran = person.gpuq("run", "--", BIN / "gpuq", "submit", "-g", "0", "true")
    assert ran.stdout == "2\n"
    elsewhere = f"{BIN}/gpuq --state-dir {tmp_path}/other submit true"
    assert person.gpuq("run", "--shell", elsewhere).returncode == 4


def test_a_config_file_is_found_by_daemon_and_client_alike(person: Person, tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "gpuq"
    folder.mkdir(parents=True)
    person.state = tmp_path / "elsewhere"
    (folder / "gpuq.toml").write_text(f'state_dir = "{person.state}"\ngpus = "sim:2x80G"\n')
    del person.environment["GPUQ_GPUS"]
    assert person.gpuq("run", "true").returncode == 0
    assert len(json.loads(person.gpuq("gpus", "--json").stdout)["gpus"]) == 2
    settings = person.gpuq("config").stdout
    assert f"gpus\tsim:2x80G\t{folder}/gpuq.toml" in settings.splitlines()


def test_an_unknown_setting_stops_the_daemon_with_its_name(person: Person, tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "gpuq"
    folder.mkdir(parents=True)
    (folder / "gpuq.toml").write_text("cpu_slot = 3\n")
    refused = person.gpuq("submit", "true")
    assert refused.returncode != 0
    assert "cpu_slots" in refused.stderr
    (folder / "gpuq.toml").unlink()


def test_stopping_the_daemon_leaves_jobs_and_queue(person: Person) -> None:
    person.gpuq("submit", "-g", "4", "sleep", "300")
    person.gpuq("submit", "-g", "4", "true")
    until(lambda: "running" in person.gpuq("status", "1").stdout)
    assert person.gpuq("daemon", "stop").returncode == 0
    assert any("sleep" in words for _, words in person.left())
    assert person.gpuq("daemon", "start").returncode == 0
    states = [line.split("\t")[1] for line in person.gpuq("status").stdout.splitlines()]
    assert states == ["running", "queued"]


def test_ping_tells_which_daemon_answers_and_why_it_was_asked(
    person: Person, tmp_path: Path
) -> None:
    other = Daemon(tmp_path / "other", "sim:1x80G").start()
    try:
        person.gpuq("daemon", "start")
        ours = person.gpuq("ping").stdout
        theirs = person.gpuq("--state-dir", str(other.state), "ping").stdout
        assert f"{person.state}/gpuq.sock (from your own daemon's default place)" in ours
        assert f"{other.state}/gpuq.sock (from --state-dir)" in theirs
        assert str(other.state / "gpuq.db") in theirs
        assert f"(pid {other.pid})" in theirs
    finally:
        other.end()


def test_restarting_keeps_the_gpus_it_was_started_with(person: Person) -> None:
    del person.environment["GPUQ_GPUS"]
    person.gpuq("daemon", "start", "--gpus", "sim:3x24G")
    differs = person.gpuq("daemon", "start", "--gpus", "sim:1x80G")
    assert differs.returncode == 1
    assert "gpuq daemon restart --gpus sim:1x80G" in differs.stderr
    assert person.gpuq("daemon", "restart").returncode == 0
    assert len(json.loads(person.gpuq("gpus", "--json").stdout)["gpus"]) == 3
