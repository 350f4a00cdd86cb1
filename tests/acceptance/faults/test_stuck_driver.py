"""A call into the GPU driver that hangs in the kernel: it holds up jobs on GPUs, and nothing else."""

import signal
from pathlib import Path

from gpuq.daemon.linux import processes
from tests.acceptance.faults import disks
from tests.acceptance.faults.conftest import FaultyDaemon, MakeDaemon
from tests.conftest import until
from tests.real_gpus import FLAGS, RealGpus


def test_a_probe_that_hangs_in_the_kernel_is_killed_once_and_none_is_started_beside_it(
    make: MakeDaemon, tmp_path: Path
) -> None:
    """Not by the next daemon either, after a kill -9 of this one."""
    gpus = RealGpus(tmp_path / "gpus")
    daemon = make(*FLAGS, gpus="nvml", start=False)
    daemon.program = gpus.program(deadline_s=0.3)
    with disks.ext4(tmp_path / "disk", "8M") as disk:
        daemon.start()
        with daemon.client() as client:
            until(lambda: client.gpus()["gpus"], "a reading")
            with disks.frozen(disk):
                gpus.hang_on(disk / "file")
                stuck = until(lambda: _hanging(daemon.one("probe")), "a probe in D state")
                said = f"(probe {stuck} hangs in it, even killed)"
                until(lambda: said in (client.gpus()["gpu_trouble"] or ""), "that it is told")
                assert _is_killed(stuck)
                waiting = client.submit(**daemon.job(gpus=1))
                _all_else_works(daemon)
                assert said in client.job(waiting)["reason"]
                assert client.gpus()["gpus"], "what was read last is still shown"
                daemon.kill()
                daemon.start()
                said = f"(probe {stuck} of an earlier daemon hangs in it)"
                until(lambda: said in (client.gpus()["gpu_trouble"] or ""), "that it is told")
                _all_else_works(daemon)
                assert daemon.one("probe") == stuck
                assert client.job(waiting)["state"] == "queued"
                (gpus.folder / "write").unlink()
            assert client.wait([waiting], timeout_s=20)[0]["outcome"] == "succeeded"
            assert client.gpus()["gpu_trouble"] is None
            assert processes.identity(stuck) is None
            assert daemon.one("probe") != stuck


def _all_else_works(daemon: FaultyDaemon) -> None:
    assert daemon.gpuq("ping").returncode == 0
    assert daemon.gpuq("status").returncode == 0
    with daemon.client() as client:
        beside = client.submit(**daemon.job("exit 3"))
        assert client.wait([beside], timeout_s=10)[0]["exit_code"] == 3, "it needs no GPU"
    assert daemon.kinds()["probe"] == 1


def _hanging(pid: int) -> int | None:
    fields = processes.stat_fields(pid)
    return pid if fields is not None and fields[0] == b"D" else None


def _is_killed(pid: int) -> bool:
    """KILL waits for it to come out of the kernel."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    pending = [int(line.split()[1], 16) for line in status if line[:7] in ("SigPnd:", "ShdPnd:")]
    return any(mask >> (signal.SIGKILL - 1) & 1 for mask in pending)
