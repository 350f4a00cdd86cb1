"""A GPU that is not well, or that somebody works on, from the driver's word to the good test: as people
see it, with a true daemon on simulated GPUs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Daemon, until

STORY = """
[[gpu]]
count = 2
memory = "24G"

[[xid]]
gpus = 1
at = { file = "xid-48" }
codes = 48

[[xid]]
gpus = 0
at = { file = "xid-31" }
codes = 31

[[fault]]
gpus = 1
kind = "lost"
from = { file = "off-the-bus" }

[[test]]
tflops = 51.3
memory_gb_s = 680

[[test]]
gpus = 1
from = { file = "broken" }
fails = "1 of 512 products was wrong"
"""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Daemon]:
    """Two GPUs whose story is driven by files in the test's folder."""
    (tmp_path / "story.toml").write_text(STORY)
    box = Daemon(tmp_path, f"scenario:{tmp_path / 'story.toml'}").start()
    yield box
    box.end()


def seen(daemon: Daemon, index: int) -> dict[str, Any]:
    return json.loads(daemon.gpuq("gpus", "--json").stdout)["gpus"][index]  # type: ignore[no-any-return]


def is_now(daemon: Daemon, index: int, state: str) -> dict[str, Any]:
    with daemon.client() as client:

        def there() -> Any:
            gpu = client.gpus()["gpus"][index]
            return gpu if gpu["state"] == state else None

        found: dict[str, Any] = until(there, f"GPU {index} to be {state}")
        return found


def test_a_drained_gpu_gets_nothing_until_somebody_resumes_it(daemon: Daemon) -> None:
    with daemon.client() as client:
        runs = client.submit(["sleep", "600"], gpus=1)
        client.call("wait", refs=[str(runs)], started=True, timeout_s=30)
        said = daemon.gpuq("--color", "always", "gpus", "drain", "0,3", "-m", "new fan").stdout
        assert said.splitlines() == [
            f"GPU 0 is drained: new fan; 1 job on it ({runs}) goes on",
            "GPU 3 is drained: new fan",
        ]
        jobs = client.submit_many([{"argv": ["true"], "gpus": 1} for _ in range(6)])
        assert {gpu for job in client.wait(jobs) for gpu in job["gpus"]} == {1, 2}
        waits = client.submit(["true"], gpus=3)
        daemon.kill()
        daemon.start()
        reason = "GPUs 0,3 drained by"
        until(
            lambda: reason in daemon.gpuq("why", str(waits)).stdout, "a reason, once they are read"
        )
        assert seen(daemon, 3)["drained"]["reason"] == "new fan"
        assert client.job(runs)["state"] == "running"
        assert daemon.gpuq("gpus", "resume", "3").stdout.endswith("\tresumed\n")
        assert client.wait([waits])[0]["gpus"] == [1, 2, 3]
        client.kill([runs], grace_s=0)
    told = [line.split("\t")[2] for line in daemon.gpuq("events").stdout.splitlines()]
    assert [kind for kind in told if kind.startswith("gpu_")] == [
        "gpu_drained",
        "gpu_drained",
        "gpu_undrained",
    ]


def test_a_gpu_that_is_not_well_is_set_aside_tested_and_comes_back(
    box: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "broken").touch()
    (tmp_path / "xid-48").touch()
    set_aside = is_now(box, 1, "quarantined")
    assert set_aside["reason"] == (
        "set aside: the driver told of XID 48: an error in its memory that could not be corrected"
    )
    with box.client() as client:
        jobs = client.submit_many([{"argv": ["true"], "gpus": 1} for _ in range(4)])
        assert [job["gpus"] for job in client.wait(jobs)] == [[0]] * 4, "they finish elsewhere"
    box.kill()
    box.start()
    assert seen(box, 1)["quarantine"] == set_aside["quarantine"]
    bad = box.gpuq("--color", "always", "gpus", "resume", "1")
    assert bad.returncode == 1
    assert "1 of 512 products was wrong" in bad.stdout
    assert is_now(box, 1, "quarantined")["test"]["verdict"] == "bad"
    assert "It is tested again in" in box.gpuq("why", "gpu:1").stdout
    (tmp_path / "broken").unlink()
    good = box.gpuq("gpus", "resume", "1")
    assert good.returncode == 0, good.stderr
    assert good.stdout.splitlines()[1].split("\t")[3:6] == ["good", "51.3", "680.0"]
    assert box.gpuq("run", "-g", "2", "true").returncode == 0


def test_a_gpu_that_was_lost_is_given_out_only_at_a_persons_word(
    box: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "off-the-bus").touch()
    is_now(box, 1, "lost")
    (tmp_path / "off-the-bus").unlink()
    assert "fallen off the bus" in is_now(box, 1, "quarantined")["reason"]
    assert "lasts until the machine is restarted" in box.gpuq("why", "gpu:1").stdout
    tested = box.gpuq("doctor", "--deep")
    assert tested.returncode == 0
    assert is_now(box, 1, "quarantined")["test"]["verdict"] == "good", "and that is not enough"
    assert box.gpuq("gpus", "resume", "1", "--untested").stdout.endswith("\treadmitted\n")
    is_now(box, 1, "free")


def test_an_error_of_a_jobs_own_is_told_with_its_end_and_with_nothing_else(
    box: Daemon, tmp_path: Path
) -> None:
    with box.client() as client:
        script = f"while ! [ -e {tmp_path}/go ]; do sleep 0.05; done; exit 3"
        job = client.submit(["sh", "-c", script], gpus=2)
        client.call("wait", refs=[str(job)], started=True, timeout_s=30)
        (tmp_path / "xid-31").touch()
        # Somebody looks, so that the GPUs are read often.
        until(lambda: client.gpus() and "xid" in box.gpuq("events", str(job)).stdout, "the XID")
        (tmp_path / "go").touch()
        (ended,) = client.wait([job])
    assert ended["reason"] == (
        "exit code 3; the driver told of XID 31 on GPU 0 meanwhile: its own memory access fault"
    )
    assert seen(box, 0)["quarantine"] is None


def test_failing_programs_get_their_gpu_tested_and_never_set_aside(box: Daemon) -> None:
    with box.client() as client:
        jobs = client.submit_many([{"argv": ["false"], "gpus": 2} for _ in range(7)])
        assert len(client.wait(jobs)) == 7
    told = [line.split("\t") for line in box.gpuq("events").stdout.splitlines()]
    assert [line[2] for line in told if line[2].startswith("gpu_")] == ["gpu_tested"] * 2
    assert seen(box, 0)["state"] == seen(box, 1)["state"] == "free"


def test_a_gpu_in_use_is_left_alone_by_doctor(daemon: Daemon) -> None:
    with daemon.client() as client:
        job = client.submit(["sleep", "600"], gpus=3)
        client.call("wait", refs=[str(job)], started=True, timeout_s=30)
        lines = daemon.gpuq("doctor", "--deep").stdout.splitlines()
        tests = [line.split("\t")[3:] for line in lines if "\tsimulated\t" in line]
        assert [test[0] for test in tests] == ["untested"] * 3 + ["good"]
        assert tests[0][-1] == f"job {job} has it"
        client.kill([job], grace_s=0)
