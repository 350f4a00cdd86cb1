"""What is written to a terminal that takes nothing for a while."""

import os
import pty
import select
import threading

from gpuq.tui.terminal.outlet import MOST_BYTES, Outlet
from tests.conftest import until

PIECE = "x" * 65536


def read_until(fd: int, is_over: threading.Event) -> bytes:
    said = b""

    def read() -> bool:
        nonlocal said
        while select.select([fd], [], [], 0)[0]:
            said += os.read(fd, 1 << 16)
        return is_over.is_set()

    until(read, "the news that it has caught up", 5.0)
    return said


def test_what_it_does_not_take_is_left_out_and_told_of_when_it_reads_again() -> None:
    ours, theirs = pty.openpty()
    caught_up = threading.Event()
    outlet = Outlet(theirs, encode=str.encode, caught_up=caught_up.set, gone=lambda: None)
    for _ in range(100):
        outlet.put(PIECE)
    assert len(read_until(ours, caught_up)) <= MOST_BYTES + 2 * len(PIECE)
    outlet.put("afterwards")
    until(lambda: b"afterwards" in os.read(ours, 1 << 16))
    outlet.finish("", 1.0)
    os.close(ours)
    os.close(theirs)


def test_a_terminal_that_is_gone_is_told_of_once() -> None:
    ours, theirs = pty.openpty()
    told = []
    outlet = Outlet(
        theirs, encode=str.encode, caught_up=lambda: None, gone=lambda: told.append("gone")
    )
    os.close(theirs)
    os.close(ours)
    for _ in range(3):
        outlet.put("words")
    until(lambda: told)
    outlet.put("words")
    outlet.finish("", 1.0)
    assert told == ["gone"]
