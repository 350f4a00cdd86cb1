"""`gpuq why` has a sentence of its own for each cause to wait and for each way to end."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Daemon, until

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB"


class Box:
    """A daemon with two GPUs, one of them taken for good."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.holder = self.submit("-g", "1", "--", "sleep", "600")
        until(lambda: self.view(self.holder)["state"] == "running")

    def submit(self, *words: str) -> int:
        ran = self.daemon.gpuq("submit", *words)
        assert ran.returncode == 0, ran.stderr
        return int(ran.stdout)

    def view(self, job: int) -> dict[str, object]:
        with self.daemon.client() as client:
            return dict(client.job(job))

    def wait(self, *jobs: int) -> None:
        with self.daemon.client() as client:
            client.wait(jobs, timeout_s=30)

    def do(self, *words: str) -> None:
        ran = self.daemon.gpuq(*words)
        assert ran.returncode == 0, ran.stderr

    def why(self, job: int) -> str:
        ran = self.daemon.gpuq("why", str(job))
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


# ── why it waits ──


def no_gpu_free(box: Box) -> int:
    return box.submit("-g", "2", "true")


def behind_another(box: Box) -> int:
    box.submit("-g", "2", "--queue", "", "-n", "head", "true")
    return box.submit("-g", "2", "-n", "tail", "true")


def held(box: Box) -> int:
    return box.submit("--hold", "true")


def after_another(box: Box) -> int:
    return box.submit("--after", str(box.holder), "true")


def not_before(box: Box) -> int:
    return box.submit("--begin", "+2h", "true")


def backoff(box: Box) -> int:
    job = box.submit("-g", "0", "--retries", "1", "--backoff", "1h", "false")
    until(lambda: box.view(job)["substate"] == "backoff")
    return job


def at_a_limit(box: Box) -> int:
    box.do("limit", "tag:big", "--max-running", "0")
    return box.submit("-g", "0", "--tag", "big", "true")


def no_cpu_slot(box: Box) -> int:
    box.submit("-g", "0", "-c", "2", "sleep", "600")
    return box.submit("-g", "0", "-c", "2", "true")


def gpu_drained(box: Box) -> int:
    box.do("gpus", "drain", "1", "-m", "new fan")
    return box.submit("-g", "1", "true")


def daemon_drained(box: Box) -> int:
    box.do("drain", "-m", "a move")
    return box.submit("-g", "0", "true")


# ── how it ended ──


def failed(box: Box) -> int:
    return box.submit("-g", "0", "--shell", "exit 3")


def by_signal(box: Box) -> int:
    return box.submit("-g", "0", "--shell", "kill -SEGV $$")


def by_unsent_kill(box: Box) -> int:
    return box.submit("-g", "0", "--shell", "kill -KILL $$")


def timed_out(box: Box) -> int:
    return box.submit("-g", "0", "-t", "0.3s", "sleep", "600")


def silent(box: Box) -> int:
    return box.submit("-g", "0", "--heartbeat", "0.3s", "sleep", "600")


def no_such_program(box: Box) -> int:
    return box.submit("-g", "0", "/no/such/program")


def out_of_gpu_memory(box: Box) -> int:
    return box.submit("-g", "1", "--shell", f"echo '{OOM}'; exit 1")


def cancelled(box: Box) -> int:
    job = box.submit("-g", "0", "--hold", "true")
    box.do("kill", str(job))
    return job


def skipped(box: Box) -> int:
    return box.submit("-g", "0", "--after", f"{failed(box)}:ok", "true")


def lost(box: Box) -> int:
    job = box.submit("-g", "0", "--", "sleep", "601")
    until(lambda: box.view(job)["state"] == "running")
    pid = int(str(box.view(job)["pid"]))
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    return job


WAITING: dict[Callable[[Box], int], str] = {
    no_gpu_free: r"waits: wants 2 GPUs, 1 free",
    behind_another: r"waits: behind \d+",
    held: r"is held: held by \w+",
    after_another: r"waits: after 1\b",
    not_before: r"waits: not before \d",
    backoff: r"waits: .*(retry|attempt|again)",
    at_a_limit: r"waits: .*tag:?\s?big",
    no_cpu_slot: r"waits: wants 2 CPU slots, 0 free|waits: wants 2 CPU slots",
    gpu_drained: r"waits: .*1 drained",
    daemon_drained: r"waits: the queue is drained by \w+: a move",
}
ENDED: dict[Callable[[Box], int], str] = {
    failed: r"failed: exit code 3",
    by_signal: r"failed: ended by SIGSEGV",
    by_unsent_kill: r"failed: ended by SIGKILL, which gpuq did not send: perhaps",
    timed_out: r"timed out: it reached its time limit of 0.3s",
    silent: r"timed out: it gave no sign of life for 0.3s",
    no_such_program: r"failed: could not start: executing /no/such/program: no such file",
    out_of_gpu_memory: r"out of GPU memory",
    cancelled: r"cancelled by \w+",
    skipped: r"skipped: .*\d+",
    lost: r"lost: ",
}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    daemon = Daemon(tmp_path_factory.mktemp("why"), gpus="sim:2x24G")
    yield Box(daemon.start("--cpu-slots", "2"))
    daemon.gpuq("drain", "--off")
    daemon.end()


def check(said: dict[Callable[[Box], int], str], causes: dict[Callable[[Box], int], str]) -> None:
    for cause, pattern in causes.items():
        assert re.search(pattern, said[cause]), (cause.__name__, said[cause])
    first = [re.sub(r"\d+|\(.*?\)", "", text.splitlines()[0]) for text in said.values()]
    assert len(set(first)) == len(causes), first


def test_each_way_to_end_has_a_sentence_of_its_own(box: Box) -> None:
    jobs = {cause: cause(box) for cause in ENDED}
    box.wait(*jobs.values())
    check({cause: box.why(job) for cause, job in jobs.items()}, ENDED)


def test_each_cause_to_wait_has_a_sentence_of_its_own(box: Box) -> None:
    check({cause: box.why(cause(box)) for cause in WAITING}, WAITING)
