"""Runners live longer than daemons, and than the gpuq that is installed: two versions of it meet."""

import os
import shutil
import signal
from pathlib import Path

import pytest

import gpuq
from gpuq.daemon.linux import processes
from tests.acceptance.faults.conftest import FaultyDaemon, MakeDaemon
from tests.conftest import until

# What a second version would do: it says more everywhere, and drops nothing.
NEWER = {
    "attempt/runner.py": """
VERSION = 2

def _more(message):
    return {
        name: said | {"newer": [1, 2]} if isinstance(said, dict) else said
        for name, said in message.items()
    } | {"newest": True}

gate.send = lambda line, message, send=gate.send: send(line, _more(message))
record.write = lambda folder, began, told, write=record.write: write(folder, began, _more(told))
record._note = lambda began, text, note=record._note: note(began, text.replace("\\n", " more\\n"))
""",
    "order.py": """
_compose = compose

def compose(*words, **named):
    return _compose(*words, **named) | {"newer": {"a": 1}}
""",
}


class Installed:
    """A gpuq of one's own, which can be replaced under a running daemon."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.install(newer=False)

    def install(self, *, newer: bool) -> None:
        """In place of the one that is there, in a moment."""
        new, place = self._folder / "new", self._folder / "gpuq"
        sources = Path(gpuq.__file__).parent
        shutil.copytree(sources, new, ignore=shutil.ignore_patterns("__pycache__"))
        for name, more in NEWER.items() if newer else ():
            with (new / "daemon" / name).open("a") as file:
                file.write(more)
        if place.exists():
            place.rename(self._folder / f"old{len(os.listdir(self._folder))}")
        new.rename(place)

    def serve(self, daemon: FaultyDaemon) -> None:
        daemon.own = {"PYTHONPATH": str(self._folder)}


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path / "installed")


@pytest.fixture
def daemon(make: MakeDaemon, installed: Installed) -> FaultyDaemon:
    daemon = make(start=False)
    installed.serve(daemon)
    return daemon


@pytest.mark.parametrize("newer_daemon", [True, False])
def test_a_runner_of_another_version_is_adopted(
    daemon: FaultyDaemon, installed: Installed, newer_daemon: bool
) -> None:
    """By a newer daemon, as after an upgrade, and by an older one, where that was taken back."""
    installed.install(newer=not newer_daemon)
    daemon.start()
    jobs = _submit_all_kinds(daemon)
    daemon.kill()
    installed.install(newer=newer_daemon)
    daemon.start()
    _end_as_they_should(daemon, jobs)


@pytest.mark.parametrize("newer_runners", [True, False])
def test_a_launcher_of_another_version_forks_runners_that_understand_and_are_understood(
    daemon: FaultyDaemon, installed: Installed, newer_runners: bool
) -> None:
    """As where gpuq is replaced while a daemon runs, and its launcher dies."""
    installed.install(newer=not newer_runners)
    daemon.start()
    with daemon.client() as client:
        assert client.gpus()["gpus"], "the probe has begun, of the version that was there"
    installed.install(newer=newer_runners)
    launcher = daemon.one("launcher")
    os.kill(daemon.one("runner"), signal.SIGKILL)
    os.kill(launcher, signal.SIGKILL)
    until(lambda: processes.identity(launcher) is None, "its end")
    jobs = _submit_all_kinds(daemon)
    with daemon.database() as db:
        versions = db.execute("select distinct runner_version from attempts").fetchall()
    assert versions == [(2 if newer_runners else 1,)]
    _end_as_they_should(daemon, jobs)


def _submit_all_kinds(daemon: FaultyDaemon) -> list[int]:
    """One that exits, one that leaves something behind, one that is to be killed."""
    go = f"while [ ! -e {daemon.folder}/go ]; do sleep 0.02; done"
    deaf = "(trap '' TERM; sleep 300) &"
    with daemon.client() as client:
        jobs = [
            client.submit(**daemon.job(f"{go}; exit 3", gpus=1)),
            client.submit(**daemon.job(f"{deaf} {go}; exit 4", gpus=1, grace_s=0.3)),
            client.submit(**daemon.job("trap 'exit 5' TERM; while :; do sleep 0.02; done")),
        ]
    for job in jobs:
        daemon.at_work(job)
    return jobs


def _end_as_they_should(daemon: FaultyDaemon, jobs: list[int]) -> None:
    (daemon.folder / "go").touch()
    with daemon.client() as client:
        client.kill([jobs[2]], grace_s=20)
        ended = client.wait(jobs, timeout_s=10)
        assert [job["exit_code"] for job in ended] == [3, 4, 5]
        assert [job["outcome"] for job in ended] == ["failed", "failed", "cancelled"]
        assert "it left" in ended[1]["reason"]
        after = client.submit(**daemon.job("exit 6", gpus=2))
        assert client.wait([after], timeout_s=10)[0]["exit_code"] == 6
