"""`gpuq demo` shows the main job and leaves nothing behind, however it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import BIN, clean_environment, processes_with, until


class Demo:
    """A demo whose temporary directories are made in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = clean_environment(TMPDIR=str(folder), HOME=str(folder))

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [BIN / "gpuq", "demo", *words],
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def left(self) -> list[tuple[int, str]]:
        return processes_with(str(self.folder / "gpuq-demo-"))

    def trials(self) -> list[int]:
        return [pid for pid, words in self.left() if "gpuq.demo.train" in words]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path)
    yield demo
    until(lambda: not demo.left(), f"the end of all processes ({demo.left()})")
    assert list(tmp_path.glob("gpuq-*")) == [], "no directory is left either"


def test_eight_trials_are_trained_at_most_four_at_once(demo: Demo) -> None:
    running = demo.start("--steps", "5", "--gpus", "sim:4x24G")
    most = 0
    while running.poll() is None:
        most = max(most, len(demo.trials()))
    out, err = running.communicate()
    assert err == ""
    assert most == 4
    assert "4 simulated GPUs" in out
    table = out[out.index("TRIAL") :].splitlines()
    assert sum("succeeded" in line for line in table) == 8
    assert "Best: learning rate" in out
    assert "nothing is left running" in out


def test_it_says_which_gpus_it_took_and_why(demo: Demo) -> None:
    running = demo.start()
    assert running.stdout is not None
    told = running.stdout.readline()
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=30)
    if os.path.exists("/proc/driver/nvidia/version"):
        assert "GPUs" in told
    else:
        reason = "this machine has no NVIDIA driver"
        assert told == f"4 simulated GPUs (Simulated 24G): {reason}.\n"


def test_an_interrupted_demo_leaves_nothing(demo: Demo) -> None:
    running = demo.start()
    until(lambda: len(demo.trials()) == 4)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "interrupted" in err


def test_a_killed_demo_leaves_nothing(demo: Demo) -> None:
    running = demo.start()
    until(lambda: len(demo.trials()) == 4)
    running.kill()
    running.communicate()


def test_a_demo_whose_daemon_is_killed_leaves_nothing_either(demo: Demo) -> None:
    running = demo.start()
    until(lambda: len(demo.trials()) == 4)
    for pid, words in demo.left():
        if "gpuq.daemon.main" in words:
            os.kill(pid, signal.SIGKILL)
    running.send_signal(signal.SIGINT)  # or it would wait half a minute for a new one
    running.communicate(timeout=60)


def test_without_torch_it_says_how_to_get_it(demo: Demo) -> None:
    script = "import sys; sys.modules['torch'] = None; import gpuq.cli.main as m; m.main()"
    ran = subprocess.run(
        [sys.executable, "-c", script, "demo"],
        env=demo.environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert "pip install '.[demo]' in the folder of gpuq's source" in ran.stderr
