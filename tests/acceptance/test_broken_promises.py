"""What once went wrong, each told as the promise that it broke."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import BIN, Daemon, until


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_job_that_ended_in_time_did_not_time_out_while_no_daemon_was_there(
    stopped_daemon: Daemon, tmp_path: Path, how: str
) -> None:
    daemon = stopped_daemon.start()
    with daemon.client() as client:
        script = ["sh", "-c", f"while ! [ -e {tmp_path}/go ]; do sleep 0.05; done; exit 3"]
        one = client.submit(script, gpus=0, time_limit_s=1.5)
        two = client.submit(script, gpus=0, heartbeat_s=1.5)
        until(lambda: all(client.job(job)["state"] == "running" for job in (one, two)))
    daemon.kill() if how == "kill" else daemon.stop()
    (tmp_path / "go").touch()
    time.sleep(2.0)  # until their time would have been up
    with daemon.start().client() as client:
        ended = client.wait([one, two], timeout_s=20)
        assert [(job["outcome"], job["exit_code"]) for job in ended] == [("failed", 3)] * 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_what_a_job_has_mounted_in_its_directories_stays(daemon: Daemon, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").write_text("mine")
    bind = f'mkdir "$1/m" && mount --bind {precious} "$1/m" && echo "$1"'
    with daemon.client() as client:
        tmp = client.submit(["sh", "-c", bind.replace("$1", "$TMPDIR")], gpus=0)
        out = client.submit(["sh", "-c", bind.replace("$1", "$GPUQ_OUTPUT_DIR")], gpus=0)
        jobs = client.wait([tmp, out], timeout_s=20)
        folders = [Path(job["log"]).read_text().strip() for job in jobs]
        try:
            assert [job["outcome"] for job in jobs] == ["succeeded"] * 2
            daemon.gpuq("prune", str(out), "--outputs", "-y", timeout=10)
            assert (precious / "data").read_text() == "mine"
        finally:
            for folder in folders:
                subprocess.run(["umount", f"{folder}/m"], check=True)
                subprocess.run(["rm", "-r", folder], check=True)


@pytest.mark.parametrize("name", ["lock", "gpuq.db-wal", "gpuq.db-shm", "gpuq.db-journal"])
def test_a_backup_never_takes_the_place_of_what_the_daemon_keeps(daemon: Daemon, name: str) -> None:
    file = daemon.state / name
    before = file.stat().st_ino if file.exists() else None
    said = daemon.gpuq("daemon", "backup", "--force", str(file))
    assert said.returncode == 2, said
    assert (file.stat().st_ino if file.exists() else None) == before


def test_term_is_sent_once_however_often_the_daemon_is_replaced(
    stopped_daemon: Daemon, tmp_path: Path
) -> None:
    daemon = stopped_daemon.start()
    counts = f"""trap 'echo term >> {tmp_path}/terms' TERM; touch {tmp_path}/up
    while :; do sleep 0.05; done"""
    with daemon.client() as client:
        job = client.submit(["sh", "-c", counts], gpus=0)
        until((tmp_path / "up").exists)
        client.kill(job, grace_s=60)
        until((tmp_path / "terms").exists)
    daemon.stop()
    daemon.start().kill()
    with daemon.start().client() as client:
        assert client.job(job)["substate"] == "stopping"
        time.sleep(0.3)
        assert (tmp_path / "terms").read_text() == "term\n"
        client.kill(job, grace_s=0)


def test_which_gpus_there_are_is_not_forgotten_by_a_crash(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon.start()
    daemon.kill()
    started = subprocess.Popen(
        [BIN / "gpuqd", "--state-dir", daemon.state],
        env=daemon.environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: daemon.gpuq("ping").returncode == 0)
        assert daemon.gpuq("config").stdout.count("sim:4x24G\tas it was last started") == 1
    finally:
        started.terminate()
        started.wait()
