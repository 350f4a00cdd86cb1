"""The Python API on a true daemon, and seeds that hold whatever runs beside."""

import asyncio
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gpuq import Client
from tests.conftest import Daemon, until

# Ends once somebody has made the file for it.
GATED = 'until [ -e {folder}/go-"$0" ]; do sleep 0.02; done; echo "$0 is done"; exit "$0"'


def submit_gated(client: Client, folder: Path, number: int) -> list[int]:
    script = GATED.format(folder=folder)
    asked = [{"argv": ["sh", "-c", script, str(n)], "gpus": 1} for n in range(number)]
    return list(client.submit_many(asked))


def test_jobs_come_as_they_end(daemon: Daemon, tmp_path: Path) -> None:
    order = [2, 0, 3, 1]
    with daemon.client() as client:
        jobs = submit_gated(client, tmp_path, 4)
        gates = iter(order)
        told = []
        (tmp_path / f"go-{next(gates)}").touch()
        for job in client.as_completed(jobs, timeout_s=60):
            told.append((job["id"], job["exit_code"], client.logs(job["id"])))
            (tmp_path / f"go-{next(gates, 'on')}").touch()
        assert told == [(jobs[n], n, f"{n} is done\n") for n in order]
        assert [job["id"] for job in client.as_completed(jobs)] == [jobs[n] for n in order]


def test_a_job_is_watched_from_the_queue_to_its_end(daemon: Daemon, tmp_path: Path) -> None:
    with daemon.client() as client:
        (job,) = submit_gated(client, tmp_path, 1)
        seen = []
        for one in client.watch(job):
            seen.append(one["state"])
            if one["state"] == "running":
                (tmp_path / "go-0").touch()
        assert list(dict.fromkeys(seen))[-2:] == ["running", "ended"]


def test_a_notebook_waits_in_threads_and_its_loop_goes_on(daemon: Daemon, tmp_path: Path) -> None:
    async def cell(client: Client) -> list[Any]:
        jobs = await asyncio.to_thread(submit_gated, client, tmp_path, 3)
        waiting = [asyncio.create_task(asyncio.to_thread(client.wait, job)) for job in jobs]
        for n in reversed(range(3)):
            assert not waiting[n].done()
            (tmp_path / f"go-{n}").touch()
            await waiting[n]
        return [task.result()[0]["exit_code"] for task in waiting]

    with daemon.client() as client:
        assert asyncio.run(cell(client)) == [0, 1, 2]


def test_a_group_is_looked_at_and_killed(daemon: Daemon, tmp_path: Path) -> None:
    with daemon.client() as client:
        argv = ["sh", "-c", "sleep 600", "{lr}"]
        first = client.submit(argv, gpus=1, grid={"lr": [0.1, 0.01]}, name="sweep")
        until(lambda: client.group(f"g{first}")["running"] == 2, "both to run")
        (folded,) = client.groups()
        assert (folded["jobs"], folded["count"]) == (f"{first}-{first + 1}", 2)
        rows = client.group(first)["jobs"]
        assert [row["parameters"] for row in rows] == [{"lr": "0.1"}, {"lr": "0.01"}]
        assert {done["done"] for done in client.kill("@", grace_s=0)} == {"killing"}
        assert {job["outcome"] for job in client.as_completed("@")} == {"cancelled"}


# ── seeds ──

TRIAL = """
import os
import sys
import warnings

warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
import torch

from gpuq import job

torch.set_num_threads(1)
job.seed()
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Dropout(0.2), torch.nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(20):
    inputs = torch.randn(64, 8)
    loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
with open(os.path.join(job.output_dir, "weights"), "wb") as file:
    for weights in model.parameters():
        file.write(bytes(weights.detach().flatten().view(torch.uint8).tolist()))
sys.exit(sys.argv[1] == os.environ["GPUQ_ARRAY_INDEX"] and job.attempt() == 1)
"""


def weights_of(jobs: Sequence[int], daemon: Daemon, output: str = "output") -> list[str]:
    """Of each the weights that it ended with, in short: bit for bit the same or not."""
    files = [daemon.state / "jobs" / str(job) / output / "weights" for job in jobs]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def test_a_trial_is_the_same_at_any_concurrency_and_whenever_it_is_run_again(
    daemon: Daemon, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "trial.py").write_text(TRIAL)
    asked = {"gpus": 1, "seed": 7, "cwd": str(tmp_path)}

    def submit(array: str, failing: str, **more: Any) -> range:
        argv = [sys.executable, "trial.py", failing]
        return client.submit_many([{"argv": argv, "array": array, **asked, **more}])

    with daemon.client() as client:
        together = submit("0-3", "none")
        alone = submit("1-2%1", "2", retries=1, backoff="1s")
        ended = client.wait([*together, *alone], timeout_s=240)
        assert [job["outcome"] for job in ended] == ["succeeded"] * 6
        assert [job["attempt"] for job in ended] == [1] * 5 + [2]
    at_four = weights_of(together, daemon)
    assert len(set(at_four)) == 4, "each has a seed of its own"
    assert weights_of(alone, daemon) == at_four[1:3]
    assert weights_of(alone[1:], daemon, "1/output") == at_four[2:3], "it failed with the same"
