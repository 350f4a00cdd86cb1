"""What is read ahead of Typer is read as Typer reads it, and what Typer refuses is left to it."""

import inspect
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from gpuq.cli import app, commands, quick, quick_table_writer
from gpuq.cli.console import Chosen
from gpuq.cli.declaring import declared
from gpuq.cli.quick_table import COMMANDS, NAMES
from gpuq.errors import UsageError
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, ended, in_full, page

PROJECT = Path(__file__).parent.parent.parent
LINES = 150  # of each command,
EACH = 5  # and as many with each of its options
VALUES = (
    *("1", "007", "-3", "1_0", " 7 ", "+5", "٣", "1.5", "9" * 30, "", "x", "a b", "=", "k=v", "-"),
    *("--", "--json", "-f", "-h", "\udcff", "é", "12-18,20", "@"),
)
OTHERS = ("--help", "-h", "--nope", "-Z", "--jso", "--json=1", "---", "-=", "--=x", "--version")
# Typer takes these and quick leaves them to it all the same.
LEFT_TO_TYPER = {"--help", "-h", "--version", "--from", "--pipeline"}

Read = tuple[str, str, str]  # the command, its daemon and its parameters, for comparing


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Read]:
    """Commands that do nothing but note how they were called."""
    called: list[Read] = []
    for name in quick_table_writer.QUICK:
        module, attribute = commands.COMMANDS[name].place.split(":")
        there = __import__(f"gpuq.cli.{module}", fromlist=[attribute])
        monkeypatch.setattr(there, attribute, _noting(name, getattr(there, attribute), called))
    monkeypatch.setattr(commands, "load", cache(commands.load))
    return called


def _noting(name: str, command: Any, called: list[Read]) -> Callable[..., None]:
    signature = inspect.signature(declared(command))

    def note(context: Any, **values: Any) -> None:
        bound = signature.bind_partial(**values)
        bound.apply_defaults()
        chosen: Chosen = context.obj
        before = (chosen.socket, chosen.state_dir, chosen.color)
        called.append((name, repr(before), repr(sorted(bound.arguments.items()))))

    note.__signature__ = signature  # type: ignore[attr-defined]
    note.__annotations__ = command.__annotations__
    return note


def by_typer(words: list[str], calls: list[Read]) -> Read | None:
    calls.clear()
    try:
        with redirect_stdout(StringIO()):
            app.carry_out(list(words))
    except UsageError:
        assert not calls
    return calls[0] if calls else None


def by_quick(words: list[str], calls: list[Read]) -> Read | None:
    calls.clear()
    code = quick.carry_out(words)
    assert (code is None) is (not calls)
    return calls[0] if calls else None


@pytest.mark.parametrize("name", [*NAMES, ""])
def test_a_line_is_read_as_typer_reads_it_or_not_at_all(name: str, calls: list[Read]) -> None:
    taken = 0
    for words in lines(name):
        expected, found = by_typer(words, calls), by_quick(words, calls)
        is_left = LEFT_TO_TYPER.intersection(word.partition("=")[0] for word in words)
        assert found == expected or (is_left and found is None), words
        taken += found is not None
    assert taken > LINES // 5


def lines(name: str) -> Iterator[list[str]]:
    """Command lines of that command, drawn alike each time: those that are meant, and slips."""
    draw = random.Random(name)
    rows = COMMANDS[NAMES[name]][2] if name else COMMANDS["status"][2]
    usual = {"show": ["184"], "logs": ["184"], "wait": ["184"], "submit": ["true"], "run": ["true"]}
    call = [name] if name else []
    yield call
    for _, kind, _, spellings in rows if name else ():
        for option in spellings:
            for value in draw.sample(VALUES, EACH):
                yield [*call, *_said(draw, option, kind, value), *usual.get(NAMES[name], [])]
    for _ in range(LINES):
        before = _some(draw, COMMANDS[""][2], 1, 0.3)
        yield [*before, *call, *(_some(draw, rows, 4, 0.6) if name else [])]


def _some(draw: random.Random, rows: Any, most: int, share: float) -> list[str]:
    words: list[str] = []
    for _ in range(draw.randint(0, most)):
        _, kind, _, spellings = draw.choice(rows)
        if spellings and draw.random() < share:
            value = draw.choice(("7", "auto", *VALUES))
            words += _said(draw, draw.choice(spellings), kind, value)
        elif share > 0.5:
            words.append(draw.choice((*VALUES, "184", "true", "x.py", *OTHERS)))
    return words


def _said(draw: random.Random, option: str, kind: str, value: str) -> list[str]:
    if kind in quick.FLAGS:
        return [option] if option.startswith("--") or draw.random() < 0.5 else [f"{option}w"]
    if draw.random() < 0.5:
        return [option, value]
    return [f"{option}={value}"] if option.startswith("--") else [f"{option}{value}"]


def test_the_table_is_the_one_that_the_declarations_give() -> None:
    told = "write it anew: python -m gpuq.cli.quick_table_writer"
    assert quick_table_writer.PLACE.read_text() == quick_table_writer.written(), told


def test_a_script_with_options_in_it_is_read_by_typer(
    gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path
) -> None:
    fake.answers["submit"] = {"first": 184, "count": 1, "group": "g184", "note": None}
    script = tmp_path / "train.sh"
    script.write_text("#!/bin/sh\n#GPUQ -g 3 -n big\ntrue\n")
    assert gpuq("submit", "-n", "small", str(script)) == (0, "184\n", "")
    (job,) = fake.requests("submit")[0]["jobs"]
    assert (job["gpus"], job["name"]) == (3, "small")


BARE = "import os, sys; print(*sys.modules)"
ALONE = "import sys; from gpuq.cli.main import run; run(sys.argv[1:]); print(); print(*sys.modules)"


def loaded(code: str, *words: str) -> set[str]:
    """Without site, whose .pth files load what they like, and without what is installed."""
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code, *words],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(PROJECT)},
    )
    assert ran.stderr == ""
    return set(ran.stdout.splitlines()[-1].split())


@pytest.fixture
def answering(fake: FakeDaemon) -> FakeDaemon:
    job = ended(184, outcome="succeeded", exit_code=0, log="/dev/null")
    fake.answers["status"] = page(job)
    fake.answers["show"] = {"job": in_full(job)}
    fake.answers["submit"] = {"first": 184, "count": 1, "group": "g184", "note": None}
    fake.answers["kill"] = {"jobs": [{"id": 184, "done": "cancelled", "grace_s": None}]}
    fake.answers["wait"] = {"timed_out": False, "ended": "184"}
    return fake


@pytest.mark.parametrize(
    "words", ["", "status", "show 184", "wait 184", "kill 184", "logs --path 184", "submit true"]
)
def test_a_common_command_needs_no_library(answering: FakeDaemon, words: str) -> None:
    modules = loaded(ALONE, "--socket", answering.path, *words.split()) - loaded(BARE)
    assert not modules & {"inspect", "dataclasses", "socket", "hashlib", "shutil", "subprocess"}
    assert answering.asked


def test_a_submit_loads_none_of_pythons_slow_modules(answering: FakeDaemon) -> None:
    modules = loaded(ALONE, "--socket", answering.path, "submit", "-g", "2", "true")
    own = {name for name in modules - loaded(BARE) if not name.startswith("gpuq")}
    assert own <= {"__future__", "_json", "_socket", "_sha2", "_sha256", "itertools", "resource"}
