"""What --mem is promised where the kernel does not hold a job to it: gpuq looks once a second, counts
what the job cannot give back, and ends it like one whose time is up. The jobs are real ones."""

import asyncio
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpuq.core.ends.bounds import Bounds
from gpuq.daemon import memory_watch
from gpuq.daemon.memory_watch import memory_of
from gpuq.paths import file_system_of
from tests.alive import Alive, alive, with_alive
from tests.conftest import Daemon
from tests.conftest import until as until_now

MIB = 2**20
SMALL = Bounds(mem_bytes=64 * MIB)
TAKES = "held = b'x' * (128 * 2**20)"
WAITS = "import signal; signal.pause()"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_watch, "EVERY_S", 0.05)


def python(*lines: str) -> dict[str, object]:
    return {"argv": (os.fsencode(sys.executable), b"-c", "\n".join(lines).encode())}


# ─── who uses too much ───────────────────────────────────────────────────────────────────────────


def test_a_job_that_uses_more_is_ended_and_told_how_much(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit("", bounds=SMALL, **python(TAKES, WAITS))
        row = await daemon.ended(job)
        assert (row["outcome"], row["mem_bound_by"]) == ("out_of_memory", "watched")
        assert row["memory_peak_bytes"] > 64 * MIB, "it was caught while it grew, or after that"
        words = "of the 64M of memory that it asked for (--mem); ended by SIGTERM"
        assert row["reason"].startswith("out of memory: watched, it used ")
        assert row["reason"].endswith(words)
        (attempt,) = daemon.attempts(job)
        assert attempt["ending"] == "host_memory"

    with_alive(tmp_path, deed)


def test_all_of_a_job_counts_and_all_of_it_is_ended(tmp_path: Path) -> None:
    """None of them alone is too large, and the main one does not care about TERM."""
    fork = "import os, signal; signal.signal(15, signal.SIG_IGN); [os.fork() for _ in range(2)]"

    async def deed(daemon: Alive) -> None:
        asked = python(fork, "held = b'x' * (30 * 2**20)", WAITS)
        job = daemon.submit("", bounds=SMALL, grace_s=0.1, **asked)
        row = await daemon.ended(job)
        assert row["outcome"] == "out_of_memory"
        assert row["reason"].endswith("ended by SIGKILL")

    with_alive(tmp_path, deed)


def test_a_job_that_keeps_to_it_goes_on_and_its_peak_is_kept(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit("", bounds=SMALL, **python("held = b'x' * (20 * 2**20)", WAITS))
        await daemon.running(job)
        await daemon.until(lambda: daemon.row(job)["memory_peak_bytes"], "a look at it")
        await daemon.until(lambda: daemon.row(job)["memory_peak_bytes"] > 20 * MIB, "its memory")
        assert daemon.row(job)["state"] == "running"
        daemon.kill(job, grace_s=0.0)
        assert (await daemon.ended(job))["outcome"] == "cancelled"

    with_alive(tmp_path, deed)


def test_it_is_tried_again_where_that_was_asked(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        asked = python(TAKES, WAITS)
        job = daemon.submit("", bounds=SMALL, retries=1, retry_on="oom", backoff="1h", **asked)
        assert "attempt 2 of 2" in (await daemon.waits_again(job))["reason"]

    with_alive(tmp_path, deed)


def test_nobody_is_looked_at_who_bounds_nothing(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit("", bounds=Bounds(cpus=1), **python(TAKES, WAITS))
        await daemon.running(job)
        assert daemon.store.measured.watched() == []
        assert daemon.row(job)["cpu_bound_by"] == "nobody"
        bounded = daemon.submit("", bounds=SMALL, **python(TAKES, WAITS))
        await daemon.ended(bounded)
        assert daemon.row(job)["state"] == "running"

    with_alive(tmp_path, deed)


def test_a_later_daemon_goes_on_watching(tmp_path: Path) -> None:
    grows = f"import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\n{TAKES}"

    async def main() -> None:
        async with alive(tmp_path, leave=True) as daemon:
            job = daemon.submit("", bounds=SMALL, **python(grows, WAITS))
            await daemon.running(job)
        async with alive(tmp_path) as daemon:
            (tmp_path / "go").touch()
            assert (await daemon.ended(job))["outcome"] == "out_of_memory"

    asyncio.run(main())


def test_a_look_that_hangs_keeps_nobody_from_being_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does at a process that hangs in the kernel with its memory locked."""
    stuck, comes_back = set[int](), threading.Event()

    def hanging(pids: list[int], *, more_than: int = 0) -> int:
        if stuck & set(pids):
            comes_back.wait()
        return memory_of(pids, more_than=more_than)

    monkeypatch.setattr(memory_watch, "memory_of", hanging)

    async def deed(daemon: Alive) -> None:
        hangs = daemon.submit("sleep 600", bounds=SMALL)
        stuck.add(await daemon.running(hangs))
        grows = daemon.submit("", bounds=SMALL, **python(TAKES, WAITS))
        assert (await daemon.ended(grows))["outcome"] == "out_of_memory"
        comes_back.set()

    with_alive(tmp_path, deed)


# ─── what counts ─────────────────────────────────────────────────────────────────────────────────


@contextmanager
def child(*lines: str) -> Iterator[list[int]]:
    """A Python that has come to the end of these lines; the pids of it and its children."""
    script = "\n".join([*lines, "print('there', flush=True)", WAITS])
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"there\n"
            yield [process.pid, *_children(process.pid)]
        finally:
            for pid in _children(process.pid):
                os.kill(pid, 9)
            process.kill()


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_what_several_have_in_common_counts_once() -> None:
    """As with the workers of a data loader."""
    fork = "import os, signal\nfor _ in range(8):\n    if not os.fork(): signal.pause()"
    with child("held = b'x' * (50 * 2**20)", fork) as pids:
        assert len(pids) == 9
        until_now(lambda: memory_of(pids, more_than=10**12) > 9 * 50 * MIB, "all to be there")
        assert 50 * MIB < memory_of(pids, more_than=60 * MIB) < 100 * MIB


def test_shared_memory_counts_and_mapped_files_do_not(tmp_path: Path) -> None:
    """A data set may be larger than the memory: the kernel drops what it needs the room of."""
    if file_system_of(str(tmp_path)) == "tmpfs":
        pytest.skip("NOT TESTED: files of this disk are memory themselves")
    data = tmp_path / "data"
    data.write_bytes(b"x" * (64 * MIB))
    read = "sum(1 for at in range(0, len(held), 4096) if held[at])"
    mapped = "held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)"
    with child(f"import mmap\nfile = open({str(data)!r})", mapped, read) as pids:
        assert _rss_bytes(pids[0]) > 64 * MIB
        assert memory_of(pids) < 32 * MIB
    shared = "import mmap\nheld = mmap.mmap(-1, 64 * 2**20); held.write(b'x' * len(held))"
    with child(shared) as pids:
        assert memory_of(pids) > 64 * MIB


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_who_is_gone_uses_nothing() -> None:
    with child() as pids:
        pass
    assert memory_of(pids) == 0


def test_who_ends_during_the_look_uses_nothing() -> None:
    """Or a short-lived child, which has most in common with its parent, would count twice."""

    def ending() -> Iterator[int]:
        with child("held = b'x' * (50 * 2**20)") as pids:
            yield from pids

    assert memory_of(ending()) == 0


# ─── what is told of it ──────────────────────────────────────────────────────────────────────────


def test_the_weaker_promise_is_told_wherever_somebody_looks(daemon: Daemon) -> None:
    """On a machine where the kernel holds nobody to it, as this daemon is told there is none."""
    daemon.stop()
    daemon.start("--scopes", "none")
    asked = ["--mem", "64M", "-c", "2", "-g", "0", "-w", "--", sys.executable, "-c"]
    ran = daemon.gpuq("submit", *asked, f"{TAKES}\n{WAITS}")
    assert "gpuq: --mem is watched once a second here and not enforced by the kernel" in ran.stderr
    assert "--cpus is not enforced here: scopes = none in the settings" in ran.stderr
    assert "job 1 out of memory: watched, it used" in ran.stderr
    assert daemon.gpuq("submit", "-g", "0", "-w", "true").stderr == ""
    shown = daemon.gpuq("show", "1").stdout
    assert "memory\t64M, watched once a second and not enforced by the kernel\n" in shown
    assert "cpus\t2, not enforced\n" in shown
    assert " -c 2 --mem 64M " in shown
    found = daemon.gpuq("doctor").stdout
    assert "ok\t--mem is watched once a second and not enforced by the kernel: scopes" in found
