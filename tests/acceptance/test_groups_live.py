"""A sweep watched from outside: the command line and the client tell the same of it, to the end."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import gpuq
from gpuq.client import Client
from tests.conftest import Daemon, until

PACKAGE = str(Path(gpuq.__file__).parent)  # job.py can be imported alone

# It reports, waits for its sign to go on, and fails with a learning rate of 1.
TRAIN = """
import sys, time
from pathlib import Path
sys.path.insert(0, {package!r})
import job
lr = float(sys.argv[1])
job.report(progress=0.5, loss=1 + lr)
while not Path({go!r}).exists():
    time.sleep(0.02)
if lr == 1:
    raise ValueError("lr is too high")
job.report(progress=1.0, loss=lr)
"""


def test_a_sweep_is_counted_ranked_and_exported(daemon: Daemon, tmp_path: Path) -> None:
    go, script = tmp_path / "go", tmp_path / "train.py"
    script.write_text(TRAIN.format(package=PACKAGE, go=str(go)))
    with daemon.client() as client:
        argv = [sys.executable, str(script), "{lr}"]
        grid = {"lr": [1, 0.5, 0.25, 2]}
        client.submit_many([{"argv": argv, "gpus": 1, "grid": grid, "name": "sweep-{lr}"}])
        assert client.group()["total"] == 4
        until(lambda: len(reported(client)) == 4, "the first reports")
        told = client.group(best="loss:min")
        assert told["best"] is not None
        assert told["best"]["value"] == min(reported(client))
        assert told["estimated_end"] is None
        go.touch()
        until(lambda: client.group()["succeeded"] == 3, "the end of the sweep")
        until(lambda: client.group()["failed"] == 1, "the end of the one that fails")
        told = client.group("sweep", best="loss:min", sort="loss")
    said = json.loads(daemon.gpuq("group", "sweep", "--best", "loss:min", "--json").stdout)
    assert said["group"] | {"jobs": said["jobs"]} == told
    assert [job["metrics"]["loss"] for job in told["jobs"]] == [0.25, 0.5, 2.0, 2.0]
    assert [error["what"] for error in told["errors"]] == [
        "ValueError: lr is too high in train.py:11"
    ]
    exported(daemon, tmp_path)


def reported(client: Client) -> list[float]:
    jobs = client.group()["jobs"]
    return [job["metrics"]["loss"] for job in jobs if "loss" in job["metrics"]]


def exported(daemon: Daemon, folder: Path) -> None:
    """Twice, and byte for byte the same."""
    path = folder / "runs.csv"
    contents: list[bytes] = []
    for _ in range(2):
        assert daemon.gpuq("group", "@", "--export", str(path)).returncode == 0
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    rows: list[Any] = list(csv.DictReader(contents[0].decode().splitlines()))
    assert {row["parameters.lr"]: row["metrics.loss"] for row in rows} == {
        "1": "2.0",
        "0.5": "0.5",
        "0.25": "0.25",
        "2": "2.0",
    }
