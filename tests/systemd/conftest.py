"""Boxes for the tests of this folder; where none can be booted, one loud word about it."""

import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.at_the_end import REPORTED
from tests.systemd import root as roots
from tests.systemd import wheels as made_wheels
from tests.systemd.box import PEOPLE, Box
from tests.systemd.machine import why_not


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Where no box can be booted, one test says so and not each."""
    name = collection_path.name
    is_in_a_box = name.startswith("test_") and name != "test_here.py"
    return True if is_in_a_box and why_not() else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the box's journal has last."""
    made = yield
    box = getattr(item, "funcargs", {}).get("box")
    if made.failed and isinstance(box, Box) and not box.has_left():
        words = ("journalctl", "--no-pager", "--lines=60", "--output=short-precise")
        made.sections.append(("the journal of the box", box.run(*words, fails=None).stdout))
    return made


@pytest.fixture(scope="session")
def report() -> list[str]:
    """What the tests want read at the end of the run: what was measured, and what was not seen."""
    return REPORTED


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := why_not():
        pytest.skip(f"no systemd can be booted here: {reason}")
    folder = tmp_path_factory.mktemp("wheels")
    made_wheels.make_wheelhouse(folder)
    return folder


@pytest.fixture(scope="session")
def fresh_root(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a box with some people, where gpuq was put into /opt/gpuq and nothing more."""
    root = tmp_path_factory.mktemp("fresh") / "box"
    roots.lay_out(root)
    box = Box(root, f"--bind-ro={wheels}:/wheels")
    try:
        box.boot()
        box.run("groupadd", "--system", "gpuq-admin")
        for name, groups in PEOPLE.items():
            box.add_user(name, *groups)
        box.put_in_place()
        box.power_off()
        yield root
    finally:
        box.pull_the_plug()
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def box(fresh_root: Path, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A booted box in which no daemon is installed yet."""
    root = tmp_path_factory.mktemp("box") / "box"
    roots.copy(fresh_root, root)
    booted = Box(root, f"--bind-ro={wheels}:/wheels")
    try:
        yield booted.boot()
    finally:
        booted.pull_the_plug()
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def shared_box(box: Box) -> Box:
    """A booted box with one daemon for everybody."""
    box.install()
    return box
