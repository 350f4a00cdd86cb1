"""A driver that is upgraded under a running machine: the old probe goes on with the old one, and only a
new process finds out what a new job would find."""

import asyncio
import mmap
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.model import Request
from gpuq.daemon import lookout as lookout_module
from gpuq.daemon.gpus import Probe, keeper
from gpuq.daemon.gpus.driver import InstalledDriver
from gpuq.daemon.linux import processes
from tests.alive import Alive, alive
from tests.daemon.gpus.test_gpu_probe import Heard, run_with
from tests.desk import until

# Loads the library when it starts, as a dynamic linker does, and judges it then, as the driver does:
# what is installed later is no matter to it. It answers while there is no file "hang", and leaves
# while there is none called "deaf".
PROBE = """
import json, mmap, os, sys, time
folder = sys.argv[1]
def read(name):
    with open(os.path.join(folder, name)) as file:
        return file.read()
with open(os.path.join(folder, "libnvidia-ml.so.1"), "rb") as file:
    library = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
loaded, kernel = library[:].decode(), read("version")
for line in sys.stdin:
    answer = {"sample": json.loads(line)["sample"]}
    if loaded == kernel:
        gpu = {"index": 0, "uuid": "GPU-0", "model": f"{loaded} {os.getpid()}", "simulated": False}
        gpu |= {"memory_total_bytes": 2**34, "memory_used_bytes": 0, "utilization_percent": 0}
        answer["gpus"] = [gpu]
    else:
        answer["unavailable"] = f"the library is {loaded}, the kernel has {kernel}: restart"
    while os.path.exists(os.path.join(folder, "hang")):
        time.sleep(0.005)
    print(json.dumps(answer), flush=True)
while os.path.exists(os.path.join(folder, "deaf")):
    time.sleep(0.005)
"""
MISMATCH = "the library is 550, the kernel has 535: restart"


class Driver:
    """One that lies in a folder, half of it "in the kernel"."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.version = folder / "version"
        self.link = folder / "libnvidia-ml.so.1"
        self.hang = folder / "hang"
        self.deaf = folder / "deaf"
        self.load("535")
        self.install("535")

    def load(self, version: str) -> None:
        self.version.write_text(version)

    def install(self, version: str) -> None:
        """As a package manager does: the new file, then the link, and the old file is removed."""
        before = self.folder / os.readlink(self.link) if self.link.is_symlink() else None
        library = self.folder / f"libnvidia-ml.so.{version}"
        new, link = self.folder / "new", self.folder / "new-link"
        new.write_text(version)
        new.rename(library)
        link.symlink_to(library.name)
        link.rename(self.link)
        if before not in (None, library):
            before.unlink()

    def options(self) -> dict[str, Any]:
        return {
            "spec": "nvml",
            "command": [sys.executable, "-c", PROBE, str(self.folder)],
            "driver_version": str(self.version),
        }


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """And back-offs that a test can wait for."""
    monkeypatch.setattr(keeper, "FIRST_BACKOFF_S", 0.02)
    monkeypatch.setattr(keeper, "UNAVAILABLE_BACKOFF_S", 0.02)
    folder = tmp_path / "driver"
    folder.mkdir()
    return Driver(folder)


def versions(heard: Heard) -> list[str]:
    return [reading[0].model.split()[0] for reading in heard.readings]


def from_pid(heard: Heard) -> int:
    return int(heard.readings[-1][0].model.split()[1])


# ─── the probe is renewed ────────────────────────────────────────────────────────────────────────


def test_a_probe_whose_driver_stays_is_kept(driver: Driver) -> None:
    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 0.01
        await heard.until(lambda heard: len(heard.readings) > 20)

    heard = run_with(play, **driver.options())
    assert (len(heard.started), heard.troubles) == (1, [])


def test_a_library_that_is_replaced_under_the_old_kernel_is_found_out(driver: Driver) -> None:
    """By the next reading, and nobody need have failed. Once the kernel has it too, all is well."""

    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 0.02
        await heard.until(lambda heard: heard.readings)
        driver.install("550")
        await heard.until(lambda heard: heard.trouble == MISMATCH)
        before = len(heard.readings)
        await heard.until(lambda heard: len(heard.started) > 3)
        assert len(heard.readings) == before, "the old readings do not count any more"
        driver.load("550")
        await heard.until(lambda heard: len(heard.readings) > before)

    heard = run_with(play, **driver.options())
    assert heard.troubles == [MISMATCH, None], "the driver is not said to hang meanwhile"
    assert set(versions(heard)) == {"535", "550"}


def test_a_driver_that_is_replaced_whole_is_taken_into_use_without_a_word(driver: Driver) -> None:
    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 0.02
        await heard.until(lambda heard: heard.readings)
        driver.hang.touch()
        driver.load("550")
        driver.install("550")
        driver.hang.unlink()
        await heard.until(lambda heard: "550" in versions(heard))

    heard = run_with(play, **driver.options())
    assert (len(heard.started), heard.troubles) == (2, [])


def test_the_same_version_installed_anew_is_another_library(driver: Driver) -> None:
    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 0.02
        await heard.until(lambda heard: heard.readings)
        driver.install("535")
        await heard.until(lambda heard: len(heard.started) == 2)
        before = len(heard.readings)
        await heard.until(lambda heard: len(heard.readings) > before + 3)

    heard = run_with(play, **driver.options())
    assert (len(heard.started), heard.troubles) == (2, [])


def test_a_driver_that_is_removed_is_missed(driver: Driver) -> None:
    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 0.02
        await heard.until(lambda heard: heard.readings)
        driver.link.unlink()
        await heard.until(lambda heard: heard.trouble)
        assert heard.trouble == "the GPU probe ended with exit code 1"
        driver.install("535")
        await heard.until(lambda heard: not heard.trouble)

    run_with(play, **driver.options())


def test_another_kernel_module_alone_is_found_out_too(driver: Driver) -> None:
    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 0.02
        await heard.until(lambda heard: heard.readings)
        driver.load("550")
        await heard.until(lambda heard: heard.trouble)
        assert heard.trouble == "the library is 535, the kernel has 550: restart"
        driver.version.unlink()  # it is unloaded
        await heard.until(lambda heard: "ended with exit code 1" in heard.trouble)
        driver.load("535")
        await heard.until(lambda heard: not heard.trouble)

    run_with(play, **driver.options())


def test_simulated_gpus_have_no_driver_to_follow(driver: Driver) -> None:
    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 0.01
        await heard.until(lambda heard: heard.readings)
        driver.load("550")
        await heard.until(lambda heard: len(heard.readings) > 20)

    heard = run_with(play, driver_version=str(driver.version))
    assert len(heard.started) == 1


# ─── because somebody doubts it ──────────────────────────────────────────────────────────────────


def unfollowed(driver: Driver) -> dict[str, Any]:
    """No upgrade of this one shows in the files that are looked at."""
    hidden = PROBE.replace("mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)", "file.read()")
    command = [sys.executable, "-c", hidden, str(driver.folder)]
    return driver.options() | {"command": command, "driver_version": "/nonexistent"}


def test_whoever_doubts_a_probe_gets_the_word_of_a_new_one(driver: Driver) -> None:
    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 3600
        await heard.until(lambda heard: heard.readings)
        driver.install("550")
        one.ask()
        await heard.until(lambda heard: len(heard.readings) == 2)
        assert heard.trouble == "", "the old probe sees nothing of it"
        one.renew("a job failed")
        await heard.until(lambda heard: heard.trouble == MISMATCH)
        driver.load("550")
        await heard.until(lambda heard: not heard.trouble)

    heard = run_with(play, **unfollowed(driver))
    assert versions(heard) == ["535", "535", "550"]


def test_a_reading_that_was_under_way_counts_no_more(driver: Driver) -> None:
    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 3600
        await heard.until(lambda heard: heard.readings)
        driver.hang.touch()
        one.ask()
        await heard.until(lambda _: one._child is not None and one._child.requests == 2)
        one.renew("a job failed")
        driver.hang.unlink()
        await heard.until(lambda heard: len(heard.readings) == 2)
        assert from_pid(heard) == heard.started[1][0]

    heard = run_with(play, **unfollowed(driver))
    assert (len(heard.started), heard.troubles) == (2, [])


def test_many_doubts_at_once_make_one_new_probe(driver: Driver) -> None:
    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 3600
        await heard.until(lambda heard: heard.readings)
        for _ in range(5):
            one.renew("a job failed")
        await heard.until(lambda heard: len(heard.readings) == 2)
        one.ask()
        await heard.until(lambda heard: len(heard.readings) == 3)

    assert len(run_with(play, **unfollowed(driver)).started) == 2


def test_where_no_probe_is_alive_there_is_nothing_to_renew(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one comes at its time."""
    monkeypatch.setattr(keeper, "UNAVAILABLE_BACKOFF_S", 0.3)
    driver.load("550")

    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 3600
        await heard.until(lambda heard: heard.trouble)
        one.renew("a job failed")
        driver.install("550")
        await heard.until(lambda heard: heard.readings)
        one.ask()
        await heard.until(lambda heard: len(heard.readings) == 2)

    assert len(run_with(play, **unfollowed(driver)).started) == 2


def test_none_is_started_beside_a_stale_one_that_does_not_die(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in D state, where SIGKILL waits for the driver: here it is just not sent."""
    monkeypatch.setattr(keeper._Child, "kill", lambda self: None)
    monkeypatch.setattr(keeper, "LEAVE_S", 0.05)

    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 3600
        await heard.until(lambda heard: heard.readings)
        driver.deaf.touch()
        one.renew("a job failed")
        await heard.until(lambda heard: "even killed" in heard.trouble)
        assert len(heard.started) == 1
        assert processes.is_alive(*heard.started[0])
        driver.deaf.unlink()
        await heard.until(lambda heard: not heard.trouble)

    assert len(run_with(play, **unfollowed(driver)).started) == 2


# ─── what is looked at ───────────────────────────────────────────────────────────────────────────


def test_a_process_that_has_no_library_has_a_driver_that_never_changes(driver: Driver) -> None:
    for pid in (os.getpid(), 2**22):  # the second is nobody's
        found = InstalledDriver(pid, "/nonexistent")
        driver.install("550")
        assert not found.has_changed()


def test_a_library_that_is_no_link_is_followed_too(driver: Driver) -> None:
    """As where somebody has copied it into a container."""
    driver.link.unlink()
    driver.link.write_text("535")

    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 0.02
        await heard.until(lambda heard: heard.readings)
        (driver.folder / "new").write_text("550")
        (driver.folder / "new").rename(driver.link)
        await heard.until(lambda heard: heard.trouble == MISMATCH)

    run_with(play, **driver.options())


def test_a_library_that_is_written_over_in_its_place_is_another_one(driver: Driver) -> None:
    with driver.link.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        found = InstalledDriver(os.getpid(), "/nonexistent")
        assert not found.has_changed()
        library = driver.link.resolve()
        written_at = library.stat().st_mtime_ns
        library.write_text("550")
        os.utime(library, ns=(written_at, written_at + 1))  # however coarse the clock of files is
        assert found.has_changed()


# ─── the queue ───────────────────────────────────────────────────────────────────────────────────


WHOLE = Request(gpus=1)


def with_probe(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    given = {name: value for name, value in options.items() if name != "spec"}
    monkeypatch.setattr(lookout_module, "Probe", partial(Probe, **given))


CALM_AT_ONCE = {"gpus": "nvml", "calm_samples": 1, "calm_for": "0s"}


def test_jobs_that_fail_at_once_do_not_burn_the_queue_on_a_driver_that_no_new_process_can_use(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_probe(monkeypatch, unfollowed(driver))

    async def main() -> None:
        async with alive(tmp_path, **CALM_AT_ONCE) as daemon:
            await until(lambda: daemon.loop.gpus, "a reading")
            driver.install("550")
            jobs = [daemon.submit("exit 1", request=WHOLE) for _ in range(5)]
            await daemon.ended(jobs[0])
            await until(lambda: daemon.loop.gpu_trouble == MISMATCH, "the word of a new probe")
            await daemon.turn()
            assert [daemon.row(job)["state"] for job in jobs[1:]] == ["queued"] * 4
            assert daemon.loop.plan.reasons[jobs[1]] == MISMATCH
            assert daemon.attempts(jobs[1]) == []
            beside = daemon.submit("exit 0")
            assert (await daemon.ended(beside))["outcome"] == "succeeded", "it needs no GPU"
            driver.load("550")
            for job in jobs:
                await daemon.ended(job)

    asyncio.run(main())


def test_the_driver_is_doubted_once_a_minute_at_most(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_probe(monkeypatch, unfollowed(driver))

    seen: set[tuple[int, int]] = set()

    def probes(daemon: Alive) -> int:
        pid, start = daemon.store.machine.fact("probe")[1:]
        seen.add((pid, start))
        return len(seen)

    async def failed(daemon: Alive) -> None:
        await daemon.ended(daemon.submit("exit 1", request=WHOLE))
        await until(lambda: not daemon.store.current.leases(), "a reading after its end")

    async def main() -> None:
        async with alive(tmp_path, **CALM_AT_ONCE) as daemon:
            await until(lambda: daemon.loop.gpus, "a reading")
            assert probes(daemon) == 1
            for _ in range(3):
                await failed(daemon)
                assert probes(daemon) == 2
            daemon.clock.awake_s += 60.0
            await failed(daemon)
            assert probes(daemon) == 3

    asyncio.run(main())


def test_simulated_gpus_are_not_doubted(tmp_path: Path) -> None:
    async def main() -> None:
        async with alive(tmp_path, gpus="sim:1x24G") as daemon:
            before = await until_noted(daemon)
            await daemon.ended(daemon.submit("exit 1", request=WHOLE))
            await daemon.ended(daemon.submit("exit 0", request=WHOLE))
            assert daemon.loop._lookout._probe._stale is None
            assert daemon.store.machine.fact("probe") == before

    async def until_noted(daemon: Alive) -> Any:
        await until(lambda: daemon.loop.gpus, "a reading")
        return daemon.store.machine.fact("probe")

    asyncio.run(main())
