"""The daemon's own log may stand on a disk that is full."""

import os
import subprocess
import sys
from pathlib import Path

import structlog

from gpuq.daemon.own_log import _Lines

SAYS = """
import structlog
from gpuq.daemon import own_log
assert own_log.set_up({}) is None
log = structlog.get_logger()
for number in range(1000):
    log.error("a line", number=number)
print("alive")
"""


def test_a_line_that_finds_no_room_harms_nobody() -> None:
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-P", "-c", SAYS]
        ran = subprocess.run(words, stderr=full, stdout=subprocess.PIPE, text=True, check=False)
    assert (ran.stdout, ran.returncode) == ("alive\n", 0)


def test_what_is_written_later_stands_in_lines_of_its_own() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    lines = _Lines(writer)
    log = structlog.WriteLogger(lines)  # type: ignore[arg-type]
    log.msg("x" * 2**17)  # more than there is room for
    got = os.read(reader, 2**20)
    log.msg("later, and \udcff")
    os.close(writer)
    while part := os.read(reader, 2**20):
        got += part
    os.close(reader)
    assert got.splitlines()[1:] == [rb"later, and \udcff"]


def test_a_line_stands_there_at_once(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        structlog.WriteLogger(_Lines(file.fileno())).msg("said")  # type: ignore[arg-type]
        assert (tmp_path / "log").read_bytes() == b"said\n"
