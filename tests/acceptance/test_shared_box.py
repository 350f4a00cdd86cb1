"""A box that gpuq does not have for itself: strangers on its GPUs, many jobs on one of them, GPUs kept
for others. The GPUs are simulated, and what happens on them is told by files."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Daemon, until

# Eight GPUs at 94 to 97 %, each for as long as a file says so.
BUSY_BOX = """
[[gpu]]
count = 8
model = "NVIDIA H100 80GB HBM3"
memory = "80G"
reserved = "400M"
idle_memory = "4M"
""" + "".join(
    f"""
[[process]]
gpus = {index}
from = {{ file = "busy-{index}" }}
user = "carol"
command = "python"
unit = "docker 8f1e5ca07d2{index}"
memory = "76G"
utilization = {94 + index % 4}
"""
    for index in range(8)
)
SHORT = "while :; do sleep 1; done"

Start = Callable[..., Daemon]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Start]:
    """Starts a daemon on the GPUs of a story."""
    started: list[Daemon] = []

    def start(story: str, *flags: str) -> Daemon:
        path = tmp_path / "box.toml"
        path.write_text(story)
        started.append(Daemon(tmp_path, f"scenario:{path}").start(*flags))
        return started[-1]

    yield start
    for daemon in started:
        daemon.end()


def gpus(daemon: Daemon) -> list[dict[str, Any]]:
    with daemon.client() as client:
        return list(client.gpus()["gpus"])


def states(daemon: Daemon) -> Counter[str]:
    return Counter(gpu["state"] for gpu in gpus(daemon))


def jobs(daemon: Daemon, *ids: int) -> list[dict[str, Any]]:
    with daemon.client() as client:
        return client.jobs(ids)


def test_no_job_lands_on_a_gpu_that_somebody_uses_and_each_starts_soon_after_its_release(
    box: Start, tmp_path: Path
) -> None:
    for index in range(8):
        (tmp_path / f"busy-{index}").touch()
    daemon = box(BUSY_BOX)
    until(lambda: states(daemon) == {"foreign": 8}, "all eight to be somebody's")
    busy = [(gpu["utilization_percent"], gpu["reason"]) for gpu in gpus(daemon)]
    assert all(94 <= percent <= 97 for percent, _ in busy)
    assert all("outside gpuq: python" in why and "carol" in why for _, why in busy)
    with daemon.client() as client:
        exclusive = client.submit(["sh", "-c", SHORT])
        sharing = client.submit(["sh", "-c", SHORT], gpu_mem_bytes=20 * 2**30)
        for job in jobs(daemon, exclusive, sharing):
            assert job["state"] == "queued"
        until(lambda: "carol" in jobs(daemon, exclusive)[0]["reason"], "its reason")
        until(lambda: "3.1G left" in jobs(daemon, sharing)[0]["reason"], "of 80G, 76G are carol's")
        client.kill([sharing])
    (tmp_path / "busy-5").unlink()
    released = time.monotonic()
    until(lambda: jobs(daemon, exclusive)[0]["state"] == "running", "the start")
    # Three calm readings, one a second, and the one in which the release is seen.
    assert time.monotonic() - released < 6.0
    assert jobs(daemon, exclusive)[0]["gpus"] == [5]


def test_a_gpu_on_which_somebody_comes_and_goes_is_not_taken_for_free(
    box: Start, tmp_path: Path
) -> None:
    for index in range(8):
        (tmp_path / f"busy-{index}").touch()
    daemon = box(BUSY_BOX)
    until(lambda: states(daemon) == {"foreign": 8}, "all eight to be somebody's")
    with daemon.client() as client:
        job = client.submit(["true"])
    (tmp_path / "busy-0").unlink()
    calm = "not known to be free yet"
    until(lambda: calm in (gpus(daemon)[0]["reason"] or ""), "a first calm reading")
    (tmp_path / "busy-0").touch()
    until(lambda: "carol" in (gpus(daemon)[0]["reason"] or ""), "her return")
    assert jobs(daemon, job)[0]["state"] == "queued"
    (tmp_path / "busy-0").unlink()
    with daemon.client() as client:
        assert client.wait([job], timeout_s=15)[0]["gpus"] == [0]


def test_twenty_jobs_of_5g_on_four_gpus_of_24g_run_by_fours_and_four_wait(daemon: Daemon) -> None:
    with daemon.client() as client:
        ids = client.submit_many(
            [{"argv": ["sh", "-c", SHORT], "gpu_mem_bytes": 5 * 2**30} for _ in range(20)]
        )
    until(lambda: Counter(j["state"] for j in jobs(daemon, *ids))["running"] == 16, "sixteen")
    found = jobs(daemon, *ids)
    placed = Counter(job["gpus"][0] for job in found if job["state"] == "running")
    assert placed == {0: 4, 1: 4, 2: 4, 3: 4}
    assert [job["id"] for job in found if job["state"] == "queued"] == [17, 18, 19, 20]
    why = "wants 1 GPU with 5G, 0 free (in use by jobs 1-16; a shared one has 3.5G left at most)"
    until(lambda: jobs(daemon, 17)[0]["reason"] == why, "the next one to be told why it waits")
    with daemon.client() as client:
        client.kill([3], grace_s=0)
        until(lambda: jobs(daemon, 17)[0]["state"] == "running", "the next one")
        assert jobs(daemon, 17)[0]["gpus"] == jobs(daemon, 3)[0]["gpus"]


def test_a_job_that_shares_is_told_how_much_and_one_that_does_not_is_told_nothing(
    daemon: Daemon,
) -> None:
    with daemon.client() as client:
        told = client.submit(
            ["sh", "-c", "echo $PYTORCH_ALLOC_CONF $XLA_PYTHON_CLIENT_MEM_FRACTION"],
            gpu_mem_bytes=6 * 2**30,
            env={"XLA_PYTHON_CLIENT_MEM_FRACTION": ".1"},
        )
        alone = client.submit(["sh", "-c", "echo -$PYTORCH_ALLOC_CONF-"])
        ended = client.wait([told, alone], timeout_s=15)
    logs = [Path(job["log"]).read_text() for job in ended]
    assert logs == ["per_process_memory_fraction:0.2292 .1\n", "--\n"]


def test_jobs_go_to_the_gpus_that_they_name(daemon: Daemon) -> None:
    wanted = daemon.gpuq("run", "--gpu-id", "2-3", "--exclude-gpu", "2", "--", "sh", "-c", "true")
    assert wanted.returncode == 0, wanted.stderr
    assert jobs(daemon, 1)[0]["gpus"] == [3]
    unknown = daemon.gpuq("submit", "--gpu-id", "7", "true")
    assert unknown.returncode == 2
    assert "there is no GPU '7' here: it is an index (0, 1, 2, 3)" in unknown.stderr
    never = daemon.gpuq("submit", "-g", "2", "--gpu-id", "1", "true")
    assert never.returncode == 6
    alone = daemon.gpuq("submit", "--max-util", "50", "true")
    assert "add --gpu-mem SIZE" in alone.stderr
    assert [job["id"] for job in jobs(daemon)] == []


def test_gpus_are_kept_for_people_outside(box: Start) -> None:
    daemon = box('[[gpu]]\ncount = 3\nmemory = "24G"\n', "--reserve-idle", "1")
    with daemon.client() as client:
        first, second, third = (client.submit(["sh", "-c", SHORT]) for _ in range(3))
        until(lambda: jobs(daemon, second)[0]["state"] == "running", "two jobs")
        why = (
            f"wants 1 GPU, 0 free (in use by jobs {first}-{second}; "
            "reserve_idle leaves 1 to people outside gpuq)"
        )
        until(lambda: jobs(daemon, third)[0]["reason"] == why, "the third to be told why it waits")
    refused = daemon.gpuq("submit", "-g", "3", "true")
    assert refused.returncode == 6
    assert "reserve_idle leaves 1 of them to people outside gpuq" in refused.stderr


def test_who_wants_little_computed_beside_it_waits_for_that(box: Start, tmp_path: Path) -> None:
    story = """
[[gpu]]
memory = "24G"

[[load]]
gpus = 0
from = { file = "computes" }
utilization = 80
memory = "4G"
"""
    (tmp_path / "computes").touch()
    daemon = box(story)
    with daemon.client() as client:
        job = client.submit(["true"], gpu_mem_bytes=5 * 2**30, max_util=50)
        until(lambda: "80 % busy" in jobs(daemon, job)[0]["reason"], "the reason")
        (tmp_path / "computes").unlink()
        assert client.wait([job], timeout_s=20)[0]["outcome"] == "succeeded"
