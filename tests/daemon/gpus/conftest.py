"""A machine with NVIDIA GPUs as its driver shows them, without either."""

from pathlib import Path

import pynvml
import pytest

from tests.daemon.gpus.driver import Card, Library, Machine, MakeMachine, Proc


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeMachine:
    """Puts a library in the place of the driver's. Processes 100 to 119 run on the machine."""
    made = 0

    def make(*cards: Card, without: tuple[str, ...] = ()) -> Machine:
        nonlocal made
        made += 1
        library = Library(*cards, without=without)
        monkeypatch.setattr(pynvml, "nvmlLib", library)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        monkeypatch.setattr(pynvml, "_nvmlLib_refcount", 0)
        proc = Proc(tmp_path / f"proc{made}")
        proc.run(*range(100, 120))
        return Machine(library, proc)

    return make
