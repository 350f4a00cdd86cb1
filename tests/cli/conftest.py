"""The command line against a daemon whose answers the test gives."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gpuq.cli import console, main
from gpuq.cli.render import Look
from tests.cli.said import FakeDaemon


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Gpuq = Callable[..., Ran]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No daemon of the person who runs the tests is ever asked."""
    for name in ("GPUQ_SOCKET", "GPUQ_CONFIG", "GPUQ_JOB_ID", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GPUQ_STATE_DIR", str(tmp_path / "nobody"))
    monkeypatch.setenv("GPUQ_AUTOSTART", "0")


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    there = FakeDaemon(tmp_path)
    yield there
    there.close()


@pytest.fixture
def gpuq(
    fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Gpuq:
    """One command line, its output to a pipe or, where asked, to a terminal."""

    def run(*words: str, terminal: bool = False, now: float = 2000.0) -> Ran:
        look = Look(terminal=terminal, width=100, user="alice", now=now)
        monkeypatch.setattr(console, "look", lambda context: look)
        monkeypatch.setattr(console, "is_for_a_person", lambda context: terminal)
        if "GPUQ_SOCKET" not in os.environ:
            monkeypatch.setenv("GPUQ_SOCKET", fake.path)
        code = main.run(list(words))
        out, err = capfdbinary.readouterr()
        return Ran(code, out.decode("utf-8", "surrogateescape"), err.decode())

    return run
