"""The box itself: nothing of it outlives whoever booted it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import until
from tests.systemd import root as roots
from tests.systemd.keeper import PREFIX, mounts, remove_abandoned_groups
from tests.systemd.machine import Machine

BOOTS_AND_WAITS = """
import sys, time
from pathlib import Path
from tests.systemd.machine import Machine

box = Machine(Path(sys.argv[1])).boot()
busy = box.start("sleep", "1000")
print(box.keeper.pid, box.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("killed", ["whoever booted it", "its keeper"])
def test_nothing_of_a_box_outlives_whoever_booted_it(
    wheels: Path, tmp_path: Path, killed: str
) -> None:
    roots.lay_out(tmp_path / "box")
    booter = subprocess.Popen(
        [sys.executable, "-c", BOOTS_AND_WAITS, tmp_path / "box"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert booter.stdout is not None
    with booter.stdout as said:
        keeper, init = (int(word) for word in said.readline().split())
    inside = processes_of(init)
    assert len(inside) > 3
    victim = booter.pid if killed == "whoever booted it" else keeper
    os.kill(victim, signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in inside), "the end of all in it")
    if booter.poll() is None:
        booter.kill()
    booter.wait()
    until(lambda: not Path(f"/proc/{keeper}").exists(), "the end of the keeper")
    remove_abandoned_groups()
    assert not (mounts("cgroup2")[0] / f"{PREFIX}{keeper}").exists()


def test_control_groups_that_a_killed_keeper_left_go_with_the_next(
    wheels: Path, tmp_path: Path
) -> None:
    top = mounts("cgroup2")[0]
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = top / f"{PREFIX}{gone.pid}"
    (left / "payload").mkdir(parents=True)
    roots.lay_out(tmp_path / "box")
    box = Machine(tmp_path / "box").boot()
    assert not left.exists()
    box.power_off()
    assert box.has_left()


def processes_of(init: int) -> list[int]:
    """Everything in the PID namespace of a box."""
    own = os.readlink(f"/proc/{init}/ns/pid")
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if shares(pid, own)]


def shares(pid: int, namespace: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == namespace
    except OSError:
        return False
