"""A person at a terminal, with a real daemon and real jobs: in, about, and out again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BIN, Daemon, until
from tests.tui.window import Window

ENTER, ESCAPE, SEND = "\r", "\x1b", "\x13"
TALKS = "for i in 1 2 3; do echo step $i of 3; done; sleep 1000"


@pytest.fixture
def screen(daemon: Daemon) -> Iterator[Window]:
    environment = daemon.environment | {"TERM": "xterm-256color", "LANG": "C.UTF-8"}
    with Window([str(BIN / "gpuq"), "top"], columns=110, rows=32, environment=environment) as it:
        yield it


def job(daemon: Daemon, number: int) -> dict[str, Any]:
    with daemon.client() as client:
        return dict(client.job(number))


def without(screen: Window, words: str) -> None:
    while words in screen.text:
        assert screen.wait_for_more(30), f"{words!r} is still to be seen in\n{screen.text}"


def see(screen: Window) -> None:
    """What is typed before the question can be seen does not answer it."""
    while screen.wait_for_more(0.3):
        screen.read()


def test_a_session_at_the_terminal(daemon: Daemon, screen: Window, tmp_path: Path) -> None:
    with daemon.client() as client:
        first = client.submit(["sh", "-c", TALKS], name="talks", gpus=1)
        second = client.submit(["sleep", "1000"], name="patient", gpus=4)
    for words in ("talks", "▶R", "patient", "wants 4 GPUs", "simulated", "1 running  1 queued"):
        screen.until(words)
    screen.until(f"── {first} talks")

    screen.press("l")
    screen.until("step 3 of 3")
    screen.press(ESCAPE)
    screen.until("⏎ Detail")  # keys are the list's again

    screen.press("x")
    screen.until("Kill 1 job")
    see(screen)
    screen.press(ENTER)  # keeps
    without(screen, "Kill 1 job")
    assert job(daemon, first)["state"] == "running"

    screen.press("j")
    screen.until(f"── {second} patient")
    screen.press("h")
    screen.until(f"gpuq hold {second}")
    until(lambda: job(daemon, second)["substate"] == "held", "the hold")

    screen.press("k")
    screen.until(f"── {first} talks")
    screen.press("x")
    screen.until("Kill 1 job")
    screen.until("RUNNING")
    see(screen)
    screen.press("y")
    without(screen, "Kill 1 job")
    until(lambda: job(daemon, first)["state"] == "ended", "the end of the job")
    without(screen, "1 running")

    screen.press("n")
    screen.until("New job")
    screen.press("sleep 999")
    screen.until("would start now on simulated GPU 0")
    screen.until("gpuq submit -- sleep 999")
    screen.press(SEND)
    screen.until("1 running")
    third = second + 1
    assert job(daemon, third)["command"] == ["sleep", "999"]

    screen.press("3")
    screen.until("talks")
    screen.press("q")
    assert screen.ends() == 0
    assert screen.is_as_before()
    assert job(daemon, third)["state"] == "running"
