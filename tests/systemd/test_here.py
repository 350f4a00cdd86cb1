"""Whether this machine can boot a box at all: the one test of this folder that is never left out."""

from pathlib import Path

import pytest

from tests.systemd import root as roots
from tests.systemd.machine import Machine, why_not


def test_a_systemd_boots_here_and_nothing_of_it_fails(tmp_path: Path, report: list[str]) -> None:
    if reason := why_not():
        report.append(
            f"NOT SEEN, since {reason}: gpuq under a real systemd: install, restart, crash and "
            "upgrade with jobs running, watchdog, socket, shutdown, scopes, services that linger"
        )
        pytest.skip(f"no systemd can be booted here: {reason}")
    roots.lay_out(tmp_path / "box")
    box = Machine(tmp_path / "box")
    try:
        box.boot()
        assert box.says("systemctl", "is-system-running") == "running"
        assert box.says("systemctl", "--failed", "--quiet") == ""
    finally:
        box.pull_the_plug()
