import asyncio
import itertools
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gpuq import config
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Request
from gpuq.daemon.attempt import container
from gpuq.daemon.containers import Containers, _beginning
from gpuq.daemon.linux import processes
from gpuq.daemon.supervisor import Known
from tests.alive import Alive, alive, shown_by_hand, with_alive
from tests.builders import gpu
from tests.desk import until
from tests.stub_engine import CID, StubEngine


def submit(daemon: Alive, engine: StubEngine, text: str, **asked: Any) -> int:
    argv = tuple(os.fsencode(word) for word in text.split())
    return daemon.submit("", argv=argv, changes={b"PATH": engine.path.encode()}, **asked)


async def up(daemon: Alive, engine: StubEngine, text: str, **asked: Any) -> int:
    job = submit(daemon, engine, text, **asked)
    await daemon.running(job)
    await until(lambda: engine.is_ready, "the container to be up")
    assert engine.is_running
    return job


def test_its_client_is_told_which_gpus_and_where_its_id_is_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by_hand(monkeypatch)
    engine = StubEngine(tmp_path)

    async def deed(daemon: Alive) -> None:
        for _ in range(4):  # a GPU that is new has to be free for some readings
            await daemon.show(gpu(0))
            daemon.clock.awake_s += 5
        job = submit(daemon, engine, "docker run --rm image short", request=Request(gpus=1))
        row = await daemon.ended(job)
        assert row["outcome"] == "succeeded", row["reason"]
        run, removal = engine.calls()
        there = tmp_path / "state" / "jobs" / str(job) / "1" / "container.cid"
        assert run[:5] == ["docker", "run", f"--cidfile={there}", "--gpus", '"device=GPU-0"']
        named = [word for before, word in itertools.pairwise(run) if before == "-e"]
        assert {"GPUQ_JOB_ID", "GPUQ_DEVICE", "GPUQ_GPU_UUIDS", "GPUQ_REPORT"} <= set(named)
        assert all(name.startswith("GPUQ_") for name in named)
        assert run[-3:] == ["--rm", "image", "short"]
        assert removal == ["docker", "rm", "-f", CID]  # it was gone by then, which is no trouble
        assert engine.environment()["GPUQ_DEVICE"] == "cuda"

    with_alive(tmp_path, deed, gpus="sim:1x16G")


def test_there_is_no_device_for_it_behind_a_simulated_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by_hand(monkeypatch)
    engine = StubEngine(tmp_path)

    async def deed(daemon: Alive) -> None:
        await daemon.show(Gpu(index=0, uuid="GPU-sim", model="A", simulated=True))
        job = submit(daemon, engine, "podman run image short", request=Request(gpus=1))
        await daemon.ended(job)
        (run, _) = engine.calls()
        assert not {"--gpus", "--device"}.intersection(run)
        assert "GPUQ_GPU_UUIDS" in run
        assert engine.environment()["GPUQ_GPU_UUIDS"] == "GPU-sim"

    with_alive(tmp_path, deed, gpus="sim:1x16G")


@pytest.mark.parametrize(("does", "grace_s"), [("obedient", 20.0), ("deaf", 0.3), ("deaf", 0.0)])
def test_a_container_is_gone_after_a_kill(tmp_path: Path, does: str, grace_s: float) -> None:
    engine = StubEngine(tmp_path)

    async def deed(daemon: Alive) -> None:
        job = await up(daemon, engine, f"docker run image {does}")
        daemon.kill(job, grace_s=grace_s)
        row = await daemon.ended(job)
        assert row["outcome"] == "cancelled"
        assert "container" not in row["reason"]
        assert not engine.is_running

    with_alive(tmp_path, deed)


def test_a_container_is_gone_whoever_killed_its_client(tmp_path: Path) -> None:
    engine = StubEngine(tmp_path)

    async def deed(daemon: Alive) -> None:
        job = await up(daemon, engine, "docker --context there run image deaf")
        os.kill(int(daemon.attempts(job)[0]["pid"]), signal.SIGKILL)
        assert (await daemon.ended(job))["outcome"] == "failed"
        assert not engine.is_running
        assert engine.calls()[-1] == ["docker", "--context", "there", "rm", "-f", CID]

    with_alive(tmp_path, deed)


def test_a_container_is_removed_when_its_job_has_ended_by_itself(tmp_path: Path) -> None:
    engine = StubEngine(tmp_path)

    async def deed(daemon: Alive) -> None:
        job = submit(daemon, engine, "docker run image kept")
        assert (await daemon.ended(job))["reason"] == "exit code 0"
        assert not engine.is_running

    with_alive(tmp_path, deed)


def test_a_retry_finds_no_id_of_the_attempt_before(tmp_path: Path) -> None:
    engine = StubEngine(tmp_path)

    async def deed(daemon: Alive) -> None:
        stale = tmp_path / "state" / "jobs" / "1" / "1"
        stale.mkdir(parents=True)
        (stale / "container.cid").write_text("0" * 64)
        job = submit(daemon, engine, "docker run image short")
        assert job == 1
        assert (await daemon.ended(job))["outcome"] == "succeeded"

    with_alive(tmp_path, deed)


def test_an_engine_that_fails_is_told_of_and_keeps_nothing_waiting(tmp_path: Path) -> None:
    engine = StubEngine(tmp_path)

    async def deed(daemon: Alive) -> None:
        job = await up(daemon, engine, "docker run image deaf")
        engine.break_down()
        daemon.kill(job, grace_s=0.1)
        row = await daemon.ended(job)
        words = "container 3f2a9c1b7d44: docker rm ended with code 9; it may be there still"
        assert row["reason"].endswith(words)
        assert row["open_reason"].endswith(words)

    with_alive(tmp_path, deed)


def test_a_container_is_gone_though_its_runner_was_killed(tmp_path: Path) -> None:
    engine = StubEngine(tmp_path)

    async def deed(daemon: Alive) -> None:
        job = await up(daemon, engine, "docker run image deaf")
        os.kill(daemon.attempts(job)[0]["runner_pid"], signal.SIGKILL)
        row = await daemon.ended(job)
        assert row["outcome"] == "lost"
        assert "container" not in row["reason"]
        assert not engine.is_running

    with_alive(tmp_path, deed)


def test_a_container_is_gone_though_runner_and_daemon_were(tmp_path: Path) -> None:
    engine = StubEngine(tmp_path)

    async def live() -> None:
        async with alive(tmp_path, leave=True) as daemon:
            job = await up(daemon, engine, "docker run image deaf")
            runner = daemon.attempts(job)[0]["runner_pid"]
        os.kill(runner, signal.SIGKILL)
        async with alive(tmp_path) as daemon:
            assert (await daemon.ended(job))["outcome"] == "lost"
        assert not engine.is_running

    asyncio.run(live())


def removed_by(there: Path, script: str) -> dict[str, Any]:
    """What is told of a container that a shell is asked to remove."""
    (there / "id").write_text(CID)
    order = {
        "argv": ["docker", "run"],
        "environment": ["PATH=/usr/bin:/bin"],
        "cwd": str(there),
        "umask": 0o022,
        "limits": {},
        "container": {"id_file": "id", "removal": ["sh", "-c", script]},
    }
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    folder = os.open(there, os.O_PATH)
    try:
        return container.end_container(order, folder, b"", lambda: 1.0)
    finally:
        os.close(folder)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_an_engine_that_hangs_keeps_a_job_no_longer_than_half_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "LONGEST_S", 0.2)
    told = removed_by(tmp_path, "exec sleep 600")
    assert told == {"container_trouble": f"container {CID[:12]}: sh rm did not end within 0.2 s"}


@pytest.mark.parametrize(
    ("how", "times", "trouble"),
    [("kill -9 $$", 6, None), ("exit 2", 2, None), ("exit 2", 3, "sh rm ended with code 2")],
)
def test_a_removal_that_was_killed_or_refused_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, times: int, trouble: str | None
) -> None:
    monkeypatch.setattr(container, "AGAIN_S", 0.0)
    told = removed_by(tmp_path, f"echo >>tried; test $(wc -l <tried) -gt {times} || {how}")
    expected = {} if trouble is None else {"container_trouble": f"container {CID[:12]}: {trouble}"}
    assert told == expected


@pytest.mark.parametrize("what", ["", "short", "x" * 64, "g" * 64, "a" * 65, "a" * 11, "-f" * 20])
def test_what_is_no_id_is_given_to_no_engine(tmp_path: Path, what: str) -> None:
    (tmp_path / "id").write_text(what)
    folder = os.open(tmp_path, os.O_PATH)
    try:
        assert container.read_id("id", folder) is None
    finally:
        os.close(folder)


@pytest.mark.parametrize("trap", ["link", "pipe", "folder"])
def test_nothing_but_a_file_is_read_for_an_id(tmp_path: Path, trap: str) -> None:
    path = tmp_path / "id"
    if trap == "link":
        (tmp_path / "other").write_text(CID)
        path.symlink_to(tmp_path / "other")
    elif trap == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    folder = os.open(tmp_path, os.O_PATH)
    try:
        assert container.read_id("id", folder) is None
    finally:
        os.close(folder)


# ── whose a process is ──


def known(job: int, start: int = 100) -> Known:
    return Known(job=job, attempt=1, nonce="n", runner_pid=7, runner_start=start, uid=0)


@pytest.mark.parametrize(
    ("group", "start", "owner"),
    [
        (f"0::/system.slice/docker-{CID}.scope", 500, 3),
        (f"12:devices:/docker/{CID}\n0::/docker/{CID}", 500, 3),
        (f"0::/user.slice/user@1000.service/libpod-{CID}.scope/container", 500, 3),
        (f"0::/system.slice/docker-{'b' * 64}.scope", 500, None),
        (f"0::/system.slice/docker-{CID}.scope", 50, None),  # older than the attempt
        ("0::/user.slice/session-1.scope", 500, None),
    ],
)
def test_a_process_of_its_container_is_the_jobs(
    tmp_path: Path, group: str, start: int, owner: int | None
) -> None:
    folder = tmp_path / "jobs" / "3" / "1"
    folder.mkdir(parents=True)
    (folder / "container.cid").write_text(CID + "\n")
    own = (Path("/proc/self/stat")).read_text()
    head, fields = own[: own.rindex(")") + 2], own[own.rindex(")") + 2 :].split()
    fields[19] = str(start)
    process = tmp_path / "proc" / "42"
    process.mkdir(parents=True)
    (process / "stat").write_text(head + " ".join(fields))
    (process / "cgroup").write_text(group + "\n")
    settings = config.load({"state_dir": str(tmp_path), "gpus": "none"}, {"HOME": str(tmp_path)})
    containers = Containers(settings, dict, proc=str(tmp_path / "proc"))
    assert containers.owner_of(42, [known(9), known(3)]) == owner
    assert containers.owner_of(43, [known(3)]) is None


def test_of_what_an_engine_writes_the_beginning_is_kept_however_much_it_is() -> None:
    """It is whatever the user has called so."""
    read, write = os.pipe()
    with os.fdopen(write, "wb") as file:
        writing = threading.Thread(target=lambda: (file.write(b"x" * 2**20), file.close()))
        writing.start()
        said = _beginning(read, time.monotonic() + 60)
        writing.join()
    os.close(read)
    assert said == b"x" * 4096


def test_an_engine_that_writes_for_ever_is_not_read_for_ever() -> None:
    with open("/dev/zero", "rb") as endless, pytest.raises(subprocess.TimeoutExpired):
        _beginning(endless.fileno(), time.monotonic() + 0.05)


def test_a_job_that_has_no_container_is_asked_for_none(tmp_path: Path) -> None:
    settings = config.load({"state_dir": str(tmp_path), "gpus": "none"}, {"HOME": str(tmp_path)})
    containers = Containers(settings, dict)
    assert containers.owner_of(os.getpid(), [known(1)]) is None
    assert processes.identity(os.getpid()) is not None
    assert asyncio.run(containers.remove(known(1))) is None
