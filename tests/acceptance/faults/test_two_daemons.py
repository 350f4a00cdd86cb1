"""Two daemons on one machine, as a user's beside the machine's own, and one of them dies."""

import getpass
from pathlib import Path
from typing import Any

from tests.acceptance.faults.conftest import FaultyDaemon, MakeDaemon
from tests.conftest import until
from tests.real_gpus import FLAGS, RealGpus

LEFT = f"held by a job that another gpuq daemon left behind ({getpass.getuser()})"


def held_by(daemon: FaultyDaemon) -> str:
    return f"held by another gpuq daemon (pid {daemon.pid}, {getpass.getuser()})"


def two(make: MakeDaemon, gpus: RealGpus) -> tuple[FaultyDaemon, FaultyDaemon]:
    made = [make(*FLAGS, gpus="nvml", start=False) for _ in range(2)]
    for daemon in made:
        daemon.program = gpus.program()
        daemon.start()
    return made[0], made[1]


def gated(daemon: FaultyDaemon, **options: Any) -> dict[str, Any]:
    """A job that ends once there is a file `go`."""
    return daemon.job(f"while ! [ -e {daemon.folder}/go ]; do sleep 0.01; done", **options)


def open_gate(daemon: FaultyDaemon) -> None:
    (daemon.folder / "go").touch()


def test_a_gpu_stays_the_first_daemons_while_its_job_lives_whatever_becomes_of_the_daemon(
    make: MakeDaemon, tmp_path: Path
) -> None:
    one, two_ = two(make, RealGpus(tmp_path / "gpus"))
    with one.client() as first, two_.client() as second:
        job = first.submit(**gated(one, gpus=1))
        one.at_work(job)
        beside = second.submit(**two_.job(gpus=1))
        until(lambda: held_by(one) in (second.job(beside)["reason"] or ""), "its reason")
        one.kill()
        until(lambda: LEFT in (second.job(beside)["reason"] or ""), "another reason")
        assert second.job(beside)["state"] == "queued"
        open_gate(one)
        assert second.wait([beside], timeout_s=20)[0]["outcome"] == "succeeded"
        one.start()
        with one.client() as again:
            assert again.wait([job], timeout_s=20)[0]["outcome"] == "succeeded"
            following = again.submit(**one.job(gpus=1))
            assert again.wait([following], timeout_s=20)[0]["outcome"] == "succeeded"


def test_a_daemon_that_comes_back_does_not_take_what_another_has_by_now(
    make: MakeDaemon, tmp_path: Path
) -> None:
    """Its job has ended while it was away, and the GPU was given on by the other."""
    one, other = two(make, RealGpus(tmp_path / "gpus"))
    with one.client() as first, other.client() as second:
        job = first.submit(**gated(one, gpus=1))
        one.at_work(job)
        beside = second.submit(**gated(other, gpus=1))
        one.kill()
        open_gate(one)
        other.at_work(beside)
        one.start()
        with one.client() as again:
            assert again.wait([job], timeout_s=20)[0]["outcome"] == "succeeded"
            following = again.submit(**one.job(gpus=1))
            until(lambda: held_by(other) in (again.job(following)["reason"] or ""), "its reason")
            assert second.job(beside)["state"] == "running"
            open_gate(other)
            assert second.wait([beside], timeout_s=20)[0]["outcome"] == "succeeded"
            assert again.wait([following], timeout_s=20)[0]["outcome"] == "succeeded"


def test_a_daemon_that_comes_back_to_its_living_job_has_the_gpu_still(
    make: MakeDaemon, tmp_path: Path
) -> None:
    one, other = two(make, RealGpus(tmp_path / "gpus"))
    with one.client() as first, other.client() as second:
        job = first.submit(**gated(one, gpus=1))
        one.at_work(job)
        one.kill()
        one.start()
        beside = second.submit(**other.job(gpus=1))
        until(lambda: LEFT in (second.job(beside)["reason"] or ""), "its reason")
        with one.client() as again:
            following = again.submit(**one.job(gpus=1))
            until(lambda: "in use by job" in (again.job(following)["reason"] or ""), "its reason")
            open_gate(one)
            assert again.wait([job, following], timeout_s=20)[0]["outcome"] == "succeeded"
        assert second.wait([beside], timeout_s=20)[0]["outcome"] == "succeeded"
