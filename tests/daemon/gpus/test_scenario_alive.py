"""A scenario played by the true probe, and under a true loop."""

import asyncio
import contextlib
import os
import signal as signals
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpuq.core.model import Request
from gpuq.daemon.gpus import Probe, keeper
from gpuq.daemon.linux import processes
from tests.alive import Alive, with_alive
from tests.daemon.gpus.test_gpu_probe import Heard, probe, running
from tests.daemon.gpus.test_scenario import CARD, job


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "FIRST_BACKOFF_S", 0.02)
    monkeypatch.setattr(keeper, "UNAVAILABLE_BACKOFF_S", 0.02)


def write(folder: Path, text: str) -> str:
    (folder / "box.toml").write_text(text)
    return f"scenario:{folder}/box.toml"


@contextlib.asynccontextmanager
async def watched(spec: str) -> AsyncIterator[tuple[Probe, Heard]]:
    heard = Heard()
    one = probe(heard, spec, deadline_s=0.3)
    one.interval_s = 0.02
    async with running(one):
        yield one, heard
    assert not any(processes.is_alive(*identity) for identity in heard.started)
    assert heard.overlaps == 0


@pytest.mark.usefixtures("impatient")
def test_a_true_probe_hangs_is_killed_and_the_story_goes_on(tmp_path: Path) -> None:
    text = CARD + '[[xid]]\ngpus = 0\nat = "0s"\ncodes = 31\n'
    text += '[[xid]]\ngpus = 0\nat = { file = "fault" }\ncodes = 79\n'
    text += '[[jobs]]\nramp = "1h"\nuses = 1.0\n'
    text += '[[driver]]\nfrom = { file = "hangs" }\nhangs = true\n'

    async def play() -> Heard:
        async with watched(write(tmp_path, text)) as (one, heard):
            one.held = lambda: [job(declared="24G")]
            await heard.until(lambda heard: _used(heard) > 0)
            (tmp_path / "fault").touch()
            await heard.until(lambda heard: 79 in _xids(heard))
            (tmp_path / "hangs").touch()
            await heard.until(lambda heard: len(heard.started) == 2)
            assert heard.trouble == "the GPU driver does not answer (no reading for 0.3 s)"
            before, used = len(heard.readings), _used(heard)
            (tmp_path / "hangs").unlink()
            await heard.until(lambda heard: len(heard.readings) > before + 2)
            assert _used(heard) > used  # the job began long ago, and is not begun anew
            return heard

    heard = asyncio.run(play())
    assert heard.troubles[-1] is None
    assert _xids(heard) == [31, 79]
    energies = [gpus[0].energy_j or 0 for gpus in heard.readings]
    assert energies == sorted(energies)


def _used(heard: Heard) -> int:
    return (heard.readings[-1][0].memory_used_bytes or 0) if heard.readings else 0


def _xids(heard: Heard) -> list[int]:
    return [code for gpus in heard.readings for gpu in gpus for code in gpu.xids]


@pytest.mark.usefixtures("impatient")
def test_a_true_probe_tells_why_there_are_no_gpus(tmp_path: Path) -> None:
    text = CARD + '[[driver]]\nfrom = { file = "away" }\nunavailable = "the driver is away"\n'

    async def play() -> Heard:
        async with watched(write(tmp_path, text)) as (_, heard):
            await heard.until(lambda heard: heard.readings)
            (tmp_path / "away").touch()
            await heard.until(lambda heard: heard.trouble)
            before = len(heard.readings)
            (tmp_path / "away").unlink()
            await heard.until(lambda heard: len(heard.readings) > before)
            return heard

    troubles = asyncio.run(play()).troubles
    assert "the driver is away" in troubles
    assert troubles[-1] is None


@pytest.mark.usefixtures("impatient")
def test_a_file_that_was_spoilt_meanwhile_is_told_as_trouble(tmp_path: Path) -> None:
    spec = write(tmp_path, CARD)

    async def play() -> Heard:
        async with watched(spec) as (_, heard):
            await heard.until(lambda heard: heard.readings)
            write(tmp_path, CARD + "memroy = 1\n")
            os.kill(heard.started[0][0], signals.SIGKILL)
            await heard.until(lambda heard: "memroy" in heard.trouble)
            write(tmp_path, CARD)
            await heard.until(lambda heard: heard.troubles[-1] is None)
            return heard

    assert f"{tmp_path}/box.toml: [[gpu]] 1: there is no key" in str(asyncio.run(play()).troubles)


DAEMON = """
import asyncio, sys
from gpuq.daemon.gpus import Probe

def started(pid, start):
    print(pid, start, flush=True)

def silent(why):
    print("trouble", flush=True)

asyncio.run(Probe(sys.argv[1], print, silent, started, deadline_s=0.1).run())
"""


def test_a_probe_that_hangs_leaves_when_its_daemon_is_killed(tmp_path: Path) -> None:
    spec = write(tmp_path, CARD + "[[driver]]\nhangs = true\n")
    command = [sys.executable, "-c", DAEMON, spec]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        pid, start = map(int, daemon.stdout.readline().split())
        assert daemon.stdout.readline() == b"trouble\n"
        assert processes.is_alive(pid, start)
        daemon.kill()

    async def play() -> None:
        await Heard().until(lambda _: not processes.is_alive(pid, start))

    asyncio.run(play())


# ── under a true loop ──


def test_a_job_waits_for_somebody_who_is_not_there(tmp_path: Path) -> None:
    """The pid on the GPU is nobody's, and it keeps the job away for as long as the story says."""
    text = (
        CARD + '[[process]]\ngpus = 0\nfrom = { file = "carol" }\nuser = "carol"\nmemory = "20G"\n'
    )
    spec = write(tmp_path, text)
    (tmp_path / "carol").touch()

    async def deed(daemon: Alive) -> None:
        work = daemon.submit("true", request=Request(gpus=1))

        def sees_carol() -> bool:
            gpus = daemon.loop._lookout.gpus or ()
            return any(p.user == "carol" for gpu in gpus for p in gpu.processes or ())

        await daemon.until(sees_carol, "carol to be seen")
        await daemon.turn()
        assert daemon.row(work)["state"] == "queued"
        (tmp_path / "carol").unlink()
        assert (await daemon.ended(work))["outcome"] == "succeeded"

    with_alive(tmp_path, deed, gpus=spec, calm_samples=1, calm_for="0s")
