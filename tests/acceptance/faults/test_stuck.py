"""A job that hangs in the kernel, where no signal reaches it, as in a driver or on a dead disk."""

from pathlib import Path

from gpuq.daemon.linux import processes
from tests.acceptance.faults import disks
from tests.acceptance.faults.conftest import MakeDaemon
from tests.conftest import until


def test_what_survives_kill_is_named_and_only_its_gpu_is_set_aside(
    make: MakeDaemon, tmp_path: Path
) -> None:
    """Through a kill -9 of the daemon too. Once the disk answers again, it ends by itself."""
    daemon = make("--unkillable-after", "1s")
    with disks.ext4(tmp_path / "disk", "8M") as disk, daemon.client() as client:
        with disks.frozen(disk):
            job = client.submit(**daemon.job(f"echo x > {disk}/file", gpus=1))
            stuck = until(lambda: _hanging(client.job(job)["pid"]), "a process in D state")
            assert daemon.gpuq("kill", "--now", str(job)).returncode == 0
            until(lambda: client.job(job)["substate"] == "unkillable", "its being given up")
            reason = client.job(job)["reason"]
            assert f"sh (pid {stuck})" in reason
            assert "uninterruptible sleep" in reason
            channel = Path(f"/proc/{stuck}/wchan").read_text()
            assert f"in {channel}" in reason
            beside = client.submit(**daemon.job("exit 3", gpus=1))
            assert client.wait([beside], timeout_s=10)[0]["exit_code"] == 3, "the other GPU is free"
            daemon.kill()
            daemon.start()
            both = client.submit(**daemon.job("exit 4", gpus=2))
            until(lambda: "1" in client.job(both)["reason"], "a reason")
            assert client.job(job)["substate"] == "unkillable"
            assert client.job(both)["state"] == "queued", "nobody gets the GPU of what still lives"
        ended = client.wait([job], timeout_s=15)[0]
        assert ended["outcome"] == "cancelled"
        assert client.wait([both], timeout_s=10)[0]["exit_code"] == 4
        assert processes.identity(stuck) is None


def _hanging(main: int | None) -> int | None:
    """The pid of what hangs: the job's main process, which is a shell."""
    if main is None:
        return None
    fields = processes.stat_fields(main)
    return main if fields is not None and fields[0] == b"D" else None
