"""What 32 processes report at once is exact to the last report, whenever the daemon is killed."""

import sys
from pathlib import Path
from typing import Any

from gpuq.client import Client
from gpuq.daemon.linux import processes
from tests.conftest import Daemon, until

PROJECT = Path(__file__).parents[2]
WRITERS, REPORTS, PARTS = 32, 200, 4

JOB = """
import os, sys, time
from gpuq import job

folder, writers, reports, parts = sys.argv[1], *map(int, sys.argv[2:])

def write(name):
    for part in range(parts):
        while not os.path.exists(f"{folder}/go{part}"):
            time.sleep(0.01)
        for number in range(reports // parts):
            job.report({name: part * reports // parts + number + 1})
            if number % 10 == 0:
                job.heartbeat()
        open(f"{folder}/{name}.{part}", "w").close()

for number in range(writers):
    if os.fork() == 0:
        write(f"w{number:02}")
        os._exit(0)
for number in range(writers):
    os.wait()
"""


def test_the_reports_of_32_processes_are_exact_over_kills_of_the_daemon(
    daemon: Daemon, tmp_path: Path
) -> None:
    daemon.environment["PYTHONPATH"] = str(PROJECT)
    (tmp_path / "job.py").write_text(JOB)
    words = [str(tmp_path), str(WRITERS), str(REPORTS), str(PARTS)]

    def begin(part: int) -> None:
        (tmp_path / f"go{part}").touch()

    def has_written(part: int) -> bool:
        return len(list(tmp_path.glob(f"w*.{part}"))) == WRITERS

    ran = daemon.gpuq("submit", "-g", "0", "--", sys.executable, str(tmp_path / "job.py"), *words)
    job = int(ran.stdout)
    begin(0)
    with daemon.client() as client:
        until(lambda: reported(client, job) > 0)
    begin(1)  # while it dies
    daemon.kill()
    begin(2)  # while there is none
    until(lambda: has_written(2))
    daemon.start()
    with daemon.client() as client:
        pid = client.job(job)["pid"]
        until(lambda: reported(client, job) == WRITERS * REPORTS // PARTS * 3)
        report = Path(client.job(job)["log"]).with_name("report")
    copied = report.read_bytes()
    with report.open("ab") as file:
        file.write(copied)  # a duplicate changes nothing
    daemon.kill()
    begin(3)
    until(lambda: processes.identity(pid) is None)
    daemon.start()
    with daemon.client() as client:
        (ended,) = client.wait([job], timeout_s=30)
        view = client.job(job)
    assert ended["outcome"] == "succeeded"
    assert view["report_lines"] == WRITERS * REPORTS
    assert view["metrics"] == {f"w{number:02}": REPORTS for number in range(WRITERS)}
    assert view["report_trouble"] is None


def reported(client: Client, job: int) -> int:
    view: dict[str, Any] = client.job(job)
    return int(view["report_lines"])
