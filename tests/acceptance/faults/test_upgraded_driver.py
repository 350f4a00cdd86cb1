"""The driver is upgraded under a running machine, as by an unattended upgrade at night."""

import shutil
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from gpuq.daemon.linux import processes
from tests.acceptance.faults.conftest import MakeDaemon
from tests.conftest import until
from tests.real_gpus import FLAGS

STUB = Path(__file__).parents[2] / "daemon" / "gpus" / "libnvidia_stub.c"
INITIALISES = 'return number_from("STUB_INIT", SUCCESS);'
REFUSES = "return 18;"  # NVML_ERROR_LIB_RM_VERSION_MISMATCH, nvml.h
IDLE = ("--idle-memory", "4G", "--idle-utilization", "50")  # as its GPUs are
MISMATCH = "the NVIDIA driver was upgraded while it was loaded: reboot, or reload the kernel module"


class Library:
    """libnvidia-ml.so.1 as a package installs it: a file with a version in its name, and the link
    that the dynamic linker follows. The kernel has 535."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = STUB.read_text().replace("GPU-stub-", f"GPU-{uuid4()}-")
        assert self.source.count(INITIALISES) == 1
        folder.mkdir()
        self.install("535", self.source)

    def upgrade(self) -> None:
        self.install("550", self.source.replace(INITIALISES, REFUSES))

    def go_back(self) -> None:
        self.install("535", self.source)

    def install(self, version: str, source: str) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("NOT TESTED: the library of the driver is built with cc, and there is none")
        (self.folder / "stub.c").write_text(source)
        built, link = self.folder / "built", self.folder / "link"
        command = [compiler, "-shared", "-fPIC", "-o", built, self.folder / "stub.c"]
        subprocess.run(command, check=True)
        built.rename(self.folder / f"libnvidia-ml.so.{version}")
        link.symlink_to(f"libnvidia-ml.so.{version}")
        link.rename(self.folder / "libnvidia-ml.so.1")


def test_an_upgrade_of_the_driver_holds_what_waits_for_gpus_and_lets_run_what_runs(
    make: MakeDaemon, tmp_path: Path
) -> None:
    """Not one job is burnt on it, and when new processes can use the GPUs again, all goes on."""
    library = Library(tmp_path / "driver")
    daemon = make(*FLAGS, *IDLE, gpus="nvml", start=False)
    daemon.own = {"LD_LIBRARY_PATH": str(library.folder)}
    daemon.start()
    gate = f"while ! [ -e {daemon.folder}/go ]; do sleep 0.01; done"
    with daemon.client() as client:
        until(lambda: len(client.gpus()["gpus"]) == 2, "both GPUs")
        runs = client.submit(**daemon.job(gate, gpus=1))
        daemon.at_work(runs)
        before = daemon.one("probe")
        library.upgrade()
        until(lambda: client.gpus()["gpu_trouble"] == MISMATCH, "that it is told")
        assert processes.identity(before) is None
        waiting = client.submit_many([daemon.job("exit 1", gpus=1) for _ in range(3)])
        beside = client.submit(**daemon.job())
        assert client.wait([beside], timeout_s=10)[0]["outcome"] == "succeeded"
        (daemon.folder / "go").touch()
        assert client.wait([runs], timeout_s=10)[0]["outcome"] == "succeeded"
        for job in waiting:
            assert client.job(job)["state"] == "queued"
        assert client.job(waiting[0])["reason"] == MISMATCH
        library.go_back()
        ended = client.wait(waiting, timeout_s=30)
        assert [job["exit_code"] for job in ended] == [1, 1, 1]
        assert client.gpus()["gpu_trouble"] is None
