"""Processes as Linux knows them: who is dead and who only looks so."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuq.daemon.linux import processes, syscalls
from tests.conftest import until

LEAVES_A_THREAD = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=[1000]).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.fixture
def headless() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose main thread has left, as where one of them hangs in a driver."""
    process = subprocess.Popen([sys.executable, "-c", LEAVES_A_THREAD])
    until(lambda: _state(process.pid) == "Z", "the end of its main thread")
    yield process
    process.kill()
    process.wait()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_process_without_its_main_thread_lives(headless: subprocess.Popen[bytes]) -> None:
    own = processes.identity(headless.pid)
    assert own is not None
    assert processes.send(headless.pid, signal.SIGKILL, start=own[1])
    assert headless.wait(10) == -signal.SIGKILL


def test_a_zombie_is_dead() -> None:
    process = subprocess.Popen(["true"])
    until(lambda: _state(process.pid) == "Z", "its end")
    assert processes.identity(process.pid) is None
    process.wait()


def test_who_has_a_file_open_is_found(tmp_path: Path) -> None:
    path = tmp_path / "nvidia0"
    path.touch()
    assert processes.holding_open(str(path)) == []
    with path.open():
        assert processes.holding_open(str(path)) == [os.getpid()]


def test_what_is_free_goes_back_to_the_kernel() -> None:
    held = [bytes(2000) for _ in range(20_000)]
    del held[:-1]  # the last one, at the end of it all, keeps it
    before = _resident_bytes()
    syscalls.give_back_memory()
    assert _resident_bytes() < before - 20_000_000


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
