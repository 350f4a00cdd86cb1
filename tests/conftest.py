"""A real daemon in a directory of its own, and the promise that nothing of it is left behind."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gpuq.client import Client
from gpuq.daemon.linux import processes
from gpuq.errors import GpuqError
from tests.at_the_end import (
    pytest_runtest_logreport,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)

__all__ = [
    "pytest_runtest_logreport",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "pytest_testnodedown",
]

BIN = Path(sys.executable).parent
PATIENCE_S = 30.0


# Files with one of these in them share what is one for the whole machine: mounts, uids without an
# owner, containers of systemd.
OF_THE_MACHINE = ("disks", "many_users", "ManyUsers", "tests.systemd")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where the tests go on several processes (pytest-xdist): a file stays together, for what its tests
    share, and so do all that touch the machine itself."""
    from xdist.scheduler import LoadScopeScheduling

    class ByWhatIsShared(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _what_is_shared(nodeid.partition("::")[0])

    return ByWhatIsShared(config, log)


@cache
def _what_is_shared(file: str) -> str:
    words = (Path(__file__).parent.parent / file).read_text()
    return "machine" if any(word in words for word in OF_THE_MACHINE) else file


def until(condition: Callable[[], Any], what: str = "it", timeout_s: float = PATIENCE_S) -> Any:
    """Waits for a condition and returns what it gave."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come true within {timeout_s:g} s")


def clean_environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GPUQ_", "XDG_"))}
    return kept | {"PYTHONWARNINGS": "default"} | more


class Daemon:
    """gpuqd as a person starts it. `environment` points its client commands at it."""

    def __init__(self, folder: Path, gpus: str = "sim:4x24G") -> None:
        folder.mkdir(exist_ok=True)
        self.state = folder / "state"
        self.log = folder / "gpuqd.log"
        self.gpus = gpus
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = clean_environment(
            GPUQ_STATE_DIR=str(self.state), GPUQ_AUTOSTART="0", HOME=str(folder)
        )

    def start(self, *flags: str) -> "Daemon":
        command = [BIN / "gpuqd", "--state-dir", self.state, "--gpus", self.gpus, *flags]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        until(self._answers, f"the daemon (log: {self.log.read_text()})")
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def client(self) -> Client:
        return Client(state_dir=str(self.state))

    def gpuq(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """One command line, as typed."""
        options.setdefault("env", self.environment)
        options.setdefault("timeout", 60)
        return subprocess.run(
            [BIN / "gpuq", *words], text=True, capture_output=True, check=False, **options
        )

    def kill(self) -> None:
        """As the kernel would under memory pressure: no chance to say goodbye."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        """Ends its jobs and itself; what is left then is a broken promise."""
        if self.process is not None and self.process.poll() is not None:
            self.start()
        if self.process is not None:
            with self.client() as client:
                if jobs := client.jobs():
                    client.kill([job["id"] for job in jobs], grace_s=0)
                    client.wait([job["id"] for job in jobs], timeout_s=PATIENCE_S)
            assert self.stop() == 0, self.log.read_text()
        until(lambda: not self.left(), f"the end of all processes ({self.left()})")

    def left(self) -> list[tuple[int, str]]:
        """Living processes that belong to this daemon or to its jobs."""
        return processes_with(str(self.state))

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            with self.client() as client:
                return bool(client.call("ping"))
        except GpuqError:
            return False


def processes_with(state_dir: str) -> list[tuple[int, str]]:
    """(pid, command) of each living process of a daemon there and of its jobs."""
    mark = state_dir.encode()
    return [found for pid in processes.all_pids() if (found := _belongs(pid, mark))]


def _belongs(pid: int, mark: bytes) -> tuple[int, str] | None:
    if pid == os.getpid() or processes.identity(pid) is None:
        return None
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    if mark in words or b"GPUQ_SOCKET=" + mark in environ:
        return pid, words.replace(b"\0", b" ").decode(errors="replace")
    return None


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A running daemon with four simulated GPUs of 24 GiB."""
    running = Daemon(tmp_path).start()
    yield running
    running.end()


@pytest.fixture
def stopped_daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that the test starts itself, as often as it likes."""
    waiting = Daemon(tmp_path)
    yield waiting
    waiting.end()
