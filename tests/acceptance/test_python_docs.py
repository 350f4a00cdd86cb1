"""What docs/python.md shows works, as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Daemon

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def code() -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))


def test_it_runs_from_its_first_line_to_its_last(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "page.py").write_text(code())
    ran = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env=daemon.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    said = ran.stdout
    assert "1 succeeded 0\nhello\n" in said
    assert "lr 0.001" in said
    assert "4 of 4\n" in said
    assert "begun\nover\n" in said
    assert "refused: --gpus 64 can never start" in said


def test_a_type_checker_finds_nothing_in_it(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "page.py").write_text(code())
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "page.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(PAGE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "page.py" not in ran.stdout, ran.stdout
