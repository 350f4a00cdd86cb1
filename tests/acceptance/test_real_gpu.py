"""All of it against a GPU that is really there. Elsewhere nothing of this runs, and it says so.

    .venv/bin/pytest tests/acceptance/test_real_gpu.py -s

It needs an NVIDIA GPU that nobody uses and, in this environment, a torch with CUDA. What was seen, and
what never was, stands in docs/gpu-checks.md.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Daemon, until

MIB, GIB = 2**20, 2**30
HAS_CUDA = """
import torch
raise SystemExit(not torch.cuda.is_available())
"""


def has_gpu() -> bool:
    """Asked of another process: whoever asks CUDA gets a context."""
    if not Path("/dev/nvidiactl").exists():
        return False
    asked = [sys.executable, "-c", HAS_CUDA]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(
    not has_gpu(), reason="NOT TESTED: no GPU with CUDA is at hand (see docs/gpu-checks.md)"
)

SEES = """
import json, torch
gpu = torch.cuda.get_device_properties(0)
print(json.dumps({"uuid": "GPU-" + str(gpu.uuid), "count": torch.cuda.device_count()}))
"""
HOLDS = """
import sys, time, torch
held = torch.empty(int(sys.argv[1]) * 2**20, dtype=torch.uint8, device="cuda")
held.fill_(1)
torch.cuda.synchronize()
print("holds", flush=True)
time.sleep(600)
"""
ASKS_TOO_MUCH = """
import torch
torch.empty(2**50, dtype=torch.uint8, device="cuda")
"""
COMPUTES = """
import time, torch
a = torch.rand(4096, 4096, device="cuda")
until = time.monotonic() + 12
while time.monotonic() < until:
    a = (a @ a).clamp(0, 1)
    torch.cuda.synchronize()
"""


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, "nvml").start()
    until(lambda: first(daemon)["state"] == "free", "the first GPU to be free")
    yield daemon
    daemon.end()


def first(daemon: Daemon) -> dict[str, Any]:
    with daemon.client() as client:
        return dict(client.gpus()["gpus"][0])


def job(daemon: Daemon, id: int) -> dict[str, Any]:
    with daemon.client() as client:
        return client.job(id)


def python(code: str, *words: str) -> list[str]:
    return [sys.executable, "-c", code, *words]


def test_gpuq_names_the_gpus_as_nvidia_smi_does(real: Daemon) -> None:
    query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    with real.client() as client:
        assert sorted(gpu["uuid"] for gpu in client.gpus()["gpus"]) == sorted(listed)


@pytest.mark.parametrize("visible", ["auto", "uuid", "index"])
def test_torch_sees_the_gpu_that_the_job_was_given_and_no_other(real: Daemon, visible: str) -> None:
    with real.client() as client:
        ended = client.wait([client.submit(python(SEES), visible=visible)], timeout_s=120)[0]
    assert ended["outcome"] == "succeeded", ended["reason"]
    seen = json.loads(Path(ended["log"]).read_text())
    assert seen == {"uuid": ended["gpu_uuids"][0], "count": 1}


def test_two_torch_jobs_share_the_gpu_and_what_they_use_is_measured(real: Daemon) -> None:
    with real.client() as client:
        pair = [
            client.submit(python(HOLDS, "1024"), gpu_mem_bytes=4 * GIB, gpu_ids=["0"])
            for _ in range(2)
        ]
        until(lambda: len(first(real)["processes"]) == 2, "both on the GPU", 120)
        assert {process["job"] for process in first(real)["processes"]} == set(pair)
        time.sleep(6)  # a reading of the processes every five seconds
        client.kill(pair, grace_s=0)
        for ended in client.wait(pair, timeout_s=60):
            print("peak of a job that holds 1G:", ended["gpu_peak_bytes"] / MIB, "MiB")
            assert 1024 * MIB <= ended["gpu_peak_bytes"] <= 4 * GIB


def test_a_sharing_torch_job_is_held_to_what_it_asked_for(real: Daemon) -> None:
    with real.client() as client:
        greedy = client.submit(python(HOLDS, "6000"), gpu_mem_bytes=4 * GIB)
        ended = client.wait([greedy], timeout_s=120)[0]
    assert ended["outcome"] == "out_of_memory", ended["reason"]


def test_a_foreign_torch_process_keeps_an_exclusive_job_away(real: Daemon) -> None:
    stranger = subprocess.Popen(python(HOLDS, "512"), stdout=subprocess.PIPE, text=True)
    try:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "holds\n"
        until(lambda: first(real)["state"] == "foreign", "the stranger to be seen")
        with real.client() as client:
            waiting = client.submit(["true"], gpu_ids=["0"])
            assert f"{stranger.pid}" in until(lambda: job(real, waiting)["reason"], "a reason")
            assert job(real, waiting)["state"] == "queued"
            stranger.kill()
            left = time.monotonic()
            client.wait([waiting], timeout_s=60)
            print("started", round(time.monotonic() - left, 1), "s after the stranger had left")
    finally:
        stranger.kill()
        stranger.wait()


def test_want_of_gpu_memory_is_an_outcome_of_its_own(real: Daemon) -> None:
    with real.client() as client:
        ended = client.wait([client.submit(python(ASKS_TOO_MUCH))], timeout_s=120)[0]
    assert ended["outcome"] == "out_of_memory"
    assert "out of GPU memory" in ended["reason"]


def test_memory_comes_back_soon_after_a_kill_and_the_next_job_gets_the_gpu(real: Daemon) -> None:
    with real.client() as client:
        held = client.submit(python(HOLDS, "4096"), gpu_ids=["0"])
        until(lambda: "holds" in Path(job(real, held)["log"]).read_text(), "the memory", 120)
        client.kill([held], grace_s=0)
        client.wait([held], timeout_s=60)
        ended = time.monotonic()
        client.wait([client.submit(["true"], gpu_ids=["0"])], timeout_s=60)
        print("the next job had ended", round(time.monotonic() - ended, 2), "s after the kill")
    assert first(real)["state"] != "dirty"


def test_what_a_job_computes_is_measured(real: Daemon) -> None:
    with real.client() as client:
        ended = client.wait([client.submit(python(COMPUTES))], timeout_s=180)[0]
    print({name: ended[name] for name in ("gpu_util_mean", "gpu_util_peak", "gpu_energy_j")})
    assert ended["gpu_util_peak"] > 50
    assert ended["gpu_energy_j"] > 0


def test_the_deep_test_finds_an_idle_gpu_well(real: Daemon) -> None:
    tested = real.gpuq("doctor", "--deep", timeout=300)
    print(tested.stdout)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_what_each_call_of_nvml_costs() -> None:
    code = (
        "import json; from gpuq.daemon.gpus.nvml.measure import measure; "
        "print(json.dumps(measure(), indent=1))"
    )
    told = subprocess.run(python(code), capture_output=True, text=True, check=True).stdout
    print(told)
    assert json.loads(told)["nvmlDeviceGetMemoryInfo"] is not None
