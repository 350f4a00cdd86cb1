"""What jobs make of their GPUs is measured, told and learned, by a true daemon on GPUs with a story."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gpuq.client import Client
from tests.conftest import Daemon, until

GIB = 2**30
UNTIL_DONE = ["sh", "-c", "until test -e done; do sleep 0.05; done"]

# A job takes what it declared, or 6G; the files beside the story say what else happens.
STORY = """
[[gpu]]
count = 2
memory = "24G"

[[jobs]]
undeclared = "6G"

[[jobs]]
from = { file = "too-much" }
uses = 1.2

[[jobs]]
from = { file = "idle" }
utilization = 1

[[process]]
gpus = 0
from = { file = "carol" }
pid = 5040121
user = "carol"
command = "python"
unit = "docker 3f2a9c1b7d44"
memory = "1G"
"""


class Stage:
    """A daemon on these GPUs, and what happens on them."""

    def __init__(self, folder: Path, daemon: Daemon, client: Client) -> None:
        self.folder = folder
        self.daemon = daemon
        self.client = client

    def happens(self, what: str) -> None:
        (self.folder / what).touch()

    def is_over(self, what: str) -> None:
        (self.folder / what).unlink()

    def running(self, **asked: Any) -> int:
        job = self.client.submit(UNTIL_DONE, cwd=str(self.folder), **asked)
        until(lambda: self.client.job(job)["state"] == "running", f"job {job} to run")
        return job

    def shows(self, job: int, condition: Callable[[dict[str, Any]], Any], what: str) -> Any:
        return until(lambda: condition(self.client.job(job)), what)

    def events(self, job: int, kind: str) -> list[dict[str, Any]]:
        told = [event for batch in self.client.events([job]) for event in batch]
        return [event for event in told if event["kind"] == kind]

    def said(self, *words: str) -> str:
        ran = self.daemon.gpuq(*words, cwd=self.folder)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout + ran.stderr


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens one with these settings."""
    (tmp_path / "story.toml").write_text(STORY)
    daemon = Daemon(tmp_path / "daemon", gpus=f"scenario:{tmp_path}/story.toml")

    @contextmanager
    def opened(*flags: str) -> Iterator[Stage]:
        daemon.start(*flags)
        with daemon.client() as client:
            yield Stage(tmp_path, daemon, client)

    yield opened
    daemon.end()


def test_a_stranger_on_the_gpu_of_a_job_is_named_and_stays_in_its_record(
    stage: Callable[..., Any],
) -> None:
    with stage() as on:
        job = on.running()
        on.happens("carol")
        on.shows(job, lambda shown: shown["contended_now"], "carol to be seen")
        carol = "python 5040121 carol (docker 3f2a9c1b7d44) on GPU 0"
        assert f"Somebody outside gpuq is there too: {carol}." in on.said("why", str(job))
        on.is_over("carol")
        shown = on.shows(
            job, lambda shown: not shown["contended_now"] and shown, "carol to be gone"
        )
        assert (shown["contended"], shown["contended_by"]) == (True, carol)
        (event,) = on.events(job, "contended")
        assert (event["cause"], event["gpu"]) == (carol, shown["gpu_uuids"][0])


def test_who_shares_with_a_stranger_from_the_start_is_not_contended(
    stage: Callable[..., Any],
) -> None:
    with stage() as on:
        on.happens("carol")
        until(lambda: on.client.gpus()["gpus"][0]["processes"], "carol to be seen")
        job = on.running(gpu_mem_bytes=6 * GIB, gpu_ids=["0"])
        on.shows(job, lambda shown: shown["gpu_peak_bytes"] == 6 * GIB, "a reading")
        shown = on.client.job(job)
        assert (shown["gpus"], shown["contended"], shown["contended_now"]) == ([0], False, False)


def test_who_uses_more_than_he_asked_for_is_warned_or_ended_and_gets_more(
    stage: Callable[..., Any],
) -> None:
    with stage("--enforce-gpu-memory", "end") as on:
        job = on.running(gpu_mem_bytes=6 * GIB, retries=1, backoff="1h")
        on.happens("too-much")
        ended = on.shows(job, lambda shown: shown["substate"] == "backoff" and shown, "its end")
        assert ended["gpu_mem_bytes"] == 9 * GIB
        (attempt,) = ended["attempts"]
        assert attempt["outcome"] == "out_of_memory"
        excess = "it used 7.2G of GPU 0 and asked for 6G"
        assert attempt["reason"].startswith(
            f"out of GPU memory: {excess} (enforce_gpu_memory); ended by SIG"
        )
        assert attempt["over_memory"] == excess
        assert attempt["gpu_peak_bytes"] == pytest.approx(7.2 * GIB)
        assert [event["cause"] for event in on.events(job, "over_memory")] == [excess]


def test_who_is_only_warned_goes_on(stage: Callable[..., Any]) -> None:
    with stage() as on:
        on.happens("too-much")
        job = on.running(gpu_mem_bytes=6 * GIB)
        on.shows(job, lambda shown: shown["over_memory"], "the warning")
        assert "It used 7.2G of GPU 0 and asked for 6G." in on.said("why", str(job))
        on.happens("done")
        assert on.client.wait([job])[0]["outcome"] == "succeeded"


def test_who_computes_nothing_is_called_idle_until_he_computes(stage: Callable[..., Any]) -> None:
    with stage("--idle-after", "2s", "--settle", "0s") as on:
        job = on.running()
        on.happens("idle")
        on.shows(job, lambda shown: shown["idle"], "it to be idle")
        assert "It holds its GPUs and has computed nothing since" in on.said("why", str(job))
        (event,) = on.events(job, "gpu_idle")
        assert event["cause"].startswith("GPU 0 at 1 % for ")
        on.is_over("idle")
        on.shows(job, lambda shown: not shown["idle"], "it to compute")
        assert on.events(job, "gpu_used")[0]["cause"] == "GPU 0 at 90 %"


def test_what_a_command_used_is_what_it_asks_for_the_next_time(stage: Callable[..., Any]) -> None:
    submit = ("submit", "--gpu-mem", "auto", "-n", "train", *UNTIL_DONE)
    with stage() as on:
        first = on.said(*submit)
        assert "nothing is known of this command yet, so it has its GPU alone" in first
        on.shows(1, lambda shown: shown["gpu_peak_bytes"] == 6 * GIB, "a reading")
        assert on.client.job(1)["exclusive"]
        on.happens("done")
        on.client.wait([1])
        words = "asks for 7.5G: it used 6G at most before (job 1, 1 run)"
        assert words in on.said(*submit)
        shown = on.client.job(2)
        assert (shown["gpu_mem_bytes"], shown["exclusive"]) == (15 * GIB // 2, False)
        assert words in on.said("show", "2")
        on.client.wait([2])
        refused = on.daemon.gpuq("submit", "--exclusive", "--gpu-mem", "auto", "true")
        assert refused.returncode == 2
        assert "leave one of them out" in refused.stderr


def test_what_was_measured_outlives_the_daemon(stage: Callable[..., Any]) -> None:
    with stage() as on:
        job = on.running(gpu_mem_bytes=6 * GIB)
        on.shows(job, lambda shown: shown["gpu_energy_j"], "a reading")
        on.happens("done")
        ended = on.client.wait([job])[0]
        assert ended["gpu_peak_bytes"] == 6 * GIB
        mean = ended["gpu_util_mean"]  # a first reading may be of the moment before it computed
        assert ended["gpu_util_peak"] == 90 >= mean > 45
        on.daemon.kill()
        on.daemon.start()
        assert on.client.job(job)["gpu_energy_j"] == ended["gpu_energy_j"] > 0
        said = f"peak 6G of 6G asked, mean {mean:.0f} %, peak 90 %, "
        assert said in on.said("show", str(job))
