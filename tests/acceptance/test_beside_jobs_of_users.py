"""What a daemon that is root does beside a job: as the job's user, and with nothing of root's."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE_S, until
from tests.many_users import ALICE, ManyUsers, many_users
from tests.stub_engine import StubEngine

WHO = 'echo "$(id -u) $(id -g) $(id -G | tr " " ,) $PWD $HOME $(umask)" '


@pytest.fixture(scope="module")
def box() -> Iterator[ManyUsers]:
    with many_users() as box:
        box.start()
        yield box


def ended(box: ManyUsers, job: int) -> dict[str, Any]:
    job_: dict[str, Any] = box.client("root").wait([job], timeout_s=PATIENCE_S)[0]
    return job_


def running(box: ManyUsers, job: int) -> int:
    """Its pid, once it runs."""
    root = box.client("root")
    until(lambda: root.job(job)["state"] == "running", f"job {job} to run")
    return int(root.job(job)["pid"])


def engine_of_alice(box: ManyUsers) -> StubEngine:
    engine = StubEngine(box.home("alice"))
    for folder, _, files in os.walk(engine.folder):
        for name in (folder, *(os.path.join(folder, file) for file in files)):
            os.chown(name, ALICE, ALICE)
    return engine


def test_an_on_kill_command_is_the_users_as_the_job_was(box: ManyUsers) -> None:
    home = box.home("alice")
    script = f"{WHO} >{home}/main; exec sleep 600"
    command = f"{WHO} >{home}/on_kill; cat /proc/self/oom_score_adj >{home}/score"
    job = box.client("alice").submit(
        ["/bin/sh", "-c", script], gpus=0, on_kill=command, cwd=str(home), umask=0o027
    )
    until(lambda: (home / "main").exists() and (home / "main").read_text(), "the job")
    box.client("alice").kill([job])
    assert ended(box, job)["outcome"] == "cancelled"
    assert (home / "on_kill").read_text() == (home / "main").read_text()
    assert (home / "on_kill").read_text().startswith(f"{ALICE} ")
    assert int((home / "score").read_text()) >= 0


@pytest.mark.parametrize("whom", ["job", "runner"])
def test_a_container_is_removed_by_its_user(box: ManyUsers, whom: str) -> None:
    engine = engine_of_alice(box) if whom == "job" else StubEngine.again(box.home("alice"))
    job = box.client("alice").submit(
        ["docker", "run", "image", "deaf"], gpus=0, env={"PATH": engine.path}, grace_s=0.2
    )
    pid = running(box, job)
    until(lambda: engine.is_ready, "the container")
    if whom == "job":
        box.client("alice").kill([job])
    else:
        os.kill(runner_of(pid), signal.SIGKILL)
    row = ended(box, job)
    assert "container" not in row["reason"]
    assert not engine.is_running
    owners = {path.stat().st_uid for path in engine.folder.iterdir()}
    assert owners == {ALICE}


def runner_of(pid: int) -> int:
    """Whose child the main process of a job is."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
